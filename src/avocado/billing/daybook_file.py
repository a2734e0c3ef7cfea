"""The daybook's file: its tables, and how it is opened, emptied and thrown away.

A damaged file, or one of another version, is made afresh: everything in it is in the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import apsw

VERSION: Final = 2
"""Of the file's tables; a file of another version is made afresh."""
BUSY_MS: Final = 60_000
"""How long a process waits for another one that is taking entries up; a first build takes about
five seconds for a million requests."""


SUMS: Final = (
    "requests",
    "prompt",
    "cached",
    "completion",
    "reasoning",
    "covered",
    "charge",
    "refunded",
)
BOOKS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("by_month", ("month", "tenant", "offer", "release", "currency")),
    ("by_day", ("day", "offer", "release", "price_version", "batch", "currency")),
    (
        "by_all",
        ("tenant", "day", "key_id", "offer", "release", "price_version", "batch", "currency"),
    ),
)
"""The books and their keys. A key is stored as text or integer; no key of a request is ``''``."""


SUMMED: Final = ", ".join(f"sum({name})" for name in SUMS)


def _table(name: str, keys: Sequence[str], sums: Sequence[str] = SUMS) -> str:
    columns = [f"{key} {'INTEGER' if key in ('day', 'batch') else 'TEXT'} NOT NULL" for key in keys]
    columns += [f"{each} INTEGER NOT NULL" for each in sums]
    return (
        f"CREATE TABLE {name} ({', '.join(columns)}, PRIMARY KEY ({', '.join(keys)}))"
        " STRICT, WITHOUT ROWID"
    )


def _add(name: str, keys: Sequence[str], sums: Sequence[str] = SUMS) -> str:
    count = len(keys) + len(sums)
    sets = ", ".join(f"{each} = {each} + excluded.{each}" for each in sums)
    return (
        f"INSERT INTO {name} VALUES ({', '.join('?' * count)})"  # noqa: S608
        f" ON CONFLICT DO UPDATE SET {sets}"
    )


_MONEY_KEYS: Final = ("day", "tenant", "kind", "item", "currency")
_MONEY_SUMS: Final = ("entries", "amount", "refunded")
ADD_MONTH, ADD_DAY, ADD_ALL = (_add(name, keys) for name, keys in BOOKS)
ADD_MONEY: Final = _add("money", _MONEY_KEYS, _MONEY_SUMS)
_TABLES: Final = (
    *(_table(name, keys) for name, keys in BOOKS),
    _table("money", _MONEY_KEYS, _MONEY_SUMS),
    "CREATE TABLE entry (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL,"
    " id TEXT NOT NULL, tenant TEXT NOT NULL) STRICT",
    "CREATE INDEX entry_at ON entry (at, seq)",
    "CREATE INDEX entry_tenant ON entry (tenant, at, seq)",
    "CREATE INDEX entry_kind ON entry (kind, at, seq)",
    "CREATE TABLE place (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL,"
    " seal TEXT NOT NULL) STRICT",
)


def open_file(path: Path) -> apsw.Connection:
    try:
        return _connect(path)
    except (apsw.CorruptError, apsw.NotADBError):
        remove(path)
        return _connect(path)


def _connect(path: Path) -> apsw.Connection:
    db = apsw.Connection(str(path))
    try:
        db.set_busy_timeout(BUSY_MS)
        db.pragma("journal_mode", "wal")
        db.pragma("synchronous", "NORMAL")  # a lost commit is taken up again
        if db.pragma("user_version") != VERSION:
            _make(db)
    except BaseException:
        db.close(True)
        raise
    return db


def _make(db: apsw.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        if db.pragma("user_version") != VERSION:  # another process may have been first
            names = [
                row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            ]
            for name in names:
                if not str(name).startswith("sqlite_"):
                    db.execute(f"DROP TABLE {name}")
            for statement in _TABLES:
                db.execute(statement)
            db.execute("INSERT INTO place VALUES (1, 0, '')")
            db.pragma("user_version", VERSION)
    except BaseException:
        with suppress(apsw.Error):
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def empty(db: apsw.Connection) -> None:
    for name in (*(name for name, _ in BOOKS), "money", "entry"):
        db.execute(f"DELETE FROM {name}")  # noqa: S608


def remove(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
