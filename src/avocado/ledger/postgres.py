"""The book in PostgreSQL: many gateway processes on one database.

Each batch is one transaction that first locks the head row, so batches of all processes follow one
another, the sequence stays gapless, and nothing else needs a lock. Rows travel as whole columns
(arrays and JSON record sets): a batch costs a dozen statements, however many operations it holds.

Each process has an epoch and shows that it lives by counting up its beat. A process whose beat
stands still for ``DEAD_AFTER`` is ended by another one, measured on that one's monotonic clock, and
its open holds are recovered. Should it wake up, its next batch finds its epoch ended: ``Fenced``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
import psycopg
from psycopg import errors as pg

from avocado.ledger import chain, schema
from avocado.ledger.clock import Clock
from avocado.ledger.errors import (
    Fenced,
    LedgerCorrupt,
    LedgerUnavailable,
    UnsafeLibrary,
)
from avocado.ledger.rows import (
    COLUMNS,
    TABLES,
    Account,
    AllowanceRow,
    GrantRow,
    HoldRow,
    Price,
    Row,
)
from avocado.ledger.state import State

DEAD_AFTER: Final = 10_000_000_000
"""Ns without a beat after which a process counts as dead."""
PATIENCE: Final = 1.0
"""Seconds that callers wait for a database that does not answer."""
_OPTIONS: Final = (
    "-c lock_timeout=5000 -c statement_timeout=15000 "
    "-c idle_in_transaction_session_timeout=15000 -c client_encoding=UTF8"
)
_BY_KEY: Final = " -c enable_seqscan=off -c jit=off"
"""The writer only looks rows up by key; a planner without statistics would read whole tables."""
_MIGRATION_LOCK: Final = 0x41564F43
_ORPHANS: Final = (
    "SELECT h.id FROM hold h JOIN epoch e ON e.id = h.epoch"
    " WHERE h.state = 'open' AND e.ended IS NOT NULL ORDER BY h.seq LIMIT 10000"
)
_JOURNAL: Final = (
    "INSERT INTO journal (seq, at, kind, id, tenant, body, hash) SELECT * FROM unnest("
    "%b::bigint[], %b::bigint[], %b::text[], %b::text[], %b::text[], %b::bytea[], %b::bytea[])"
)
_ACCOUNTS: Final = (
    "UPDATE account SET balance = v.balance, floor = v.floor FROM unnest("
    "%b::text[], %b::bigint[], %b::bigint[], %b::bigint[]) AS v (name, balance, floor, guard)"
    " WHERE account.name = v.name AND account.balance = v.guard"
)
_ALLOWANCES: Final = (
    "UPDATE allowance t SET free = v.free, reserved = v.reserved, used = v.used,"
    " expired = v.expired, expires = v.expires, closed = v.closed, ended = v.ended"
    " FROM json_populate_recordset(NULL::allowance, %s::json) v"
    " JOIN unnest(%s::text[], %s::bigint[]) AS g (id, free) ON g.id = v.id"
    " WHERE t.id = v.id AND t.free = g.free"
)
_HOLD_EDIT: Final = COLUMNS[HoldRow][COLUMNS[HoldRow].index("state") :]


def _insert_of(kind: type[Row]) -> str:
    names = ", ".join(COLUMNS[kind])
    return (
        f"INSERT INTO {TABLES[kind]} ({names}) SELECT {names} "  # noqa: S608
        f"FROM json_populate_recordset(NULL::{TABLES[kind]}, %s::json)"
    )


def _update_of(kind: type[Row]) -> str:
    table, key = TABLES[kind], COLUMNS[kind][0]
    columns = _HOLD_EDIT if kind is HoldRow else COLUMNS[kind][1:]
    sets = ", ".join(f"{name} = v.{name}" for name in columns)
    guard = " AND t.state = %s" if kind is HoldRow else ""
    return (
        f"UPDATE {table} t SET {sets} FROM json_populate_recordset(NULL::{table}, %s::json) v"  # noqa: S608
        f" WHERE t.{key} = v.{key}{guard}"
    )


_INSERT: Final = {kind: _insert_of(kind) for kind in TABLES}
_UPDATE: Final = {kind: _update_of(kind) for kind in TABLES}


class _translated:
    """Turns the driver's errors into the ledger's."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            raise LedgerUnavailable(f"the database did not take it: {error}") from error
        if isinstance(error, psycopg.IntegrityError):
            raise LedgerCorrupt(f"the database refused what the book decided: {error}") from error


