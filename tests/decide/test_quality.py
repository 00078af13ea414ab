"""The guard of the labels, on a toy model whose answers change with their batch in known ways."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import msgspec
import pytest

from engine.decide.quality import QualityGuard, rung_of
from engine.decide.quality_evidence import can_be_judged, label_signature
from engine.decide.quality_values import AuditPlan, Spending
from engine.vocabulary.task import Field, FieldType, Task

STATIC, EACH = 500.0, 52.0  # tokens a request, tokens a record
Model = Callable[[Sequence[tuple[int, int]], random.Random], list[int]]
"""Records as (gold, lone answer) in the order sent -> the answers of the batch."""

LABELS, ACCURACY, NOISE = 4, 0.74, 0.0025


class Toy:
    """A pipeline of one slot: production at the size allowed, audits as the guard plans them."""

    def __init__(
        self, model: Model, gold: Sequence[int], *, seed: int, labels: int = LABELS, gold_every: int = 0
    ) -> None:
        self.rng = random.Random(seed)
        self.model = model
        self.guard = QualityGuard()
        self.gold_every = gold_every
        wrong = lambda right: right if labels == 1 else (right + self.rng.randrange(1, labels)) % labels  # noqa: E731
        self.records = [(right, right if self.rng.random() < ACCURACY else wrong(right)) for right in gold]
        self.labels = labels
        self.size, self.anchors, self.used = 2, [], {}
        self.requests = self.audit_requests = self.audit_cost = self.seen = 0.0
        self.stored: list[tuple[int, int, int]] = []  # gold, lone, answer

    def ask(self, batch: Sequence[tuple[int, int]]) -> list[int]:
        self.requests += 1
        answers = [lone for _, lone in batch] if len(batch) == 1 else self.model(batch, self.rng)
        return [self.rng.randrange(self.labels) if self.rng.random() < NOISE else answer for answer in answers]

    def run(self) -> Toy:
        shuffled: list[tuple[int, int]] = []
        source = iter(self.records)
        while True:
            while len(shuffled) < 256 and (record := next(source, None)) is not None:
                shuffled.append(record)
            if not shuffled:
                return self
            self.audit(shuffled)
            batch = [shuffled.pop(self.rng.randrange(len(shuffled))) for _ in range(min(self.size, len(shuffled)))]
            answers = self.ask(batch)
            self.seen += len(batch)
            self.stored += [(gold, lone, answer) for (gold, lone), answer in zip(batch, answers, strict=True)]
            self.guard.observe_batch(len(batch), answers)
            self.recent = (batch, answers)
            cap = self.guard.allowed_size()
            if cap is not None and cap < self.size:
                self.size = cap
            elif self.size * 2 <= 32 and self.guard.may_grow(self.size, self.size * 2):
                self.size *= 2

    def audit(self, shuffled: list[tuple[int, int]]) -> None:
        spending = Spending(
            audit_cost=self.audit_cost, cost_at_one=self.seen * (STATIC + EACH), audit_requests=self.audit_requests,
            requests=int(self.requests),
        )  # fmt: skip
        plan = self.guard.wants_audit(
            size=self.size, most=32, records_seen=int(self.seen), anchors=len(self.anchors), spending=spending
        )
        if plan is None:
            return
        if plan.kind == "anchors":
            for _ in range(min(plan.records, len(shuffled))):
                record = shuffled.pop(self.rng.randrange(len(shuffled)))
                self.anchors.append((record, self.ask([record])[0]))
                self.seen += 1
                self.audit_cost += STATIC * (1 - 1 / self.size)
                self.audit_requests += 1 - 1 / self.size
            return
        before = self.requests
        if plan.kind == "anchored":
            self.ask_anchors(plan)
        elif plan.kind == "repeat":
            for record, answer in self.rng.sample(self.anchors, plan.records):
                self.guard.observe_audit("repeat", 1, 1, answer, self.ask([record])[0])
        else:
            batch, answers = self.recent
            pairs = list(zip(batch, answers, strict=True))[: plan.records]
            if plan.kind == "lone":
                for position, (record, answer) in enumerate(pairs, start=1):
                    self.guard.observe_audit("lone", len(batch), position, answer, self.ask([record])[0])
            else:
                mixed = self.rng.sample(pairs, len(pairs))
                again = self.ask([record for record, _ in mixed])
                for position, ((_, answer), other) in enumerate(zip(mixed, again, strict=True), start=1):
                    self.guard.observe_audit("reordered", len(batch), position, answer, other)
        self.audit_requests += self.requests - before
        self.audit_cost += (self.requests - before) * STATIC + plan.records * EACH

    def ask_anchors(self, plan: AuditPlan) -> None:
        start = self.used.get(plan.size, 0)
        chosen = self.anchors[start : start + plan.records]
        self.used[plan.size] = start + len(chosen)
        for index in range(plan.requests):
            part = chosen[index :: plan.requests]
            known: list[int | None] = [answer for _, answer in part]
            fill = plan.size - len(part)
            batch = [record for record, _ in part] + [self.rng.choice(self.records) for _ in range(fill)]
            order = list(range(plan.size))
            self.rng.shuffle(order)
            known += [None] * fill
            answers = self.ask([batch[place] for place in order])
            for position, (place, answer) in enumerate(zip(order, answers, strict=True), start=1):
                if (lone := known[place]) is not None:
                    self.guard.observe_audit("lone", plan.size, position, answer, lone)
                    if self.gold_every and self.rng.randrange(self.gold_every) == 0:
                        right = batch[place][0]
                        self.guard.observe_gold(plan.size, position, answer == right, alone=lone == right)


def holds(batch: Sequence[tuple[int, int]], rng: random.Random) -> list[int]:
    return [lone for _, lone in batch]


def redraws(share: float, accuracy: float, labels: int = LABELS) -> Model:
    """So many answers are drawn anew, so many of these are right: `share` .8 and `accuracy` .75 agree in some .7."""

    def model(batch: Sequence[tuple[int, int]], rng: random.Random) -> list[int]:
        return [
            (gold if rng.random() < accuracy else (gold + rng.randrange(1, labels)) % labels)
            if rng.random() < share
            else lone
            for gold, lone in batch
        ]

    return model


REDRAW = {2: (0.20, 0.55), 4: (0.30, 0.55), 8: (0.39, 0.53), 16: (0.44, 0.52), 32: (0.55, 0.35)}
COPY = {2: (0.01,) * 4, 4: (0.0, 0.02, 0.02, 0.02), 8: (0.01, 0.1, 0.3, 0.4), 16: (0.1, 0.2, 0.7, 0.8)}


def copies(batch: Sequence[tuple[int, int]], rng: random.Random) -> list[int]:
    """The measured profile: redrawn by size, and copying the answer before by position (2, 3-5, 6-10, 11 on)."""
    size = min(32, rung_of(len(batch)))
    answers = redraws(*REDRAW[size])(batch, rng)
    chances = COPY.get(size, (0.15, 0.25, 0.85, 0.97))
    for index in range(1, len(answers)):
        position = index + 1
        if rng.random() < chances[(position > 2) + (position > 5) + (position > 10)]:
            answers[index] = answers[index - 1]
    return answers


def only_copies(batch: Sequence[tuple[int, int]], rng: random.Random) -> list[int]:
    answers = [lone for _, lone in batch]
    for index in range(1, len(answers)):
        if rng.random() < 0.5:
            answers[index] = answers[index - 1]
    return answers


def collapses(batch: Sequence[tuple[int, int]], rng: random.Random) -> list[int]:
    """One label for all from B=8 on."""
    return [0 if len(batch) > 4 else lone for _, lone in batch]


def drawn(seed: int, n: int, labels: int = LABELS, weights: Sequence[float] | None = None) -> list[int]:
    return random.Random(seed).choices(range(labels), weights, k=n)


RUNS = range(4)
CORPUS = 6_000


def guarded(model: Model, *, seed: int, n: int = CORPUS, labels: int = LABELS) -> Toy:
    return Toy(model, drawn(seed, n, labels), seed=seed, labels=labels).run()


@pytest.mark.parametrize("seed", RUNS)
def test_the_measured_copying_ends_at_two_or_below(seed: int) -> None:
    """On the profile that loses from B=4 on, no answer is stored from a batch of more than two."""
    toy = guarded(copies, seed=seed)
    assert toy.size <= 2
    right = sum(gold == answer for gold, _, answer in toy.stored) / len(toy.stored)
    assert right > 0.68  # at B=8 it would be below .6


@pytest.mark.parametrize("seed", RUNS)
def test_a_size_that_holds_is_reached(seed: int) -> None:
    """Where batches change nothing, B reaches its maximum, within the promised price."""
    toy = guarded(holds, seed=seed, n=20_000)
    assert toy.size == 32
    assert toy.audit_requests <= 0.10 * toy.requests
    assert toy.audit_cost <= 0.05 * 20_000 * (STATIC + EACH)


@pytest.mark.parametrize("seed", RUNS)
def test_changed_answers_of_equal_accuracy_are_called_neither_good_nor_bad(seed: int) -> None:
    """Three in ten answers change and as many are right: the guard can't tell, says so, and how much gold would."""
    toy = guarded(redraws(0.8, 0.75), seed=seed, n=10_000)
    verdict = toy.guard.verdict(2)
    assert verdict.kind == "changes"
    assert toy.guard.allowed_size() == toy.size == 1
    assert "can't tell without gold" in verdict.sentence
    assert f"{verdict.gold_needed:,} records with gold" in verdict.sentence
    assert 3_000 < verdict.gold_needed < 10_000


