"""A whole gateway for tests: real sockets, real uvicorn, a real ledger, a scripted engine.

Every stand proves its book when it closes: no test can pass and leave money wrong.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import openai
import pytest
import uvicorn
import uvloop

from avocado.engine.engine import Engine
from avocado.engine.scripted import Script, ScriptedEngine
from avocado.gateway.access import Access, Policy, change
from avocado.gateway.accounts import Accounts
from avocado.gateway.app import App, build_app
from avocado.gateway.batches.office import Batches
from avocado.gateway.batches.rows import BatchLimits
from avocado.gateway.idempotency import Answers
from avocado.gateway.keys import NewKey, mint
from avocado.gateway.limits import Limits
from avocado.gateway.protocol import BoundedProtocol
from avocado.gateway.server import key_lookup
from avocado.gateway.shelf import open_database
from avocado.gateway.tracing import Tracer
from avocado.ledger.clock import Clock, SystemClock
from avocado.ledger.errors import LedgerError
from avocado.ledger.ledger import Ledger, open_ledger
from avocado.ledger.operation import (
    AddKey,
    AnyOperation,
    AnyResult,
    Deposit,
    Held,
    Hold,
    OpenCustomer,
    PublishPrice,
    Settled,
    Voided,
)
from avocado.ledger.proof import prove
from avocado.ledger.reader import Balance, Charge, Reader, open_reader
from avocado.ledger.rows import HoldRow
from avocado.release.offer import Offer
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage

T = TypeVar("T")

PEPPER = b"a pepper of thirty-two bytes....."
PRICE = PriceSheet(200_000_000, 800_000_000)
RELEASE = "release-" + "ab" * 32
DOLLAR = 1_000_000_000


class LeverBook:
    """The ledger behind a lever: what is ``broken`` raises, what is ``hanging`` never answers."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.broken: dict[str, LedgerError] = {}
        self.hanging: set[str] = set()
        self.progressed: list[tuple[str, Usage]] = []

    async def _lever(self, verb: str) -> None:
        if verb in self.hanging:
            await asyncio.Event().wait()
        if verb in self.broken:
            raise self.broken[verb]

    async def hold(self, operation: Hold) -> Held:
        await self._lever("hold")
        return await self.ledger.hold(operation)

    async def settle(self, hold: str, usage: Usage, finish: str = "stop") -> Settled:
        await self._lever("settle")
        return await self.ledger.settle(hold, usage, finish)

    async def void(self, hold: str, reason: str) -> Voided:
        await self._lever("void")
        return await self.ledger.void(hold, reason)

    def progress(self, hold: str, usage: Usage) -> None:
        self.progressed.append((hold, usage))
        self.ledger.progress(hold, usage)

    async def do(self, operation: AnyOperation) -> AnyResult:
        return await self.ledger.do(operation)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}, "OpenAI's error shape"
        assert isinstance(error["message"], str)
        assert isinstance(error["type"], str)
        return dict(error)

    def events(self) -> list[Any]:
        """The JSON of each server-sent event, without the [DONE] that must end them."""
        events = self.body.decode().split("\n\n")
        assert events[-1] == ""
        assert events[-2] == "data: [DONE]"
        return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


