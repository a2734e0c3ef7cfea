"""Desk: every paid request that is running. Lets them in, starts, watches and drains them.

The tasks are the server's: they outlive the HTTP request that asked for them. A watch looks at all
of them a few times a second, so that no event of a stream pays for a timer of its own: it reports
progress to the book and ends what hangs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from avocado.engine.engine import Engine, EngineError, Generation, PromptTooLong, Unsupported
from avocado.gateway import chorus
from avocado.gateway.chat import PaidRequest, Stage
from avocado.gateway.errors import of_engine, unavailable
from avocado.gateway.exchange import Exchange
from avocado.gateway.limits import Gate, Limits
from avocado.gateway.order import Order
from avocado.gateway.surface import Inputs, Voice
from avocado.gateway.verdict import Stop
from avocado.ledger.errors import LedgerError, LedgerUnavailable
from avocado.ledger.operation import Book
from avocado.terms.usage import Usage

log = logging.getLogger("avocado.gateway")

TICK_SECONDS = 0.25
POOR_SECONDS = 60.0
"""How long a customer that lacked money has its hold first and its engine after that."""


class Desk:
    """The running requests of one server. ``on_end`` hears of each exchange when it is over."""

    def __init__(
        self, book: Book, limits: Limits, on_end: Callable[[Exchange], None] = lambda _: None
    ) -> None:
        self.limits = limits
        self.draining = False
        self.gate = Gate(limits.running, limits.running_per_customer)
        self._book = book
        self._on_end = on_end
        self._running: dict[str, PaidRequest] = {}
        self._reported: dict[str, int] = {}
        self._poor: dict[str, float] = {}
        self._stopping = False
        """Whether the drain is over: what runs is being stopped, and nothing may start."""
        self._closed = False

    @property
    def running(self) -> int:
        return len(self._running)

    def enter(self, tenant: str) -> None:
        """Lets a request in, before anything of it is read; ``leave`` or ``start`` must follow.

        Raises:
            ApiError: 503 while draining, 429 above the limits; both with Retry-After.
        """
        if self.draining:
            raise unavailable("The server is shutting down; try again", "shutting_down")
        self.gate.enter(tenant)

    def leave(self, tenant: str) -> None:
        self.gate.leave(tenant)

    def start(self, exchange: Exchange, order: Order, voice: Voice, engine: Engine) -> PaidRequest:
        """Starts the engine and the paid task.

        Raises:
            ApiError: the engine is full or will not serve this; or the drain is over.
        """
        if self._stopping:
            raise unavailable("The server is shutting down; try again", "shutting_down")
        request = PaidRequest(
            self._book,
            self.insist,
            exchange,
            order,
            voice,
            lambda: _begin(engine, order),
        )
        # A likely refusal, or a likely duplicate, takes its hold before it takes engine time.
        if order.hold.idempotency_key is None and not self._is_poor(order.hold.tenant):
            try:
                request.start_engine()
            except (EngineError, PromptTooLong, Unsupported) as error:
                raise of_engine(error) from error
        task = asyncio.get_running_loop().create_task(request.run())
        request.task = task
        self._running[exchange.id] = request
        task.add_done_callback(lambda _: self._end(request))
        return request

    def _is_poor(self, tenant: str) -> bool:
        return bool(self._poor) and self._poor.get(tenant, 0.0) > time.monotonic()

    def _end(self, request: PaidRequest) -> None:
        exchange, tenant = request.exchange, request.order.hold.tenant
        del self._running[exchange.id]
        self._reported.pop(exchange.id, None)
        self.gate.leave(tenant)
        if request.poor:
            self._poor[tenant] = time.monotonic() + POOR_SECONDS
        elif self._poor:
            self._poor.pop(tenant, None)
        exchange.hang_up()
        self._on_end(exchange)

    # -- the watch -------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Runs as long as the server does."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                self.tick(time.monotonic())
            except Exception:
                log.exception("the watch failed and goes on")

    def tick(self, now: float) -> None:
        """Looks at every running request once."""
        limits = self.limits
        for request in list(self._running.values()):
            waited = now - request.moved
            if request.stage is Stage.HOLDING:
                if waited > limits.hold_seconds - TICK_SECONDS:
                    request.give_up_hold()
                continue
            if request.stage is Stage.CLOSING:
                if request.sending and waited > limits.stall_seconds:
                    request.cut_off()
                continue
            if request.sending and waited > limits.stall_seconds:
                request.stop(Stop.STALLED)
            elif not request.sending and waited > limits.idle_seconds:
                request.stop(Stop.HUNG)
            elif now - request.began > limits.request_seconds:
                request.stop(Stop.OVERTIME)
            self._report(request)

    def _report(self, request: PaidRequest) -> None:
        """Tells the book what a stream has delivered: what a crash from now on is charged as.

        A plain answer delivers nothing before its end, so a crash before it voids the hold.
        """
        name = request.exchange.id
        if request.delivered > self._reported.get(name, 0):
            self._reported[name] = request.delivered
            self._book.progress(name, Usage(request.order.hold.prompt_tokens, request.delivered))

    # -- the ledger is away, the server goes -----------------------------------------------------

    async def insist(self, act: Callable[[], Awaitable[object]]) -> None:
        """Repeats a ledger operation until it is done, moot, or the server has closed."""
        delay = 0.05
        while not self._closed:
            await asyncio.sleep(delay)
            try:
                await act()
            except LedgerUnavailable:
                delay = min(2 * delay, 2.0)
            except LedgerError as error:
                log.error("given up: %s", error)
                return
            else:
                return

    async def drain(self, seconds: float) -> None:
        """Lets what was let in finish within ``seconds``; what is left is stopped and settled."""
        self.draining = True
        await self._empty(seconds)
        self._stopping = True
        for request in list(self._running.values()):
            request.stop(Stop.SHUTDOWN)
        await self._wait(2 * CLOSE_SECONDS)
        self._closed = True
        await self._wait(CLOSE_SECONDS)

    async def _empty(self, seconds: float) -> None:
        """Waits until nobody is inside. Who was let in may not have started yet: its body or its
        key is still being read."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self.gate.total and (left := deadline - loop.time()) > 0:
            if self._running:
                await self._wait(left)
            else:
                await asyncio.sleep(min(left, 0.02))

    async def _wait(self, seconds: float) -> None:
        tasks = [request.task for request in self._running.values() if request.task]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)


CLOSE_SECONDS = 2.5
"""How long stopped requests may take to settle, and then to notice that the ledger is gone."""


def _begin(engine: Engine, order: Order) -> Generation | chorus.Chorus:
    """Starts what an order asks for: vectors of all its prompts, or answers to each."""
    wanted = order.ask.prompt
    if isinstance(wanted, Inputs):
        assert engine.embedder is not None, "an order for vectors is taken only where some are made"
        return engine.embedder.embed(order.prompts, wanted.dimensions)
    return chorus.start(
        lambda prompt, number: engine.generate(prompt, order.sampling_of(number)),
        order.prompts,
        order.ask.n,
    )
