"""What a store holds as rows of an output: the newest run's input, in its order, as far as it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from engine.adapters.files import OutputRow, write_rows
from engine.adapters.store import RunStore
from engine.adapters.stored import InputList, StoredRun, answers, input_count, newest_list, runs
from engine.run.corpus import answer_row, output_rows
from engine.vocabulary.errors import StoreError


def write_newest(
    store: RunStore, path: str, *, csv_safe: bool = False, tell: Callable[[str], None] | None = None
) -> int:
    """Write what is done so far; the number of rows. Also while a run writes to the store.

    The newest run whose list of inputs is complete decides which records, and in which order; before it a stream that
    goes on, with what has come so far. A store that only single records of a program went through has no such list:
    then all answers are written, by id.

    :param tell: gets a sentence, where the newest run is not the one that is written or its list may lack records.
    :raises StoreError: the store holds no run, no list of an input though it holds answers, or is damaged: what would
        be written lacked rows, perhaps in place of a file that has them.
    """
    store.check_whole()  # a page that is out of its place would be rows that are silently missing
    newest = newest_list(store)
    run = next(iter(runs(store, newest=1)), None) if newest is None else newest.run
    if run is None:
        raise StoreError(f"{store.path} holds no run, so there is nothing to write")
    if _is_unlisted(store, run, newest):
        raise StoreError(
            f"{store.path} holds answers, but not which records its newest run read (a salvaged store does not), so "
            "nothing was written. Run the same `annotate run` with this --store first: it notes the input again, and "
            "asks for nothing that is answered"
        )
    if newest is not None:
        _check_list(store, newest)
        if tell is not None and (said := _told(newest)):
            tell(said)
    return write_rows(path, _rows(store, run), fields=list(run.task.fields), csv_safe=csv_safe)


def _told(newest: InputList) -> str | None:
    if newest.goes_on:
        return "a stream goes on: written is what has come of it so far"
    if newest.inputs is None:
        return "the run was killed before its input had ended: written is what it had noted by then"
    if newest.passed_over is None:
        return None
    return (
        f"run {newest.passed_over} ended before its list of the input was complete, or is still at it: written "
        f"are the records of run {newest.run.id}. The same `annotate run` goes on with it"
    )


def _check_list(store: RunStore, newest: InputList) -> None:
    """A list that is complete says how many records it has; and they are numbered without a gap."""
    sql = "SELECT count(*), coalesce(max(position) + 1, 0) FROM inputs WHERE run_id = ?"
    count, numbered = store.query(sql, (newest.run.id,))[0]
    all_of_them = numbered if newest.inputs is None else max(numbered, newest.inputs)
    if count < all_of_them:
        raise StoreError(
            f"the list of the input in {store.path} has {count:,} records of {all_of_them:,}, so nothing was written. "
            "Run the same `annotate run` first: it notes the input again, and asks for nothing that is answered"
        )


def _rows(store: RunStore, run: StoredRun) -> Iterator[OutputRow]:
    if _is_of_single_records(run):
        yield from (answer_row(msgspec.json.decode(answer.key), answer) for answer in answers(store, run.settings_id))
        store.check_answers()
        return
    yield from output_rows(store, run.id, run.settings_id)
    waiting = input_count(store, run)
    if waiting.pending:  # or is the answer there, and its key damaged?
        store.check_answers()


def _is_of_single_records(run: StoredRun) -> bool:
    return run.note.get("source") == "submit"


def _is_unlisted(store: RunStore, run: StoredRun, newest: InputList | None) -> bool:
    """Whether there are answers, and no list of an input that holds them: none, or what a killed run noted of one."""
    if newest is None:
        return not _is_of_single_records(run) and bool(store.query("SELECT 1 FROM answers LIMIT 1"))
    if newest.inputs is not None or newest.goes_on:
        return False
    beyond = (
        "SELECT 1 FROM answers a WHERE settings_id = ?1 AND NOT EXISTS "
        "(SELECT 1 FROM inputs i WHERE i.run_id = ?2 AND i.key = a.key) LIMIT 1"
    )
    return bool(store.query(beyond, (run.settings_id, run.id)))
