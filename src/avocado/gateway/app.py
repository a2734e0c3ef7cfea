"""The ASGI application: an exact router, and what every request shares.

Each answer carries ``x-request-id``; each refusal has OpenAI's error shape. An endpoint that sells
tokens is one line in the table: a surface. Knows nothing about processes, ports or databases.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from avocado.engine.engine import Engine
from avocado.gateway import openapi
from avocado.gateway.accounts import Accounts
from avocado.gateway.batches.line import LineExchange
from avocado.gateway.batches.office import Batches, Gateway
from avocado.gateway.counter import SHOWN, Counter
from avocado.gateway.desk import Desk
from avocado.gateway.errors import (
    ApiError,
    internal,
    model_not_found,
    not_allowed,
    of_ledger,
    unavailable,
)
from avocado.gateway.exchange import (
    ClientGone,
    Exchange,
    Handler,
    Receive,
    Scope,
    Send,
    too_large,
)
from avocado.gateway.idempotency import Answers
from avocado.gateway.keys import Caller, KeyLookup, Keyring
from avocado.gateway.lifetimes import headers, require_sold, sees, shown
from avocado.gateway.limits import Limits
from avocado.gateway.metrics import CONTENT_TYPE, MeteredBook, Metrics, Moment
from avocado.gateway.proxies import Proxies
from avocado.gateway.rates import MemoryRates, Rates
from avocado.gateway.shelf import ShelfUnavailable, open_database
from avocado.gateway.surface import Surface
from avocado.gateway.surfaces.chat_completions import ChatCompletions
from avocado.gateway.surfaces.completions import Completions
from avocado.gateway.surfaces.embeddings import Embeddings
from avocado.gateway.surfaces.message_voice import anthropic_error
from avocado.gateway.surfaces.messages import Messages
from avocado.gateway.surfaces.responses import Responses
from avocado.gateway.swap import Floor
from avocado.gateway.telemetry import RequestLog
from avocado.gateway.tracing import Tracer
from avocado.ledger.errors import LedgerError
from avocado.ledger.metrics import Metrics as LedgerMetrics
from avocado.ledger.operation import Book
from avocado.release.offer import Offer
from avocado.terms.money import Money
from avocado.terms.price import KINDS

log = logging.getLogger("avocado.gateway")

T = TypeVar("T")

MODELS: Final = "/v1/models/"
MESSAGES: Final = "/v1/messages"
"""Its clients are Anthropic's: another header for the key, another shape of errors."""
SURFACES: Final[Mapping[str, Surface]] = {
    "/v1/chat/completions": ChatCompletions(),
    "/v1/completions": Completions(),
    "/v1/responses": Responses(),
    MESSAGES: Messages(),
    "/v1/embeddings": Embeddings(),
}
LOOPBACK: Final = frozenset(("127.0.0.1", "::1", "local"))
_encode = msgspec.json.Encoder().encode