def connect(uri: str, more: str = "") -> psycopg.Connection[tuple[Any, ...]]:
    """A connection that notices within seconds when the server is gone.

    Raises:
        LedgerUnavailable: it cannot be reached.
    """
    with _translated():
        return psycopg.connect(
            uri,
            autocommit=True,
            connect_timeout=2,
            keepalives_idle=1,
            keepalives_interval=1,
            keepalives_count=2,
            tcp_user_timeout=2000,
            options=_OPTIONS + more,
            application_name="avocado ledger",
        )


def check_settings(db: psycopg.Connection[Any]) -> None:
    """Raises UnsafeLibrary when the server may lose what it acknowledged."""
    safe = {"synchronous_commit": ("on", "remote_apply"), "fsync": ("on",)}
    safe["full_page_writes"] = ("on",)
    for name, allowed in safe.items():
        found = db.execute(f"SHOW {name}").fetchone()
        value = found[0] if found else ""
        if value not in allowed:
            raise UnsafeLibrary(
                f"PostgreSQL runs with {name} = {value} and can lose acknowledged commits; "
                f"set it to {allowed[0]}"
            )


def migrate(db: psycopg.Connection[Any]) -> None:
    """Brings the database to this schema, one migration a transaction, one process at a time."""
    with db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
        db.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY)")
        found = db.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()
        version = int(found[0]) if found else 0
        if version > schema.VERSION:
            raise LedgerUnavailable(
                f"the database was written by a newer version (schema {version}, "
                f"this one knows {schema.VERSION})"
            )
        if 0 < version < schema.VERSION:
            # Older code that still runs would write on, and leave out what is new: it is fenced.
            db.execute(
                "UPDATE epoch SET ended = %s WHERE ended IS NULL", (f"schema {schema.VERSION}",)
            )
        while version < schema.VERSION:
            version += 1
            for statement in schema.statements(version, "postgres"):
                db.execute(statement)
            db.execute("INSERT INTO schema_version VALUES (%s)", (version,))


