"""The writer: one thread that takes everything that waits and commits it together.

Callers queue operations and get their answers after the commit is durable. The queue is bounded:
full means refused. Between batches the thread does what has to happen by itself: durable progress,
holds past their lifetime, grants past their time, signs of life.
"""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

from avocado.ledger import batch, failpoint
from avocado.ledger import operation as o
from avocado.ledger.batch import Outcome, Store
from avocado.ledger.book import AnyInternal, Close, ExpireGrants
from avocado.ledger.clock import Clock
from avocado.ledger.errors import (
    Fenced,
    LedgerClosed,
    LedgerCorrupt,
    LedgerError,
    LedgerFull,
    LedgerUnavailable,
)
from avocado.ledger.metrics import Metrics
from avocado.terms.usage import Usage

SECOND: Final = 1_000_000_000
MAX_BATCH: Final = 1024
CAPACITY: Final = 20_000
_RETRY_SECONDS: Final = 0.5
_GRANTS_EVERY: Final = 60 * SECOND

Answer: TypeAlias = "Future[o.AnyResult] | asyncio.Future[o.AnyResult]"


@dataclass(slots=True)
class _Ticket:
    """An operation on its way, and who waits for it: a thread's future, or a loop's."""

    operation: AnyInternal
    future: Answer
    loop: asyncio.AbstractEventLoop | None