@pytest.mark.parametrize(
    ("labels", "weights", "in_order"),
    [(4, None, True), (2, (95, 5), False), (77, None, False), (77, None, True), (1, None, False)],
    ids=["sorted", "skewed", "many labels", "many, sorted", "one label"],
)
@pytest.mark.parametrize("seed", RUNS)
def test_a_corpus_is_never_taken_for_a_collapse(
    seed: int, labels: int, weights: tuple[int, int] | None, in_order: bool
) -> None:
    """Sorted, skewed or of one label: equal answers that belong to the records raise no alarm."""
    gold = drawn(seed, CORPUS, labels, weights)
    toy = Toy(holds, sorted(gold) if in_order else gold, seed=seed, labels=labels).run()
    assert toy.guard.allowed_size() is None
    assert toy.size >= 16


@pytest.mark.parametrize("seed", RUNS)
def test_a_collapse_to_one_label_is_named(seed: int) -> None:
    """From B=8 on every answer is one label: B stays at 4, and 8 is called collapsing."""
    toy = guarded(collapses, seed=seed)
    assert toy.size == 4
    assert toy.guard.verdict(8).kind == "collapsing"


def test_copying_is_seen_in_production_without_any_audit() -> None:
    """Equal pairs within batches beyond those across batches show copying at no cost."""
    rng = random.Random(1)
    guard = QualityGuard()
    for _ in range(400):
        guard.observe_batch(8, only_copies([(0, rng.randrange(4)) for _ in range(8)], rng))
    assert guard.verdict(8).kind == "collapsing"
    assert guard.allowed_size() == 4
    assert guard.cost().lone == 0


