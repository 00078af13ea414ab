"""A corpus as a plan looks at it: how many records, how many different ones, and how many tokens they have."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable

import msgspec

from engine.decide.distinct_sample import DistinctSample
from engine.decide.estimates import ENTRY_TOKENS
from engine.decide.forecast import Corpus
from engine.decide.neighbours import SCREEN_SHARE
from engine.decide.neighbours_screen import speaks_of_others
from engine.decide.prompts import input_text
from engine.decide.records import RecordReader
from engine.vocabulary.errors import InputError
from engine.vocabulary.task import Task
from engine.vocabulary.values import BadRecord, RawRecord, Record

_SHOWN_PROBLEMS = 3


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What came of reading it once.

    :ivar bad: records that cannot be asked about; `problems` are the first of them, in words.
    :ivar found: entry tokens of the inputs that were looked for, by digest.
    """

    corpus: Corpus
    bad: int
    problems: list[str]
    found: dict[bytes, int]


def count_corpus(
    raws: Iterable[RawRecord], task: Task, count: Callable[[str], int], *, name: str, most: int, deduplicate: bool,
    look_for: Collection[bytes] = (), screens: bool = False,
) -> Counted:  # fmt: skip
    """Read a source once, and count the tokens of a bounded number of different inputs. Blocks.

    :param count: tokens of a text.
    :param most: inputs whose tokens are kept; where there are more, they are a fair sample.
    :param deduplicate: identical inputs are asked once.
    :param screens: texts that give orders about other records are asked alone.
    :raises InputError: it holds no record that could be asked about.
    """
    read, sample = RecordReader(task).read, DistinctSample(most=most)
    bad = suspected = 0
    problems: list[str] = []
    found: dict[bytes, int] = {}
    for raw in raws:
        record = read(raw)
        if isinstance(record, BadRecord):
            bad += 1
            problems += [f"line {record.line}: {record.message}"] if len(problems) < _SHOWN_PROBLEMS else []
            continue
        suspected += screens and speaks_of_others(record.input)
        digest = record.digest if deduplicate else _of_its_own(record)
        looked_for, wanted = record.digest in look_for, sample.wants(digest)
        if not (wanted or looked_for):
            continue
        tokens = count(input_text(record.input)) + ENTRY_TOKENS
        if looked_for:
            found[record.digest] = tokens
        if wanted:
            sample.add(digest, tokens)
    if not sample.records:
        raise InputError(f"{name} holds no record that could be asked about{'; ' + problems[0] if problems else ''}")
    corpus = Corpus(
        records=sample.records,
        asked=sample.distinct,
        entry_tokens=sample.sizes,
        deviation=sample.total_deviation(),
        alone_share=share if (share := suspected / sample.records) <= SCREEN_SHARE else 0.0,
    )
    return Counted(corpus=corpus, bad=bad, problems=problems, found=found)


def _of_its_own(record: Record) -> bytes:
    """Copies are asked again, so each place in the input counts."""
    return hashlib.blake2b(record.digest + record.position.to_bytes(8, "big"), digest_size=8).digest()
