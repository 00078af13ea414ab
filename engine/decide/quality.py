"""Guards the labels, not the format: which batch sizes leave the answers what they are. See docs/design/quality.md.

A size is looked at before it is used: records whose lone answer is known are asked again in batches of a larger size,
and B grows only to what holds. The largest is looked at first: it takes the fewest requests, and what holds there holds
below. Everything is judged by rungs, the powers of two.
"""

from __future__ import annotations

from engine.decide.quality_evidence import Evidence
from engine.decide.quality_judge import (
    BAD,
    DEFAULT_MAX_DISAGREEMENT,
    FIRST_LOOK,
    MOST_REPEATS,
    UNJUDGED_SIZE,
    Judge,
    rung_of,
)
from engine.decide.quality_values import AuditPlan, PlanKind, Spending

__all__ = ["DEFAULT_MAX_DISAGREEMENT", "UNJUDGED_SIZE", "QualityGuard", "rung_of"]

_ANCHORS = 64  # four full requests; none of 57 changed shows that less than 0.10 do
_MORE_ANCHORS = 16
_MORE_ON_TRIAL = 64
_MOST_ANCHORS = 240  # what this many do not settle is near the limit, and is not grown to
_MOST_ON_TRIAL = 320  # one size only is looked at, and what there is to gain is large
_REPEATS = 8
_PER_BATCH = 16  # anchors in a batch, the rest is filling: answers of one batch go wrong together
_AT_ONCE = 4  # requests of one plan, so that audits do not hold the window
_MONITOR_FIRST = 1000  # records after which a size in use is looked at again, and whenever they have doubled
_MONITOR_LONE = 8
_ANCHOR = 0.5  # of a request: an anchor is an answer too, and at B=2 takes half a request more
_GRACE = 8  # audit requests before the shares are held to: a start needs some
_REQUEST_SHARE = 0.09  # a tenth is promised
_COST_SHARE = 0.045  # a twentieth is promised


