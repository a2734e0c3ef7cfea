"""Counter: where orders are taken. A request of an endpoint that sells tokens, from its key to the
paid task that the desk starts.

Everything that may refuse it is asked in order: the key, the gate, the rates, an earlier answer to
the same Idempotency-Key, the surface's parser, the model, the prompt's count. Knows nothing about
routes, answers or prices.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

from avocado.gateway.chat import PaidRequest
from avocado.gateway.desk import Desk
from avocado.gateway.errors import ApiError, model_not_found, not_allowed, unavailable
from avocado.gateway.exchange import Exchange, Handler, idempotency_key
from avocado.gateway.idempotency import Answers
from avocado.gateway.keys import Caller
from avocado.gateway.lifetimes import headers, require_sold
from avocado.gateway.limits import Limits
from avocado.gateway.order import fingerprint, take
from avocado.gateway.rates import Meter, Rates
from avocado.gateway.shelf import ShelfUnavailable
from avocado.gateway.surface import Ask, Serving, Surface
from avocado.gateway.swap import Floor
from avocado.gateway.verdict import Stop
from avocado.ledger.operation import Hold

SHOWN: Final = len("release-") + 12
"""How much of a release's id is shown, as the command line shows it."""

Identify = Callable[[Exchange, str], Awaitable[Caller]]
"""Who asks, by a key that has the scope."""


class Counter:
    """Takes orders for what stands on the ``floor`` and hands them to the ``desk``."""

    def __init__(
        self,
        identify: Identify,
        floor: Floor,
        desk: Desk,
        limits: Limits,
        rates: Rates,
        answers: Answers,
    ) -> None:
        self._identify = identify
        self._floor = floor
        self._desk = desk
        self._limits = limits
        self._rates = rates
        self._answers = answers

    def sell(self, surface: Surface) -> Handler:
        """The handler of an endpoint whose JSON ``surface`` translates."""

        async def handle(exchange: Exchange) -> None:
            caller = await self._identify(exchange, "inference")
            self._desk.enter(caller.tenant)
            try:
                if caller.rates:
                    await self._meter(exchange, caller)
                body = await exchange.body(self._limits.body_bytes, self._limits.body_seconds)
                if await self.answered_before(exchange, caller, body):
                    self._desk.leave(caller.tenant)
                    return
                request = await self._order(exchange, surface, caller, body)
            except BaseException:
                self._desk.leave(caller.tenant)
                raise
            exchange.owned = True
            try:
                await exchange.gone()
            finally:
                # Who sent an Idempotency-Key will be back for the answer.
                if not exchange.answered and exchange.tape is None:
                    request.stop(Stop.DISCONNECT)

        return handle

    async def _meter(self, exchange: Exchange, caller: Caller) -> None:
        """Counts the request against its rates, before anything of it is read."""
        meter = exchange.meter = Meter(self._rates, caller.rates)
        try:
            await meter.request()
        except ShelfUnavailable as error:
            raise unavailable(
                "Rates cannot be read now; try again", "ledger_unavailable"
            ) from error
        finally:
            exchange.more = meter.headers()

    async def _meter_tokens(self, exchange: Exchange, hold: Hold) -> None:
        """Takes the most that a counted request can come to from its rates."""
        if exchange.meter is None:
            return
        try:
            await exchange.meter.tokens(hold.prompt_tokens + hold.n * hold.max_tokens)
        except ShelfUnavailable as error:
            raise unavailable(
                "Rates cannot be read now; try again", "ledger_unavailable"
            ) from error
        finally:
            exchange.more = exchange.meter.headers()

    async def answered_before(self, exchange: Exchange, caller: Caller, body: bytes) -> bool:
        """Whether the request repeats an earlier one, whose answer it then got."""
        key = idempotency_key(exchange)
        if key is None:
            return False
        same = fingerprint(exchange.path, body)
        kept = await self._answers.admit(exchange, caller.tenant, key, same)
        if kept is None:
            return False
        await exchange.replay(kept)
        return True

    async def enter(
        self, exchange: Exchange, surface: Surface, caller: Caller, body: bytes
    ) -> PaidRequest:
        """Lets a known caller in and starts its order.

        Raises:
            ApiError: nothing was started.
        """
        self._desk.enter(caller.tenant)
        try:
            return await self._order(exchange, surface, caller, body)
        except BaseException:
            self._desk.leave(caller.tenant)
            raise

    async def _order(
        self, exchange: Exchange, surface: Surface, caller: Caller, body: bytes
    ) -> PaidRequest:
        ask = surface.read(body)
        try:
            return await self._take(exchange, surface, caller, body, ask)
        except ApiError as error:
            error.param = surface.names.get(error.param or "", error.param)
            raise

    async def _take(
        self, exchange: Exchange, surface: Surface, caller: Caller, body: bytes, ask: Ask
    ) -> PaidRequest:
        exchange.model, exchange.user = ask.model, ask.user
        if self._limits.log_prompts:
            exchange.said = body
        found = self._floor.pick(ask.model, caller.tenant, ask.prompt)
        if found is None:
            raise model_not_found(ask.model)
        offer, engine = found
        if not caller.may_use(ask.model):
            raise not_allowed(
                f"This API key may not use the model {ask.model!r}", "model_not_allowed", "model"
            )
        now = time.time()
        require_sold(offer, caller, now)
        exchange.named += headers(offer, now)
        exchange.release, exchange.serves = offer.release[:SHOWN], offer.release
        self._floor.serving[offer.release] += 1
        order = await take(exchange, body, ask, caller, offer, engine, self._limits)
        await self._meter_tokens(exchange, order.hold)
        serving = Serving(exchange.id, int(time.time()), offer.name, offer.release[:SHOWN])
        return self._desk.start(exchange, order, surface.voice(ask, serving, order.prompts), engine)
