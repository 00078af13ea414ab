"""Which records of a run store are to be asked again, and what a newer input leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engine.adapters.store import RunStore, SecondRun
from engine.adapters.stored import id_keys, newest_input
from engine.adapters.stored_second import had_by_second


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

    def note(self) -> dict[str, Any]:
        """As it is noted with a retry, to know the same one again."""
        return {
            "failed": self.failed,
            "kinds": sorted(self.kinds),
            "batch_size_above": self.batch_size_above,
            "keys": sorted(self.keys),
        }


class Marked(msgspec.Struct, frozen=True, kw_only=True):
    """Records that are marked to be asked again.

    :ivar counts: how many of each kind of failure, None for those that are done.
    :ivar second: the second model's settings in this run, and its name; None without one.
    :ivar of_second: of all, those whose answer is the second model's, which alone is asked for them.
    """

    counts: dict[str | None, int]
    second: SecondRun | None = None
    of_second: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.counts.values())


class Unfinished(msgspec.Struct, frozen=True, kw_only=True):
    """Retries with the same selection, one after the other, that were begun and not ended.

    :ivar runs: theirs, the newest first. What they answered is not asked again, nor what was done by another run since.
    """

    runs: tuple[int, ...]

    @property
    def since(self) -> int:
        """The run of the first of them."""
        return self.runs[-1]

    def condition(self) -> tuple[str, list[Any]]:
        """The condition on a row of answers that are left to be asked, and its values."""
        theirs = "SELECT r.id FROM runs r, json_each(?) one WHERE one.value IN (r.id, r.first_run)"
        left = f"run_id < ? AND redo <> 2 OR redo = 1 OR ok = 0 AND run_id NOT IN ({theirs})"
        return f" AND ({left})", [self.since, msgspec.json.encode(self.runs).decode()]


def unfinished_retry(store: RunStore, wanted: AnswerFilter, *, before: int | None = None) -> Unfinished | None:
    """The retry that this one goes on with; None, where the last one with this selection ended, or there was none.

    :param before: the run of this one, where it has begun.
    """
    found: list[int] = []
    rows = store.query(
        "SELECT id, status, config FROM runs WHERE first_run IS NULL AND (?1 IS NULL OR id < ?1) ORDER BY id DESC",
        (before,),
    )
    for id_, status, config in rows:
        if _again(config) == wanted.note():
            if status == "done":
                break
            found.append(id_)
    return Unfinished(runs=tuple(found)) if found else None


def _again(config: str) -> Any:
    """What the note of a run says of a selection."""
    try:
        return msgspec.json.decode(config, type=dict[str, Any]).get("again")
    except (msgspec.MsgspecError, TypeError, UnicodeError):
        return None


def answered_keys(store: RunStore, settings_id: int, given: str) -> list[str]:
    """Keys of the records, with an answer of any kind, that a person may mean by this id."""
    keys = id_keys(given)
    sql = f"SELECT DISTINCT key FROM answers WHERE settings_id = ? AND key IN ({', '.join('?' * len(keys))})"
    return [row[0] for row in store.query(sql, (settings_id, *keys))]


def has_answers(store: RunStore, settings: Sequence[int], wanted: AnswerFilter) -> bool:
    """Whether any answer is of that kind, whatever text of its record it answers.

    :param settings: of the model; and those of a second one.
    """
    condition, values = wanted.condition()
    sql = f"SELECT 1 FROM answers WHERE settings_id IN ({', '.join('?' * len(settings))}) AND {condition} LIMIT 1"
    return bool(store.query(sql, (*settings, *values)))


def mark_again(
    store: RunStore, settings_id: int, wanted: AnswerFilter, *, run_id: int, earlier: Unfinished | None = None
) -> Marked:
    """Mark answers to be asked again by a run whose input is noted.

    Only texts that stand in that very input are marked: an answer to another text of the same id is not asked again by
    it, and would stay marked for ever. Where the answer that counts is the second model's, that one is marked and the
    first model is not asked; where the second model failed, its failure is marked, and beside it the first model's
    answer if that is of the kind too.

    :param earlier: what this one goes on with: what has been answered since is left as it is.
    """
    condition, values = wanted.condition()
    condition += (
        " AND EXISTS (SELECT 1 FROM inputs i WHERE i.run_id = ? AND i.key = answers.key AND i.digest = answers.digest)"
    )
    values = [*values, run_id]
    if earlier is not None:
        left, of_left = earlier.condition()
        condition, values = condition + left, [*values, *of_left]
    second = store.second_run(run_id)
    if second is None:
        return Marked(counts=_mark(store, settings_id, condition, values))
    had, of_had = had_by_second("answers", second)
    of_first = (
        f"{condition} AND NOT ({had} AND EXISTS (SELECT 1 FROM answers b WHERE b.settings_id = ? "
        "AND b.key = answers.key AND b.digest = answers.digest AND b.ok = 1))"
    )
    counts = _mark(store, settings_id, of_first, [*values, *of_had, second.settings_id])
    had, of_had = had_by_second("a", second)
    behind = (
        "SELECT 1 FROM answers a WHERE a.settings_id = ? AND a.key = answers.key AND a.digest = answers.digest "
        f"AND {had}"
    )
    to_second = f"{condition} AND EXISTS ({behind})"
    to_second_values = [*values, settings_id, *of_had]
    # A record of which both are asked counts once, by what the first model had said.
    alone = _count(store, second.settings_id, f"{condition} AND EXISTS ({behind} AND a.redo = 0)", to_second_values)
    store.mark_redo(second.settings_id, to_second, to_second_values)
    for kind, count in alone.items():
        counts[kind] = counts.get(kind, 0) + count
    return Marked(counts=counts, second=second, of_second=sum(alone.values()))


def _mark(store: RunStore, settings_id: int, condition: str, values: Sequence[Any]) -> dict[str | None, int]:
    counts = _count(store, settings_id, condition, values)
    store.mark_redo(settings_id, condition, values)
    return counts


def _count(store: RunStore, settings_id: int, condition: str, values: Sequence[Any]) -> dict[str | None, int]:
    rows = store.query(
        f"SELECT error_kind, count(*) FROM answers WHERE settings_id = ? AND {condition} "
        "GROUP BY error_kind ORDER BY count(*) DESC",
        (settings_id, *values),
    )
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
    """Records of the input before this run's that have ended, and whose ids its own, noted already, does not hold.

    A list that a killed run left unfinished is no input: it lacks records itself.
    """
    rows = store.query("SELECT max(id) FROM runs WHERE id < ? AND inputs IS NOT NULL", (run_id,))
    if rows[0][0] is None:
        return 0
    rows = store.query(
        "SELECT count(*) FROM inputs i JOIN runs r ON r.id = i.run_id "
        "JOIN answers a ON a.settings_id = r.settings_id AND a.key = i.key AND a.digest = i.digest "
        "WHERE i.run_id = ? AND NOT EXISTS (SELECT 1 FROM inputs n WHERE n.run_id = ? AND n.key = i.key)",
        (rows[0][0], run_id),
    )
    return int(rows[0][0])