class PostgresStore:
    """See :class:`avocado.ledger.batch.Store`. Each process opens its own."""

    patience: float | None = PATIENCE

    def __init__(self, uri: str, epoch: str, clock: Clock) -> None:
        """Connects, checks the server's settings, migrates, checks the newest entries.

        Raises:
            LedgerUnavailable: the server cannot be reached.
            LedgerCorrupt: the chain is damaged; ``seq`` names the first bad entry.
            UnsafeLibrary: the server's settings can lose acknowledged commits.
        """
        self.epoch = epoch
        self._uri = uri
        self._clock = clock
        self._prices: dict[str, Price] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._db = connect(uri, _BY_KEY)
        try:
            with _translated():
                check_settings(self._db)
                migrate(self._db)
                with self._db.transaction():
                    self._db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    chain.check_tail(rows_of(self._db))
                self._db.execute(
                    "INSERT INTO epoch (id, process, opened, beat) VALUES (%s, %s, %s, 0)",
                    (epoch, f"{os.getpid()}@{socket.gethostname()}", clock.now()),
                )
        except BaseException:
            self._db.close()
            raise

    # -- Source ----------------------------------------------------------------------------------

    def fetch(self, kind: type[Row], column: str, values: Sequence[str]) -> Iterable[Row]:
        lots = kind is GrantRow or kind is AllowanceRow
        only = " AND closed = 0" if lots and column == "tenant" else ""
        sql = (
            f"SELECT {', '.join(COLUMNS[kind])} FROM {TABLES[kind]}"  # noqa: S608
            f" WHERE {column} = ANY(%s){only}"
        )
        return [kind(*row) for row in self._db.execute(sql, (list(values),))]

    def measure(self, column: str, value: str, since: int) -> int:
        sql = (
            "SELECT coalesce(sum(CASE state WHEN 'open' THEN amount ELSE charge - refunded END), 0)"  # noqa: S608
            f" FROM hold WHERE {column} = %s AND opened >= %s"
        )
        found = self._db.execute(sql, (value, since)).fetchone()
        return int(found[0]) if found else 0

    # -- Store -----------------------------------------------------------------------------------

    def begin(self) -> State:
        with _translated():
            with self._db.pipeline():
                self._db.execute("BEGIN")
                head = self._db.execute("SELECT seq, hash FROM head FOR UPDATE")
                mine = self._db.execute(
                    "SELECT ended FROM epoch WHERE id = %s FOR SHARE", (self.epoch,)
                )
            found, alive = head.fetchone(), mine.fetchone()
        if found is None:
            raise LedgerCorrupt("the book's head row is missing")
        self._check_alive(alive)
        state = State(found[0], bytes(found[1]), self)
        state.rows[Price].update(self._prices)
        return state

    def _check_alive(self, row: tuple[Any, ...] | None) -> None:
        if row is None or row[0] is not None:
            by = "removed" if row is None else f"ended by {row[0]}"
            raise Fenced(f"this process was taken for dead: its epoch was {by}; start it again")

    def write(self, state: State) -> None:
        expected: list[tuple[psycopg.Cursor[Any], int, str]] = []

        def run(sql: str, values: Sequence[object], count: int) -> None:
            expected.append((self._db.execute(sql, values), count, sql))

        with _translated():
            with self._db.pipeline():
                if state.written:
                    before = state.written[0][0] - 1
                    run(
                        "UPDATE head SET seq = %s, hash = %s WHERE one = 1 AND seq = %s",
                        (state.seq, state.head, before),
                        1,
                    )
                    columns = [list(column) for column in zip(*state.written, strict=True)]
                    run(_JOURNAL, columns, len(state.written))
                for kind, touched in state.touched.items():
                    if touched:
                        self._write_rows(run, state, kind, touched)
            for cursor, count, sql in expected:
                if cursor.rowcount != count:
                    raise LedgerCorrupt(f"a guard did not hold: {sql.split(' SET ')[0]}")
        self._prices.update({key: row for key, row in state.rows[Price].items() if row is not None})

    def _write_rows(
        self,
        run: Callable[[str, Sequence[object], int], None],
        state: State,
        kind: type[Row],
        touched: dict[str, int | str | None],
    ) -> None:
        rows = state.rows[kind]
        new = [rows[key] for key, guard in touched.items() if guard is None]
        if new:
            run(_INSERT[kind], (_json(new),), len(new))
        changed = {key: guard for key, guard in touched.items() if guard is not None}
        if not changed:
            return
        if kind is Account:
            edited = [rows[key] for key in changed]
            columns = (
                list(changed),
                [row.balance for row in edited],
                [row.floor for row in edited],
                list(changed.values()),
            )
            run(_ACCOUNTS, columns, len(changed))
        elif kind is AllowanceRow:
            lots = _json([rows[key] for key in changed])
            run(_ALLOWANCES, (lots, list(changed), list(changed.values())), len(changed))
        elif kind is HoldRow:
            for state_before in sorted({str(guard) for guard in changed.values()}):
                group = [rows[key] for key, guard in changed.items() if guard == state_before]
                run(_UPDATE[kind], (_json(group), state_before), len(group))
        else:
            run(_UPDATE[kind], (_json([rows[key] for key in changed]),), len(changed))

    def touch(self) -> None:
        with _translated():
            self._db.execute("UPDATE epoch SET beat = beat + 1 WHERE id = %s", (self.epoch,))

    def commit(self) -> None:
        with _translated():
            self._db.execute("COMMIT")

    def rollback(self) -> None:
        try:
            if not self._db.closed:
                self._db.execute("ROLLBACK")
        except psycopg.Error:
            self._db.close()  # begin() fails too, and the writer reopens

    def reopen(self) -> None:
        self._db.close()
        self._db = connect(self._uri, _BY_KEY)

    def tidy(self) -> None:
        """The server looks after its files itself."""

    def beat(self) -> None:
        with _translated():
            beaten = self._db.execute(
                "UPDATE epoch SET beat = beat + 1 WHERE id = %s AND ended IS NULL", (self.epoch,)
            )
            if beaten.rowcount != 1:
                row = self._db.execute("SELECT ended FROM epoch WHERE id = %s", (self.epoch,))
                self._check_alive(row.fetchone())
            others = self._db.execute(
                "SELECT id, beat FROM epoch WHERE ended IS NULL AND id <> %s", (self.epoch,)
            ).fetchall()
            self._end_the_silent(others)

    def _end_the_silent(self, others: Sequence[tuple[str, int]]) -> None:
        now = self._clock.monotonic()
        seen: dict[str, tuple[int, int]] = {}
        for epoch, beat in others:
            before = self._seen.get(epoch)
            seen[epoch] = before if before is not None and before[0] == beat else (beat, now)
            if now - seen[epoch][1] >= DEAD_AFTER:
                self._db.execute(
                    "UPDATE epoch SET ended = %s WHERE id = %s AND beat = %s AND ended IS NULL",
                    (self.epoch, epoch, beat),
                )
        self._seen = seen

    def orphans(self) -> list[str]:
        with _translated():
            return [row[0] for row in self._db.execute(_ORPHANS)]

    def overdue(self, at: int) -> list[str]:
        with _translated():
            sql = (
                "SELECT tenant FROM grant_lot WHERE closed = 0 AND expires <= %s"
                " UNION SELECT tenant FROM allowance WHERE closed = 0 AND expires <= %s"
            )
            return [row[0] for row in self._db.execute(sql, (at, at))]

    def close(self) -> None:
        """Ends the epoch; holds that are still open are recovered by whoever looks next."""
        try:
            if not self._db.closed:
                self._db.execute(
                    "UPDATE epoch SET ended = 'closed' WHERE id = %s AND ended IS NULL",
                    (self.epoch,),
                )
        except psycopg.Error:
            pass  # the server is away: others will end this epoch for its silence
        finally:
            self._db.close()


