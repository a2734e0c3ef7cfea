"""Job: one batch that this process runs, from its file to its results.

What cannot be done now (the disk is full, the ledger is away) is tried again, a little later each
time, and the batch says why it is paused. Nothing is lost by that: what has ended is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Final

from avocado.gateway.batches import stored_batches, stored_files, stored_lines
from avocado.gateway.batches.check import Checker
from avocado.gateway.batches.means import Lost, Means, Taken
from avocado.gateway.batches.results import write_results
from avocado.gateway.batches.rows import DONE, FAILED, BatchRow
from avocado.gateway.batches.wire import ErrorList, LineError
from avocado.gateway.batches.work import Work
from avocado.gateway.errors import ApiError
from avocado.gateway.shelf import ShelfUnavailable
from avocado.gateway.wire import encode
from avocado.ledger.errors import LedgerError

log = logging.getLogger("avocado.gateway")

PIECE: Final = 1024 * 1024
PAUSE_SECONDS: Final = (0.5, 30.0)
"""How long a pause takes, at first and at most."""


class Job:
    """``run`` is a task of the runner's."""

    def __init__(self, means: Means, row: BatchRow) -> None:
        self.taken = Taken(row)
        self._means = means
        self._store = means.store
        self._work = Work(means, self.taken)

    @property
    def row(self) -> BatchRow:
        return self.taken.row

    async def run(self) -> None:
        """Until the batch has ended, is another's, or the server stops."""
        pause, progress = PAUSE_SECONDS[0], -1
        while self.row.ended is None and not self._means.stopping():
            try:
                await self._step()
                await self._go_on()
            except Lost:
                return
            except (ShelfUnavailable, LedgerError) as error:
                ended = self.row.completed + self.row.failed
                pause = PAUSE_SECONDS[0] if ended != progress else min(2 * pause, PAUSE_SECONDS[1])
                progress = ended
                await self._pause(str(error), pause)

    async def _step(self) -> None:
        if self.row.status == "validating":
            await self._validate()
        elif self.row.status == "in_progress":
            await self._work.run()
        else:
            await self._conclude()

    async def _turn(self, since: str, status: str, **more: object) -> None:
        """Moves the batch on, unless it was cancelled meanwhile.

        Raises:
            Lost: it is another's now.
        """
        row = self.row
        found = await self._store.do(stored_batches.turn, row, (since,), status, **more)
        found = found or await self._store.look(stored_batches.batch_of, row.id)
        if found is None or found.epoch != row.epoch:
            raise Lost
        self.taken.row = found

    async def _pause(self, why: str, seconds: float) -> None:
        """The reason is stored where that is possible, for whoever asks another process."""
        if self.taken.paused is None:
            log.warning("batch %s is paused: %s", self.row.id, why)
        self.taken.paused = why
        with contextlib.suppress(ShelfUnavailable):  # that is the reason, then
            await self._store.do(stored_batches.note, self.row, why)
        await asyncio.sleep(seconds)

    async def _go_on(self) -> None:
        if self.taken.paused is not None:
            self.taken.paused = None
            await self._store.do(stored_batches.note, self.row, None)
            log.warning("batch %s goes on", self.row.id)

    async def _validate(self) -> None:
        row, errors, total, model = self.row, list[LineError](), 0, None
        try:
            caller = await self._means.standing(row.key_id)
        except ApiError as error:
            if error.status != 401:
                raise ShelfUnavailable(error.message) from error
            errors = [LineError(error.code or "invalid_api_key", error.message)]
        else:
            checker = Checker(row.id, row.endpoint, self._means.models(caller), self._means.limits)
            await self._read(checker)
            errors, total, model = checker.errors, checker.total, checker.model
        now = int(time.time())
        if errors:
            shown = encode(ErrorList(errors)).decode()
            await self._turn("validating", "failed", errors=shown, ended=now, owner=None)
        else:
            await self._turn("validating", "in_progress", in_progress=now, total=total, model=model)

    async def _read(self, checker: Checker) -> None:
        row, start = self.row, 0
        while piece := await self._store.look(stored_files.read, row.input, start, PIECE):
            rows = await asyncio.to_thread(checker.feed, piece)
            await self._store.do(stored_lines.add_lines, row, rows)
            start += len(piece)
            if self.taken.lost or self._means.stopping():
                raise Lost
        await self._store.do(stored_lines.add_lines, row, checker.end())

    async def _conclude(self) -> None:
        """Writes the results, and the batch is over: complete, expired or cancelled."""
        await self._work.settle_answered()
        # What ran when another process died may have been counted only now.
        row = await self._store.look(stored_batches.batch_of, self.row.id)
        if row is None or row.epoch != self.row.epoch or row.ended is not None:
            raise Lost
        output = await write_results(self._store, row, "output", DONE) if row.completed else None
        error = await write_results(self._store, row, "error", FAILED) if row.failed else None
        status = "cancelled"
        if row.status == "finalizing":
            expired = await self._store.look(stored_lines.has_expired, row.id)
            status = "expired" if expired else "completed"
        await self._turn(
            row.status,
            status,
            output=output,
            error=error,
            ended=int(time.time()),
            note=None,
            owner=None,
        )