class App:
    """One gateway: ``engines`` by release id, ``offers`` by public name."""

    def __init__(
        self,
        floor: Floor,
        book: Book,
        keyring: Keyring,
        limits: Limits,
        request_log: RequestLog,
        healthy: Callable[[], bool],
        answers: Answers,
        rates: Rates,
        proxies: Proxies,
        ledger_metrics: Callable[[], LedgerMetrics | None],
        tracer: Tracer | None,
        accounts: Accounts | None,
        batches: Batches | None,
    ) -> None:
        self.floor = floor
        self.limits = limits
        self.log = request_log
        self.answers = answers
        self.rates = rates
        self._proxies = proxies
        self.metrics = Metrics()
        self._ledger_metrics = ledger_metrics
        self._tracer = tracer
        self._book = MeteredBook(book, self.metrics)
        if tracer is not None:
            self._book.spans = {}
        self.desk = Desk(self._book, limits, self._over)
        self._keyring = keyring
        self._healthy = healthy
        self._counter = Counter(self._identify, floor, self.desk, limits, rates, answers)
        sell = self._counter.sell
        self._routes: dict[str, dict[str, Handler]] = {
            **{path: {"POST": sell(surface)} for path, surface in SURFACES.items()},
            "/v1/models": {"GET": self._list_models},
            "/openapi.json": {"GET": self._describe},
            "/health": {"GET": self._health},
            "/ready": {"GET": self._ready},
            "/metrics": {"GET": self._show_metrics},
        }
        if accounts is not None:
            self._routes |= {
                "/v1/organization/usage/completions": {"GET": self._account(accounts.usage)},
                "/v1/organization/costs": {"GET": self._account(accounts.costs)},
                "/api/v1/credits": {"GET": self._account(accounts.credits)},
                "/api/v1/key": {"GET": self._account(accounts.key)},
                "/api/v1/generation": {"GET": self._account(accounts.generation)},
            }
        self._one_model: dict[str, Handler] = {"GET": self._show_model}
        self.batches = batches
        if batches is not None:
            batches.open(
                Gateway(
                    self._identify,
                    self._counter.answered_before,
                    self._standing,
                    self._models_of,
                    self._sell_line,
                    floor,
                    limits,
                    lambda: self.desk.draining,
                )
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served, not {scope['type']}")
        exchange = Exchange(scope, receive, send)
        if exchange.path.startswith(MESSAGES):
            exchange.shape = anthropic_error
            exchange.named += ((b"request-id", exchange.id.encode()),)
        if self._proxies:
            exchange.address = self._proxies.client(exchange)
        try:
            await self._route(exchange)(exchange)
        except ApiError as error:
            await exchange.refuse(error)
        except ShelfUnavailable as error:
            log.error("request %s: %s", exchange.id, error)
            said = "What you asked for cannot be read or stored now; try again"
            await exchange.refuse(unavailable(said, "storage_unavailable"))
        except ClientGone:
            exchange.outcome = "client_closed_request"
        except Exception:
            log.exception("request %s failed", exchange.id)
            await exchange.refuse(internal())
        finally:
            if not exchange.owned:
                self._over(exchange)

    def _over(self, exchange: Exchange) -> None:
        """The end of every exchange: answered or not, charged or not."""
        if exchange.tape is not None:
            exchange.tape.end()
        if exchange.meter is not None:
            exchange.meter.used(exchange.prompt + exchange.completion)
        if exchange.serves:
            self.floor.serving[exchange.serves] -= 1
            if self.batches is not None and self.batches.places and not exchange.batch:
                self.batches.places.noticed(exchange.serves)
        self._book.forget(exchange.id)
        self.metrics.over(exchange, exchange.model if exchange.release else "")
        if self._tracer is not None and self._book.spans is not None:
            self._tracer.over(exchange, self._book.spans.pop(exchange.id, ()))
        self.log.write(exchange)

    def _route(self, exchange: Exchange) -> Handler:
        path = exchange.path
        methods = self._routes.get(path)
        if methods is None and path.startswith(MODELS) and len(path) > len(MODELS):
            methods = self._one_model
        if methods is None and self.batches is not None:
            methods = self.batches.route(path)
        if methods is None:
            raise ApiError(404, f"There is no {path}", code="unknown_url")
        # What can be got can be asked about (RFC 9110, 9.1); uvicorn leaves the body out.
        handler = methods.get("GET" if exchange.method == "HEAD" else exchange.method)
        if handler is None:
            allow = ", ".join(methods)
            raise ApiError(405, f"{path} takes {allow}", code="method_not_allowed", allow=allow)
        return handler

    async def _identify(self, exchange: Exchange, scope: str = "read") -> Caller:
        """Who asks, by a key that has ``scope``."""
        authorization = exchange.headers.get(b"authorization")
        if authorization is None and exchange.path.startswith(MESSAGES):
            key = exchange.headers.get(b"x-api-key")
            authorization = None if key is None else b"Bearer " + key
        try:
            caller = await self._keyring.identify(authorization, exchange.address)
        except LedgerError as error:
            raise of_ledger(error) from error
        exchange.tenant, exchange.key_id = caller.tenant, caller.key_id
        if scope not in caller.scopes:
            raise not_allowed(f"This API key has no {scope!r} scope", "scope_missing")
        return caller

    def _find(self, name: str) -> tuple[Offer, Engine]:
        offer = self.floor.offers.get(name)
        engine = self.floor.engines.get(offer.release) if offer else None
        if offer is None or engine is None:
            raise model_not_found(name)
        return offer, engine

    def _models_of(self, caller: Caller) -> frozenset[str]:
        """The names that the caller may ask for now."""
        now = time.time()
        return frozenset(
            name
            for name, offer in self.floor.offers.items()
            if caller.may_use(name) and sees(offer, caller, now)
        )

    # -- lines of batches ------------------------------------------------------------------------

    async def _standing(self, key_id: str) -> Caller:
        try:
            return await self._keyring.standing(key_id)
        except LedgerError as error:
            raise of_ledger(error) from error

    async def _sell_line(self, exchange: LineExchange, caller: Caller, body: bytes) -> None:
        """A request like any other, but that its caller was known before and that no rate a minute
        counts it: it only gets the place that nobody else wants."""
        exchange.tenant, exchange.key_id = caller.tenant, caller.key_id
        try:
            if "inference" not in caller.scopes:
                raise not_allowed("This API key has no 'inference' scope", "scope_missing")
            if len(body) > self.limits.body_bytes:
                raise too_large(self.limits.body_bytes)
            request = await self._counter.enter(exchange, SURFACES[exchange.path], caller, body)
            exchange.owned = True
            if request.task is not None:
                await asyncio.wait((request.task,))
        except ApiError as error:
            await exchange.refuse(error)
        except Exception:
            log.exception("request %s failed", exchange.id)
            await exchange.refuse(internal())
        finally:
            if not exchange.owned:
                self._over(exchange)

    # -- what is shown ---------------------------------------------------------------------------

    async def _list_models(self, exchange: Exchange) -> None:
        caller = await self._identify(exchange)
        now = time.time()
        listed = [self._shown(name, now) for name in sorted(self._models_of(caller))]
        await exchange.reply(200, _encode({"object": "list", "data": listed}))

    async def _show_model(self, exchange: Exchange) -> None:
        caller = await self._identify(exchange)
        name = exchange.path[len(MODELS) :]
        if not caller.may_use(name):
            raise model_not_found(name)
        now, (offer, _) = time.time(), self._find(name)
        require_sold(offer, caller, now)
        exchange.named += headers(offer, now)
        await exchange.reply(200, _encode(self._shown(name, now)))

    def _shown(self, name: str, now: float) -> dict[str, Any]:
        offer, engine = self._find(name)
        prices = {"price_per_million_tokens": _prices(offer, batch=False)}
        if self.batches is not None:
            prices["batch_price_per_million_tokens"] = _prices(offer, batch=True)
        return {
            "id": offer.name,
            "object": "model",
            "created": offer.created,
            "owned_by": "avocado",
            "release": offer.release[:SHOWN],
            "context_length": engine.context_length,
            **prices,
            **shown(offer, now),
        }

    def _account(self, answer: Callable[[Caller, bytes], Awaitable[bytes]]) -> Handler:
        async def handle(exchange: Exchange) -> None:
            caller = await self._identify(exchange)
            await exchange.reply(200, await answer(caller, exchange.query))

        return handle

    async def _describe(self, exchange: Exchange) -> None:
        await exchange.reply(200, openapi.document())

    async def _show_metrics(self, exchange: Exchange) -> None:
        """For the machine itself, or a key with the scope: turnover is nobody else's business."""
        near = exchange.address in LOOPBACK and b"x-forwarded-for" not in exchange.headers
        if not near:
            await self._identify(exchange, "metrics")
        now = Moment(
            {release[:SHOWN]: each.occupancy for release, each in self.floor.engines.items()},
            self.desk.gate.total,
            self.limits.running,
            self.desk.draining,
            self._healthy(),
            self._ledger_metrics(),
        )
        await exchange.show(CONTENT_TYPE, self.metrics.text(now))

    async def _health(self, exchange: Exchange) -> None:
        """Alive: the event loop answers."""
        await exchange.reply(200, b'{"status":"ok"}')

    async def _ready(self, exchange: Exchange) -> None:
        """Ready for traffic: not while draining, nor while the ledger is away."""
        if self.desk.draining:
            raise unavailable("The server is shutting down", "shutting_down")
        if not self._healthy():
            raise unavailable("The ledger is away", "ledger_unavailable")
        await exchange.reply(200, b'{"status":"ready"}')


def build_app(
    engines: Mapping[str, Engine],
    book: Book,
    offers: Mapping[str, Offer],
    *,
    floor: Floor | None = None,
    keys: KeyLookup,
    pepper: bytes,
    limits: Limits | None = None,
    log_sink: Callable[[bytes], object] = lambda _: None,
    healthy: Callable[[], bool] = lambda: True,
    answers: Answers | None = None,
    rates: Rates | None = None,
    proxies: Sequence[str] = (),
    ledger_metrics: Callable[[], LedgerMetrics | None] = lambda: None,
    tracer: Tracer | None = None,
    accounts: Accounts | None = None,
    batches: Batches | None = None,
) -> App:
    """The application over what is given; the caller runs ``app.desk.watch``, ``app.log.run``,
    ``app.answers.run`` and ``app.batches.run``.

    ``engines`` are by release id and ``offers`` by public name; both are read anew for each
    request. A ``floor`` stands for both where they are swapped while requests run. ``keys`` reads
    a key's record from the book. ``log_sink`` gets the request log. ``healthy`` says whether the
    book can be written to now. ``answers`` keeps what may be asked for again and ``rates`` counts
    requests and tokens; without them that is in memory. ``proxies`` are the networks whose
    X-Forwarded-For is believed. ``ledger_metrics`` shows what the ledger's writer counts;
    ``tracer`` gets each request when it is over. ``accounts`` shows customers what is theirs in the
    book and ``batches`` takes files and runs what is in them; without them those endpoints are not
    there.
    """
    return App(
        floor or Floor(_same(offers), _same(engines)),
        book,
        Keyring(keys, pepper, shared=rates),
        limits or Limits(),
        RequestLog(log_sink),
        healthy,
        answers or Answers(open_database(":memory:")),
        rates or MemoryRates(),
        Proxies(proxies),
        ledger_metrics,
        tracer,
        accounts,
        batches,
    )


def _prices(offer: Offer, batch: bool) -> dict[str, str]:
    """By kind of token, in units of the currency."""
    price = offer.price
    found = {kind: Money(price.price_of(kind, batch), price.currency) for kind in KINDS}
    return {"currency": price.currency, **{kind: each.decimal() for kind, each in found.items()}}


def _same(found: Mapping[str, T]) -> dict[str, T]:
    """The mapping itself where it can change, so that its owner's changes are seen."""
    return found if isinstance(found, dict) else dict(found)