def test_batches_of_one_label_each_show_copying() -> None:
    """The order within such a batch shows nothing; that the next one is of another label does."""
    guard = QualityGuard()
    for number in range(40):
        guard.observe_batch(8, [number % 3] * 8)
    assert guard.verdict(8).kind == "collapsing"


@pytest.mark.parametrize("seed", RUNS)
def test_false_alarms_stay_below_their_level(seed: int) -> None:
    """A thousand looks at answers that obey the rule, and no alarm: looking often does not inflate the error."""
    rng = random.Random(seed)
    guard = QualityGuard()
    for _ in range(1000):
        guard.observe_audit("repeat", 1, 1, 0, int(rng.random() < 0.1))
        lone = rng.randrange(3)
        guard.observe_audit(
            "lone", 2, 1, (lone + (rng.random() < 0.18)) % 3, lone
        )  # .08 beyond the noise; .10 are allowed
        guard.observe_batch(2, [rng.randrange(3), rng.randrange(3)])
        assert guard.allowed_size() is None


def test_noise_is_taken_off() -> None:
    """Where a lone answer differs from itself as often, a difference from the batch says nothing against the size."""
    noisy, quiet = QualityGuard(), QualityGuard()
    rng = random.Random(3)
    for _ in range(160):
        lone, differs = rng.randrange(3), rng.random() < 0.3
        for guard in (noisy, quiet):
            guard.observe_audit("lone", 4, 1, (lone + differs) % 3, lone)
        noisy.observe_audit("repeat", 1, 1, 0, int(rng.random() < 0.3))
        quiet.observe_audit("repeat", 1, 1, 0, 0)
    assert noisy.verdict(4).kind == "unknown"
    assert quiet.verdict(4).kind == "changes"


