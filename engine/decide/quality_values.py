"""What the guard of the labels says and asks for. See docs/design/quality.md."""

from __future__ import annotations

from typing import Literal

import msgspec

AuditKind = Literal["lone", "reordered", "repeat"]
PlanKind = Literal["anchors", "anchored", "reordered", "repeat", "lone"]
VerdictKind = Literal["holds", "changes", "worse", "collapsing", "unknown"]


class QualityVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What can be said of the labels at a batch size.

    :ivar kind: `holds`; `changes` (answers depend on their batch; worse or not, only gold tells); `worse` (by gold);
        `collapsing` (copying the label before, or falling into few labels); `unknown` (not enough seen).
    :ivar size: the rung that was judged.
    :ivar agreement: share of answers equal to the lone ones, with its bounds `low` and `high`; None: never compared.
    :ivar noise: share of lone answers that differ when asked twice; None: never asked twice.
    :ivar excess: disagreement beyond the noise, of the worse of lone and re-ordered asks, and its bounds.
    :ivar by_gold: whether gold decided.
    :ivar compared: records also asked alone. `reordered`, `repeats`, `gold`, `batches` count the other evidence.
    :ivar smallest_loss_seen: a loss of accuracy (0 to 1) above this would, in four runs of five, have shown as more
        changed answers than were seen, or in the gold; 1 where nothing was compared.
    :ivar gold_needed: records with gold, asked alone and at this size, that would show a loss of 2 points.
    :ivar sentence: one line for a person.
    """

    kind: VerdictKind
    size: int
    agreement: float | None
    low: float
    high: float
    noise: float | None
    excess: float
    excess_low: float
    excess_high: float
    by_gold: bool
    compared: int
    reordered: int
    repeats: int
    gold: int
    batches: int
    smallest_loss_seen: float
    gold_needed: int
    sentence: str


class CurveRow(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the report: one rung.

    :ivar reordered_agreement: share of answers equal in another order or company; None: never asked.
    :ivar accuracy: by gold, with its bounds; None without gold.
    :ivar same_as_before: share of answers equal to the one before, by position in the batch.
    :ivar equal_beyond_chance: equal pairs within batches less those across two batches: copying.
    :ivar commonest_share: share of the commonest answer.
    """

    verdict: QualityVerdict
    records: int
    reordered_agreement: float | None
    accuracy: float | None
    accuracy_low: float
    accuracy_high: float
    same_as_before: dict[str, float]
    equal_beyond_chance: float
    commonest_share: float


class AuditPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask next for the guard's sake. Call again when its answers were observed, or given up.

    Answers of all kinds but `anchors` are compared and never stored. The kinds:
    `anchors`: ask so many new records alone, as production, and remember them with their answers;
    `anchored`: ask so many anchors, not yet asked at this size, spread over `requests` full batches of `size`, shuffled
    and filled up with any finished records; observe the anchors only, as `lone`;
    `reordered`: ask so many records that were answered at this size in batches of it, in another order and company;
    `lone`: ask so many records that were answered at this size alone;
    `repeat`: ask so many anchors alone once more.

    :ivar requests: how many requests that makes.
    """

    kind: PlanKind
    size: int
    records: int
    requests: int
    reason: str


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """What the run has spent, and what its shares are of: what it has done, and what it is sure to do yet.

    :ivar audit_cost: of audits, and what anchors cost beyond their share of a batch; in any unit.
    :ivar cost_at_one: what the records would cost one a request, in the same unit.
    :ivar audit_requests: of audits, and those that anchors took beyond what batches would have.
    :ivar requests: those sent, and those that the rest of the input takes at the size in use.
    """

    audit_cost: float
    cost_at_one: float
    audit_requests: float
    requests: int


class AuditCount(msgspec.Struct, frozen=True, kw_only=True):
    """Records that were asked again, by kind, and gold answers compared."""

    lone: int
    reordered: int
    repeats: int
    gold: int
