"""What became of a line's hold: the ledger is asked, in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from avocado.ledger.errors import LedgerError
from avocado.ledger.reader import Reader
from avocado.ledger.rows import HoldRow


class Holds:
    """Looks holds up by their request id."""

    def __init__(self, open_book: Callable[[], Reader]) -> None:
        self._open = open_book
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="gateway-holds")
        self._reader: Reader | None = None

    async def find(self, hold: str) -> HoldRow | None:
        """Raises LedgerError: the ledger cannot be read."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._find, hold)

    def _find(self, hold: str) -> HoldRow | None:
        try:
            if self._reader is None:
                self._reader = self._open()
            return self._reader.hold(hold)
        except LedgerError:
            self._close()
            raise

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def close(self) -> None:
        self._pool.submit(self._close)
        self._pool.shutdown(wait=True)
