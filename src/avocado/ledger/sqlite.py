"""The book in one SQLite file: WAL, synchronous=FULL, one locked process that writes.

A lock file beside the database holds the writer's pid; the lock dies with the process. Other
processes read (``reader``). Library versions with the WAL corruption bug (before 3.51.3) are
refused: https://sqlite.org/wal.html#walresetbug.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec
from msgspec.structs import astuple

from avocado.ledger import chain, schema
from avocado.ledger.errors import (
    LedgerCorrupt,
    LedgerLocked,
    LedgerUnavailable,
    UnsafeLibrary,
)
from avocado.ledger.rows import COLUMNS, TABLES, Account, AllowanceRow, GrantRow, HoldRow, Row
from avocado.ledger.state import State

SAFE_LIBRARY: Final = 3_051_003
_CACHE_ROWS: Final = 200_000
"""Rows kept in memory between batches before the cache is thrown away and filled afresh."""
_CHECKPOINT_PAGES: Final = 4000
_PIECE: Final = 1 << 20

_SELECT: Final = {
    kind: f"SELECT {', '.join(COLUMNS[kind])} FROM {table}"  # noqa: S608
    for kind, table in TABLES.items()
}
_INSERT: Final = {
    kind: f"INSERT INTO {table} ({', '.join(COLUMNS[kind])}) "  # noqa: S608
    f"VALUES ({', '.join('?' * len(COLUMNS[kind]))})"
    for kind, table in TABLES.items()
}
_HOLD_EDIT: Final = COLUMNS[HoldRow][COLUMNS[HoldRow].index("state") :]


def _update_of(kind: type[Row]) -> str:
    table, (key, *rest) = TABLES[kind], COLUMNS[kind]
    if kind is Account:
        return "UPDATE account SET balance = ?, floor = ? WHERE name = ? AND balance = ?"
    if kind is HoldRow:
        sets = ", ".join(f"{name} = ?" for name in _HOLD_EDIT)
        return f"UPDATE hold SET {sets} WHERE id = ? AND state = ?"  # noqa: S608
    sets = ", ".join(f"{name} = ?" for name in rest)
    guard = "free" if kind is AllowanceRow else "0"
    return f"UPDATE {table} SET {sets} WHERE {key} = ? AND {guard} = ?"  # noqa: S608


_UPDATE: Final = {kind: _update_of(kind) for kind in TABLES}


def check_library() -> None:
    """Raises UnsafeLibrary when this SQLite may lose what it acknowledged (fault 13)."""
    found = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if found[0] * 1_000_000 + found[1] * 1000 + found[2] < SAFE_LIBRARY:
        raise UnsafeLibrary(
            f"SQLite {apsw.sqlite_lib_version()} can corrupt a write-ahead log; "
            "install apsw 3.51.3.0 or newer, which brings its own SQLite"
        )


class _translated:
    """Turns the library's errors into the ledger's. Cheaper than a generator, on the hot path."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise LedgerUnavailable(f"the disk did not take it: {error}") from error
        if not isinstance(error, apsw.Error):
            return
        if isinstance(error, apsw.ConstraintError):
            raise LedgerCorrupt(f"the database refused what the book decided: {error}") from error
        if isinstance(error, apsw.CorruptError | apsw.NotADBError):
            raise LedgerCorrupt(f"the database file is damaged: {error}") from error
        raise LedgerUnavailable(f"the database did not take it: {error}") from error