def test_gold_has_the_last_word() -> None:
    """Gold that shows no loss excuses changed answers; gold that shows one bars a size whose answers seem to hold."""
    rng = random.Random(5)
    excused, barred = QualityGuard(), QualityGuard()
    for _ in range(200):
        excused.observe_audit("repeat", 1, 1, 0, 0)
        lone = rng.randrange(3)
        excused.observe_audit("lone", 4, 1, (lone + (rng.random() < 0.4)) % 3, lone)
    assert excused.verdict(4).kind == "changes"
    for _ in range(600):
        excused.observe_gold(4, 1, rng.random() < 0.85, alone=rng.random() < 0.7)
        barred.observe_audit("lone", 4, 1, 0, 0)
        barred.observe_gold(4, 1, rng.random() < 0.6, alone=rng.random() < 0.85)
    assert (excused.verdict(4).kind, excused.verdict(4).by_gold) == ("holds", True)
    assert excused.allowed_size() is None
    assert barred.verdict(4).kind == "worse"
    assert barred.allowed_size() == 2


def test_nothing_grows_unseen() -> None:
    """B goes up only to a size that was looked at, and down always."""
    guard = QualityGuard()
    assert guard.may_grow(1, 2)
    assert not guard.may_grow(2, 4)
    for _ in range(64):
        guard.observe_audit("lone", 4, 1, 0, 0)
    assert guard.may_grow(2, 4)
    assert not guard.may_grow(4, 8)
    assert guard.may_grow(8, 4)
    assert guard.verdict(2).kind == "holds"  # what holds at 4 holds at 2


def test_audits_stop_where_the_price_is_used_up() -> None:
    """A tenth of the requests and a twentieth of the cost of one record a request are not passed."""
    guard = QualityGuard()
    asked = {"size": 2, "most": 32, "records_seen": 100, "anchors": 48}

    def wants(audit_requests: float, audit_cost: float) -> bool:
        spending = Spending(
            audit_cost=audit_cost, cost_at_one=1000.0, audit_requests=audit_requests, requests=1000
        )  # fmt: skip
        return guard.wants_audit(**asked, spending=spending) is not None

    assert wants(50.0, 10.0)
    assert not wants(95.0, 10.0)
    assert not wants(50.0, 50.0)


def test_the_smallest_loss_seen_shrinks_with_evidence() -> None:
    """With nothing compared any loss could hide; with more compared, smaller ones are seen."""
    guard = QualityGuard()
    losses = []
    for n in (0, 48, 200):
        while guard.cost().lone < n:
            guard.observe_audit("lone", 4, 1, 0, 0)
        losses.append(guard.verdict(4).smallest_loss_seen)
    assert losses[0] == 1.0
    assert losses == sorted(losses, reverse=True)
    assert losses[1] < 0.05


