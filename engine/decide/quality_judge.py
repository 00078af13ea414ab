"""Judges the labels at each batch size by what was answered. See docs/design/quality.md.

Everything is judged by rungs, the powers of two. `quality` says what to ask to know more.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import msgspec

from engine.decide.gold_test import LEAST_LOSS, GoldTest, Shown
from engine.decide.gold_values import Ride
from engine.decide.quality_evidence import MAX_LOSS, Evidence, Labels
from engine.decide.quality_stats import Count, Interval, gold_needed, least_share_above, loss_seen_by_gold
from engine.decide.quality_values import AuditCount, AuditKind, CurveRow, QualityVerdict, VerdictKind

DEFAULT_MAX_DISAGREEMENT = 0.10
UNJUDGED_SIZE = 5
"""How far B may grow where answers cannot be compared: `batch_size.DEFAULT_BATCH_SIZE`, for its reasons."""

FIRST_LOOK = 24
"""Comparisons before anything follows from a hunch."""

BAD = ("changes", "worse", "collapsing")
"""Verdicts that bar a size."""

MOST_REPEATS = 160
"""Lone asks that are repeated for the noise, at the most."""

_ALPHA_BAD = 0.05  # of ever calling a size bad that is not, over all sizes, for each reason: changes, collapsing, worse
_ALPHA_HOLDS = 0.05  # of letting a size through that changes more than allowed
_LOOKS = 4  # sizes looked at that are bad, at the most: the largest, and one for each halving of what is left
_ALPHA_PASS = _ALPHA_HOLDS / _LOOKS
_SIGNALS = 2  # for each reason: alone and reordered, copying and collapse
_RUNGS = 8  # 2 to 256
_SILENT = 0.5  # of the anchors asked at a size not answered, of 16 or more: the format fails there, whatever the labels
_SILENT_LOOKS = 16
_ALPHA_NAME = 0.02  # of calling collapse what only changes: the size is barred already
_ALPHA_NOISE = 0.2  # of the error of an excess goes to the bound of the noise, the rest to that of the disagreement


def rung_of(size: int) -> int:
    """The least power of two that is not below the size."""
    return 1 << max(0, size - 1).bit_length()


class Judge:
    """Takes what was answered; says what each size does to the labels, and how far B may go."""

    def __init__(
        self, *, max_disagreement: float = DEFAULT_MAX_DISAGREEMENT, judges: bool = True, start: int = 2,
        on_trial: bool = False,
    ) -> None:  # fmt: skip
        """
        :param max_disagreement: share of answers that may differ from the lone ones beyond the noise.
        :param judges: whether answers can be compared (see `quality_evidence.can_be_judged`).
        :param start: the size that is used before anything is known.
        :param on_trial: of an answer form that is not in use: the largest size alone decides (`wants_trial`).
        """
        self._alpha_pass = _ALPHA_HOLDS if on_trial else _ALPHA_PASS
        self._most = max_disagreement
        self._judges = judges
        self._start = start
        self._rungs: dict[int, Evidence] = {}
        self._noise = Count()  # hits: another lone answer than the first time
        self._repeats: list[bool] = []  # the same, one by one
        self._lost: dict[int, Count] = {}  # by size; hits: an anchor that was not answered in a batch of it
        self.gold = GoldTest()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(allowed_size={self.allowed_size()}, noise={self._noise}, rungs={self._rungs})"

    # Observations

    def observe_batch(self, size: int, labels: Labels) -> None:
        """The accepted answers of a production reply, in the order in which its (shuffled) records were sent."""
        if self._judges:
            self._at(size).add_batch(labels)

    def observe_audit(self, kind: AuditKind, size: int, position: int, first: Hashable, second: Hashable) -> None:
        """A record that was asked twice.

        :param size: of the batch; 1 for `repeat`.
        :param position: in that batch, from 1.
        :param first: its answer in the batch (for `reordered` and `repeat` the earlier one).
        :param second: its answer alone, or in the other batch.
        """
        if kind == "repeat":
            self._noise.add(first != second)
            if len(self._repeats) < MOST_REPEATS:
                self._repeats.append(first != second)
            for rung in self._rungs:
                self._note_holding(rung)
        elif kind == "lone":
            self._at(size).add_alone(second, first)
            self._lost.setdefault(size, Count()).add(False)
            self._note_holding(rung_of(size))
        else:
            self._at(size).reordered.add(first != second)

    def observe_unanswered(self, size: int, records: int = 1) -> None:
        """So many anchors were asked in a batch of the size and not answered; or there are none left to ask."""
        for _ in range(records):
            self._lost.setdefault(size, Count()).add(True)

    def observe_gold(self, size: int, position: int, correct: bool, *, alone: bool | None = None) -> None:
        """A record with gold was answered.

        :param alone: whether its lone answer was right, where there is one: pairs say far more than two accuracies.
        """
        self._at(size).add_gold(correct, alone)
        if alone is not None:
            self.gold.add(rung_of(size), [float(alone) - float(correct)])

    def observe_gold_batch(self, size: int, rides: Sequence[Ride], *, sweep: int = 1) -> Shown | None:
        """The records with gold of one batch. What they show, if they show a loss that was not known.

        :param sweep: which pass through the gold; only the first one is of records that are new.
        """
        if sweep == 1:
            for ride in rides:
                alone = None if ride.alone is None else ride.alone == 1.0
                self._at(size).add_gold(ride.right == 1.0, alone)
        pairs = [ride.alone - ride.right for ride in rides if ride.alone is not None]
        return self.gold.add(rung_of(size), pairs, sweep=sweep)

    def _note_holding(self, rung: int) -> None:
        """Once shown is shown: the bound is right at all looks at once. Later ones may still show that it is bad."""
        seen = self._rungs[rung]
        if seen.alone.count.n and self._lone_excess(rung, self._alpha_pass).high < self._most:
            seen.held = True

    def _at(self, size: int) -> Evidence:
        return self._rungs.setdefault(rung_of(size), Evidence(most=self._most))

    # Judgement

    def verdict(self, size: int) -> QualityVerdict:
        """What can be said of this size. Where a larger size holds and nothing speaks against this one, it holds."""
        rung = rung_of(size)
        verdict = self._judged(rung)
        larger = self._vouching(rung) if verdict.kind == "unknown" else None
        if larger is not None:
            verdict = msgspec.structs.replace(verdict, kind="holds", sentence=f"B={rung}: holds, as B={larger} does.")
        if size == rung:
            return verdict
        # The size that a user set is the one to speak of; what was seen is of all sizes of its rung.
        named = f"B={size} (with {rung // 2 + 1} to {rung}):"
        return msgspec.structs.replace(verdict, sentence=verdict.sentence.replace(f"B={rung}:", named, 1))

    def _final_kind(self, rung: int) -> VerdictKind:
        kind, _ = self._kind(rung)
        return "holds" if kind == "unknown" and self._vouching(rung) is not None else kind

    def _vouching(self, rung: int) -> int | None:
        """The least larger rung that holds; None as well where what was seen of this one itself speaks against it."""
        if self._speaks_against(rung):
            return None
        holding = (larger for larger in self._rungs if larger > rung and self._kind(larger)[0] == "holds")
        return min(holding, default=None)

    def _kind(self, rung: int) -> tuple[VerdictKind, bool]:
        """The verdict, and whether it is gold's. Gold goes first: it is the only witness of right and wrong."""
        if rung == 1:
            return "holds", False
        if self.gold.bad_from is not None and rung >= self.gold.bad_from:
            return "worse", True
        seen = self._rungs.get(rung)
        if seen is None:
            return "unknown", False
        bad = _ALPHA_BAD / (_SIGNALS * _RUNGS)
        if seen.no_worse.won(self._alpha_pass):
            return "holds", True
        if not self._judges:
            return "unknown", False
        if seen.copying.won(bad) or seen.collapse.won(bad):
            return "collapsing", False
        if seen.alone.beyond(self._repeats, bad) or seen.reordered.beyond(self._repeats, bad):
            collapses = seen.copying.won(_ALPHA_NAME) or seen.collapse.won(_ALPHA_NAME)
            return "collapsing" if collapses else "changes", False
        return ("holds" if seen.held else "unknown"), False

    def _lone_excess(self, rung: int, alpha: float) -> Interval:
        # Without repeats the noise is in 0 to 1: it then helps no size through, and calls none bad.
        return _disagreement(self._rungs[rung].alone.count, alpha).minus(self._noise.within(_ALPHA_NOISE * alpha))

    def _excess(self, rung: int, alpha: float) -> Interval:
        """Of lone and re-ordered asks the worse."""
        lone, reordered = self._lone_excess(rung, alpha), self._rungs[rung].reordered
        other = _disagreement(reordered.count, alpha).minus(self._noise.within(_ALPHA_NOISE * alpha))
        return Interval(low=max(lone.low, other.low), high=lone.high)

    def _judged(self, rung: int) -> QualityVerdict:
        seen = self._rungs.get(rung) or Evidence(most=self._most)
        kind, by_gold = self._kind(rung)
        changed = seen.alone.count.within(_ALPHA_HOLDS)
        excess = self._excess(rung, _ALPHA_HOLDS) if rung in self._rungs else Interval(low=-1.0, high=1.0)
        worst = max(seen.alone.count.share, seen.reordered.count.share)
        discordant = seen.discordant if seen.lost.n >= 30 else seen.alone.count.share or seen.reordered.count.share
        verdict = QualityVerdict(
            kind=kind,
            size=rung,
            agreement=1.0 - seen.alone.count.share if seen.alone.count.n else None,
            low=1.0 - changed.high,
            high=1.0 - changed.low,
            noise=self._noise.share if self._noise.n else None,
            excess=max(0.0, worst - self._noise.share),
            excess_low=max(0.0, excess.low),
            excess_high=min(1.0, excess.high),
            by_gold=by_gold,
            compared=seen.alone.count.n,
            reordered=seen.reordered.count.n,
            repeats=self._noise.n,
            gold=seen.gold.n,
            batches=seen.batches,
            smallest_loss_seen=self._smallest_loss(seen, discordant),
            gold_needed=gold_needed(max(discordant, self._noise.share), MAX_LOSS),
            sentence="",
        )
        return msgspec.structs.replace(verdict, sentence=self._sentence(verdict, seen.lost.share - seen.gained.share))

    def _smallest_loss(self, seen: Evidence, discordant: float) -> float:
        """A loss needs at least as many changed answers, so a larger one would have shown as more of them."""
        by_proxy = least_share_above(seen.alone.count.hits, seen.alone.count.n)
        return min(by_proxy, loss_seen_by_gold(discordant, seen.lost.n))

    def _sentence(self, verdict: QualityVerdict, loss: float) -> str:
        """:param loss: of accuracy, by the pairs of gold at this size, as an estimate."""
        pairs = self._rungs[verdict.size].lost.n if verdict.size in self._rungs else 0
        said = self._said(verdict)
        if pairs < FIRST_LOOK or loss < LEAST_LOSS or verdict.by_gold:
            return said
        likely = f"a loss of {100 * loss:.1f} points is likely by gold, not shown yet ({pairs} pairs)."
        return f"B={verdict.size}: {likely}" if verdict.gold and not verdict.compared else f"{said[:-1]}; {likely}"

    def _said(self, verdict: QualityVerdict) -> str:
        at = f"B={verdict.size}"
        if verdict.size == 1:
            return f"{at}: one record a request is what all others are held against."
        changed = f"{verdict.excess:.0%} of the answers change with their batch (noise taken off)"
        match verdict.kind:
            case "holds" if verdict.by_gold:
                return f"{at}: holds, by {verdict.gold} answers with gold."
            case "holds":
                return f"{at}: holds; a loss below {verdict.smallest_loss_seen:.1%} would not have been seen."
            case "worse":
                return f"{at}: worse than one record a request, by {verdict.gold} answers with gold."
            case "collapsing":
                return f"{at}: copying or collapsing: equal answers stand together more than chance allows."
            case "changes":
                return (
                    f"{at}: {changed}; better or worse, this run can't tell without gold. "
                    f"About {verdict.gold_needed:,} records with gold would show a loss of 2 points."
                )
            case "unknown":
                if not self._judges and not verdict.gold:
                    return f"{at}: can't be judged: the task has no labels to compare, only free text or numbers."
                if verdict.gold and not verdict.compared:
                    return (
                        f"{at}: no loss is shown by {verdict.gold} answers with gold; one below "
                        f"{verdict.smallest_loss_seen:.1%} would not have been seen."
                    )
                if not verdict.compared:
                    return f"{at}: nothing was compared."
                return (
                    f"{at}: not shown to hold: {1.0 - verdict.high:.0%} to {1.0 - verdict.low:.0%} of the answers "
                    f"differ from the lone ones ({verdict.compared} compared; allowed beyond noise: {self._most:.0%})."
                )

    def _speaks_against(self, rung: int) -> bool:
        """Whether more answers changed than are allowed; that may be chance yet."""
        own = self._rungs[rung].alone.count if rung in self._rungs else Count()
        return own.n >= FIRST_LOOK and own.share - self._noise.share > self._most

    # What follows for B

    def allowed_size(self) -> int | None:
        """The cap that the labels set at present; None: none known. Below the least bad rung that gold does not excuse.

        1 where even two records a request change too much.
        """
        kinds = {rung: self._kind(rung) for rung in self._rungs}
        excused = max((rung for rung, kind in kinds.items() if kind == ("holds", True)), default=0)
        bad = [rung for rung, (kind, _) in kinds.items() if kind in BAD and (rung > excused or kind == "worse")]
        return min(bad) // 2 if bad else None

    def silent_size(self) -> int | None:
        """The least size whose audits were mostly not answered; None: none known. Forgotten when the records double."""
        return min(self._silent_sizes(), default=None)

    def _silent_sizes(self) -> list[int]:
        return [size for size, lost in self._lost.items() if lost.n >= _SILENT_LOOKS and lost.share > _SILENT]

    def may_grow(self, size: int, to: int) -> bool:
        """Whether B may go from one size to another: it was looked at, by audits or gold, and holds."""
        cap = self.allowed_size()
        if to <= size or to <= min(self._start, cap or self._start):
            return True
        unjudged = not self._judges and to <= UNJUDGED_SIZE
        return (cap is None or to <= cap) and (unjudged or self._final_kind(rung_of(to)) == "holds")

    # For the report

    def records_from(self, rung: int) -> int:
        """Records of production that were answered in batches of this rung and above."""
        return sum(seen.records for at, seen in self._rungs.items() if at >= rung)

    def curve(self) -> list[CurveRow]:
        """One row for each rung that was used or looked at, smallest first."""
        return [self._row(rung) for rung in sorted(self._rungs)]

    def _row(self, rung: int) -> CurveRow:
        seen = self._rungs[rung]
        accuracy = seen.gold.within(_ALPHA_HOLDS, rare=False)
        return CurveRow(
            verdict=self.verdict(rung),
            records=seen.records,
            reordered_agreement=1.0 - seen.reordered.count.share if seen.reordered.count.n else None,
            accuracy=seen.gold.share if seen.gold.n else None,
            accuracy_low=accuracy.low,
            accuracy_high=accuracy.high,
            same_as_before={name: count.share for name, count in seen.same_as_before.items() if count.n},
            equal_beyond_chance=seen.copying.mean,
            commonest_share=seen.commonest_share,
        )

    def cost(self) -> AuditCount:
        """What was asked again, in records; the caller knows the price of each."""
        rungs = self._rungs.values()
        return AuditCount(
            lone=sum(seen.alone.count.n for seen in rungs),
            reordered=sum(seen.reordered.count.n for seen in rungs),
            repeats=self._noise.n,
            gold=sum(seen.gold.n for seen in rungs),
        )


def _disagreement(count: Count, alpha: float) -> Interval:
    return count.within((1.0 - _ALPHA_NOISE) * alpha)