class Lock:
    """An exclusive lock on ``path``.lock, held until ``release`` or the end of the process."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".lock")
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            text = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise LedgerLocked(str(path), int(text) if text.isdigit() else 0) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


def reading(
    path: Path,
) -> tuple[Callable[[str, Sequence[object]], Iterator[Any]], Callable[[], None]]:
    """A read-only connection to the book at ``path``: (its ``rows`` function, its ``close``).

    Raises:
        LedgerUnavailable: there is no book, or it cannot be opened.
    """
    if not path.exists():
        raise LedgerUnavailable(f"there is no book at {path}")
    with _translated():
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        db.set_busy_timeout(5000)

    def rows(sql: str, values: Sequence[object] = ()) -> Iterator[Any]:
        with _translated():
            return iter(db.execute(sql, tuple(values)))

    return rows, lambda: db.close(True)


def copy(source: Path, target: Path) -> None:
    """SQLite's online backup: one consistent moment of ``source``, synced to ``target``.

    All pages go in one step, so a busy writer cannot make it start over; readers do not block it.
    """
    if not source.exists():
        raise LedgerUnavailable(f"there is no book at {source}")
    with _translated():
        reading = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY)
        writing = apsw.Connection(str(target))
        writing.pragma("synchronous", "FULL")
        with writing.backup("main", reading, "main") as running:
            running.step(-1)
        writing.close()
        reading.close()


class SqliteStore:
    """See :class:`avocado.ledger.batch.Store`. ``vfs`` names an APSW VFS, for fault injection."""

    patience: float | None = None

    def __init__(self, path: Path, epoch: str, at: int, vfs: str | None = None) -> None:
        """Opens or creates the book, migrates it, checks its newest entries, starts an epoch.

        Raises:
            LedgerLocked: another process writes to it.
            LedgerCorrupt: head, chain or file are damaged; ``seq`` names the first bad entry.
            UnsafeLibrary: the SQLite library has the WAL bug.
        """
        check_library()
        self.path = path
        self.epoch = epoch
        self._vfs = vfs
        self._pages = 0
        self.checkpoint_pages = _CHECKPOINT_PAGES
        self._lock = Lock(path)
        try:
            self._connect()
            self._begin_epoch(at)
        except BaseException:
            self.close()
            raise

    # -- connection ------------------------------------------------------------------------------

    def _connect(self) -> None:
        with _translated():
            self._rewrite_log()
            flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
            self._db = apsw.Connection(str(self.path), flags=flags, vfs=self._vfs)
            self._db.set_busy_timeout(2000)
            if self._vfs is not None:
                self._db.pragma("locking_mode", "exclusive")  # a log without shared memory
            mode = self._db.pragma("journal_mode", "wal")
            if mode != "wal":
                raise LedgerUnavailable(f"{self.path} cannot use a write-ahead log here ({mode})")
            self._db.pragma("synchronous", "FULL")
            self._db.pragma("foreign_keys", 1)
            self._db.set_wal_hook(self._grown)
            self._migrate()
            chain.check_tail(self.rows)
            self._state = self._fresh_state()

    def _migrate(self) -> None:
        version = int(self._db.pragma("user_version") or 0)
        if version > schema.VERSION:
            raise LedgerUnavailable(
                f"{self.path} was written by a newer version (schema {version}, "
                f"this one knows {schema.VERSION})"
            )
        while version < schema.VERSION:
            version += 1
            with self._db:
                for statement in schema.statements(version, "sqlite"):
                    self._db.execute(statement)
                self._db.pragma("user_version", version)

    def rows(self, sql: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        return self._db.execute(sql, tuple(values))

    def _fresh_state(self) -> State:
        seq, digest = chain.head(self.rows)
        return State(seq, digest, self)

    def _begin_epoch(self, at: int) -> None:
        process = f"{os.getpid()}@{socket.gethostname()}"
        with _translated(), self._db:
            self._db.execute("UPDATE epoch SET ended = ? WHERE ended IS NULL", (self.epoch,))
            self._db.execute(
                "INSERT INTO epoch (id, process, opened, beat) VALUES (?, ?, ?, 0)",
                (self.epoch, process, at),
            )

    # -- Source ----------------------------------------------------------------------------------

    def fetch(self, kind: type[Row], column: str, values: Sequence[str]) -> Iterable[Row]:
        lots = kind is GrantRow or kind is AllowanceRow
        only = " AND closed = 0" if lots and column == "tenant" else ""
        if len(values) == 1:
            sql = f"{_SELECT[kind]} WHERE {column} = ?{only}"
            found = self._db.execute(sql, (values[0],))
        else:
            sql = f"{_SELECT[kind]} WHERE {column} IN (SELECT value FROM json_each(?)){only}"  # noqa: S608
            found = self._db.execute(sql, (msgspec.json.encode(values).decode(),))
        return [kind(*row) for row in found]

    def measure(self, column: str, value: str, since: int) -> int:
        sql = (
            "SELECT coalesce(sum(CASE state WHEN 'open' THEN amount ELSE charge - refunded END), 0)"  # noqa: S608
            f" FROM hold WHERE {column} = ? AND opened >= ?"
        )
        return int(next(self.rows(sql, (value, since)))[0])

    # -- Store -----------------------------------------------------------------------------------

    def begin(self) -> State:
        with _translated():
            self._db.execute("BEGIN IMMEDIATE")
            if self._state.size() > _CACHE_ROWS:
                self._state = self._fresh_state()
        return self._state

    def write(self, state: State) -> None:
        with _translated():
            if state.written:
                before = state.written[0][0] - 1
                self._guarded(
                    "UPDATE head SET seq = ?, hash = ? WHERE one = 1 AND seq = ?",
                    [(state.seq, state.head, before)],
                )
                self._db.executemany(
                    "INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?)", state.written
                )
            for kind, touched in state.touched.items():
                if touched:
                    self._write_rows(state, kind, touched)

    def _write_rows(
        self, state: State, kind: type[Row], touched: dict[str, int | str | None]
    ) -> None:
        rows = state.rows[kind]
        new = [astuple(rows[key]) for key, guard in touched.items() if guard is None]
        if new:
            self._db.executemany(_INSERT[kind], new)
        if len(new) == len(touched):
            return
        changed = [(key, guard) for key, guard in touched.items() if guard is not None]
        if kind is Account:
            values = [(rows[k].balance, rows[k].floor, k, guard) for k, guard in changed]
        elif kind is HoldRow:
            values = [(*astuple(rows[k])[-len(_HOLD_EDIT) :], k, guard) for k, guard in changed]
        else:
            values = [(*astuple(rows[k])[1:], k, guard) for k, guard in changed]
        self._guarded(_UPDATE[kind], values)

    def _guarded(self, sql: str, values: Sequence[tuple[object, ...]]) -> None:
        """Runs an UPDATE a row; each must change exactly one row, or memory and disk differ."""
        before = self._db.total_changes()
        self._db.executemany(sql, values)
        if self._db.total_changes() - before != len(values):
            raise LedgerCorrupt(f"a guard did not hold: {sql.split(' SET ')[0]}")

    def touch(self) -> None:
        with _translated():
            self._db.execute("UPDATE epoch SET beat = beat + 1 WHERE id = ?", (self.epoch,))

    def commit(self) -> None:
        with _translated():
            self._db.execute("COMMIT")

    def rollback(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._state = self._fresh_state()
        except apsw.Error:
            self._state = State()  # begin() fails too, and the writer reopens

    def _rewrite_log(self) -> None:
        """Makes true what the log seems to say: its bytes are written again, and synced.

        A commit that failed half-way, here or in a process that died, can look committed to the
        next reader of the log without being on the disk: never synced, or worse, dropped by a
        failed sync whose pages the kernel calls clean from then on. Answers built on that would be
        lost with the power, and a checkpoint built on it would tear the database.
        """
        path = self.path.with_name(f"{self.path.name}-wal")
        if self._vfs is not None:
            self._rewrite_through_vfs(self._vfs, path)
        elif path.exists():
            with path.open("r+b") as log:
                while piece := log.read(_PIECE):
                    log.seek(-len(piece), os.SEEK_CUR)
                    log.write(piece)
                log.flush()
                os.fsync(log.fileno())

    @staticmethod
    def _rewrite_through_vfs(vfs: str, path: Path) -> None:
        try:
            flags = [apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_WAL, 0]
            log = apsw.VFSFile(vfs, str(path), flags)
        except apsw.CantOpenError:
            return  # there is none: the last process closed the book
        try:
            log.xWrite(log.xRead(log.xFileSize(), 0), 0)
            log.xSync(apsw.SQLITE_SYNC_FULL)
        finally:
            log.xClose()

    def reopen(self) -> None:
        self._disconnect()
        self._connect()

    def _disconnect(self) -> None:
        if hasattr(self, "_db"):
            with suppress(apsw.Error):  # the last checkpoint failed; the log has it all
                self._db.close(True)

    def _grown(self, db: apsw.Connection, name: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK

    def tidy(self) -> None:
        """Moves the log into the database file when it has grown; nobody waits for it."""
        if self._pages >= self.checkpoint_pages:
            with _translated():
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._pages = 0

    def beat(self) -> None:
        """One process writes: nobody else can take this epoch over, so there is nothing to say."""

    def orphans(self) -> list[str]:
        with _translated():
            rows = self._db.execute(
                "SELECT id FROM hold WHERE state = 'open' AND epoch <> ? ORDER BY seq",
                (self.epoch,),
            )
            return [str(row[0]) for row in rows]

    def overdue(self, at: int) -> list[str]:
        with _translated():
            rows = self._db.execute(
                "SELECT tenant FROM grant_lot WHERE closed = 0 AND expires <= ?"
                " UNION SELECT tenant FROM allowance WHERE closed = 0 AND expires <= ?",
                (at, at),
            )
            return [str(row[0]) for row in rows]

    def close(self) -> None:
        self._disconnect()
        self._lock.release()
