"""The first page of a damaged store: it says what the tables are and where they begin, for all the others.

The tables of a store are known, and stand where `create` puts them. So where that page, or the length of the file, is
not as a run leaves it, the store is read from a copy that has a first page of ours. What a field is and where it
stands: https://www.sqlite.org/fileformat.html
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.adapters.store.schema import APPLICATION_ID, VERSION, check_readable, create
from engine.adapters.store.translate import NOT_OURS, damaged, translated
from engine.vocabulary.errors import StoreError

TABLES = ("settings", "runs", "inputs", "answers", "calls", "ballots")

_MAGIC = b"SQLite format 3\0"
_PAGE_SIZE = 4096
_PAGE_SIZES = [512 << n for n in range(8)]
_MOST_PAGES = 2**32 - 2
_ROLLBACK, _LOG = b"\1\1", b"\2\2"  # formats of reading and writing
_KINDS = {False: b"\x05\x0d", True: b"\x02\x0a"}  # of a table's pages, by whether it is one WITHOUT ROWID
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_UNREADABLE = (sqlite3.DatabaseError, OverflowError, UnicodeDecodeError)  # the last: names are quoted in messages


@contextlib.contextmanager
def readable(file: Path, into: Path) -> Iterator[tuple[sqlite3.Connection, bool]]:
    """A connection to a damaged store by which its tables can be read, and whether its first page was put right.

    A copy, where one is needed, lies beside the new store and is gone afterwards.

    :raises StoreError: the file is no run store, or one of another version.
    """
    with file.open("rb") as stream:
        start = stream.read(16 * _PAGE_SIZE)
    if not _looks_ours(start):
        raise StoreError(f"{file} is {NOT_OURS}")
    with contextlib.ExitStack() as opened:
        db = _in_place(file, start)
        mended = db is None or not _is_named(db)
        if db is None:
            with translated(into):
                folder = tempfile.TemporaryDirectory(prefix=".salvage-", dir=into.absolute().parent)
                copy = Path(opened.enter_context(folder)) / "store"
                _copy(file, copy)
            db = _on_copy(file, copy, start)
        opened.callback(db.close)
        yield db, mended


def _looks_ours(start: bytes) -> bool:
    """By its mark, by the names of its tables, or, where neither is left, by what stands where ours begin."""
    if start[68:72] == APPLICATION_ID.to_bytes(4, "big"):
        return True
    if sum(f"CREATE TABLE {name} (".encode() in start[:_PAGE_SIZE] for name in TABLES) >= len(TABLES) // 2:
        return True
    _, roots, kinds = _ours()
    begins = {name: start[(root - 1) * _PAGE_SIZE :][:1] for name, root in roots.items()}
    return not start.startswith(_MAGIC) and all(begin and begin in kinds[name] for name, begin in begins.items())


def _is_named(db: sqlite3.Connection) -> bool:
    """Whether it says whose it is and of which format."""
    named = db.execute("PRAGMA application_id").fetchone()[0], db.execute("PRAGMA user_version").fetchone()[0]
    return bool(named == (APPLICATION_ID, VERSION))


# -- as it is --------------------------------------------------------------------------------------------------------


def _in_place(file: Path, start: bytes) -> sqlite3.Connection | None:
    """A connection to the file itself; None where that would not read all that there is."""
    log = Path(f"{file}-wal")
    logged = log.exists() and log.stat().st_size > 0
    if not _is_sound_header(start, None if logged else file.stat().st_size):
        return None
    # Where nothing may be written SQLite cannot make the file by which it agrees with a writer; see `read_store`.
    # Without a log there is no writer, and nothing is left beside the store by looking at it.
    ways = ["mode=ro"] if log.exists() else []
    for how in ways if logged else [*ways, "mode=ro&immutable=1"]:
        db = _connect(file, how)
        try:
            if _is_sound(db, file):
                return db
        except _UNREADABLE as error:
            if (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in _BUSY:
                db.close()
                raise
        except BaseException:
            db.close()
            raise
        db.close()
    return None


def _is_sound_header(header: bytes, size: int | None) -> bool:
    """Whether the fields by which pages are read are those of a store of ours, of so many bytes if that is known."""
    page_size, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
    return (
        header.startswith(_MAGIC)
        and page_size in _PAGE_SIZES
        and size in (None, page_size * pages)
        and header[18:20] in (_ROLLBACK, _LOG)
        and header[20:24] == bytes([0, 64, 32, 32])  # no room left free in pages, and shares that are fixed
        and header[44:48] == (4).to_bytes(4, "big")  # the format of the schema
        and header[56:60] == (1).to_bytes(4, "big")  # UTF-8
    )


def _is_sound(db: sqlite3.Connection, file: Path) -> bool:
    tables, roots, _ = _ours()
    if _tables(db) == tables:
        return {name: root for name, root in _schema(db) if name in TABLES} == roots and _indexes(db) == _our_indexes()
    _check_version(db, file)
    return False


def _check_version(db: sqlite3.Connection, file: Path) -> None:
    """:raises StoreError: its tables are not ours, and neither is its version: they may be those of that one."""
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        return
    try:
        check_readable(db, file)
    except StoreError as error:
        if db.execute("PRAGMA user_version").fetchone()[0] > VERSION:
            raise
        raise StoreError(
            f"{error}. Where it is too damaged for that, `annotate salvage` of that version may do"
        ) from None


def _ours() -> tuple[dict[str, Any], dict[str, int], dict[str, bytes]]:
    """What the tables of a store are, where they begin, and which kinds of page they have."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        create(db)
        roots = {name: root for name, root in _schema(db) if name in TABLES}
        without_rowid = {row[1]: bool(row[4]) for row in db.execute("PRAGMA table_list")}
        return _tables(db), roots, {name: _KINDS[without_rowid[name]] for name in TABLES}


