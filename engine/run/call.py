"""The life of one call: sent, read, judged, stored, given out. See docs/design/pipeline.md."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio
import msgspec

from engine.adapters.store import CallRow, RunStore, Spent
from engine.decide.answers import Reading, read_answers
from engine.decide.batch_size import Work
from engine.decide.brake import Stop
from engine.decide.confidence import confidences
from engine.decide.overthought import OVERTHOUGHT
from engine.decide.prompts import first_words
from engine.decide.recovery import Verdict, completed, judge_fault, judge_reply
from engine.run.audit_settling import AuditSettling
from engine.run.call_rows import call_row, given_up_row, sent_row
from engine.run.charges import charged, settle_reservation, spent_on, unconfirmed
from engine.run.dispatch import Asked, Sent
from engine.run.intake import Intake
from engine.run.journal import Journal
from engine.run.neighbours import NOTHING_READ, without
from engine.run.outcome import Settled, copies, settle
from engine.run.partials import partial_rows
from engine.run.state import RunState
from engine.run.thinking import Thinking
from engine.run.votes import LOGPROBS_REMEDY, NO_LOGPROBS, Polled, elected, is_later_round
from engine.vocabulary.errors import RunStopped, StoreError
from engine.vocabulary.values import ASKS, Batch, Completion, Fault, FaultKind, Item, Result, Usage

_UNKEYED_REPLIES = 2
_ABOUT_CONTENT = frozenset({FaultKind.REJECTED, FaultKind.FILTERED, FaultKind.CONTEXT})

Emit = Callable[[Result], Awaitable[None]]


class Caller:
    """Performs calls. What it decides is decided in plain functions of `decide`."""

    def __init__(
        self, state: RunState, *, store: RunStore, journal: Journal, intake: Intake, emit: Emit, run_id: int
    ) -> None:
        self._state = state
        self._store = store
        self._journal = journal
        self._intake = intake
        self._emit = emit
        self._run_id = run_id
        self._thinking = Thinking(state)
        self._audits = AuditSettling(state)

    async def call(self, sent: Sent) -> None:
        """Send, store what comes back, and give it out."""
        try:
            for end in await self._answered(sent):
                await self._emit(end.result)
        finally:
            self._state.calls -= 1
            self._state.changed.notify()

    async def conclude(self, item: Item) -> None:
        """End a record with the votes that it has: what would be sent now has been answered before."""
        state = self._state
        try:
            with anyio.CancelScope(shield=True):
                now, form = anyio.current_time(), state.asking.prompt.form
                won = state.voting.repeated(item)
                end = elected(won, batch_size=1, form=form, now=now, wall_time=state.wall(now))
                settled = self._with_copies([(item, end)], now)
                await self._journal.write((), [one.row for one in settled])
                settled += await self.late_copies(settled)
            for one in settled:
                await self._emit(one.result)
        except StoreError as error:
            state.stop(error)
            raise
        finally:
            state.calls -= 1
            state.changed.notify()

    async def _answered(self, sent: Sent) -> list[Settled]:
        """Send, and store what comes back. The slot covers just this: neither a back-off nor a slow consumer holds it.

        It is not given back before the answers are durable: whatever a crash makes us send again was in flight.
        """
        settled: list[Settled] = []
        settling = False
        spent = unconfirmed(sent)
        try:
            self._note_sent(sent)
            outcome = await sent.asking.provider.complete(
                user=sent.user, max_output_tokens=sent.max_output_tokens, items=sent.asked
            )
            with anyio.CancelScope(shield=True):  # from here on the reply is paid for
                settling = True
                usage = self._usage(sent, outcome)
                spent = spent_on(sent, outcome, usage)
                self._observe_load(sent, outcome, usage)
                settled += await self._settle_call(sent, outcome, usage, spent)
            return settled
        except StoreError as error:
            self._state.stop(error)  # before the slot is free: what is sent from now on could not be kept either
            raise
        except anyio.get_cancelled_exc_class():
            if not settling:
                with anyio.CancelScope(shield=True):
                    await self._note_abandoned(sent)
            raise
        finally:
            self._state.budget.settle(sent.reserved, spent)
            self._state.landed()

    def _note_sent(self, sent: Sent) -> None:
        self._store.note_sent(sent_row(sent, run_id=self._run_id, sent_at=self._state.wall(sent.sent_at_s)))

    async def _note_abandoned(self, sent: Sent) -> None:
        """A request was given up by a stop at once. It was sent, so the endpoint may bill it."""
        counters = self._state.counters
        counters.requests += 1
        counters.abandoned += 1
        counters.causes["abandoned"] += 1
        spent = unconfirmed(sent)
        counters.add_unconfirmed(spent.unconfirmed_input, spent.unconfirmed_output)
        sent_at, latency_s = self._state.wall(sent.sent_at_s), anyio.current_time() - sent.sent_at_s
        row = given_up_row(sent, spent, sent_at=sent_at, latency_s=latency_s)
        self._state.log.call_given_up(sent, row.latency_s)
        await self._journal.write([row], ())
        self._store.note_ended(sent.number)

    async def _settle_call(self, sent: Sent, outcome: Completion | Fault, usage: Usage, spent: Spent) -> list[Settled]:
        if sent.batch.purpose not in ASKS:
            return await self._settle_audit(sent, outcome, usage, spent)
        state, now = self._state, anyio.current_time()
        judged = self._judged(sent, outcome, now)
        polled = self._polled(sent, judged, outcome, usage)
        verdict = polled.verdict
        state.counters.add_unconfirmed(spent.unconfirmed_input, spent.unconfirmed_output)
        settle_reservation(sent, outcome, usage)
        self._count(verdict, usage)
        self._observe_size(sent, outcome, judged, usage, now)
        settled = self._ends(sent, polled, now)
        self._tell(sent, outcome, verdict, usage, now)
        self._maybe_stop(verdict, outcome, now)  # before anything is awaited, or more would be sent meanwhile
        row = self._call_row(sent, outcome, verdict, usage, spent, now)
        kept = partial_rows(sent.batch, verdict, size=sent.members, form=sent.asking.prompt.form)
        await self._journal.write([row], [end.row for end in settled], [*polled.ballots, *kept])
        self._store.note_ended(sent.number)
        settled += await self.late_copies(settled)
        state.voting.add(polled.again)
        for child in verdict.children:
            state.queue.add_child(_descended(child, sent.batch, verdict), now)
        return settled

    def _polled(self, sent: Sent, verdict: Verdict, outcome: Completion | Fault, usage: Usage) -> Polled:
        """What the answers come to with those of earlier rounds."""
        state = self._state
        sure: dict[int, float] = {}
        if state.config.confidence == "logprobs" and isinstance(outcome, Completion) and verdict.accepted:
            by_id = confidences(outcome.text, outcome.tokens, sent.ids.keys(), state.plan.task)
            sure = {sent.ids[id_].record.position: share for id_, share in by_id.items()}
            self._note_sure(bool(sure))
        if is_later_round(sent.batch):
            state.counters.votes.add_usage(usage)
        return state.voting.poll(sent.batch, verdict, size=sent.members, asking=sent.asking, sure=sure)

    def _note_sure(self, any_sure: bool) -> None:
        """A reply came with the probabilities of its tokens, or without: the run ends where a second model hangs on
        them alone and they never come, before it is paid for in vain."""
        state, log = self._state, self._state.counters.votes
        log.note_logprobs(any_sure)
        if not any_sure:
            state.counters.notice(NO_LOGPROBS)
        escalation = state.config.escalation
        needs = escalation is not None and escalation.below is not None and state.config.votes == 1
        if needs and log.lacks_logprobs:
            state.stop(RunStopped("confidence", f"{NO_LOGPROBS}; {LOGPROBS_REMEDY}"))

    def _observe_load(self, sent: Sent, outcome: Completion | Fault, usage: Usage) -> None:
        now = anyio.current_time()
        target = self._state.target
        if target is not None and isinstance(outcome, Completion):
            target.observe_request(now, size=len(sent.ids), latency_s=now - sent.sent_at_s)
        if sent.load is not None:
            self._state.load.ended(sent.load, outcome, usage, latency_s=now - sent.sent_at_s, now=now)

    # -- what it was -----------------------------------------------------------------------------------------------

    def _judged(self, sent: Sent, outcome: Completion | Fault, now: float) -> Verdict:
        state = self._state
        batch = msgspec.structs.replace(
            sent.batch,
            items=tuple(msgspec.structs.replace(item, calls=(*item.calls, sent.number)) for item in sent.batch.items),
        )
        if isinstance(outcome, Fault):
            works, recovery = state.brake.has_worked and not state.brake.is_silent, state.config.recovery
            verdict = judge_fault(batch, outcome, recovery, now=now, rng=state.rng, works=works)
            self._after_fault(sent, outcome, verdict, now)
            state.neighbours.settled(batch, {}, NOTHING_READ, verdict)
            self._audits.unread(sent)
            return verdict
        reading = self._read(sent, outcome)
        ids = dict(zip(sent.ids, batch.items, strict=True))
        disturbed = state.neighbours.judged(batch, ids, sent.canaries, reading)
        own = completed(ids, without(reading, {**sent.canaries, **sent.gold}))
        thinking = self._thinking.judged(sent, batch, reading, outcome)
        verdict = disturbed or thinking or judge_reply(batch, ids, own, outcome, state.config.recovery)
        if disturbed is None:
            state.neighbours.settled(batch, ids, own, verdict)
            state.counters.variables.add_reply(ids, own)
        self._after_reply(sent, outcome, reading, own.answers, verdict.cause)
        usage = self._usage(sent, outcome)
        self._audits.weigh_gold(sent, None if disturbed or thinking else reading, usage, now=now)
        self._audits.observe_reply(sent, None if disturbed else own, usage, now=now)
        return verdict

    async def _settle_audit(self, sent: Sent, outcome: Completion | Fault, usage: Usage, spent: Spent) -> list[Settled]:
        """A reply that is only compared. Nothing of it is an answer, and one that is lost is not asked for again."""
        state, now = self._state, anyio.current_time()
        cause, is_fatal = "", False
        if isinstance(outcome, Fault):
            fault = judge_fault(sent.batch, outcome, state.config.recovery, now=now, rng=state.rng)
            self._after_fault(sent, outcome, fault, now)
            self._maybe_stop(fault, outcome, now)
            cause, is_fatal = fault.cause, fault.fatal
            self._audits.lost(sent, usage, about_content=outcome.kind in _ABOUT_CONTENT)
        else:
            reading = self._read(sent, outcome)
            cause = "" if len(reading.answers) == len(sent.ids) else "missing"
            cause = self._thinking.cause(sent, reading, outcome) or cause
            self._after_reply(sent, outcome, reading, reading.answers, cause)
            work = self._work(sent, outcome, usage, now, accepted=len(reading.answers), failed=0)
            self._audits.answered(sent, reading, usage, cause=cause, work=work, now=now)
        state.counters.add_unconfirmed(spent.unconfirmed_input, spent.unconfirmed_output)
        settle_reservation(sent, outcome, usage)
        self._count(Verdict(cause=cause), usage, audit=True)
        self._tell(sent, outcome, Verdict(cause=cause, fatal=is_fatal), usage, now)
        state.log.verdict()
        row = self._call_row(sent, outcome, Verdict(cause=cause), usage, spent, now)
        await self._journal.write([msgspec.structs.replace(row, purpose="audit")], ())
        self._store.note_ended(sent.number)
        return []

    def _read(self, sent: Sent, completion: Completion) -> Reading:
        keyed = sent.asking.keyed
        everybody: dict[str, Asked] = {**sent.ids, **sent.canaries, **sent.gold}
        asked = {id_: first_words(one.record.input) if keyed else "" for id_, one in everybody.items()}
        return read_answers(completion.text, asked, sent.asking.check, keyed=keyed)

    def _after_reply(
        self, sent: Sent, completion: Completion, reading: Reading, answers: Mapping[str, Any], cause: str
    ) -> None:
        """:param answers: of the records that it was about, completed by what was kept of them."""
        state, size, accepted = self._state, len(sent.batch.items), len(answers)
        state.counters.malformed += accepted < size
        state.counters.positions.add([id_ in answers for id_ in sent.ids])
        state.counters.foreign_ids += reading.foreign
        if completion.usage is not None:
            estimates, usage = state.estimates_of(sent.asking), completion.usage
            state.counters.counted.add(sent.counted_input, static=estimates.counted_input(0), usage=usage)
            estimates.observe(
                counted_input=sent.counted_input,
                usage=completion.usage,
                answered=reading.found,
                cut=completion.finish_reason == "length",
                asked=sent.asked,
            )
        self._thinking.note(sent, reading, completion)
        state.brake.observe_reply(
            size=size, accepted=accepted, cause=cause, excerpt=completion.refusal or completion.text
        )
        if sent.asking.keyed and reading.found and reading.unkeyed == reading.found:
            self._note_unkeyed(sent)

    def _note_unkeyed(self, sent: Sent) -> None:
        """An endpoint that ignores the keyed form sends the run back to the compact one, before the brake ends it."""
        state = self._state
        if sent.batch.audit and state.auditor is not None:
            state.auditor.forms.observe_unkeyed()
            return
        state.unkeyed_replies += 1
        if state.plan.fallback is not None and state.unkeyed_replies >= _UNKEYED_REPLIES:
            state.fell_back = True
            state.counters.notice("the model ignores the keyed answer form; the run went on with the compact one")

    def _after_fault(self, sent: Sent, fault: Fault, verdict: Verdict, now: float) -> None:
        state = self._state
        state.counters.http_429 += fault.status == 429
        state.brake.observe_fault(fault.kind, size=len(sent.batch.items), message=fault.text, now=now)
        pause_s = max(verdict.pause_s, state.brake.pause_s(now))
        state.pause_until(now + pause_s)
        state.log.paused(pause_s, verdict.cause, sent.number)
        state.log.held(verdict, sent.number, now=now)

    def _tell(self, sent: Sent, outcome: Completion | Fault, verdict: Verdict, usage: Usage, now: float) -> None:
        log = self._state.log
        log.call_ended(sent, outcome, verdict, usage, purpose=sent.batch.purpose, latency_s=now - sent.sent_at_s)
        if log.is_on:
            log.moves(now)

    # -- what follows ----------------------------------------------------------------------------------------------

    def _usage(self, sent: Sent, outcome: Completion | Fault) -> Usage:
        """The endpoint's own figures; for a reply without any, our estimate; for no reply, nothing is known."""
        if outcome.usage is not None:
            return outcome.usage
        if isinstance(outcome, Fault):
            return Usage(input_tokens=0, output_tokens=0)
        return Usage(input_tokens=sent.expected_input, output_tokens=max(1, len(outcome.text) // 4), estimated=True)

    def _count(self, verdict: Verdict, usage: Usage, *, audit: bool = False) -> None:
        counters = self._state.counters
        counters.requests += 1
        counters.add_verdict(verdict)
        counters.add_usage(usage, gave=audit or bool(verdict.accepted))
        self._state.brake.observe_failed(len(verdict.failed))

    def _observe_size(
        self, sent: Sent, outcome: Completion | Fault, verdict: Verdict, usage: Usage, now: float
    ) -> None:
        """What the size of this batch came to. A fault of the server or of the way there is not the size's doing."""
        if (isinstance(outcome, Fault) and outcome.kind not in _ABOUT_CONTENT) or verdict.cause == OVERTHOUGHT:
            return
        work = self._work(sent, outcome, usage, now, accepted=len(verdict.accepted), failed=len(verdict.failed))
        self._state.batch_size.observe(work, allowed=self._state.allowed, now=now)

    def _work(
        self, sent: Sent, outcome: Completion | Fault, usage: Usage, now: float, *, accepted: int, failed: int
    ) -> Work:
        """What a call took and gave. The load changes while sizes are compared, and is not their doing."""
        state = self._state
        slowdown = 1.0 if sent.load is None else state.load.window.slowdown(sent.load.window.in_flight)
        return Work(
            origin=sent.batch.origin,
            first=sent.batch.first,
            size=len(sent.ids),
            accepted=accepted,
            failed=failed,
            tokens=charged(sent, outcome, usage),
            slot_s=(now - sent.sent_at_s) / slowdown,
            cost=state.budget.price(usage),
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
        )

    def _ends(self, sent: Sent, polled: Polled, now: float) -> list[Settled]:
        """Every record that this call ended, and the identical ones that waited for it."""
        state = self._state
        size, form, wall = sent.members, sent.asking.prompt.form, state.wall(now)

        pairs = [
            (won.item, elected(won, batch_size=size, form=form, now=now, wall_time=wall)) for won in polled.winners
        ]
        pairs += [
            (lost.item, settle(lost.item, error=lost.error, batch_size=size, form=form, now=now, wall_time=wall))
            for lost in polled.verdict.failed
        ]
        return self._with_copies(pairs, now)

    def _with_copies(self, pairs: Sequence[tuple[Item, Settled]], now: float) -> list[Settled]:
        """Ends of records, and of the identical ones that waited for them."""
        state = self._state
        ends: list[Settled] = []
        for item, settled in pairs:
            followers = state.followers.get(item.record.digest, [])
            same = copies(settled, followers, now=now)
            followers.clear()
            state.counters.records_copied += len(same)
            ends += [settled, *same]
        if state.target is not None:
            state.target.observe_records(now, [end.row.latency_s for end in ends])
        return ends

    async def late_copies(self, settled: list[Settled]) -> list[Settled]:
        """The ends of identical records that came while the answer was on its way into the store.

        From here on a twin finds the answer there: no await stands between the look-up of its digest and this.
        """
        late: list[Settled] = []
        for end in settled:
            self._intake.note_settled(end.row)
            followers = self._state.followers.pop(end.row.digest, ())
            late += copies(end, followers, now=anyio.current_time())
        if late:
            self._state.counters.records_copied += len(late)
            await self._journal.write((), [end.row for end in late])
        return late

    def _call_row(
        self, sent: Sent, outcome: Completion | Fault, verdict: Verdict, usage: Usage, spent: Spent, now: float
    ) -> CallRow:
        sent_at = self._state.wall(sent.sent_at_s)
        return call_row(sent, outcome, verdict, usage, spent, sent_at=sent_at, latency_s=now - sent.sent_at_s)

    def _maybe_stop(self, verdict: Verdict, outcome: Completion | Fault, now: float) -> None:
        stop = self._state.brake.stop(now)
        if verdict.fatal and isinstance(outcome, Fault):
            stop = Stop(kind=outcome.kind, message=outcome.text)
        if stop is not None:
            self._state.stop(RunStopped(stop.kind, stop.message))


def _descended(child: Batch, parent: Batch, verdict: Verdict) -> Batch:
    """A child, charged to the size that its records were first aimed at."""
    return msgspec.structs.replace(
        child,
        origin=parent.origin,
        first=parent.first and verdict.retry,
        purpose="ask",
        family=child.family or parent.family,
    )
