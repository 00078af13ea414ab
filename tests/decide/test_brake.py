"""The brake: it stops what cannot work within twenty calls, and leaves alone what merely stumbles."""

from __future__ import annotations

import heapq
import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.answers import Reading
from engine.decide.brake import PROBES, Brake, Stop
from engine.decide.recovery import TRANSIENT, Verdict, judge_fault, judge_reply
from engine.vocabulary.config import Recovery
from engine.vocabulary.values import Batch, Completion, Fault, FaultKind, Item, Record

NOTHING = Reading(answers={}, defects={}, foreign=0, found=0)
PROSE = Completion(text="As a language model", finish_reason="stop", refusal=None, usage=None)


def make_batch(size: int) -> Batch:
    record = Record(position=0, line=1, id=1, key="1", input="x", digest=b"")
    return Batch(items=tuple(Item(record=record, accepted_at_s=0.0) for _ in range(size)))


class Run:
    """A run as the pipeline does it: children first, two probes while the brake is wary, new records without end."""

    def __init__(self, *, limits: Recovery | None = None, batch_size: int = 5, window: int = 16, seed: int = 0) -> None:
        self.limits = limits or Recovery()
        self.brake = Brake(self.limits, needs_batch=batch_size > 1)
        self.rng = random.Random(seed)
        self.calls = 0
        self.now = 0.0
        self._size, self._window = batch_size, window
        self._ready: deque[Batch] = deque()
        self._delayed: list[tuple[float, int, Batch]] = []
        self._in_flight: list[tuple[float, int, Batch]] = []
        self._order = 0
        self._lone_probe_out = False
        self._pause_until_s = 0.0

    def next_reply(self, latency_s: float) -> Batch:
        """Fill the window, let the first request come back, and give its batch."""
        while len(self._in_flight) < (self._window if self.brake.is_open else PROBES):
            self._put(
                self._in_flight,
                max(self.now, self._pause_until_s) + latency_s * self.rng.uniform(0.5, 1.5),
                self._take(),
            )
        self.now, _, batch = heapq.heappop(self._in_flight)
        self.calls += 1
        return batch

    def follow(self, verdict: Verdict) -> None:
        """Queue the children, and note what failed."""
        self.brake.observe_failed(len(verdict.failed))
        self._pause_until_s = max(self._pause_until_s, self.now + max(verdict.pause_s, self.brake.pause_s(self.now)))
        for child in verdict.children:
            self._put(self._delayed, child.not_before_s, child)

    def _put(self, heap: list[tuple[float, int, Batch]], due_s: float, batch: Batch) -> None:
        self._order += 1
        heapq.heappush(heap, (due_s, self._order, batch))

    def _take(self) -> Batch:
        while self._delayed and self._delayed[0][0] <= self.now:
            self._ready.append(heapq.heappop(self._delayed)[2])
        if self._ready:
            return self._ready.popleft()
        if self.brake.wants_lone and not self._lone_probe_out:
            self._lone_probe_out = True
            return make_batch(1)
        return make_batch(self._size)

    def barren_reply(self) -> None:
        """The model says something that holds no answer."""
        batch = self.next_reply(1.0)
        ids = {str(number): item for number, item in enumerate(batch.items)}
        verdict = judge_reply(batch, ids, NOTHING, PROSE, self.limits)
        self.brake.observe_reply(size=len(ids), accepted=0, cause=verdict.cause, excerpt=PROSE.text)
        self.follow(verdict)

    def good_reply(self, latency_s: float) -> None:
        """Everything is answered."""
        self.answer(self.next_reply(latency_s))

    def answer(self, batch: Batch) -> None:
        size = len(batch.items)
        self.brake.observe_reply(size=size, accepted=size, cause="", excerpt="")

    def fault(self, kind: FaultKind, latency_s: float) -> None:
        """The call fails."""
        self.fail(self.next_reply(latency_s), kind)

    def fail(self, batch: Batch, kind: FaultKind) -> None:
        fault = Fault(kind=kind, message="the endpoint's words", retry_after_s=None)
        self.brake.observe_fault(kind, size=len(batch.items), message=fault.message, now=self.now)
        self.follow(judge_fault(batch, fault, self.limits, now=self.now, rng=self.rng))

    def stop(self) -> Stop | None:
        return self.brake.stop(self.now)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 10, 32, 64])
