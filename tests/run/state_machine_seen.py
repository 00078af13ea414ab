"""What the state machines remember of requests, streams and callers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from state_machine_replies import UNANSWERED, Booked

from engine import Result
from engine.adapters.store import SentRow
from engine.run.session import ResultStream
from engine.testing.scripted import DrivenRequest


@dataclass(eq=False)
class Asked:
    """One request, and what the books must say of it."""

    driven: DrivenRequest
    sent: SentRow | None
    task: str
    engine: int
    booked: Booked = UNANSWERED
    is_known: bool = False  # some of its texts had been answered before

    @property
    def waits(self) -> bool:
        """Whether the endpoint may still end it."""
        return self.driven.fate is None and self.driven.outcome is None

    @property
    def ids(self) -> set[str]:
        """Of its items."""
        return {item["id"] for item in self.driven.request.items}


@dataclass(eq=False)
class Watched:
    """One stream of records, and what came out of it.

    :ivar texts: by position; None where the record cannot be used.
    :ivar known: digests that were answered before it began.
    :ivar closes: whether its consumer closes the stream when it leaves, or just drops it.
    """

    task: str
    texts: Sequence[str | None]
    ids: Sequence[Any]
    known: frozenset[bytes]
    alone: bool
    results: dict[int, Result] = field(default_factory=dict)
    pulled: int = 0
    error: BaseException | None = None
    left: bool = False
    closes: bool = False
    stream: ResultStream | None = None
    feed: Any = None
    consumer: asyncio.Task[None] | None = None
    may_take: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ended(self) -> bool:
        """Whether its run has ended; its consumer may still have results to take."""
        return self.feed is not None and self.feed.ended.is_set()


@dataclass(eq=False)
class Call:
    """One caller of `submit`."""

    task_name: str
    text: str
    id: Any
    task: asyncio.Task[Result]
    cancelled: bool = False
