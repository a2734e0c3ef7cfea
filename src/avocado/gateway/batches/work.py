"""Work: the lines of a batch, run while there is place for them.

Each line goes down the paid path under an idempotency key of its own, and its answer is stored
before it is paid. So wherever this process dies, the next one knows of each line: it was paid, and
here is its answer; or it was not, and then it is run again. A line ends once, and is charged once.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import time
from typing import Final

from avocado.gateway.batches import stored_batches, stored_lines
from avocado.gateway.batches.line import LineExchange
from avocado.gateway.batches.means import Lost, Means, Taken
from avocado.gateway.batches.rows import (
    ANSWERED,
    DONE,
    FAILED,
    PENDING,
    LineRow,
    idempotency_key,
    result_id,
)
from avocado.gateway.batches.share import Place
from avocado.gateway.batches.source import Source
from avocado.gateway.batches.wire import with_cost
from avocado.gateway.errors import KEY_IN_USE, ApiError
from avocado.gateway.shelf import ShelfUnavailable
from avocado.ledger.rows import OPEN, SETTLED
from avocado.terms.money import Money

log = logging.getLogger("avocado.gateway")

AHEAD: Final = 64
"""Lines that are looked up together."""
TRIES: Final = 3
"""How often an engine may fail at a line before that is its answer."""
TRIES_AWAY: Final = 20
"""The same where it may be the engine that is at fault: no other line has succeeded either."""
AGAIN_SECONDS: Final = 0.2
"""How long a line waits that is put off for the first time; it doubles each time."""
AGAIN_SOON, AGAIN_LATE = 5.0, 60.0
"""How long it waits at most, for a place or for an engine that is away."""
RICH: Final = 16
"""Lines that are paid one after another before several run at once again."""
POLL_SECONDS: Final = 0.05
LATER: Final = frozenset((0, 408, 429, 503))
"""Answers that say: not now. The line is none the worse for them."""
FAILURES: Final = frozenset((500, 504))
AWAY: Final = "engine_error"


class Work:
    """The lines of one batch."""

    def __init__(self, means: Means, taken: Taken) -> None:
        self._means = means
        self._store = means.store
        self._taken = taken
        self._source = Source(means.store, taken.row.input)
        self._running: set[asyncio.Task[None]] = set()
        self._waiting: list[LineRow] = []
        """The next lines that have not begun, the first of them last."""
        self._after, self._more = 0, True
        """The last line that was looked up, and whether there may be more behind it."""
        self._put_by: list[tuple[float, int, LineRow]] = []
        """Lines that were put off, by the time at which they are due."""
        self._waits: dict[int, float] = {}
        self._paid = 0
        self._paid_before: dict[int, int] = {}
        """How many lines were paid when an engine failed at a line for the first time."""
        self._poor = 0
        """How often a line alone was refused for lack of money since the last one that was paid.
        The third time, and each one after it, is final."""
        self._alone = 0
        """How many more lines have to run one at a time: what others hold may be all that is
        missing."""
        self._ended = asyncio.Event()
        """A line has ended, so a place may be free."""

    async def run(self) -> None:
        """Until every line has ended, or none may begin any more; then the batch moves on.

        Raises:
            ShelfUnavailable, LedgerError: it cannot go on now; call it again.
            Lost: it must not go on here.
        """
        self._put_by.clear()  # what is not over stands in the store
        try:
            await self.settle_answered()
            await self._start_lines()
        finally:
            ends = await asyncio.gather(*self._running, return_exceptions=True)
            self._running.clear()
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        if self._taken.lost or self._means.stopping():
            raise Lost
        await self.settle_answered()
        await self._move_on()

    async def _move_on(self) -> None:
        row, results = self._taken.row, ("output", "error")
        if row.status != "in_progress":
            return
        left = await self._store.look(stored_lines.lines_of, row.id, PENDING, 0, 1)
        if left and self._taken.may_begin:
            return
        await self._store.do(stored_lines.expire_lines, row)
        names = {name: result_id(row.id, name) for name in results}
        found = await self._store.do(
            stored_batches.turn,
            row,
            ("in_progress",),
            "finalizing",
            finalizing=int(time.time()),
            **names,
        )
        self._taken.seen(found or await self._store.look(stored_batches.batch_of, row.id))
        if self._taken.lost:
            raise Lost

    async def _start_lines(self) -> None:
        self._waiting, self._after, self._more = [], 0, True
        while self._taken.may_begin and not self._means.stopping():
            self._raise_failures()
            await self._look_ahead()
            if self._put_by and self._put_by[0][0] <= time.monotonic():
                due = heapq.heappop(self._put_by)
                if not await self._begin(due[2]):
                    heapq.heappush(self._put_by, due)
                    await self._rest()
            elif self._waiting:
                if await self._begin(self._waiting[-1]):
                    self._waiting.pop()
                else:
                    await self._rest()
            elif self._put_by or self._running:
                await self._rest()
            else:
                return
            await asyncio.sleep(0)  # whoever waits for an answer comes first

    async def _look_ahead(self) -> None:
        if self._waiting or not self._more:
            return
        found = await self._store.look(
            stored_lines.lines_of, self._taken.row.id, PENDING, self._after, AHEAD
        )
        self._more = len(found) == AHEAD
        self._after = found[-1].line if found else self._after
        self._waiting = found[::-1]

    def _place(self, line: LineRow) -> Place | None:
        if self._alone and self._running:
            return None
        return self._means.places.take(line.model, self._taken.row.tenant)

    def _raise_failures(self) -> None:
        for task in [task for task in self._running if task.done()]:
            task.result()

    async def _rest(self) -> None:
        """Until a line has ended, or a moment has passed."""
        self._ended.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._ended.wait()

    async def _begin(self, line: LineRow) -> bool:
        """Whether there was place for it."""
        text = await self._source.read(line.start, line.size)
        place = self._place(line)
        if place is None:
            return False
        task = asyncio.get_running_loop().create_task(self._line(line, text))
        self._running.add(task)

        def end(_: object) -> None:
            self._means.places.give_back(place)
            self._ended.set()
            if not task.cancelled() and task.exception() is None:
                self._running.discard(task)

        task.add_done_callback(end)
        return True

    # -- one line --------------------------------------------------------------------------------

    async def _line(self, line: LineRow, text: bytes) -> None:
        """One line, once: it ends, or is put off."""
        row, body = self._taken.row, stored_lines.body_in(text)

        async def keep(hold: str, answer: bytes) -> None:
            if not await self._store.do(stored_lines.answer, row, line.line, hold, answer):
                self._taken.lost = True
                raise ShelfUnavailable("another process runs this batch")

        exchange = LineExchange(row.endpoint, idempotency_key(row.id, line.line), keep)
        try:
            caller = await self._means.standing(row.key_id)
            await self._means.sell(exchange, caller, body)
        except ApiError as error:
            await exchange.refuse(error)
        if exchange.status == 200:
            self._poor, self._taken.paused = 0, None
            self._paid += 1
            self._alone = max(0, self._alone - 1)
            await self._end(line, DONE, exchange)
        elif exchange.kept:
            await self._settle(line.line)
            if exchange.error is not None and exchange.error.code == "storage_unavailable":
                raise ShelfUnavailable(exchange.error.message)
        else:
            await self._refused(line, exchange)

    async def _refused(self, line: LineRow, exchange: LineExchange) -> None:
        error, status = exchange.error, exchange.status
        if error is not None and error.code == KEY_IN_USE:
            await self._known(line, exchange, error)
        elif status == 402 and not self._is_too_poor():
            self._put_off(line, AGAIN_SECONDS)
        elif (status in FAILURES or (error and error.code == AWAY)) and self._may_try(line, status):
            row = self._taken.row
            await self._store.do(stored_lines.again, row, line.line)
            fresh = await self._store.look(stored_lines.line_of, row.id, line.line)
            self._put_off(fresh or line, AGAIN_LATE)
        elif status in LATER and not (error and error.code == AWAY):
            if status == 503 and error is not None:
                self._taken.paused = error.message
            self._put_off(line)
        else:
            await self._end(line, FAILED, exchange)

    def _may_try(self, line: LineRow, status: int) -> bool:
        """Whether a line at which an engine failed is tried again. An engine that is away fails at
        all of them, and that is no line's fault."""
        before = self._paid_before.setdefault(line.line, self._paid)
        at_fault = status in FAILURES or self._paid > before
        return line.tries + 1 < (TRIES if at_fault else TRIES_AWAY)

    def _is_too_poor(self) -> bool:
        """Whether there is too little money for a line, and not just too much of it on hold."""
        self._alone = RICH
        if len(self._running) > 1:
            return False
        self._poor += 1
        return self._poor > 2

    async def _known(self, line: LineRow, exchange: LineExchange, error: ApiError) -> None:
        """The ledger has a hold for this line: of a process that died, or that still runs it."""
        row = self._taken.row
        fresh = await self._store.look(stored_lines.line_of, row.id, line.line)
        if fresh is not None and fresh.state == ANSWERED:
            await self._settle(line.line)
        elif error.retry_after is not None:
            self._put_off(line)
        else:
            log.error("batch %s line %d was charged and its answer is gone", row.id, line.line)
            await self._end(line, FAILED, exchange)

    def _put_off(self, line: LineRow, most: float = AGAIN_SOON) -> None:
        wait = min(2 * self._waits.get(line.line, AGAIN_SECONDS / 2), most)
        self._waits[line.line] = wait
        heapq.heappush(self._put_by, (time.monotonic() + wait, line.line, line))

    async def _end(self, line: LineRow, state: str, exchange: LineExchange) -> None:
        self._waits.pop(line.line, None)
        await self._store.do(
            stored_lines.end_line,
            self._taken.row,
            line.line,
            state,
            exchange.status,
            exchange.id,
            exchange.answer,
            exchange.usage,
        )

    # -- answers that wait to hear whether they were paid ----------------------------------------

    async def settle_answered(self) -> None:
        """Finds out about all of them."""
        batch, after = self._taken.row.id, 0
        while found := await self._store.look(stored_lines.lines_of, batch, ANSWERED, after, AHEAD):
            for line in found:
                await self._settle(line.line)
            after = found[-1].line

    async def _settle(self, number: int) -> None:
        """Asks the ledger: a paid answer is the line's; one that is not is dropped, and the line
        is run again."""
        row = self._taken.row
        while not self._taken.lost:
            line = await self._store.look(stored_lines.line_of, row.id, number)
            if line is None or line.state != ANSWERED or line.hold is None or line.body is None:
                return
            hold = await self._means.holds.find(line.hold)
            if hold is not None and hold.state == SETTLED:
                body = with_cost(line.body, Money(hold.charge, hold.currency))
                await self._store.do(
                    stored_lines.end_line, row, number, DONE, 200, line.hold, body, hold.usage()
                )
                return
            if hold is None or hold.state != OPEN:
                await self._store.do(stored_lines.again, row, number)
                self._put_off(line)
                return
            await asyncio.sleep(POLL_SECONDS)