@pytest.mark.parametrize("attempts", [1, 3, 10, 100])
def test_a_model_that_cannot_do_the_format_is_stopped_within_twenty_calls(batch_size: int, attempts: int) -> None:
    """Whatever the batch size and however many attempts a record has, with the cause and the model's words."""
    run = Run(batch_size=batch_size, limits=Recovery(lone_attempts=attempts))
    while run.stop() is None:
        run.barren_reply()
        assert run.calls <= 20
    assert run.calls >= 5
    assert run.stop() == run.brake.stop(run.now)
    assert "no-json" in run.stop().message
    assert "As a language model" in run.stop().message
    assert run.stop().kind == "brake"


@pytest.mark.parametrize("batch_size", [1, 5, 64])
@pytest.mark.parametrize("kind", [FaultKind.REJECTED, FaultKind.FILTERED, FaultKind.CONTEXT])
def test_the_same_refusal_of_everything_is_stopped_within_twenty_calls(batch_size: int, kind: FaultKind) -> None:
    """A 400 on everything is the endpoint's last word, not a property of records."""
    run = Run(batch_size=batch_size)
    while run.stop() is None:
        run.fault(kind, 0.1)
        assert run.calls <= 20
    assert kind in run.stop().message
    assert "the endpoint's words" in run.stop().message


@pytest.mark.parametrize("kind", sorted(TRANSIENT))
@pytest.mark.parametrize("latency_s", [0.0, 0.001, 0.2, 3.0, 120.0])
@pytest.mark.parametrize("seed", range(3))
def test_an_endpoint_that_was_never_there_is_stopped_within_twenty_calls(
    kind: FaultKind, latency_s: float, seed: int
) -> None:
    """Refused at once or hanging until the timeout: some twenty calls tell, with no waiting for patience."""
    run = Run(seed=seed)
    while run.stop() is None:
        run.fault(kind, latency_s)
        assert run.calls <= 20
    assert run.stop().kind == "endpoint"
    assert run.now <= 1_000


