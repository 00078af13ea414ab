"""Who goes next, and when: window, pause, budget and limits, for one batch after the other."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import anyio
import msgspec

from engine.adapters.limits import Reservation
from engine.decide.brake import PROBES
from engine.decide.gold_pool import GoldEntry
from engine.decide.neighbours_canaries import Canary
from engine.decide.packing import pack
from engine.decide.prompts import first_words, forges_id, longer_salt, request_ids, request_salt, user_message
from engine.decide.rate import Dimension
from engine.run.budget import Reserve
from engine.run.gold_riders import Rider, beside, seated
from engine.run.load import LoadTicket
from engine.run.neighbours import Company
from engine.run.plan import Asking
from engine.run.queue import Wait
from engine.run.state import RunState
from engine.vocabulary.values import Batch, Item, Waits

_FULL_SHARE = 0.8
_LEAST_WAIT_S = 0.001


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A request on its way: what it asked, how, and what was reserved for it.

    :ivar ids: request id -> record; `canaries`: request id -> canary that is sent along; `gold`: -> record with a known
        answer.
    :ivar static_tokens: of `expected_input`, those that every request repeats.
    :ivar most_input: input tokens that it will hardly exceed: what is reserved of a limit until its reply is there.
    :ivar counted_input: input tokens by our own count, before the learned ratio; `expected_input` after it.
    """

    number: int
    batch: Batch
    static_tokens: int
    asking: Asking
    ids: dict[str, Item]
    canaries: dict[str, Canary] = {}
    gold: dict[str, Rider] = {}
    user: str
    counted_input: int
    expected_input: int
    most_input: int
    max_output_tokens: int
    reserved_tokens: int
    reserved: Reserve
    reservation: Reservation
    load: LoadTicket | None = None
    sent_at_s: float

    @property
    def members(self) -> int:
        """Records that share the request as a batch does: those to be answered, and gold among them."""
        return len(self.ids) + len(self.gold)

    @property
    def asked(self) -> int:
        """All that it asks."""
        return self.members + len(self.canaries)


Asked = Item | Canary | Rider

Start = Callable[[Sent], object]
"""Starts a call that has been admitted."""
Conclude = Callable[[Item], object]
"""Ends a record that is asked no more."""


