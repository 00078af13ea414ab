"""How long a run takes with its way up: the window begins with few requests in flight, and grows while it measures.

Where a request takes long (a model that thinks; large batches), the way up is a good part of a short run. It is played
through with the window itself and a made-up reply for each request, so that the plan climbs as the run will. Pure: the
chance that latencies scatter by comes in. See docs/design/plan.md.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable

import msgspec

from engine.decide.brake import PROBES
from engine.decide.concurrency import Ticket, Window

_MOST_SENT = 3_000
"""Requests that are played through at the most; the rest goes as fast as the window then has it, or the limits."""
_MOST_PLAYS = 9
_PACED = 100  # requests in a row that waited for a limit and not for the window: it binds for good


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """What a request costs in time.

    :ivar every_s: seconds from one request to the next that the limits a minute ask for; 0: none does.
    :ivar latency_s: of a request, on average; `scatter` its standard deviation as a share of that.
    :ivar output_tokens: of a reply, which the window weighs its latency by.
    :ivar knee: requests in flight beyond which all of them only take longer; None: as many as the window will have.
    """

    every_s: float
    latency_s: float
    scatter: float
    output_tokens: int
    knee: int | None = None


class _Played(msgspec.Struct):
    """What has been sent and not answered, and when the next may go."""

    now: float = 0.0
    next_s: float = 0.0
    sent: int = 0
    replies: int = 0
    paced_in_a_row: int = 0
    in_flight: list[tuple[float, int, float, Ticket]] = []


def run_s(requests: int, pace: Pace, *, window: Callable[[], Window], rng: random.Random) -> float:
    """Seconds from the first request to the last reply, of requests that are all answered at the first ask.

    The mean of several plays where there are few requests: then a climb that chance made slow would show.

    :param window: makes one as the run begins with.
    """
    plays = max(1, min(_MOST_PLAYS, _MOST_SENT // max(1, requests)))
    return math.fsum(_run_s(requests, pace, window(), rng) for _ in range(plays)) / plays


def _run_s(requests: int, pace: Pace, held: Window, rng: random.Random) -> float:
    played = _Played()
    while played.sent < requests and played.sent < _MOST_SENT and played.paced_in_a_row < _PACED:
        most = held.size if played.replies >= PROBES else min(PROBES, held.size)
        if len(played.in_flight) >= most:
            _reply(played, held, pace)
            continue
        while played.in_flight and played.in_flight[0][0] <= played.next_s:  # replies that come while it waits
            _reply(played, held, pace)
        _send(played, held, pace, rng)
    ends_s = max((reply_s for reply_s, *_ in played.in_flight), default=played.now)
    left = requests - played.sent
    if not left:
        return ends_s
    at_once = min(held.size, pace.knee or held.size)
    every_s = max(pace.every_s, pace.latency_s / at_once)  # by Little's law
    return played.now + left * every_s + pace.latency_s


def _send(played: _Played, held: Window, pace: Pace, rng: random.Random) -> None:
    paced = played.next_s > played.now
    played.now = max(played.now, played.next_s)
    played.next_s = played.now + pace.every_s
    played.paced_in_a_row = played.paced_in_a_row + 1 if paced else 0
    in_flight = len(played.in_flight) + 1
    ticket = held.admitted(played.now, in_flight=in_flight, paced=paced)
    latency_s = pace.latency_s * max(1.0, in_flight / (pace.knee or in_flight)) * _skewed(pace.scatter, rng)
    heapq.heappush(played.in_flight, (played.now + latency_s, played.sent, latency_s, ticket))
    played.sent += 1


def _reply(played: _Played, held: Window, pace: Pace) -> None:
    reply_s, _, latency_s, ticket = heapq.heappop(played.in_flight)
    played.now = max(played.now, reply_s)
    played.replies += 1
    held.observe_success(
        ticket, played.now, latency_s=latency_s, uncached_input_tokens=0, output_tokens=pace.output_tokens
    )


def _skewed(scatter: float, rng: random.Random) -> float:
    """Log-normal with mean 1: latencies are skewed to the right."""
    sigma = math.sqrt(math.log(1 + scatter * scatter))
    return rng.lognormvariate(-sigma * sigma / 2, sigma)
