"""How many accepted batches look as if one record had decided for all of them: for a warning, not a judgement.

The watch looks into a batch only at odds that pay for themselves, and believes soon that a corpus makes batches alike.
So much is accepted that a person would look at: batches in which all answers are one label, which chance makes never,
and which those before and after do not share, as they do in a sorted corpus.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

_LEAST_SIZE = 4
_BY_CHANCE = 1e-4  # that all of a batch are alike, by the shares of the run so far: rarer than one run in fifty meets
_SETTLED = 60  # labels, from which on the shares of a run say something
_TOLD = 3  # batches
_TOLD_SHARE = 0.02
_SHARED = 0.5  # of the batch before or after, with the same label: then it is the corpus that is alike


class AlikeBatches:
    """Counts them. Pure.

    :ivar batches: that were looked at.
    :ivar alike: of those, with one label for all that neither chance nor their place in the input explains.
    """

    def __init__(self) -> None:
        self.batches = self.alike = 0
        self._shares: Counter[Hashable] = Counter()
        self._before: Sequence[Hashable] = ()
        self._open: Hashable | None = None  # the label of the last batch, while the next one decides

    def note(self, labels: Sequence[Hashable]) -> None:
        """The answers of a batch that was accepted whole, in the order in which batches came back."""
        if len(labels) < _LEAST_SIZE:
            return
        self.batches += 1
        if self._open is not None:
            self.alike += _share(labels, self._open) < _SHARED
            self._open = None
        if self._is_odd(labels):
            self._open = labels[0]
        self._shares.update(labels)
        self._before = labels

    def _is_odd(self, labels: Sequence[Hashable]) -> bool:
        first = labels[0]
        if self._shares.total() < _SETTLED or any(label != first for label in labels):
            return False
        share = (self._shares[first] + 1.0) / (self._shares.total() + 1.0)
        return share ** len(labels) < _BY_CHANCE and _share(self._before, first) < _SHARED

    @property
    def sentence(self) -> str:
        """What to tell at the end of a run; nothing where they are few."""
        if self.alike < max(_TOLD, _TOLD_SHARE * self.batches):
            return ""
        return (
            f"{self.alike:,} of {self.batches:,} batches came out with one label for all, and those before and after "
            "did not: one record may have decided for the others, or alike records stand together in the input; "
            "--neighbour-guard canaries looks into all"
        )


def _share(labels: Sequence[Hashable], label: Hashable) -> float:
    return sum(one == label for one in labels) / max(1, len(labels))