class Dispatcher:
    """The one that sends: children first, then new records, first in, first out under every limit."""

    def __init__(self, state: RunState, *, call_number: Callable[[], int], salt_offset: int | None = None) -> None:
        """:param salt_offset: one for all whose calls are numbered together, so that none of them share a salt."""
        self._state = state
        self._call_number = call_number
        self._chance = random.SystemRandom()
        self._salt_offset = self._chance.randrange(1 << 30) if salt_offset is None else salt_offset
        self._company: Company = ()  # of the step that is next
        self._candidates: Sequence[GoldEntry] = ()  # that might ride with it, and those that do
        self._riders: Sequence[Rider] = ()
        self._lone_probe_out = False
        self._held_by: str | None = None
        self._paused_s = 0.0  # since the last send
        state.counters.held_by = self.held_by

    def held_by(self) -> str | None:
        """What the next request waits for at present; None where it waits for nothing, or for input."""
        return self._held_by or self._state.pacer.waits_for

    async def run(self, start: Start, *, conclude: Conclude) -> None:
        """Send what is next, one after the other, when the window, the pause and the limits allow it."""
        try:
            await self._send_all(start, conclude)
        finally:  # a run may end in a pause
            self._state.counters.add_waits(Waits(pause_s=self._paused_s), anyio.current_time())

    async def _send_all(self, start: Start, conclude: Conclude) -> None:
        state = self._state
        window_s = 0.0
        while True:
            since_s = anyio.current_time()
            await self._wait_for_window()
            now = anyio.current_time()
            window_s += now - since_s
            step = self._next_step(now)
            if step is None:
                return
            if isinstance(step, Wait):
                await self._wait_for(step, is_paused=state.pause_until_s > now)
                continue
            if self._is_repeat(step):
                state.calls += 1  # until its end has been given out
                conclude(step.items[0])
                continue
            sent = await self._admitted(step, window_s)
            window_s = 0.0
            if sent is None:
                return
            if state.stopped is not None:  # a cancelled scope is left at the next wait, not before
                state.budget.settle(sent.reserved)
                return
            state.sent()
            start(sent)

    # -- what ----------------------------------------------------------------------------------------------------

    def _next_step(self, now: float) -> Batch | Wait | None:
        """What to send now, or how long to wait, or None when everything has ended."""
        state = self._state
        self._company, self._riders, self._candidates = (), (), ()
        if state.pause_until_s > now:
            return Wait(until_s=state.pause_until_s)
        audit = self._audit(now)
        if audit is not None:
            return audit
        auditor = state.auditor
        anchor = auditor is not None and auditor.wants_anchor
        lone = (state.brake.wants_lone and not self._lone_probe_out) or anchor
        if state.gold is not None and not lone:
            self._candidates = state.gold.candidates(state.size, state.counters)
        step = self._next_round(now, lone=lone, anchor=anchor) or state.queue.take(
            now,
            choose=self._choose,
            size=state.size,
            lone=lone,
            # While nothing but errors comes, what is known to be waiting is enough to find out when that ends; where
            # the endpoint has worked before, new records find it out, or the sends of a few would be used up on it.
            fresh=not state.brake.is_silent,
            fresh_first=state.brake.is_silent and state.brake.has_worked,
            hurry=state.input_ended or state.input_waits,
            distinct=_key if state.asking.keyed else None,
            apart=state.neighbours.apart,
            apart_alone=state.neighbours.guard.screens_alone,
        )
        if isinstance(step, Wait) and state.input_ended and not state.calls and state.queue.is_empty:
            return None  # whoever waits for a further vote goes as soon as nothing is under way
        if not isinstance(step, Batch) or self._is_repeat(step):
            return step
        self._lone_probe_out |= len(step.items) == 1
        if step.origin:
            return self._guarded(step)
        state.neighbours.note_taken(step)
        if anchor and auditor is not None and not step.items[0].ballots and not state.neighbours.speaks(step.items[0]):
            auditor.anchor_sent()
            return msgspec.structs.replace(step, origin=1, purpose="anchor")
        self._riders = self._riding(step)
        batch = self._guarded(self._aimed(step))
        if len(batch.items) < len(step.items):
            self._unseat()
        return batch

    def _next_round(self, now: float, *, lone: bool, anchor: bool) -> Batch | Wait | None:
        """A batch of records that are asked once more for their votes, where it is their turn: after what came back."""
        state = self._state
        voting, queue, brake = state.voting, state.queue, state.brake
        if voting.is_empty or queue.has_returned(now) or (anchor and queue.fresh):
            return None
        if brake.is_silent and not brake.has_worked and not queue.is_empty:
            return None
        calls = 0 if state.live else state.calls  # nobody who waits for an answer waits for another's
        is_full, asking = state.input_waits, state.asking
        company_s = voting.waits_for_company_until_s(asking)
        if company_s > now and not (queue.fresh or calls or state.input_ended or state.live or is_full):
            return Wait(until_s=company_s)
        if not voting.is_due(state.size, fresh=queue.fresh, calls=calls, is_full=is_full, asking=asking):
            return None
        return voting.take(
            now,
            choose=self._choose,
            size=state.size,
            lone=lone and not anchor,
            distinct=_key if state.asking.keyed else None,
            apart=state.neighbours.apart,
            apart_alone=state.neighbours.guard.screens_alone,
            asking=asking,
        )

    def _is_repeat(self, batch: Batch) -> bool:
        """Whether this would only bring a vote again that is there. What finds out who changes others goes anyway."""
        return not batch.family and self._state.voting.is_repeat(batch, self._state.asking_of(batch))

    def _guarded(self, batch: Batch) -> Batch:
        """A batch that may go as it is; where no canaries go with it, its first record alone, and the rest after it."""
        state = self._state
        company = state.neighbours.company(batch, keyed=state.asking_of(batch).keyed)
        if company is not None:
            self._company = company
            return batch
        state.queue.add_child(msgspec.structs.replace(batch, items=batch.items[1:]), 0.0)
        return msgspec.structs.replace(batch, items=batch.items[:1])

    def _audit(self, now: float) -> Batch | None:
        """A request for the guard of the labels, while there is other work that it can learn for."""
        state = self._state
        if not state.brake.is_open or not state.queue.fresh:
            return None
        if state.gold is not None and (lone := state.gold.next_lone(now, state.counters, size=state.size)):
            return lone
        return None if state.auditor is None else state.auditor.next_batch(now)

    def _riding(self, batch: Batch) -> Sequence[Rider]:
        """Records with known answers that go with a new batch; not with those that are asked once more."""
        state, first = self._state, batch.items[0]
        if state.gold is None or first.ballots or state.neighbours.speaks(first):
            return ()
        room = state.room(len(batch.items) + len(self._candidates))
        return state.gold.ride(batch.items, self._candidates, room=room, keyed=state.asking_of(batch).keyed)

    def _unseat(self) -> None:
        if self._state.gold is not None and self._riders:
            self._state.gold.unseat(self._riders)
        self._riders = ()

    def _aimed(self, batch: Batch) -> Batch:
        """A new batch, with the size that it stands for: its own, where token budgets kept it much smaller."""
        aim, size = self._state.size, len(batch.items) + len(self._riders)
        origin = aim if size >= _FULL_SHARE * aim else size
        self._state.batch_size.note_sent(origin)
        return msgspec.structs.replace(batch, origin=origin)

    def _choose(self, entry_tokens: Sequence[int]) -> list[int]:
        state = self._state
        room = beside(state.room(self._items(len(entry_tokens))), self._candidates, state.estimates.output_per_record)
        return pack(entry_tokens, room=room, output_per_record=state.estimates.output_per_record, rng=state.rng)

    def _items(self, waiting: int) -> int:
        """Records that the next batch may hold. The last ones of a run are spread, so that no slot stays idle.

        So are records that somebody waits for: several calls at once beat one call with all of them. Not where the user
        fixed the size, or wants it cheap, or where a request more costs time as well, or where votes want company.
        """
        state, config = self._state, self._state.config
        size = state.size
        free = min(state.window - state.counters.in_flight, state.most_in_flight - state.traffic.in_flight)
        spreads = config.packing.batch_size is None and config.objective == "records-per-second" and not state.is_paced
        spreads = spreads and not state.voting.wants_company(state.asking)
        if (state.input_ended or state.live) and spreads and waiting < size * free:
            return max(1, math.ceil(waiting / free))
        return size

    # -- when ----------------------------------------------------------------------------------------------------

    async def _wait_for_window(self) -> None:
        # Calls whose reply is there but not yet stored and taken by the consumer are bounded as well.
        state = self._state
        while state.is_full or state.calls >= 2 * state.window + PROBES:
            await self._wait("window", state.warm_up.until_s(anyio.current_time()))

    async def _wait_for(self, step: Wait, *, is_paused: bool) -> None:
        """Wait for work. What is held back after an error is shown as a pause, though it is not what all waited for."""
        if is_paused or not step.is_held or step.until_s is None:
            await self._wait("pause" if is_paused else None, step.until_s)
            return
        self._state.counters.held_until_s = step.until_s
        paused_s = self._paused_s
        try:
            await self._wait("pause", step.until_s)
        finally:
            self._paused_s = paused_s

    async def _wait(self, cause: str | None, until_s: float | None = None) -> None:
        self._held_by, since_s = cause, anyio.current_time()
        try:
            await self._state.changed.wait(until_s)
        finally:
            self._held_by = None
            self._paused_s += anyio.current_time() - since_s if cause == "pause" else 0.0

    async def _admitted(self, batch: Batch, window_s: float) -> Sent | None:
        """Wait until the limits let this batch go; None when the budget does not."""
        state = self._state
        sent = self._prepared(batch)
        if not await self._within_budget(sent):
            return None
        try:
            reservation, waits = await self._within_limits(sent, window_s)
        except BaseException:
            state.budget.settle(sent.reserved)
            raise
        now = anyio.current_time()
        state.counters.add_waits(waits, now)
        if state.counters.first_sent_s is None:
            state.counters.first_sent_s = now
        load = state.load.sent(
            now,
            in_flight=state.traffic.in_flight + 1,
            tokens=sent.reserved_tokens,
            paced=_is_paced(waits),
        )
        return msgspec.structs.replace(sent, reservation=reservation, load=load, sent_at_s=now)

    async def _within_limits(self, sent: Sent, window_s: float) -> tuple[Reservation, Waits]:
        dimension, found_s = await self._wait_for_rate(sent.reserved_tokens)
        reservation = await self._state.pacer.reserve(
            input_tokens=sent.most_input, output_tokens=sent.max_output_tokens
        )
        await self._may_start()
        reservation.start()
        paused_s, self._paused_s = self._paused_s, 0.0
        return reservation, Waits(
            window_s=window_s,
            requests_s=reservation.requests_s + (found_s if dimension == "requests" else 0.0),
            tokens_s=reservation.tokens_s + (found_s if dimension == "tokens" else 0.0),
            pause_s=paused_s,
        )

    async def _wait_for_rate(self, tokens: int) -> tuple[Dimension, float]:
        """Wait as the limits that were found out say: for which of them, and how long."""
        rate = self._state.load.rate
        since_s = anyio.current_time()
        dimension = rate.binding(since_s, tokens)
        while (delay_s := rate.delay_s(anyio.current_time(), tokens)) > 0:
            # What is left of a delay may be less than the clock can tell apart, and would be waited for for ever.
            until_s = anyio.current_time() + max(delay_s, _LEAST_WAIT_S)
            await self._wait("rpm" if dimension == "requests" else "tpm", until_s)
        return dimension, anyio.current_time() - since_s

    async def _may_start(self) -> None:
        """A 429 may have come while this request waited for its turn, and another during the pause; and another stream
        may have taken the slot."""
        traffic = self._state.traffic
        while True:
            if (until_s := traffic.pause_until_s) > anyio.current_time():
                await self._wait("pause", until_s)
            elif traffic.is_shared and traffic.is_full:
                await self._wait("window")
            else:
                return

    async def _within_budget(self, sent: Sent) -> bool:
        budget = self._state.budget
        while not budget.try_reserve(sent.reserved):
            if not budget.may_ease:
                self._state.stop(budget.exhausted(sent.reserved))
                return False
            await budget.changed.wait()
        return True

    def _prepared(self, batch: Batch) -> Sent:
        state, asking = self._state, self._state.asking_of(batch)
        estimates = state.estimates_of(asking)
        number = self._call_number()
        mixed: Sequence[Asked] = state.neighbours.mixed(batch.items, self._company)
        if state.gold is not None and self._riders:
            mixed = state.gold.mixed(mixed, self._riders)
        ids, user = self._worded(number, mixed)
        entries = sum(one.record.input_tokens for one in mixed)
        expected_input, most_input = estimates.input_tokens(entries), estimates.most_input_tokens(entries)
        most_output = estimates.max_output_tokens(
            len(mixed), batch.output_scale, state.config.packing.max_output_tokens
        )
        return Sent(
            number=number,
            batch=batch,
            static_tokens=estimates.static_tokens,
            asking=asking,
            ids={id_: one for id_, one in ids.items() if isinstance(one, Item)},
            canaries={id_: one for id_, one in ids.items() if isinstance(one, Canary)},
            gold=seated(ids),
            user=user,
            counted_input=estimates.counted_input(entries),
            expected_input=expected_input,
            max_output_tokens=most_output,
            most_input=most_input,
            reserved_tokens=expected_input + most_output,
            reserved=state.budget.worst(input_tokens=most_input, output_tokens=most_output),
            reservation=Reservation(),
            sent_at_s=0.0,
        )

    def _worded(self, number: int, mixed: Sequence[Asked]) -> tuple[dict[str, Asked], str]:
        """The message, and who has which id in it: one that stands in none of the texts, however they guess."""
        salt = request_salt(self._salt_offset, number)
        while True:
            ids = dict(zip(request_ids(salt, len(mixed)), mixed, strict=True))
            user = user_message((id_, one.record.input) for id_, one in ids.items())
            if not forges_id(user, salt, len(mixed)):
                return ids, user
            salt = longer_salt(salt, self._chance)


def _is_paced(waits: Waits) -> bool:
    """Whether a rate held a request, more than the window did: a large one waits a moment for its tokens every time."""
    by_rate_s = waits.requests_s + waits.tokens_s + waits.pause_s
    return by_rate_s > max(_LEAST_WAIT_S, waits.window_s)  # a real clock never says 0


def _key(item: Item) -> str:
    """What the keyed form tells records by: between two with the same first words a swap could not be seen."""
    return first_words(item.record.input)
