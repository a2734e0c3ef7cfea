"""Runner: takes batches that nobody runs, and keeps them while this process lives.

One process at a time runs a batch, by a lease that it renews; who dies loses it. A lease is only
about not working twice: that no line is charged twice is the ledger's promise, whatever clocks say.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time

from avocado.gateway.batches import leftovers, stored_batches
from avocado.gateway.batches.job import Job
from avocado.gateway.batches.means import Means
from avocado.gateway.batches.rows import NANO, BatchRow
from avocado.gateway.shelf import ShelfUnavailable

log = logging.getLogger("avocado.gateway")

JOBS = 64
JOBS_OF_ONE = 4
"""Batches that one process runs side by side, and that run of one customer, wherever."""
TIDY_SECONDS = 30.0
ABANDONED_SECONDS = 2 * 3600
STOP_SECONDS = 3.0
"""How long jobs may take to write down what has ended, when the server goes."""


class Runner:
    """``run`` is a task of the server. ``paused``: batches of this process that do not go on."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._owner = secrets.token_hex(8)
        self._jobs: dict[str, tuple[Job, asyncio.Task[None]]] = {}
        self._woken = asyncio.Event()
        self._renewed = 0.0

    def wake(self) -> None:
        self._woken.set()

    @property
    def paused(self) -> dict[str, str]:
        return {
            name: job.taken.paused
            for name, (job, _) in self._jobs.items()
            if job.taken.paused is not None
        }

    async def run(self) -> None:
        """As long as the server lives; cancelled, it lets go of what it runs."""
        tidying = asyncio.get_running_loop().create_task(self._tidy())
        try:
            while True:
                try:
                    await self._look()
                except ShelfUnavailable as error:
                    log.warning("batches cannot be looked at: %s", error)
                await self._rest()
        finally:
            tidying.cancel()
            await self._stop()

    async def _rest(self) -> None:
        self._woken.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._means.limits.tick):
                await self._woken.wait()

    async def _look(self) -> None:
        """Takes what is free, renews what is ours, and tells jobs what was asked of them."""
        limits, kept = self._means.limits, self._means.store
        if self._jobs and time.monotonic() - self._renewed > limits.lease / 3:
            self._renewed = time.monotonic()
            for row in await kept.do(stored_batches.renew, self._owner, limits.lease):
                self._begin(row)
        for name, (job, _) in list(self._jobs.items()):
            job.taken.seen(await kept.look(stored_batches.batch_of, name))
        room = JOBS - len(self._jobs)
        if room and not self._means.stopping():
            for row in await kept.do(
                stored_batches.claim, self._owner, limits.lease, room, JOBS_OF_ONE
            ):
                self._begin(row)

    def _begin(self, row: BatchRow) -> None:
        if row.id in self._jobs:
            return
        job = Job(self._means, row)
        task = asyncio.get_running_loop().create_task(job.run())
        self._jobs[row.id] = (job, task)
        task.add_done_callback(lambda _: self._over(row.id, task))

    def _over(self, name: str, task: asyncio.Task[None]) -> None:
        self._jobs.pop(name, None)
        if not task.cancelled() and task.exception() is not None:
            # Its lease ends by itself, and then it is tried again, here or elsewhere.
            log.error("batch %s failed", name, exc_info=task.exception())
        self.wake()

    async def _tidy(self) -> None:
        while True:
            try:
                more = True
                while more:
                    abandoned = time.time_ns() - ABANDONED_SECONDS * NANO
                    more = await self._means.store.do(leftovers.tidy, int(time.time()), abandoned)
            except ShelfUnavailable as error:
                log.warning("files were not tidied: %s", error)
            await asyncio.sleep(TIDY_SECONDS)

    async def _stop(self) -> None:
        tasks = [task for _, task in self._jobs.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        with contextlib.suppress(ShelfUnavailable):  # the leases end by themselves
            await self._means.store.do(stored_batches.release, self._owner)
