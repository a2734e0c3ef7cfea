"""Store: where files, batches and their lines lie, and the thread that reads and writes them.

What is done there are steps (``stored_files``, ``stored_batches``, ``stored_lines``): functions of
a database. A step may be done twice with the same outcome, because a commit whose reply was lost is
tried again. Every query of a customer's names the tenant, so nobody reads what is another's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import msgspec

from avocado.gateway.batches.rows import ALIVE, columns
from avocado.gateway.shelf import Database, PostgresDatabase, Worker

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound=msgspec.Struct)
Step = Callable[[Database], Any]

TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS gateway_file (id TEXT PRIMARY KEY, tenant TEXT NOT NULL,"
    " purpose TEXT NOT NULL, filename TEXT NOT NULL, bytes BIGINT NOT NULL, at BIGINT NOT NULL,"
    " created BIGINT NOT NULL, expires BIGINT NOT NULL, state TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS gateway_file_of ON gateway_file (tenant, at, id)",
    "CREATE TABLE IF NOT EXISTS gateway_chunk (file TEXT NOT NULL, place BIGINT NOT NULL,"
    " body BYTES NOT NULL, PRIMARY KEY (file, place))",
    "CREATE TABLE IF NOT EXISTS gateway_batch (id TEXT PRIMARY KEY, tenant TEXT NOT NULL,"
    " key_id TEXT NOT NULL, endpoint TEXT NOT NULL, input TEXT NOT NULL, status TEXT NOT NULL,"
    " at BIGINT NOT NULL, created BIGINT NOT NULL, expires BIGINT NOT NULL, keep BIGINT NOT NULL,"
    " metadata TEXT NOT NULL, errors TEXT NOT NULL, model TEXT, output TEXT, error TEXT,"
    " total BIGINT NOT NULL, completed BIGINT NOT NULL, failed BIGINT NOT NULL,"
    " prompt BIGINT NOT NULL, cached BIGINT NOT NULL, completion BIGINT NOT NULL,"
    " reasoning BIGINT NOT NULL, in_progress BIGINT, finalizing BIGINT, ended BIGINT,"
    " cancelling BIGINT, note TEXT, epoch BIGINT NOT NULL, owner TEXT, lease BIGINT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS gateway_batch_of ON gateway_batch (tenant, at, id)",
    "CREATE INDEX IF NOT EXISTS gateway_batch_alive ON gateway_batch (status, at)",
    "CREATE TABLE IF NOT EXISTS gateway_line (batch TEXT NOT NULL, line BIGINT NOT NULL,"
    " custom_id TEXT NOT NULL, model TEXT NOT NULL, start BIGINT NOT NULL, size BIGINT NOT NULL,"
    " state TEXT NOT NULL, tries BIGINT NOT NULL, hold TEXT, status BIGINT NOT NULL, body BYTES,"
    " PRIMARY KEY (batch, line))",
    "CREATE INDEX IF NOT EXISTS gateway_line_state ON gateway_line (batch, state, line)",
)


LIVING: Final = ", ".join(f"'{status}'" for status in ALIVE)
"""For SQL."""
# What is put into SQL below are names of columns and states of ours, never what a client sent.
# ruff: noqa: S608


def prepare(database: Database) -> None:
    """Makes the tables that are missing. Raises ShelfUnavailable."""
    shared = isinstance(database, PostgresDatabase)
    with database.transaction():
        if shared:
            database.run("SELECT pg_advisory_xact_lock(hashtext('avocado batch tables'))")
        for statement in TABLES:
            database.run(statement.replace("BYTES", "BYTEA" if shared else "BLOB"))


class Store:
    """The steps of one process, in threads of their own: all that wait are one transaction. What
    only reads has another connection, so that it works while nothing can be written."""

    def __init__(self, connect: Callable[[], Database]) -> None:
        writing = connect()
        prepare(writing)
        self._writer: Worker[Step, Any] = Worker(writing, _take, "gateway-batches")
        self._reader: Worker[Step, Any] = Worker(connect(), _take, "gateway-files", write=False)

    async def do(
        self, step: Callable[Concatenate[Database, P], T], *given: P.args, **named: P.kwargs
    ) -> T:
        """The outcome of a step, after the commit. Raises ShelfUnavailable."""
        outcome: T = await self._writer.ask(lambda database: step(database, *given, **named))
        return outcome

    async def look(
        self, step: Callable[Concatenate[Database, P], T], *given: P.args, **named: P.kwargs
    ) -> T:
        """The outcome of a step that only reads. Raises ShelfUnavailable."""
        outcome: T = await self._reader.ask(lambda database: step(database, *given, **named))
        return outcome

    def close(self) -> None:
        self._writer.close()
        self._reader.close()


def _take(database: Database, steps: Sequence[Step]) -> list[Any]:
    return [step(database) for step in steps]


def row_of(kind: type[R], found: Sequence[Any]) -> R:
    return kind(*(bytes(each) if isinstance(each, memoryview) else each for each in found))


def now_of(database: Database) -> int:
    """Nanoseconds since 1970 by the clock that all processes share: the database's, if it has
    one."""
    if isinstance(database, PostgresDatabase):
        found = database.run("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        return int(found[0][0]) * 1000
    return time.time_ns()


def page_of(
    database: Database,
    kind: type[R],
    table: str,
    where: list[str],
    given: list[Any],
    after: str,
    limit: int,
    newest_first: bool,
) -> list[R] | None:
    if after:
        place = database.run(
            f"SELECT at, id FROM {table} WHERE id = ? AND tenant = ?", (after, given[0])
        )
        if not place:
            return None
        where = [*where, f"(at, id) {'<' if newest_first else '>'} (?, ?)"]
        given = [*given, *place[0]]
    order = "DESC" if newest_first else "ASC"
    fields = columns(kind)
    found = database.run(
        f"SELECT {fields} FROM {table} WHERE {' AND '.join(where)}"
        f" ORDER BY at {order}, id {order} LIMIT ?",
        (*given, limit),
    )
    return [row_of(kind, each) for each in found]
