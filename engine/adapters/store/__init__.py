"""The run store, one SQLite file: the truth that output files are made from. See docs/design/store.md."""

from engine.adapters.store.in_flight import SentRow
from engine.adapters.store.opening import open_store, read_store, temporary_store
from engine.adapters.store.rows import (
    ANSWER_COLUMNS,
    RAW_LIMIT,
    AnswerRow,
    BallotRow,
    CallRow,
    Duplicate,
    Found,
    InputRow,
    OutputRow,
    SecondRun,
    Spent,
    read_answer,
)
from engine.adapters.store.run_store import RunStore
from engine.adapters.store.salvage import Saved, salvage
from engine.adapters.store.schema import APPLICATION_ID, VERSION
from engine.adapters.store.translate import Broken, NotByRun

__all__ = [
    "ANSWER_COLUMNS",
    "APPLICATION_ID",
    "RAW_LIMIT",
    "VERSION",
    "AnswerRow",
    "BallotRow",
    "Broken",
    "CallRow",
    "Duplicate",
    "Found",
    "InputRow",
    "NotByRun",
    "OutputRow",
    "RunStore",
    "Saved",
    "SecondRun",
    "SentRow",
    "Spent",
    "open_store",
    "read_answer",
    "read_store",
    "salvage",
    "temporary_store",
]