@pytest.mark.parametrize("away_s", [1.0, 5.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_server_that_restarts_at_the_start_is_waited_for(away_s: float, seed: int) -> None:
    """A refused connection takes a millisecond: without a pause the run would be over before the server is back."""
    run = Run(seed=seed)
    while run.now < away_s:
        run.fault(FaultKind.TRANSPORT, 0.001)
        assert run.stop() is None
    run.good_reply(0.5)
    assert run.brake.pause_s(run.now) == 0.0


def test_an_address_where_nobody_listens_is_said_to_be_wrong() -> None:
    """The end names what to look at; within a quarter of a minute."""
    run = Run()
    while run.stop() is None:
        run.fault(FaultKind.TRANSPORT, 0.001)
    assert run.now <= 15
    assert "--base-url" in run.stop().message


def test_a_limit_from_the_start_is_waited_for_some_minutes() -> None:
    """An endpoint that only says 429 is not dead; it is given two minutes before the first success."""
    run = Run()
    while run.stop() is None:
        run.fault(FaultKind.RATE_LIMIT, 0.1)
    assert 120 <= run.now <= 300
    assert "rate-limit" in run.stop().message


def test_an_endpoint_that_falls_silent_is_stopped_by_time() -> None:
    """After successes, two minutes of nothing but errors end the run; meanwhile two calls at a time look for life."""
    run = Run(limits=Recovery(max_failed=1.0))
    for _ in range(20):
        run.good_reply(1.0)
    fell_silent_s = run.now
    while run.stop() is None:
        run.fault(FaultKind.TRANSPORT, 0.5)
    assert 115 <= run.now - fell_silent_s <= 150
    assert run.stop().kind == "endpoint"
    assert run.calls < 120 / 0.5 * PROBES + 100
    assert not run.brake.is_open
    run.good_reply(0.5)
    assert run.brake.is_open
    assert run.stop() is None


def test_a_limit_in_mid_run_is_not_called_silence_of_another_kind() -> None:
    """What counts is the present row of errors: old malformed replies must not shorten the patience with a 429."""
    brake = Brake(Recovery())
    brake.observe_reply(size=5, accepted=5, cause="", excerpt="")
    for _ in range(500):
        brake.observe_reply(size=5, accepted=0, cause="no-json", excerpt="prose")
    for second in range(0, 590, 10):
        brake.observe_fault(FaultKind.RATE_LIMIT, size=5, message="slow down", now=float(second))
    assert brake.stop(590.0) is None
    stop = brake.stop(601.0)
    assert stop is not None
    assert "rate-limit" in stop.message
    assert "slow down" in stop.message


@pytest.mark.parametrize("latency_s", [0.05, 2.0, 10.0])
def test_faults_at_random_stop_no_run(latency_s: float) -> None:
    """With three calls of ten failing at random no run of 200 calls is stopped, in 300 runs.

    False stops are possible: the first eight calls may all fail, which happens to 0.3 ** 8, one start in 15,000.
    """
    for seed in range(300):
        run = Run(seed=seed)
        for _ in range(200):
            batch = run.next_reply(latency_s)
            if run.rng.random() < 0.3:
                run.fail(batch, run.rng.choice([FaultKind.SERVER, FaultKind.TIMEOUT, FaultKind.RATE_LIMIT]))
            else:
                run.answer(batch)
            assert run.stop() is None, (seed, run.calls, run.stop())


def test_malformed_replies_at_random_stop_no_run() -> None:
    """Three replies of ten without an answer cost calls, and never the run."""
    for seed in range(300):
        run = Run(seed=seed)
        for _ in range(60):
            if run.rng.random() < 0.3:
                run.barren_reply()
            else:
                run.good_reply(1.0)
            assert run.stop() is None


def test_it_opens_after_one_batch_and_one_lone_success() -> None:
    """Both ways of asking are seen to work before the window opens; a run of single records needs no batch."""
    brake = Brake(Recovery())
    assert (brake.is_open, brake.wants_lone) == (False, True)
    brake.observe_reply(size=5, accepted=3, cause="missing", excerpt="")
    assert (brake.is_open, brake.wants_lone) == (False, True)
    brake.observe_reply(size=1, accepted=1, cause="", excerpt="")
    assert (brake.is_open, brake.wants_lone) == (True, False)
    alone = Brake(Recovery(), needs_batch=False)
    alone.observe_reply(size=1, accepted=1, cause="", excerpt="")
    assert alone.is_open


def test_it_opens_anyway_when_something_works_and_one_way_never_comes() -> None:
    """A lone probe that is poison must not hold the run at two calls in flight."""
    brake = Brake(Recovery())
    for _ in range(7):
        brake.observe_reply(size=1, accepted=0, cause="refused", excerpt="no")
    assert not brake.is_open
    brake.observe_reply(size=5, accepted=5, cause="", excerpt="")
    assert brake.is_open
    assert brake.stop(0.0) is None


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0, 1))
def test_too_many_failed_records_end_the_run(ok: int, failed: int, most: float) -> None:
    """Above --max-failed, once 100 records have ended, and never before; the message names share and cause."""
    brake = Brake(Recovery(max_failed=most))
    brake.observe_reply(size=300, accepted=ok, cause="invalid-output", excerpt="mauve")
    brake.observe_failed(failed)
    stop = brake.stop(0.0)
    assert (stop is not None) == (ok + failed >= 100 and failed > most * (ok + failed))
    if stop is not None:
        assert f"{failed} of {ok + failed} records failed" in stop.message
        assert "--max-failed" in stop.message


def test_an_endpoint_that_is_being_found_out_is_not_counted_against() -> None:
    """A parameter that it does not take is not a failure of a record."""
    brake = Brake(Recovery())
    for _ in range(4):
        brake.observe_fault(FaultKind.UNSUPPORTED, size=5, message="no json_schema", now=0.0)
    assert brake.stop(1_000.0) is None


def test_silence_is_measured_from_its_beginning() -> None:
    """Clocks start anywhere: eight faults within a second are no silence, at whatever time they come."""
    brake = Brake(Recovery())
    for number in range(8):
        brake.observe_fault(FaultKind.SERVER, size=1, message="HTTP 500", now=50_000.0 + number / 8)
    assert brake.stop(50_001.0) is None
    assert brake.stop(50_100.0) is not None


