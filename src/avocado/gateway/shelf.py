"""Shelf: what the gateway keeps beside the ledger, and how it is read and written.

Answers that may be asked for again, policies and their changes, and (for many processes) rates. It
lies in a SQLite file of its own, or in tables of the ledger's PostgreSQL database. None of it is
money, so the ledger's journal, which keeps everything for ever, is no place for it. Knows SQL and
threads, and nothing about what the tables mean.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

import apsw

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

CAPACITY: Final = 10_000
"""Items that may wait for a worker; more are refused."""
BUSY_MS: Final = 5000
TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS gateway_policy (subject TEXT PRIMARY KEY, terms TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS gateway_change (seq BIGINT PRIMARY KEY, at BIGINT NOT NULL,"
    " who TEXT NOT NULL, subject TEXT NOT NULL, old TEXT NOT NULL, new TEXT NOT NULL,"
    " seal TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS gateway_head (one BIGINT PRIMARY KEY, seq BIGINT NOT NULL,"
    " seal TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS gateway_answer (name TEXT PRIMARY KEY, fingerprint TEXT NOT NULL,"
    " request TEXT NOT NULL, kind TEXT NOT NULL, body BYTES NOT NULL, size BIGINT NOT NULL,"
    " until BIGINT NOT NULL)",
    # With the sizes in it, what all answers take is summed without a look at their bodies.
    "CREATE INDEX IF NOT EXISTS gateway_answer_space ON gateway_answer (until, size, name)",
    "CREATE TABLE IF NOT EXISTS gateway_rate (name TEXT PRIMARY KEY, full_at BIGINT NOT NULL)",
)


class ShelfUnavailable(Exception):
    """The file or the database does not answer."""


class Database(Protocol):
    """One connection. One thread at a time uses it. SQL has ``?`` for values."""

    def run(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Executes one statement and returns its rows. Raises ShelfUnavailable."""

    def transaction(self, write: bool = True) -> contextlib.AbstractContextManager[None]:
        """Commits at the end, rolls back on an error; one that does not ``write`` waits for no
        other. Raises ShelfUnavailable."""

    def reopen(self) -> None:
        """Connects afresh after a failure."""

    def close(self) -> None: ...


def open_database(
    target: Path | str, durable: bool = True, tables: Sequence[str] = TABLES
) -> Database:
    """The shelf at ``target``: a file (``:memory:`` for none) or a ``postgresql://`` address.

    With ``durable`` a commit survives a power failure when it returns. ``tables`` are statements
    that make what is not there yet; ``BYTES`` stands for the database's own word.

    Raises:
        ShelfUnavailable: it cannot be opened.
    """
    if str(target).startswith(("postgresql://", "postgres://")):
        return PostgresDatabase(str(target), durable, tables)
    return SqliteDatabase(str(target), durable, tables)


