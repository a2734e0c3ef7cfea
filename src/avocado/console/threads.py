"""Threads: pages run in a few of them, each with a reader of the ledger, a daybook and a connection
to our tables of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from avocado.billing.daybook import Daybook
from avocado.console.store import open_store
from avocado.gateway.shelf import Database
from avocado.ledger.reader import Reader, open_reader

T = TypeVar("T")
COUNT: Final = 8


Connection = Reader | Database | Daybook


class Threads:
    """``ledger`` and ``store`` are files or addresses of PostgreSQL databases, ``daybook`` is a
    file."""

    def __init__(self, ledger: Path | str, store: Path | str, daybook: Path) -> None:
        self._ledger = ledger
        self._store = store
        self._daybook = daybook
        self._own = threading.local()
        self._pool = ThreadPoolExecutor(COUNT, thread_name_prefix="console")
        self._open: set[Connection] = set()
        self._lock = threading.Lock()

    async def run(self, work: Callable[[], T]) -> T:
        """Does ``work`` in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def submit(self, work: Callable[[], None]) -> None:
        """Does ``work`` in one of the threads, and waits for nothing."""
        self._pool.submit(work)

    def reader(self) -> Reader:
        """This thread's reader of the ledger."""
        found: Reader | None = getattr(self._own, "reader", None)
        if found is None:
            found = self._own.reader = open_reader(self._ledger)
            self._keep(found)
        return found

    def database(self) -> Database:
        """This thread's connection to the console's tables."""
        found: Database | None = getattr(self._own, "database", None)
        if found is None:
            found = self._own.database = open_store(self._store)
            self._keep(found)
        return found

    def daybook(self) -> Daybook:
        """This thread's daybook, with all in it that the ledger has now. Not to be asked for inside
        ``reader().snapshot()``."""
        found: Daybook | None = getattr(self._own, "daybook", None)
        if found is None:
            found = self._own.daybook = Daybook(self._daybook)
            self._keep(found)
        found.refresh(self.reader())
        return found

    def _keep(self, connection: Connection) -> None:
        with self._lock:
            self._open.add(connection)

    def forget(self) -> None:
        """Closes this thread's connections; the next use opens them afresh."""
        for name in ("reader", "database", "daybook"):
            found = getattr(self._own, name, None)
            setattr(self._own, name, None)
            if found is not None:
                with self._lock:
                    self._open.discard(found)
                with contextlib.suppress(Exception):  # it is broken already
                    found.close()

    def close(self) -> None:
        """Waits for what is being done and closes all connections."""
        self._pool.shutdown(wait=True)
        for each in self._open:
            each.close()
        self._open.clear()