class QualityGuard(Judge):
    """A judge that says as well what to ask to know more."""

    def __init__(
        self, *, max_disagreement: float = DEFAULT_MAX_DISAGREEMENT, judges: bool = True, start: int = 2,
        on_trial: bool = False,
    ) -> None:  # fmt: skip
        """See `Judge`."""
        super().__init__(max_disagreement=max_disagreement, judges=judges, start=start, on_trial=on_trial)
        self._most_anchors = _MOST_ON_TRIAL if on_trial else _MOST_ANCHORS
        self._more_anchors = _MORE_ON_TRIAL if on_trial else _MORE_ANCHORS
        self._lost_since = 0
        self._monitored = 0
        self._due: list[PlanKind] = []

    def wants_audit(
        self, *, size: int, most: int, records_seen: int, anchors: int, spending: Spending
    ) -> AuditPlan | None:
        """What to ask next, if anything; None when the answer is clear or the price is used up.

        :param size: in use at present.
        :param most: that may ever be used.
        :param records_seen: answered so far.
        :param anchors: records remembered with their lone answers.
        """
        if not self._judges:
            return None
        if records_seen >= 2 * self._lost_since:
            self._lost, self._lost_since = {}, max(_MONITOR_FIRST, records_seen)
        plan = self._wanted(size, most, records_seen, anchors)
        if plan is None or not _is_affordable(plan, spending):
            return None
        if plan.kind in self._due:
            self._due.remove(plan.kind)
        return plan

    def wants_trial(self, *, most: int, anchors: int, spending: Spending) -> AuditPlan | None:
        """What to ask next of the largest size alone, of an answer form that is not in use; None when it is clear.

        A glance: where the first comparisons speak against it, nothing is spent on smaller sizes. Where it holds, more
        is asked as long as somebody asks: its price may not be clear.
        """
        rung = rung_of(most)
        if not self._judges or self.trial_failed(most):
            return None
        plan = self._look_at(rung, most, anchors)
        return plan if _is_affordable(plan, spending) else None

    def trial_failed(self, most: int) -> bool:
        """Whether the largest size will not be shown to hold."""
        rung = rung_of(most)
        silent = any(rung_of(size) == rung for size in self._silent_sizes())
        return (
            silent
            or self._speaks_against(rung)
            or (self._final_kind(rung) != "holds" and not self._is_open(rung, most))
        )

    def held_size(self, most: int) -> int:
        """The largest size that is shown to hold and not capped, up to the most; 0 for none."""
        cap = self.allowed_size()
        sizes = (min(rung, most) for rung in self._rungs if rung // 2 < most and self._final_kind(rung) == "holds")
        return max((size for size in sizes if size > 1 and (cap is None or size <= cap)), default=0)

    def _wanted(self, size: int, most: int, records_seen: int, anchors: int) -> AuditPlan | None:
        target = self._to_examine(size, most, records_seen, anchors)
        if target is None:
            return self._monitoring(rung_of(size), records_seen)
        return self._look_at(target, most, anchors)

    def _look_at(self, target: int, most: int, anchors: int) -> AuditPlan:
        """What to ask next to know of a rung."""
        if self._needs_noise(self._at(target)):
            return _plan("repeat", 1, min(_REPEATS, anchors), "how often a lone answer differs when asked twice")
        if anchors < _ANCHORS:
            return _plan("anchors", 1, _ANCHORS - anchors, "lone answers to compare with")
        at, left = min(target, most), anchors - self._looks(target, most)
        if left > 0:
            return _plan("anchored", at, left, f"whether answers at B={at} are the lone ones")
        return _plan("anchors", 1, self._more_anchors, "more lone answers to compare with")

    def _to_examine(self, size: int, most: int, records_seen: int, anchors: int) -> int | None:
        """The rung to look at next: a larger one while there is one to gain, else the one in use."""
        rung, cap = rung_of(size), self.allowed_size()
        larger = self._to_look_for(rung, most if cap is None else min(most, cap), anchors)
        if larger is not None:
            return larger
        if rung == 1 or (cap is not None and rung > cap):
            return None
        # A size that is used for long is looked at itself, and not only vouched for by a larger one.
        unseen = records_seen >= _MONITOR_FIRST and self._looks(rung, most) < _ANCHORS
        return rung if self._is_open(rung, most) or (unseen and self._kind(rung)[0] == "unknown") else None

    def _to_look_for(self, rung: int, most: int, anchors: int) -> int | None:
        """The rung above the present one that is looked at next; None where all is known or given up.

        The top first: 64 comparisons take four requests there and sixteen at B=4, and what holds there holds below.
        Where it is not clear at once, what is left is halved; so few of the sizes that are looked at are bad ones. New
        anchors are bought only for the least rung that is not clear: of those above it more will have changed.
        """
        above = [rung << step for step in range(1, (rung_of(most) // rung).bit_length())]
        held = max((one for one in above if self._final_kind(one) == "holds"), default=rung)
        left = [one for one in above if one > held]
        if not left:
            return None
        enough = max(anchors, _ANCHORS)
        first = next((index for index, one in enumerate(left) if not self._is_promising(one, enough)), None)
        if first is None:
            return left[-1]
        if first > 0:
            return left[(first - 1) // 2]
        return left[0] if self._is_open(left[0], most) else None

    def _is_promising(self, rung: int, enough: int) -> bool:
        """Whether the anchors that there are might let it through, of which so many are enough."""
        silent = any(rung_of(size) == rung for size in self._silent_sizes())
        return not silent and self._looks(rung, rung) < enough and self._is_open(rung, rung)

    def _looks(self, rung: int, most: int) -> int:
        """Anchors that were asked at a rung, in batches of no more records; answered or not."""
        seen = self._rungs.get(rung)
        lost = sum(lost.hits for size, lost in self._lost.items() if rung_of(size) == rung and size <= most)
        return lost + (0 if seen is None else seen.alone.count.n)

    def _is_open(self, rung: int, most: int) -> bool:
        """Whether more of the same might still settle it."""
        return self._looks(rung, most) < self._most_anchors and self._final_kind(rung) == "unknown"

    def _needs_noise(self, seen: Evidence) -> bool:
        """Repeats are bought only where answers differ: where none do, the noise does not matter."""
        differs = max(seen.alone.count.share, seen.reordered.count.share) > self._most
        enough = min(MOST_REPEATS, max(seen.alone.count.n, seen.reordered.count.n))
        return differs and max(seen.alone.count.n, seen.reordered.count.n) >= FIRST_LOOK and self._noise.n < enough

    def _monitoring(self, rung: int, records_seen: int) -> AuditPlan | None:
        """A size in use is looked at again whenever the records have doubled: corpora and models drift."""
        if rung == 1 or self._kind(rung)[0] in BAD:
            return None
        if self._needs_noise(self._at(rung)):
            return _plan("repeat", 1, _REPEATS, "how often a lone answer differs when asked twice")
        if not self._due and records_seen >= max(_MONITOR_FIRST, 2 * self._monitored):
            self._monitored = records_seen
            self._due = ["reordered", "lone"]
        if not self._due:
            return None
        kind = self._due[-1]
        records = _MONITOR_LONE if kind == "lone" else rung
        return _plan(kind, rung, records, f"whether B={rung} still holds")


def _plan(kind: PlanKind, size: int, records: int, reason: str) -> AuditPlan:
    per_request = {"anchored": min(size, _PER_BATCH), "reordered": size}.get(kind, 1)
    if kind == "anchored":
        records = min(records, _AT_ONCE * per_request)
    return AuditPlan(kind=kind, size=size, records=records, requests=-(-records // per_request), reason=reason)


def _is_affordable(plan: AuditPlan, spending: Spending) -> bool:
    if spending.audit_requests == 0.0:
        return True  # the first anchors: without them nothing can be known, and they are production too
    requests = spending.audit_requests + plan.requests * (_ANCHOR if plan.kind == "anchors" else 1.0)
    if requests <= _GRACE:
        return True
    costs_too_much = spending.audit_cost > _COST_SHARE * spending.cost_at_one
    return not costs_too_much and requests <= _REQUEST_SHARE * spending.requests