def test_calls_that_brought_no_reply_count_for_the_opening() -> None:
    """One success among seven faults that were not in a row opens, as it does among seven barren replies."""
    brake = Brake(Recovery())
    for _ in range(7):
        brake.observe_fault(FaultKind.SERVER, size=1, message="HTTP 500", now=1.0)
    assert (brake.is_open, brake.has_worked) == (False, False)
    brake.observe_reply(size=5, accepted=5, cause="", excerpt="")
    assert (brake.is_open, brake.has_worked) == (True, True)


def test_each_fault_counts_once() -> None:
    """Seven faults over any time are few: a run of slow requests may meet them by chance. The eighth is enough."""
    brake = Brake(Recovery())
    brake.observe_reply(size=1, accepted=1, cause="", excerpt="")
    for number in range(7):
        brake.observe_fault(FaultKind.SERVER, size=1, message="HTTP 500", now=100.0 * number)
    assert brake.stop(1_000.0) is None
    brake.observe_fault(FaultKind.SERVER, size=1, message="HTTP 500", now=1_000.0)
    assert brake.stop(1_000.0) is not None


@pytest.mark.parametrize(
    ("message", "asks"), [("cannot connect", True), ("the reply is longer than 16,777,216 bytes", False)]
)
def test_whether_the_server_runs_is_asked_where_nobody_answered(message: str, asks: bool) -> None:
    """A reply that is too long came from a server that runs."""
    brake = Brake(Recovery())
    for second in range(20):
        brake.observe_fault(FaultKind.TRANSPORT, size=1, message=message, now=float(second))
    stop = brake.stop(20.0)
    assert isinstance(stop, Stop)
    assert ("Is the server running" in stop.message) == asks


def barren(brake: Brake, *sizes: int) -> Stop | None:
    """Replies to requests of these sizes in which no answer was, and whether they end the run."""
    for size in sizes:
        brake.observe_reply(size=size, accepted=0, cause="no-json", excerpt="prose")
    return brake.stop(0.0)


@pytest.mark.parametrize(
    ("first", "last", "told"),
    [
        ([1, 1, 1, 5, 5, 5, 5], 2, "8 calls, 8 of them"),  # the fifth batch, of two records
        ([5, 5, 5, 5, 5, 1, 1], 1, "8 calls, 8 of them"),  # the third lone record
        ([1] * 5, 1, "6 calls, 6 of them"),  # no batch at all
        ([1, *[5] * 14], 5, "16 calls, 16 of them"),  # any sixteen, a lone one among them
        ([5] * 30, 1, "31 calls, 31 of them"),
    ],
)
def test_the_run_ends_with_the_call_that_makes_it_enough(first: list[int], last: int, told: str) -> None:
    """Three lone records and five batches, six lone ones, or sixteen with a lone one among them: not one sooner."""
    brake = Brake(Recovery())
    assert barren(brake, *first) is None
    stop = barren(brake, last)
    assert stop is not None
    assert f"nothing has worked in {told}: no-json" in stop.message


def test_the_account_of_a_stop_counts_each_fault_once() -> None:
    """Faults of the connection are a part of all calls, and the commonest cause is named with its own number."""
    brake = Brake(Recovery())
    for _ in range(5):
        brake.observe_fault(FaultKind.SERVER, size=5, message="oops", now=0.0)
    stop = barren(brake, 1, 1, 1, 5, 5, 5, 5, 5)
    assert stop is not None
    assert "nothing has worked in 13 calls, 8 of them: no-json" in stop.message


def test_two_records_are_a_batch_that_works() -> None:
    """The window opens once a batch, of two even, and a lone record have worked, in whichever order."""
    for sizes in ((2, 1), (1, 2)):
        brake = Brake(Recovery())
        for number, size in enumerate(sizes):
            assert not brake.is_open
            assert brake.wants_lone == (number == 0 or sizes[0] != 1)
            brake.observe_reply(size=size, accepted=1, cause="", excerpt="")
        assert brake.is_open