def _tables(db: sqlite3.Connection) -> dict[str, Any]:
    """The columns of each table of ours, by what SQLite takes them for: later versions add some by another text."""
    kinds = {row[1]: row[4:5] for row in db.execute("PRAGMA table_list")}
    return {name: (kinds.get(name), db.execute(f"PRAGMA table_xinfo({name})").fetchall()) for name in TABLES}


def _indexes(db: sqlite3.Connection) -> list[Any]:
    """Not read; but by a damaged one a table would be taken for damaged."""
    return db.execute("SELECT name, tbl_name, rootpage, sql FROM sqlite_master WHERE type = 'index'").fetchall()


def _our_indexes() -> list[Any]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        create(db)
        return _indexes(db)


def _schema(db: sqlite3.Connection) -> list[tuple[Any, Any]]:
    """Name and beginning of all that the first page lists."""
    return db.execute("SELECT name, rootpage FROM sqlite_master").fetchall()


def _connect(file: Path, how: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"{file.absolute().as_uri()}?{how}", uri=True, isolation_level=None)
    # Letters that are none are a row that is not what was written, and not the end of its table.
    db.text_factory = lambda content: content.decode(errors="replace")
    return db


# -- on a copy -------------------------------------------------------------------------------------------------------


def _copy(file: Path, copy: Path) -> None:
    shutil.copyfile(file, copy)
    if Path(f"{file}-wal").exists():
        shutil.copyfile(f"{file}-wal", f"{copy}-wal")


def _on_copy(file: Path, copy: Path, start: bytes) -> sqlite3.Connection:
    """Put a first page of ours on the copy, its tables where most of their rows can be read."""
    named = int.from_bytes(start[16:18], "big")
    size = named if named in _PAGE_SIZES else _PAGE_SIZE
    _, roots, kinds = _ours()
    first = _play_log(file, copy, size, roots)
    with copy.open("r+b") as stream:  # SQLite lists no table that begins behind the end
        stream.truncate(max(stream.seek(0, os.SEEK_END), size * max(roots.values())))
    found = _listed(file, copy, size, first)
    places = {name: [root] for name, root in roots.items()}
    if not all([at for other, at in found if other == name] == [root] for name, root in roots.items()):
        listed = [root for _, root in found if isinstance(root, int) and 0 < root <= _MOST_PAGES]
        places = {name: _fitting(copy, size, kinds[name], [root, *listed]) or [root] for name, root in roots.items()}
    best = {name: some[0] for name, some in places.items()}
    most = dict.fromkeys(TABLES, 0)
    for n in range(max(map(len, places.values()))):
        tried = {name: some[n] for name, some in places.items() if n < len(some) > 1}
        for name, rows in _rows_of_each(file, copy, size, best, tried).items():
            if rows > most[name]:
                best[name], most[name] = tried[name], rows
    _put(copy, size, _page(file, size, best))
    return _connect(copy, "mode=ro")


