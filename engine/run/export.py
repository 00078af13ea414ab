"""What a store holds as rows of an output: the newest run's input, in its order, as far as it is done."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from engine.adapters.files import OutputRow, write_rows
from engine.adapters.store import RunStore
from engine.adapters.stored import StoredRun, answers, input_count, newest_input, runs
from engine.run.corpus import answer_row, output_rows
from engine.vocabulary.errors import StoreError


def write_newest(store: RunStore, path: str, *, csv_safe: bool = False) -> int:
    """Write what is done so far; the number of rows. Also while a run writes to the store.

    The newest run whose list of inputs is there decides which records, and in which order. A store that only single
    records of a program went through has no such list: then all answers are written, by id.

    :raises StoreError: the store holds no run, no list of an input though it holds answers, or is damaged: what would
        be written lacked rows, perhaps in place of a file that has them.
    """
    store.check_whole()  # a page that is out of its place would be rows that are silently missing
    run = newest_input(store) or next(iter(runs(store, newest=1)), None)
    if run is None:
        raise StoreError(f"{store.path} holds no run, so there is nothing to write")
    if _is_unlisted(store, run):
        raise StoreError(
            f"{store.path} holds answers, but not which records its newest run read (a salvaged store does not), so "
            "nothing was written. Run the same `annotate run` with this --store first: it notes the input again, and "
            "asks for nothing that is answered"
        )
    _check_list(store, run)
    return write_rows(path, _rows(store, run), fields=list(run.task.fields), csv_safe=csv_safe)


def _check_list(store: RunStore, run: StoredRun) -> None:
    """Records of an input are numbered without a gap, so a gap is a record that was taken away."""
    count, all_of_them = store.query("SELECT count(*), max(position) + 1 FROM inputs WHERE run_id = ?", (run.id,))[0]
    if count and count < all_of_them:
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


def _is_unlisted(store: RunStore, run: StoredRun) -> bool:
    if _is_of_single_records(run) or store.query("SELECT 1 FROM inputs WHERE run_id = ? LIMIT 1", (run.id,)):
        return False
    return bool(store.query("SELECT 1 FROM answers LIMIT 1"))