class SqliteDatabase:
    """A file. Other processes (commands of the workspace) may have it open too."""

    def __init__(self, path: str, durable: bool, tables: Sequence[str] = TABLES) -> None:
        self._path = path
        self._durable = durable
        self._tables = tables
        self._db = self._connect()

    def _connect(self) -> apsw.Connection:
        try:
            db = apsw.Connection(self._path)
            db.set_busy_timeout(BUSY_MS)
            for name, value in (
                ("journal_mode", "WAL"),
                ("synchronous", "FULL" if self._durable else "OFF"),
                ("secure_delete", "ON"),  # an answer whose time is over is gone from the file too
            ):
                db.execute(f"PRAGMA {name} = {value}")
            for statement in self._tables:
                db.execute(statement.replace("BYTES", "BLOB"))
        except apsw.Error as error:
            raise ShelfUnavailable(f"{self._path} cannot be used: {error}") from error
        return db

    def run(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        try:
            return list(self._db.execute(sql, tuple(values)))
        except apsw.Error as error:
            raise ShelfUnavailable(f"{self._path}: {error}") from error

    @contextlib.contextmanager
    def transaction(self, write: bool = True) -> Iterator[None]:
        self.run("BEGIN IMMEDIATE" if write else "BEGIN")
        try:
            yield
        except BaseException:
            with contextlib.suppress(ShelfUnavailable):
                self.run("ROLLBACK")
            raise
        self.run("COMMIT")

    def reopen(self) -> None:
        if self._path != ":memory:":
            self._db.close()
            self._db = self._connect()

    def close(self) -> None:
        self._db.close()


class PostgresDatabase:
    """Tables beside the ledger's, for all processes of a fleet."""

    def __init__(self, uri: str, durable: bool, tables: Sequence[str] = TABLES) -> None:
        self._uri = uri
        self._durable = durable
        self._tables = tables
        self._db: Any = self._connect()

    def _connect(self) -> Any:
        import psycopg

        options = "-c lock_timeout=3000 -c statement_timeout=5000"
        if not self._durable:
            options += " -c synchronous_commit=off"
        try:
            db = psycopg.connect(
                self._uri,
                autocommit=True,
                connect_timeout=2,
                tcp_user_timeout=2000,
                options=options,
                application_name="avocado gateway",
            )
            with db.transaction():
                db.execute("SELECT pg_advisory_xact_lock(hashtext('avocado gateway tables'))")
                for statement in self._tables:
                    db.execute(statement.replace("BYTES", "BYTEA").encode())
        except psycopg.Error as error:
            raise ShelfUnavailable(f"the database does not answer: {error}") from error
        return db

    def run(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        import psycopg

        try:
            cursor = self._db.execute(sql.replace("?", "%b"), tuple(values))
            return list(cursor) if cursor.description else []
        except psycopg.Error as error:
            raise ShelfUnavailable(f"the database did not take it: {error}") from error

    @contextlib.contextmanager
    def transaction(self, write: bool = True) -> Iterator[None]:
        import psycopg

        try:
            with self._db.transaction():
                yield
        except psycopg.Error as error:
            raise ShelfUnavailable(f"the database did not take it: {error}") from error

    def reopen(self) -> None:
        self._db.close()
        self._db = self._connect()

    def close(self) -> None:
        self._db.close()


class Worker(Generic[Item, Outcome]):
    """Takes items from an event loop to a thread: all that wait go into one transaction.

    ``act`` gets the database and the items, in order, and returns a result each; it may be called
    a second time with the same items after a failure. All methods run in the loop's thread.
    """

    def __init__(
        self,
        database: Database,
        act: Callable[[Database, Sequence[Item]], list[Outcome]],
        name: str,
        write: bool = True,
    ) -> None:
        self._database = database
        self._act = act
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: list[tuple[Item, asyncio.Future[Outcome]]] = []
        self._busy = False
        self._write = write

    async def ask(self, item: Item) -> Outcome:
        """The result for ``item``, after the commit.

        Raises:
            ShelfUnavailable: it did not work, or too many wait already.
        """
        if len(self._waiting) >= CAPACITY:
            raise ShelfUnavailable(f"{CAPACITY} wait already")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._next()
        return await future

    def _next(self) -> None:
        if self._busy or not self._waiting:
            return
        self._busy = True
        batch, self._waiting = self._waiting, []
        items = [item for item, _ in batch]
        done = asyncio.get_running_loop().run_in_executor(self._pool, self._work, items)
        done.add_done_callback(lambda result: self._deliver(batch, result))

    def _work(self, items: list[Item]) -> list[Outcome]:
        try:
            return self._attempt(items)
        except ShelfUnavailable:
            self._database.reopen()
            return self._attempt(items)

    def _attempt(self, items: list[Item]) -> list[Outcome]:
        with self._database.transaction(self._write):
            return self._act(self._database, items)

    def _deliver(
        self,
        batch: list[tuple[Item, asyncio.Future[Outcome]]],
        result: asyncio.Future[list[Outcome]],
    ) -> None:
        self._busy = False
        error = result.exception()
        found = [] if error else result.result()
        for place, (_, future) in enumerate(batch):
            if future.done():
                continue  # who asked has left
            if error is not None:
                future.set_exception(ShelfUnavailable(str(error)))
            else:
                future.set_result(found[place])
        self._next()

    def close(self) -> None:
        """Ends the thread after what it is doing, and closes the database."""
        self._pool.shutdown(wait=True)
        self._database.close()