def _play_log(file: Path, copy: Path, size: int, roots: dict[str, int]) -> bytes:
    """Bring into the copy what its log holds. Gives the first page as it was, or as the log has it."""
    with copy.open("rb") as stream:
        first = stream.read(size).ljust(size, b"\0")
    log = Path(f"{copy}-wal")
    if log.exists():
        ours = _page(file, size, roots, _LOG)
        _put(copy, size, ours)
        with contextlib.suppress(*_UNREADABLE), contextlib.closing(sqlite3.connect(copy)) as db:
            db.execute("PRAGMA writable_schema = ON")  # whatever its first page says
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        for beside in (log, Path(f"{copy}-shm")):
            beside.unlink(missing_ok=True)
        with copy.open("rb") as stream:
            played = stream.read(size)
        if played[100:] != ours[100:]:
            first = played
    return first


def _listed(file: Path, copy: Path, size: int, first: bytes) -> list[tuple[Any, Any]]:
    """What the first page lists, as far as it can be read.

    :raises StoreError: it can, and is of another version.
    """
    header = bytearray(_page(file, size, {})[:100])
    header[60:64], header[68:72] = first[60:64], first[68:72]  # version and mark: whose it says it is
    _put(copy, size, bytes(header) + first[100:])
    with contextlib.suppress(*_UNREADABLE), contextlib.closing(_connect(copy, "mode=ro")) as db:
        db.execute("PRAGMA writable_schema = ON")  # rows that make no sense are passed over
        if _tables(db) != _ours()[0]:
            _check_version(db, file)
        return _schema(db)
    return []


def _fitting(copy: Path, size: int, kinds: bytes, listed: Sequence[int]) -> list[int]:
    """Pages where a table of these kinds may begin: those that are listed, or would be with one bit turned."""
    turned = [root ^ 1 << bit for root in listed for bit in range(_MOST_PAGES.bit_length())]
    fitting = []
    with copy.open("rb") as stream:
        pages = -(-stream.seek(0, os.SEEK_END) // size)
        for place in dict.fromkeys([*listed, *turned]):
            if 2 <= place <= pages:
                stream.seek((place - 1) * size)
                if (kind := stream.read(1)) and kind in kinds:
                    fitting.append(place)
    return fitting


def _rows_of_each(file: Path, copy: Path, size: int, roots: dict[str, int], tried: dict[str, int]) -> dict[str, int]:
    """How many rows these tables have, if they begin there, in which values are of the kinds that they should be."""
    _put(copy, size, _page(file, size, roots | tried))
    tables, _, _ = _ours()
    counts = dict.fromkeys(tried, 0)
    with contextlib.closing(_connect(copy, "mode=ro")) as db:
        for name in tried:
            typed = [
                f"typeof({column}) = '{kind.lower()}'" for _, column, kind, needed, *_ in tables[name][1] if needed
            ]
            with contextlib.suppress(*_UNREADABLE):
                for _ in db.execute(f"SELECT 1 FROM {name} WHERE {' AND '.join(typed)}"):
                    counts[name] += 1
    return counts


def _page(file: Path, size: int, roots: dict[str, int], formats: bytes = _ROLLBACK) -> bytes:
    """A first page that lists our tables, without indexes: nothing is looked up by them here."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute(f"PRAGMA page_size = {size}")
        create(db)
        db.execute("PRAGMA writable_schema = ON")
        db.execute("DELETE FROM sqlite_master WHERE type <> 'table'")
        db.execute("UPDATE sqlite_master SET sql = replace(sql, ', UNIQUE (task_key, model)', '')")
        db.executemany(
            "UPDATE sqlite_master SET rootpage = ? WHERE name = ?", [(at, name) for name, at in roots.items()]
        )
        page = bytearray(db.serialize()[:size])
    if page[100] != 0x0D:
        raise damaged(file, f"its first page, of {size:,} bytes, has no room for what its tables are")
    page[18:20] = formats
    page[24:28] = page[92:96] = (1).to_bytes(4, "big")  # with these the same, the number of pages is believed
    page[32:40] = bytes(8)  # no page is free
    return bytes(page)


def _put(copy: Path, size: int, page: bytes) -> None:
    """Write the first page, with the number of pages that there are, the last one made whole."""
    with copy.open("r+b") as stream:
        pages = -(-max(stream.seek(0, os.SEEK_END), size) // size)
        stream.truncate(pages * size)
        stream.seek(0)
        stream.write(page[:28] + pages.to_bytes(4, "big") + page[32:])
