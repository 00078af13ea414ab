"""What a pipeline needs to know of its task and endpoint, put together once."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from engine.decide.outputs import Check
from engine.decide.prompts import Prompt
from engine.run.gold_set import GoldSet
from engine.vocabulary.ports import Provider
from engine.vocabulary.task import Task


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """One way to ask: a prompt in an answer form, and the provider that sends it.

    :ivar static_tokens: of the prompt, by our own count.
    :ivar output_tokens: expected for one record before anything has been learned.
    :ivar temperature: that is asked for; None where it is the endpoint's own, which may turn out while it is asked.
    :ivar reasoning_effort: that is asked for; None: none is.
    """

    prompt: Prompt
    provider: Provider
    check: Check
    static_tokens: int
    output_tokens: float
    temperature: Callable[[], float | None] = lambda: None
    reasoning_effort: str | None = None

    @property
    def keyed(self) -> bool:
        """Whether results repeat the first words of their input."""
        return self.prompt.form == "keyed"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A task on an endpoint.

    :ivar asking: how it is asked.
    :ivar fallback: how it is asked when the endpoint ignores the keyed form; None for the compact one.
    :ivar keyed: the form that may be tried where the labels hold the compact one back; None: only one form is used.
    :ivar gold: records with known answers that ride along; None: there are none.
    """

    task: Task
    asking: Asking
    fallback: Asking | None = None
    keyed: Asking | None = None
    gold: GoldSet | None = None