def _json(rows: Sequence[Row]) -> str:
    return msgspec.json.encode(rows).decode()


# -- reading ---------------------------------------------------------------------------------------


def rows_of(db: psycopg.Connection[Any]) -> chain.Rows:
    """A ``rows(sql, values)`` function. Inside a transaction it reads large answers in pieces."""
    numbers = iter(range(2**62))

    def rows(sql: str, values: Sequence[object] = ()) -> Iterator[Any]:
        text = sql.replace("?", "%s")
        with _translated():
            transacting = db.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
            if not transacting or not sql.startswith("SELECT"):
                cursor = db.execute(text, tuple(values))
                yield from cursor if cursor.description else ()
                return
            with db.cursor(name=f"rows_{next(numbers)}") as pieces:
                pieces.itersize = 5000
                pieces.execute(text, tuple(values))
                yield from pieces

    return rows


READ: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


def reading(uri: str) -> tuple[chain.Rows, Callable[[], None]]:
    """A read-only connection: (its ``rows`` function, its ``close``).

    Raises:
        LedgerUnavailable: there is no server, or no book in it.
    """
    db = connect(uri)
    try:
        with _translated():
            db.execute("SET default_transaction_read_only = on")
            db.execute("SET statement_timeout = 0")
            db.execute("SET idle_in_transaction_session_timeout = 0")
            db.execute("SELECT seq FROM head")
    except pg.UndefinedTable as error:
        db.close()
        raise LedgerUnavailable("there is no book in this database") from error
    except BaseException:
        db.close()
        raise
    return rows_of(db), db.close