def test_what_cannot_be_compared_is_said_and_not_grown() -> None:
    """A task of free text has no labels to guard: nothing is asked for it, and B stays at the safe default."""
    text = Task(instructions="x", fields={"a": Field(type=FieldType.STRING), "b": Field(type=FieldType.NUMBER)})
    assert not can_be_judged(text)
    assert label_signature({"a": "one", "b": 1.0}, text) is None
    guard = QualityGuard(judges=False)
    spending = Spending(audit_cost=0.0, cost_at_one=0.0, audit_requests=0.0, requests=0)
    assert guard.wants_audit(size=2, most=32, records_seen=10, anchors=0, spending=spending) is None
    assert guard.may_grow(2, 5)
    assert not guard.may_grow(5, 8)
    assert "can't be judged" in guard.verdict(4).sentence
    for _ in range(200):
        guard.observe_gold(4, 1, False, alone=True)
    assert guard.allowed_size() == 2  # gold judges free text too


def test_a_size_that_a_user_set_is_called_by_its_name() -> None:
    """Sizes are judged by powers of two; who runs at 20 is told of 20, and of which sizes the evidence is."""
    guard = QualityGuard()
    assert guard.verdict(20).sentence.startswith("B=20 (with 17 to 32): ")
    assert guard.verdict(32).sentence.startswith("B=32: ")


def test_one_record_a_request_is_the_reference() -> None:
    """It always holds, and nothing is claimed of it."""
    verdict = QualityGuard().verdict(1)
    assert verdict.kind == "holds"
    assert "held against" in verdict.sentence


def test_a_signature_is_equal_for_equal_answers_only() -> None:
    """Labels in any order are one answer; texts beside them do not count; true and 1 are two answers."""
    several = Task(instructions="x", labels=["a", "b"], multiple=True)
    assert label_signature(["a", "b"], several) == label_signature(["b", "a"], several)
    assert label_signature([], several) is not None
    fields = Task(
        instructions="x",
        fields={
            "kind": Field(labels=["a", "b"]),
            "sure": Field(type=FieldType.BOOLEAN),
            "why": Field(type=FieldType.STRING),
        },
    )
    one = {"kind": "a", "sure": True, "why": "so"}
    assert label_signature(one, fields) == label_signature({**one, "why": "else"}, fields)
    assert label_signature(one, fields) != label_signature({**one, "sure": 1}, fields)


def test_the_curve_has_a_row_for_each_size() -> None:
    """Rows are by rung, smallest first, with intervals that hold the shares."""
    toy = guarded(copies, seed=0, n=2_000)
    rows = toy.guard.curve()
    assert [row.verdict.size for row in rows] == sorted(row.verdict.size for row in rows)
    for row in rows:
        if row.verdict.agreement is not None:
            assert row.verdict.low <= row.verdict.agreement <= row.verdict.high
    assert msgspec.json.encode(rows)


FREE = Spending(audit_cost=0.0, cost_at_one=1e9, audit_requests=1.0, requests=1_000_000)


def wanted(guard: QualityGuard, *, size: int = 2, most: int = 32, anchors: int = 64, seen: int = 100) -> AuditPlan:
    plan = guard.wants_audit(size=size, most=most, records_seen=seen, anchors=anchors, spending=FREE)
    assert plan is not None
    return plan


def compare(guard: QualityGuard, size: int, *, same: int, changed: int = 0) -> None:
    for number in range(same + changed):
        guard.observe_audit("lone", size, 1, 0, int(number < changed))


def test_the_largest_size_is_looked_at_first_and_vouches_for_the_smaller() -> None:
    """Four requests say of B=32, and of all sizes below, what sixteen said of B=4 alone."""
    guard = QualityGuard()
    plan = wanted(guard)
    assert (plan.kind, plan.size, plan.records, plan.requests) == ("anchored", 32, 64, 4)
    compare(guard, 32, same=64)
    assert all(guard.may_grow(2, to) for to in (3, 4, 8, 24, 32))


def test_where_the_largest_is_not_clear_what_is_left_is_halved() -> None:
    """No new anchors are bought for a large size while those that there are may still let a smaller one through."""
    guard = QualityGuard()
    compare(guard, 32, same=44, changed=20)
    assert (wanted(guard).kind, wanted(guard).size) == ("anchored", 8)
    compare(guard, 8, same=64)
    assert guard.may_grow(2, 8)
    assert not guard.may_grow(2, 16)
    assert wanted(guard, size=8).size == 16


