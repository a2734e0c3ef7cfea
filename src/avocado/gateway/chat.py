"""ONE paid request, top to bottom: hold, generate, settle; whatever surface it came in by.

The engine starts at once and the first byte waits for the hold to be durable; the last bytes wait
for the settlement to be durable. The task that does this belongs to the server (``desk``), not to
the request, so a cancelled request cannot skip its settlement. Knows nothing about JSON or prices:
the voice writes, the ledger computes.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from avocado.engine.engine import Delta, EngineError, Finish, Generation, TokenLogprob
from avocado.gateway.chorus import Chorus, Part
from avocado.gateway.errors import ApiError, internal, of_ledger, unavailable
from avocado.gateway.exchange import Exchange
from avocado.gateway.order import Order
from avocado.gateway.shelf import ShelfUnavailable
from avocado.gateway.surface import Answer, Bill, Voice
from avocado.gateway.verdict import Charge, Ending, Release, Stop, Verdict, judge
from avocado.ledger.errors import (
    HoldNotOpen,
    InsufficientFunds,
    LedgerError,
    LedgerUnavailable,
    SpendLimitReached,
)
from avocado.ledger.operation import Book, Settled
from avocado.terms.money import Money
from avocado.terms.price import MILLION
from avocado.terms.usage import Usage

log = logging.getLogger("avocado.gateway")

CANCEL_SECONDS = 1.0
"""How long an engine may take to let go of a cancelled request."""


class Stage(enum.Enum):
    """Where a paid request is. Only the first two may be interrupted from outside."""

    HOLDING = 0
    SERVING = 1
    CLOSING = 2


Insist = Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]
"""Repeats a ledger operation until the ledger has taken it."""


@dataclass(slots=True)
class _Choice:
    """One answer as far as it came. ``text`` and ``logprobs`` are kept for a plain request."""

    text: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: Finish | None = None
    delivered: int = 0


class PaidRequest:
    """One order on its way from the hold to the settlement; ``run`` is a task of the server."""

    def __init__(
        self,
        book: Book,
        insist: Insist,
        exchange: Exchange,
        order: Order,
        voice: Voice,
        start: Callable[[], Generation | Chorus],
    ) -> None:
        self.exchange = exchange
        self.order = order
        self.stage = Stage.HOLDING
        self.began = self.moved = time.monotonic()
        self.sending = False
        """Whether the client, not the engine, is waited for."""
        self.stopped: Stop | None = None
        self.poor = False
        """Whether the ledger refused because the customer may not spend that much."""
        self.task: asyncio.Task[None] | None = None
        self._book = book
        self._insist = insist
        self._voice = voice
        self._start = start
        self._generation: Generation | Chorus | None = None
        self._choices = [_Choice() for _ in range(order.hold.n)]
        self._open = False
        self._overdue = False

    @property
    def delivered(self) -> int:
        """Completion tokens whose text the client of a stream was sent."""
        return sum(choice.delivered for choice in self._choices)

    # -- from outside: the client, the watch, the drain ------------------------------------------

    def start_engine(self) -> None:
        """Starts the engine before the hold is durable.

        Raises:
            EngineError, PromptTooLong: it will not serve this; nothing was held yet.
        """
        self._generation = self._start()

    def stop(self, why: Stop) -> None:
        """Ends the generation within a step. It is charged or released as the verdict says."""
        if self.stopped is None and self.stage is not Stage.CLOSING:
            self.stopped = why
            if self.stage is Stage.SERVING and self.task is not None:
                self.task.cancel()

    def cut_off(self) -> None:
        """The client does not take the last bytes; the money is not touched by that."""
        if self.stage is Stage.CLOSING and self.sending and self.task is not None:
            self.task.cancel()

    def give_up_hold(self) -> None:
        """The ledger did not answer in time: the client hears so, the hold is voided."""
        if self.stage is Stage.HOLDING and not self._overdue and self.task is not None:
            self._overdue = True
            self.task.cancel()

    # -- the task --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ends with a verdict on the hold, carried out; raises nothing but a cancellation."""
        try:
            if await self._hold():
                await self._close(judge(await self._serve()))
        except Exception:
            log.exception("request %s failed", self.exchange.id)
            self.exchange.outcome = "internal_error"
            await self._tell(internal())

    async def _hold(self) -> bool:
        try:
            await self._book.hold(self.order.hold)
        except LedgerError as error:
            self.poor = isinstance(error, InsufficientFunds | SpendLimitReached)
            refusal = _refused(error, self.order)
        except asyncio.CancelledError:
            if not self._overdue:
                raise
            _uncancel()
            refusal = unavailable("The ledger did not answer in time", "ledger_unavailable")
        else:
            self.stage = Stage.SERVING
            self.moved = time.monotonic()
            return True
        self.stage = Stage.CLOSING
        await self._let_go()
        await self._tell(refusal)
        if self._overdue:
            await self._void("ledger_timeout")
        return False

    async def _serve(self) -> Ending:
        """Passes events on until the generation ends, one way or another."""
        failure: Exception | None = None
        try:
            if self.stopped is None:
                if self._generation is None:
                    self._generation = self._start()
                async for event in self._generation:
                    self.moved = time.monotonic()
                    if isinstance(event, Part):
                        await self._hear(event.choice, event.event)
                    else:
                        await self._hear(0, event)
        except asyncio.CancelledError:
            _uncancel()
            self.stopped = self.stopped or Stop.SHUTDOWN
        except Exception as error:
            failure = error
            bug = not isinstance(error, EngineError)
            log.warning("request %s: engine: %r", self.exchange.id, error, exc_info=bug)
        self.stage = Stage.CLOSING
        finish = self._finish()
        usage = finish.usage if finish else await self._let_go()
        return Ending(usage, finish, failure, self.stopped, self._open)

    async def _hear(self, number: int, event: Delta | Finish) -> None:
        choice = self._choices[number]
        if isinstance(event, Finish):
            choice.finish = event
        elif not self.order.ask.stream:
            choice.text.append(event.text)
            choice.logprobs.extend(event.logprobs)
        elif written := self._voice.delta(number, event):
            self.sending = True
            await self._write(written)
            self.sending = False
            choice.delivered = event.completion

    def _finish(self) -> Finish | None:
        """How the answers ended together; None if one of them did not."""
        ends = self._ends()
        if self._generation is None or len(ends) < len(self._choices):
            return None
        if len(ends) == 1:
            return ends[0]
        cut = any(end.reason == "length" for end in ends)
        return Finish("length" if cut else "stop", self._generation.usage)

    def _ends(self) -> list[Finish]:
        return [choice.finish for choice in self._choices if choice.finish is not None]

    async def _write(self, events: bytes) -> None:
        if self._open:
            await self.exchange.event(events)
        else:
            self._open = True
            await self.exchange.open_stream(self._voice.first() + events)

    async def _let_go(self) -> Usage:
        """Cancels the engine; the final usage, or what was delivered if it doesn't answer."""
        if self._generation is not None:
            try:
                async with asyncio.timeout(CANCEL_SECONDS):
                    return await self._generation.cancel()
            except Exception as error:
                log.warning("request %s: the engine let not go: %r", self.exchange.id, error)
        return Usage(self.order.hold.prompt_tokens, self.delivered)

    # -- the end ---------------------------------------------------------------------------------

    async def _close(self, verdict: Verdict) -> None:
        exchange = self.exchange
        if exchange.keep_unpaid is not None and isinstance(verdict, Charge):
            verdict = await self._keep_unpaid(exchange.keep_unpaid, verdict)
        if isinstance(verdict, Charge):
            exchange.outcome = verdict.finish
            settled = await self._settle(verdict)
            if settled is not None:
                exchange.bill(settled.usage, settled.charge, settled.currency)
                await self._answer(
                    verdict, Bill(settled.usage, Money(settled.charge, settled.currency))
                )
            return
        exchange.outcome = verdict.reason
        if isinstance(verdict, Release):
            await self._void(verdict.reason, verdict.error)
        else:
            log.error("request %s: %s; its hold stays", exchange.id, verdict.reason)
        await self._tell(verdict.error)

    async def _keep_unpaid(
        self, keep: Callable[[bytes], Awaitable[None]], verdict: Charge
    ) -> Verdict:
        """The answer is durable before its settlement: none that was charged can be lost. Where it
        cannot be kept it is not charged."""
        nothing = Bill(verdict.usage, Money(0, self.order.offer.price.currency))
        try:
            await keep(self._voice.whole(self._whole(), nothing))
        except ShelfUnavailable as error:
            log.error("request %s: its answer is not kept: %s", self.exchange.id, error)
            refusal = unavailable("The answer cannot be stored now", "storage_unavailable")
            return Release("not_kept", refusal)
        return verdict

    def _whole(self) -> list[Answer]:
        return [
            Answer("".join(choice.text), choice.finish, tuple(choice.logprobs))
            for choice in self._choices
            if choice.finish is not None
        ]

    async def _answer(self, verdict: Charge, bill: Bill) -> None:
        if verdict.error is not None:
            await self._tell(verdict.error, bill)
        elif not self.order.ask.stream:
            whole = self._voice.whole(self._whole(), bill)
            await self._end_with(self.exchange.reply(200, whole))
        else:
            if not self._open:
                await self._write(b"")
            await self._end_with(self.exchange.close_stream(self._voice.last(self._ends(), bill)))

    async def _tell(self, error: ApiError, bill: Bill | None = None) -> None:
        """An error: a status while nothing was sent, else the last event of the stream."""
        exchange = self.exchange
        if exchange.answered:
            return
        if self.stopped in (Stop.DISCONNECT, Stop.STALLED):
            exchange.hang_up()
        elif self._open:
            await self._end_with(exchange.close_stream(self._voice.broken(error, bill)))
        else:
            await self._end_with(exchange.refuse(error))

    async def _end_with(self, sent: Awaitable[None]) -> None:
        """The last bytes. A client that does not take them is cut off by the watch."""
        self.sending, self.moved = True, time.monotonic()
        try:
            await sent
        except asyncio.CancelledError:
            _uncancel()
            self.exchange.hang_up()
        finally:
            self.sending = False

    async def _settle(self, verdict: Charge) -> Settled | None:
        """The settlement, durable. While the ledger is away the client is told so and it is tried
        again until it is done; a client that got nothing is charged nothing.
        """
        hold = self.exchange.id
        try:
            return await self._book.settle(hold, verdict.usage, verdict.finish)
        except LedgerError as error:
            log.error("request %s: not settled: %s", hold, error)
            self.exchange.outcome = error.code
            await self._tell(of_ledger(error))
            if not isinstance(error, LedgerUnavailable):
                return None
        if self._open:
            await self._insist(lambda: self._book.settle(hold, verdict.usage, verdict.finish))
        else:
            await self._insist(lambda: self._book.void(hold, "ledger_unavailable"))
        return None

    async def _void(self, reason: str, error: ApiError | None = None) -> None:
        """The whole hold is given back. ``error`` is told first where the ledger is away."""
        hold = self.exchange.id
        try:
            await self._book.void(hold, reason)
        except HoldNotOpen:
            pass
        except LedgerUnavailable:
            if error is not None:
                await self._tell(error)
            await self._insist(lambda: self._book.void(hold, reason))


def _refused(error: LedgerError, order: Order) -> ApiError:
    """The refusal of a hold; for lack of money it says how many tokens the money would buy."""
    refusal = of_ledger(error)
    price = order.offer.price
    if isinstance(error, InsufficientFunds) and price.completion:
        left = error.available * MILLION - order.hold.prompt_tokens * price.prompt
        most = left // price.completion
        if most > 0:
            refusal.message += f". It would cover max_tokens: {most}"
    return refusal


def _uncancel() -> None:
    """Takes back a cancellation that was meant for the wait, not for the task."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