class Writer:
    """Owns the store once started. ``submit`` and ``progress`` may be called from any thread."""

    def __init__(self, store: Store, clock: Clock, capacity: int = CAPACITY) -> None:
        self.metrics = Metrics()
        self._store = store
        self._clock = clock
        self._capacity = capacity
        self._queue: deque[_Ticket] = deque()
        self._progress: dict[str, Usage] = {}
        self._wake = threading.Condition()
        self._idle = False
        self._stopping = False
        self._down: LedgerUnavailable | None = None
        self._open: dict[str, int] = {}
        self._next_tick = clock.monotonic() + SECOND
        self._next_grants = 0
        self._serving: list[_Ticket] = []
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._work, name="ledger-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()
        if self._store.patience is not None:
            threading.Thread(target=self._watch, name="ledger-watch", daemon=True).start()

    @property
    def down(self) -> LedgerUnavailable | None:
        """Why nothing can be written now; None when all is well."""
        return self._down

    def submit(
        self, operation: AnyInternal, future: Answer, loop: asyncio.AbstractEventLoop | None
    ) -> None:
        """Queues an operation. Raises LedgerFull, LedgerClosed or why the ledger is down."""
        if self._down is not None:
            raise copy.copy(self._down)
        if self._stalled():
            raise LedgerUnavailable("the database does not answer")
        ticket = _Ticket(operation, future, loop)
        with self._wake:
            if self._stopping:
                raise LedgerClosed("the ledger is closed")
            if len(self._queue) >= self._capacity:
                self.metrics.refused_full += 1
                raise LedgerFull(f"{self._capacity} operations wait already")
            self._queue.append(ticket)
            if self._idle:
                self._wake.notify()

    def progress(self, hold: str, usage: Usage) -> None:
        """Remembers the newest usage of an open hold for the next commit."""
        with self._wake:
            self._progress[hold] = usage

    def halt(self, error: LedgerUnavailable) -> None:
        """Refuses every write from now on, for good: the book was found damaged."""
        self._down = error

    def stop(self) -> None:
        """Commits what waits, then ends the thread and closes the store."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.ident is not None:
            self._thread.join()
        self._store.close()

    # -- the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            tickets, noted, stopping = self._take()
            if tickets or noted:
                self._serve(tickets, noted)
            if stopping and not tickets:
                return
            self._between()

    def _take(self) -> tuple[list[_Ticket], dict[str, Usage], bool]:
        with self._wake:
            if not self._queue and not self._stopping:
                self._idle = True
                self._wake.wait(timeout=self._patience())
                self._idle = False
            queue = self._queue
            if len(queue) <= MAX_BATCH:
                tickets = list(queue)
                queue.clear()
            else:
                tickets = [queue.popleft() for _ in range(MAX_BATCH)]
            noted, self._progress = self._progress, {}
            self.metrics.waiting = len(queue)
            return tickets, noted, self._stopping

    def _patience(self) -> float:
        if self._down is not None:
            return _RETRY_SECONDS
        left = (self._next_tick - self._clock.monotonic()) / SECOND
        return min(max(left, 0.0), 1.0)

    def _serve(self, tickets: list[_Ticket], noted: dict[str, Usage]) -> None:
        operations: list[AnyInternal] = [
            o.Progress(hold=hold, usage=usage) for hold, usage in noted.items()
        ]
        extra = len(operations)
        operations += [ticket.operation for ticket in tickets]
        self._serving = tickets
        self._busy_since = time.monotonic()
        outcomes = self._commit(operations)
        self._busy_since = None
        self._remember(operations, outcomes)
        _deliver(tickets, outcomes[extra:])
        if failpoint.armed:
            failpoint.reach("after_delivery")

    def _commit(self, operations: list[AnyInternal]) -> list[Outcome]:
        if self._down is not None:
            return [copy.copy(self._down) for _ in operations]
        begun = self._clock.monotonic()
        try:
            outcomes = batch.run(self._store, operations, self._clock.now())
        except (LedgerCorrupt, Fenced) as error:
            self._down = error
            return [copy.copy(error) for _ in operations]
        except LedgerUnavailable as error:
            return self._again(operations, error)
        except Exception as error:
            return self._one_by_one(operations, error)
        self.metrics.committed(len(operations), self._clock.monotonic() - begun)
        return outcomes

    def _one_by_one(self, operations: list[AnyInternal], error: Exception) -> list[Outcome]:
        """After a bug: it hurts only the operation that it comes with."""
        if len(operations) > 1:
            return [self._commit([operation])[0] for operation in operations]
        failed = LedgerError(f"internal: {type(error).__name__}: {error}")
        failed.__cause__ = error
        return [failed]

    def _again(self, operations: list[AnyInternal], error: LedgerUnavailable) -> list[Outcome]:
        """After a failed commit: connect afresh and ask once more; ids make that safe."""
        self.metrics.failed += 1
        try:
            self._store.reopen()
            return batch.run(self._store, operations, self._clock.now())
        except (LedgerCorrupt, Fenced) as fatal:
            self._down = fatal
        except LedgerUnavailable as still:
            self._down = still
        except Exception as broken:
            self._down = LedgerUnavailable(f"internal: {broken!r}")
        self._down.__cause__ = error
        return [copy.copy(self._down) for _ in operations]

    def _remember(self, operations: list[AnyInternal], outcomes: list[Outcome]) -> None:
        """Keeps the deadline of each open hold of this process, on the monotonic clock."""
        due = self._open
        for operation, outcome in zip(operations, outcomes, strict=True):
            if isinstance(outcome, o.Held):
                assert isinstance(operation, o.Hold)
                due.setdefault(outcome.hold, self._clock.monotonic() + operation.lifetime)
            elif isinstance(outcome, o.Settled | o.Voided):
                due.pop(outcome.hold, None)

    def _stalled(self) -> bool:
        begun, patience = self._busy_since, self._store.patience
        return begun is not None and patience is not None and time.monotonic() - begun > patience

    def _watch(self) -> None:
        """Tells callers that a silent database keeps waiting: their commit may or may not stand."""
        assert self._store.patience is not None
        while self._thread.is_alive():
            time.sleep(self._store.patience / 8)
            if not self._stalled():
                continue
            with self._wake:
                waiting = [*self._serving, *self._queue]
                self._queue.clear()
                self._serving = []
            silent: list[Outcome] = [
                LedgerUnavailable("the database does not answer") for _ in waiting
            ]
            _deliver(waiting, silent)

    # -- what happens by itself ------------------------------------------------------------------

    def _between(self) -> None:
        now = self._clock.monotonic()
        if self._down is not None:
            self._recover()
            return
        try:
            self._store.tidy()
            if now >= self._next_tick:
                self._next_tick = now + SECOND
                self._tick(now)
        except LedgerUnavailable as error:
            self.metrics.failed += 1
            self._down = error  # after any failure only a fresh connection is trusted

    def _tick(self, now: int) -> None:
        self._store.beat()
        late = [hold for hold, due in self._open.items() if due <= now][:MAX_BATCH]
        self._by_itself([Close(hold=hold, cause="deadline") for hold in late])
        for hold in late:
            self._open.pop(hold, None)
        orphans = self._store.orphans()[:MAX_BATCH]
        self._by_itself([Close(hold=hold, cause="recovered") for hold in orphans])
        if now >= self._next_grants:
            self._next_grants = now + _GRANTS_EVERY
            tenants = self._store.overdue(self._clock.now())[:MAX_BATCH]
            self._by_itself([ExpireGrants(tenant=tenant) for tenant in tenants])

    def _by_itself(self, operations: list[AnyInternal]) -> None:
        if operations:
            batch.run(self._store, operations, self._clock.now())

    def _recover(self) -> None:
        """Tries to come back after the store was away. Corruption and fencing are for good."""
        if isinstance(self._down, LedgerCorrupt | Fenced):
            return
        try:
            self._store.reopen()
            self._store.begin()
            self._store.rollback()
        except (LedgerCorrupt, Fenced) as error:
            self._down = error
        except LedgerUnavailable as error:
            self._down = error
        else:
            self._down = None


def _deliver(tickets: list[_Ticket], outcomes: list[Outcome]) -> None:
    """Answers everybody; one wake-up for each event loop, however many wait in it."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Answer, Outcome]]] = {}
    for ticket, outcome in zip(tickets, outcomes, strict=True):
        if ticket.loop is None:
            _resolve([(ticket.future, outcome)])
        else:
            by_loop.setdefault(ticket.loop, []).append((ticket.future, outcome))
    for loop, answers in by_loop.items():
        _call(loop, _resolve, answers)


def _call(
    loop: asyncio.AbstractEventLoop,
    function: Callable[[list[tuple[Answer, Outcome]]], None],
    answers: list[tuple[Answer, Outcome]],
) -> None:
    try:
        loop.call_soon_threadsafe(function, answers)
    except RuntimeError:
        return  # the loop is closed: nobody waits any more, and the commit stands


def _resolve(answers: list[tuple[Answer, Outcome]]) -> None:
    for future, outcome in answers:
        if future.done():
            continue  # cancelled while it waited; the commit stands
        with suppress(InvalidStateError):  # answered by the watch at this very moment
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
