"""Ledger: an open book. Threads use ``submit``, asyncio code the methods of the Book protocol.

    with open_ledger(path) as ledger:
        ledger.do_now(OpenCustomer(tenant="acme", name="Acme"))
        held = await ledger.hold(Hold(...))

It puts the parts together: a store, its writer, recovery of what dead processes left open.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from avocado.ledger import batch
from avocado.ledger import operation as o
from avocado.ledger.batch import Store
from avocado.ledger.book import Close, check
from avocado.ledger.clock import Clock, SystemClock, new_id
from avocado.ledger.errors import LedgerCorrupt, LedgerUnavailable
from avocado.ledger.metrics import Metrics
from avocado.ledger.writer import CAPACITY, Writer
from avocado.terms.usage import Usage

_CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class Recovery:
    """What opening found: open holds of ended processes, settled at their progress or voided."""

    settled: int = 0
    voided: int = 0


class Ledger:
    """The one writer of a book in this process. Implements :class:`operation.Book`."""

    def __init__(self, store: Store, clock: Clock, capacity: int = CAPACITY) -> None:
        self.recovery = _recover(store, clock)
        self._writer = Writer(store, clock, capacity)
        self._writer.start()

    @property
    def metrics(self) -> Metrics:
        return self._writer.metrics

    @property
    def down(self) -> LedgerUnavailable | None:
        """Why nothing can be written now, or None: what a health check wants to know."""
        return self._writer.down

    def submit(self, operation: o.AnyOperation) -> Future[o.AnyResult]:
        """For threads: a future that resolves after the commit, or fails with a LedgerError."""
        check(operation)
        future: Future[o.AnyResult] = Future()
        self._writer.submit(operation, future, None)
        return future

    def do_now(self, operation: o.AnyOperation) -> o.AnyResult:
        """Submits and waits. Not for an event loop."""
        return self.submit(operation).result()

    def ask(self, operation: o.AnyOperation) -> asyncio.Future[o.AnyResult]:
        """For the running event loop. Cancelling the future does not undo the operation."""
        check(operation)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[o.AnyResult] = loop.create_future()
        self._writer.submit(operation, future, loop)
        return future

    async def do(self, operation: o.AnyOperation) -> o.AnyResult:
        return await self.ask(operation)

    async def hold(self, operation: o.Hold) -> o.Held:
        return cast(o.Held, await self.ask(operation))

    async def settle(self, hold: str, usage: Usage, finish: str = "stop") -> o.Settled:
        return cast(o.Settled, await self.ask(o.Settle(hold=hold, usage=usage, finish=finish)))

    async def void(self, hold: str, reason: str) -> o.Voided:
        return cast(o.Voided, await self.ask(o.Void(hold=hold, reason=reason)))

    def progress(self, hold: str, usage: Usage) -> None:
        self._writer.progress(hold, usage)

    def halt(self, detail: str, seq: int | None = None) -> None:
        """Refuses writes from now on, because the book was found damaged at ``seq``."""
        self._writer.halt(LedgerCorrupt(detail, seq))

    def close(self) -> None:
        """Commits what waits and closes the book. Twice is once."""
        self._writer.stop()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _recover(store: Store, clock: Clock) -> Recovery:
    settled = voided = 0
    while orphans := store.orphans()[:_CHUNK]:
        closes = [Close(hold=hold, cause="recovered") for hold in orphans]
        outcomes = batch.run(store, closes, clock.now())
        ended = [outcome for outcome in outcomes if isinstance(outcome, o.Settled | o.Voided)]
        settled += sum(isinstance(outcome, o.Settled) for outcome in ended)
        voided += sum(isinstance(outcome, o.Voided) for outcome in ended)
        if not ended:
            break  # another process is at it
    return Recovery(settled, voided)


def open_ledger(target: Path | str, clock: Clock | None = None, capacity: int = CAPACITY) -> Ledger:
    """Opens the book at ``target`` for writing, creating it if need be: a file, or the
    ``postgresql://`` address of a database (which needs the ``psycopg`` package).

    Raises:
        LedgerLocked: another process writes to it.
        LedgerCorrupt: it is damaged; ``seq`` names the first bad entry.
        LedgerUnavailable: it cannot be reached or is of a newer version.
        UnsafeLibrary: the database could lose acknowledged commits.
    """
    clock = clock or SystemClock()
    store = _store(target, clock)
    try:
        return Ledger(store, clock, capacity)
    except BaseException:
        store.close()
        raise


def is_postgres(target: Path | str) -> bool:
    """Whether a target names a PostgreSQL database rather than a file."""
    return str(target).startswith(("postgresql://", "postgres://"))


def _store(target: Path | str, clock: Clock) -> Store:
    epoch = new_id("epoch-")
    if is_postgres(target):
        from avocado.ledger.postgres import PostgresStore

        return PostgresStore(str(target), epoch, clock)
    from avocado.ledger.sqlite import SqliteStore

    return SqliteStore(Path(target), epoch, clock.now())