def test_no_larger_size_vouches_for_one_whose_own_answers_change() -> None:
    """Some models are worst in small batches: what was seen of a size itself goes before what holds above it."""
    guard = QualityGuard()
    compare(guard, 32, same=64)
    compare(guard, 4, same=24, changed=8)
    assert guard.verdict(4).kind == "unknown"
    assert not guard.may_grow(2, 4)
    assert guard.may_grow(2, 8)


def test_a_size_in_use_for_long_is_looked_at_itself() -> None:
    """That a larger one vouches for it is enough to go there, not to stay."""
    guard = QualityGuard()
    compare(guard, 32, same=64)
    assert wanted(guard, size=8, seen=2_000).size == 8
    guard.observe_batch(8, [0] * 8)
    young = guard.wants_audit(size=8, most=32, records_seen=500, anchors=64, spending=FREE)
    assert young is None


def test_a_size_that_is_not_answered_is_given_up_for_a_smaller_one() -> None:
    """Prose instead of answers at B=4 says nothing of B=3; and models change, so it is not for ever."""
    guard = QualityGuard()
    assert guard.silent_size() is None
    for size, most in ((32, 32), (8, 24), (4, 6)):
        assert wanted(guard, most=most).size == size
        guard.observe_unanswered(size, 16)
        assert guard.silent_size() == size
    plan = wanted(guard, most=3)
    assert (plan.kind, plan.size) == ("anchored", 3)
    compare(guard, 3, same=64)
    assert guard.may_grow(2, 3)
    wanted(guard, size=3, seen=5_000)
    assert guard.silent_size() is None


def passes(guard: QualityGuard, rng: random.Random, share: float) -> bool:
    """Whether any larger size is let through when all of them change that share of the answers."""
    anchors = 0
    while anchors <= 240:
        plan = guard.wants_audit(size=2, most=32, records_seen=100, anchors=anchors, spending=FREE)
        if plan is None:
            return False
        if plan.kind == "anchors":
            anchors += plan.records
        for _ in range(plan.records):
            if plan.kind == "repeat":
                guard.observe_audit("repeat", 1, 1, 0, 0)
            elif plan.kind == "anchored":
                guard.observe_audit("lone", plan.size, 1, 0, int(rng.random() < share))
        if guard.may_grow(2, 4):
            return True
    return False


def test_sizes_beyond_the_limit_are_let_through_in_few_runs() -> None:
    """Several bad sizes are looked at, and one run in twenty at the most may take any of them."""
    passed = sum(passes(QualityGuard(), random.Random(seed), 0.11) for seed in range(100))
    assert passed <= 5


def trial_plan(guard: QualityGuard, *, anchors: int = 64, most: int = 32) -> AuditPlan | None:
    return guard.wants_trial(most=most, anchors=anchors, spending=FREE)


def test_a_trial_looks_at_the_largest_size_alone() -> None:
    """A form that is not in use has to hold where there is most to gain; smaller sizes are not paid for."""
    guard = QualityGuard(on_trial=True)
    plan = trial_plan(guard)
    assert plan is not None
    assert (plan.kind, plan.size, plan.records) == ("anchored", 32, 64)
    compare(guard, 32, same=64)
    assert guard.held_size(32) == 32
    assert guard.held_size(24) == 24
    more = trial_plan(guard)
    assert more is not None
    assert more.kind == "anchors"  # it holds: what else is asked is for its price


def test_a_trial_ends_when_it_is_answered_badly() -> None:
    """Where more changed than is allowed, or nothing came back, that is the end; where it is close, more is asked."""
    changed, close, silent = (QualityGuard(on_trial=True) for _ in range(3))
    compare(changed, 32, same=50, changed=14)
    compare(close, 32, same=60, changed=4)
    silent.observe_unanswered(32, 16)
    assert trial_plan(changed) is None
    assert trial_plan(silent) is None
    assert changed.trial_failed(32)
    assert silent.trial_failed(32)
    assert not close.trial_failed(32)
    more = trial_plan(close)
    assert more is not None
    assert (more.kind, more.records) == ("anchors", 64)
    assert close.held_size(32) == 0
