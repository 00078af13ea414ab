"""Which records of a run store are to be asked again, and what a newer input leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engine.adapters.store import RunStore
from engine.adapters.stored import id_keys, newest_input


class AnswerFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which answers are to be asked again: those for which all that is given holds.

    :ivar kinds: of failures, any of them.
    :ivar keys: of records, any of them; empty for all.
    """

    failed: bool
    kinds: Sequence[str]
    batch_size_above: int | None
    keys: Sequence[str]

    def condition(self) -> tuple[str, list[Any]]:
        """The condition on a row of answers, and its values."""
        parts: list[str] = []
        values: list[Any] = []
        if self.failed or self.kinds:
            parts.append("ok = 0")
        if self.kinds:
            parts.append(f"error_kind IN ({', '.join('?' * len(self.kinds))})")
            values += self.kinds
        if self.batch_size_above is not None:
            parts.append("batch_size > ?")
            values.append(self.batch_size_above)
        if self.keys:
            parts.append(f"key IN ({', '.join('?' * len(self.keys))})")
            values += self.keys
        return " AND ".join(parts), values


def answered_keys(store: RunStore, settings_id: int, given: str) -> list[str]:
    """Keys of the records, with an answer of any kind, that a person may mean by this id."""
    keys = id_keys(given)
    sql = f"SELECT DISTINCT key FROM answers WHERE settings_id = ? AND key IN ({', '.join('?' * len(keys))})"
    return [row[0] for row in store.query(sql, (settings_id, *keys))]


def has_answers(store: RunStore, settings_id: int, wanted: AnswerFilter) -> bool:
    """Whether any answer is of that kind, whatever text of its record it answers."""
    condition, values = wanted.condition()
    sql = f"SELECT 1 FROM answers WHERE settings_id = ? AND {condition} LIMIT 1"
    return bool(store.query(sql, (settings_id, *values)))


def mark_again(store: RunStore, settings_id: int, wanted: AnswerFilter, *, run_id: int) -> dict[str | None, int]:
    """Mark answers to be asked again by a run whose input is noted; how many of each kind, None for those that are ok.

    Only texts that stand in that very input are marked: an answer to another text of the same id is not asked again by
    it, and would stay marked for ever.
    """
    condition, values = wanted.condition()
    condition += (
        " AND EXISTS (SELECT 1 FROM inputs i WHERE i.run_id = ? AND i.key = answers.key AND i.digest = answers.digest)"
    )
    values = [*values, run_id]
    rows = store.query(
        f"SELECT error_kind, count(*) FROM answers WHERE settings_id = ? AND {condition} "
        "GROUP BY error_kind ORDER BY count(*) DESC",
        (settings_id, *values),
    )
    store.mark_redo(settings_id, condition, values)
    return dict(rows)


def answered_beyond(store: RunStore, limit: int) -> bool:
    """Whether records of the newest input, after its first `limit`, have ended: a shorter output would lack them."""
    newest = newest_input(store)
    if newest is None:
        return False
    rows = store.query(
        "SELECT 1 FROM inputs i JOIN answers a ON a.settings_id = ? AND a.key = i.key AND a.digest = i.digest "
        "WHERE i.run_id = ? AND i.position >= ? LIMIT 1",
        (newest.settings_id, newest.id, limit),
    )
    return bool(rows)


def has_inputs(store: RunStore, run_id: int, *, usable: bool = False) -> bool:
    """Whether any record of a run's input is noted; ``usable``: one that could be asked for."""
    which = "AND key IS NOT NULL AND error IS NULL" if usable else ""
    return bool(store.query(f"SELECT 1 FROM inputs WHERE run_id = ? {which} LIMIT 1", (run_id,)))


def left_behind(store: RunStore, run_id: int) -> int:
    """Records of the input before this run's that have ended, and whose ids its own, noted already, does not hold."""
    rows = store.query("SELECT max(run_id) FROM inputs WHERE run_id < ?", (run_id,))
    if rows[0][0] is None:
        return 0
    rows = store.query(
        "SELECT count(*) FROM inputs i JOIN runs r ON r.id = i.run_id "
        "JOIN answers a ON a.settings_id = r.settings_id AND a.key = i.key AND a.digest = i.digest "
        "WHERE i.run_id = ? AND NOT EXISTS (SELECT 1 FROM inputs n WHERE n.run_id = ? AND n.key = i.key)",
        (rows[0][0], run_id),
    )
    return int(rows[0][0])