@dataclass
class Stand:
    """One running gateway. ``holds_may_stay`` allows holds that nobody closed."""

    folder: Path
    app: App
    engine: ScriptedEngine
    ledger: Ledger
    book: LeverBook
    reader: Reader
    offers: dict[str, Offer]
    key: NewKey
    port: int
    loop: asyncio.AbstractEventLoop
    log: list[dict[str, Any]] = field(default_factory=list)
    holds_may_stay: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, key: str | None = None, **options: Any) -> openai.OpenAI:
        options.setdefault("max_retries", 0)
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key or self.key.text, **options)

    def call(
        self,
        method: str = "POST",
        path: str = "/v1/chat/completions",
        body: Any = None,
        headers: dict[str, str | bytes] | None = None,
        timeout: float = 20,
    ) -> Answer:
        """One request over its own connection. ``body`` is bytes, or a value sent as JSON."""
        given: dict[str, Any] = {"Authorization": f"Bearer {self.key.text}"}
        data = body
        if body is not None:
            given["Content-Type"] = "application/json"
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given |= headers or {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(
                method, path, data, {k: v for k, v in given.items() if v is not None}
            )
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def ask(self, text: str = "hello", headers: Any = None, **more: Any) -> Answer:
        """One chat completion of one user message."""
        return self.call(body=question(text, **more), headers=headers)

    def raw(self, body: Any, headers: dict[str, str] | None = None) -> socket.socket:
        """Sends a chat request and hands over the socket, to read from or to cut."""
        data = json.dumps(body).encode()
        lines = [
            "POST /v1/chat/completions HTTP/1.1",
            "Host: test",
            f"Authorization: Bearer {self.key.text}",
            "Content-Type: application/json",
            f"Content-Length: {len(data)}",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        link = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        link.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        return link

    def in_loop(self, act: Callable[[], Awaitable[T]]) -> T:
        """Runs a coroutine on the server's event loop."""

        async def run() -> T:
            return await act()

        future: Future[T] = asyncio.run_coroutine_threadsafe(run(), self.loop)
        return future.result(20)

    def until(self, truth: Callable[[], object], seconds: float = 10) -> None:
        """Waits until something is true."""
        end = time.monotonic() + seconds
        while not truth():
            assert time.monotonic() < end, "this did not become true in time"
            time.sleep(0.005)

    def idle(self) -> None:
        """Waits until every paid task has ended."""
        self.until(lambda: self.app.desk.running == 0)

    def policy(self, subject: str, **terms: Any) -> None:
        """Changes a policy, as a command would: from another connection. Known within a second."""
        database = open_database(self.folder / "gateway.sqlite")
        change(database, subject, "tester", **terms)
        database.close()

    @property
    def balance(self) -> Balance:
        return self.reader.balance("acme")

    @property
    def charges(self) -> list[Charge]:
        return list(self.reader.charges("acme"))

    def hold_of(self, answer: Answer) -> HoldRow:
        row = self.reader.hold(answer.headers["x-request-id"])
        assert row is not None
        return row

    def prove(self) -> None:
        bad = [check for check in prove(self.reader, time.time_ns()) if not check.ok]
        assert not bad, bad
        if not self.holds_may_stay:
            assert self.reader.open_holds() == []


def question(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": "avocado-1", "messages": [{"role": "user", "content": text}], **more}


@pytest.fixture
def ask_body() -> Callable[..., dict[str, Any]]:
    return question


def _credit(ledger: Ledger, tenant: str, amount: int) -> NewKey:
    key = mint(PEPPER)
    ledger.do_now(OpenCustomer(tenant=tenant, name=tenant))
    if amount:
        ledger.do_now(Deposit(id=f"first-{tenant}", tenant=tenant, amount=amount, currency="USD"))
    ledger.do_now(
        AddKey(key_id=key.id, tenant=tenant, name="test", digest=key.digest, created=time.time_ns())
    )
    return key


@pytest.fixture
def add_customer() -> Callable[[Ledger, str, int], NewKey]:
    """Opens a customer with credit and a key."""
    return _credit


MakeStand = Callable[..., Stand]


@pytest.fixture
def make_stand(tmp_path: Path) -> Iterator[MakeStand]:
    """Makes stands: ``make_stand(script, limits=…, price=…, credit=…, engine=…)``."""
    closers: list[Callable[[], None]] = []

    def make(
        script: Script | None = None,
        *,
        limits: Limits | None = None,
        price: PriceSheet = PRICE,
        credit: int = DOLLAR,
        engine: Engine | None = None,
        hold_seconds: float = 15.0,  # patience with a busy machine, except where it is tested
        proxies: Sequence[str] = (),
        tracer: Tracer | None = None,
        clock: Clock | None = None,
        batch_limits: BatchLimits | None = None,
    ) -> Stand:
        folder = tmp_path / f"stand{len(closers)}"
        folder.mkdir()
        path = folder / "ledger.sqlite"
        clock = clock or SystemClock()
        ledger = open_ledger(path, clock)
        ledger.do_now(PublishPrice(terms=price.terms()))
        key = _credit(ledger, "acme", credit)
        reader = open_reader(path)
        book = LeverBook(ledger)
        scripted = ScriptedEngine(script or Script(reply="one two three four five"))
        offers = {"avocado-1": Offer("avocado-1", RELEASE, price, 1_700_000_000)}
        lines: list[dict[str, Any]] = []
        limits = replace(limits or Limits(), hold_seconds=hold_seconds)
        default = Policy(
            requests_per_minute=limits.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute,
        )
        shelf = folder / "gateway.sqlite"
        access = Access(key_lookup(open_reader(path)), open_database(shelf), default)
        accounts = Accounts(lambda: open_reader(path))
        batches = Batches(
            lambda: open_database(folder / "files.sqlite"),
            lambda: open_reader(path),
            batch_limits,
        )
        app = build_app(
            {RELEASE: engine or scripted},
            book,
            offers,
            keys=access.record,
            pepper=PEPPER,
            limits=limits,
            log_sink=lambda data: lines.extend(json.loads(line) for line in data.splitlines()),
            healthy=lambda: ledger.down is None,
            answers=Answers(open_database(shelf), now=clock.now),
            proxies=proxies,
            ledger_metrics=lambda: ledger.metrics,
            tracer=tracer,
            accounts=accounts,
            batches=batches,
        )
        stop, loop, port = _run(app)
        stand = Stand(folder, app, scripted, ledger, book, reader, offers, key, port, loop, lines)

        def close() -> None:
            try:
                stand.idle()
            finally:
                stop()
                app.answers.close()
                access.close()
                accounts.close()
                batches.close()
                ledger.close()
            stand.prove()

        closers.append(close)
        return stand

    yield make
    for close in closers:
        close()


def _run(app: App) -> tuple[Callable[[], None], asyncio.AbstractEventLoop, int]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        lifespan="off",
        ws="none",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    loop = uvloop.new_event_loop()

    over = asyncio.Event()
    assert app.batches is not None
    batches = app.batches

    async def main() -> None:
        running = asyncio.ensure_future(batches.run())
        helpers = [
            asyncio.ensure_future(app.desk.watch()),
            asyncio.ensure_future(app.log.run()),
            asyncio.ensure_future(server.serve(sockets=[listener])),
        ]
        await over.wait()
        # At once: uvicorn's own shutdown, which test_server sees, sleeps a fifth of a second.
        for each in server.servers:
            each.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        for helper in (*helpers, running):
            helper.cancel()
        await asyncio.wait((*helpers, running))
        app.log.flush()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(main())
        loop.close()

    def stop() -> None:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)

    thread = threading.Thread(target=run, name="gateway", daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    return stop, loop, int(listener.getsockname()[1])


@pytest.fixture
def stand(make_stand: MakeStand) -> Stand:
    """A stand with a dollar, a key, and an engine that answers five words."""
    return make_stand()
