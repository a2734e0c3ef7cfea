"""The server process: opens the ledger, loads the engines, listens, and leaves in good order.

SIGTERM or SIGINT: readiness goes off, what runs may finish within the drain limit, what is left is
stopped and settled, the ledger is closed, and ``serve`` returns. A second signal shortens the wait.
Knows nothing about command lines or workspaces: it is given paths, offers and a way to load.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from avocado.engine.engine import Engine
from avocado.errors import Refused
from avocado.gateway.access import Access, Policy
from avocado.gateway.accounts import Accounts
from avocado.gateway.admin import AdminServer, Refreshed
from avocado.gateway.app import App, build_app
from avocado.gateway.batches.office import Batches
from avocado.gateway.batches.rows import BatchLimits
from avocado.gateway.idempotency import Answers
from avocado.gateway.keys import KeyLookup, KeyRecord
from avocado.gateway.limits import Limits
from avocado.gateway.protocol import BoundedProtocol
from avocado.gateway.rates import MemoryRates, Rates, SharedRates
from avocado.gateway.shelf import Database, ShelfUnavailable, open_database
from avocado.gateway.swap import Floor, Stock, Swapper, refuse_missing
from avocado.gateway.tracing import Tracer
from avocado.ledger.errors import LedgerError, LedgerLocked
from avocado.ledger.ledger import Ledger, is_postgres, open_ledger
from avocado.ledger.operation import PublishPrice
from avocado.ledger.reader import Reader, open_reader
from avocado.ledger.rows import COLUMNS, TABLES, Key
from avocado.release.offer import Offer

log = logging.getLogger("avocado.gateway")

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 65
"""How long a connection may rest between requests: past the 60 s of common proxies."""
YOUNG_OBJECTS = 20_000
"""How many new objects make the collector look for cycles. Requests leave hardly any, and Python's
700 make it look several times a request."""
CONNECTION_SECONDS = 5
"""How long idle connections may take to close after the drain."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server process needs. ``port`` 0 takes any free port."""

    ledger: Path | str
    """A file, or a ``postgresql://`` address that many servers share."""
    pepper: bytes = field(repr=False)
    admin_socket: Path
    host: str = "127.0.0.1"
    port: int = 8000
    limits: Limits = field(default_factory=Limits)
    trusted_proxies: tuple[str, ...] = ()
    """Networks whose X-Forwarded-For is believed."""
    batch_limits: BatchLimits = field(default_factory=BatchLimits)
    otlp_endpoint: str | None = None
    """Where traces go: an OTLP/HTTP collector."""

    @property
    def shelf(self) -> Path | str:
        """Where the gateway's own tables lie: beside the ledger's file, or in its database."""
        if isinstance(self.ledger, str):
            return self.ledger
        return self.ledger.with_name("gateway.sqlite")

    @property
    def files(self) -> Path | str:
        """Where customers' files lie: in a file of their own, for what is large must not keep what
        is small waiting; or in the database."""
        if isinstance(self.ledger, str):
            return self.ledger
        return self.ledger.with_name("files.sqlite")


def serve(
    settings: Settings,
    offers: Mapping[str, Offer],
    load: Callable[[], Mapping[str, Engine]],
    on_ready: Callable[[str], None],
    log_sink: Callable[[bytes], object] = lambda _: None,
    stock: Stock | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, in the main thread.

    Ledger and port are taken before ``load`` makes the engines (by release id), so that a second
    server is refused at once. ``on_ready`` gets the base URL when requests are answered;
    ``log_sink`` gets request log lines. With a ``stock`` offers and engines come from it (and
    ``offers`` and ``load`` may be empty), and a ``Refresh`` over the admin socket swaps them.

    Raises:
        Refused: another server has the workspace or the port, the ledger cannot be opened, or an
            offer's release has no engine.
    """
    with contextlib.ExitStack() as stack:
        _allow_files(settings.limits.connections)
        ledger = _open(settings.ledger)
        stack.callback(ledger.close)
        reader = stack.enter_context(open_reader(settings.ledger))
        listener = stack.enter_context(_listen(settings.host, settings.port))
        answers = Answers(_open_shelf(settings.shelf))
        stack.callback(answers.close)
        access = _open_access(settings, reader)
        stack.callback(access.close)
        rates = _open_rates(settings)
        stack.callback(rates.close)
        accounts = Accounts(lambda: open_reader(settings.ledger))
        stack.callback(accounts.close)
        batches = _open_batches(settings)
        stack.callback(batches.close)
        tracer = Tracer(settings.otlp_endpoint) if settings.otlp_endpoint else None
        if tracer is not None:
            stack.callback(tracer.close)
        _publish(ledger, offers)
        floor = Floor(dict(offers), dict(load()))
        refuse_missing(floor)
        app = build_app(
            floor.engines,
            ledger,
            floor.offers,
            floor=floor,
            keys=access.record,
            pepper=settings.pepper,
            limits=settings.limits,
            log_sink=log_sink,
            healthy=lambda: ledger.down is None,
            answers=answers,
            rates=rates,
            proxies=settings.trusted_proxies,
            ledger_metrics=lambda: ledger.metrics,
            tracer=tracer,
            accounts=accounts,
            batches=batches,
        )
        gc.freeze()  # what is loaded stays: the collector need not look at it again
        gc.set_threshold(YOUNG_OBJECTS, 20, 20)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_Process(settings, app, ledger, stock, listener, on_ready).run())


def key_lookup(reader: Reader, pool: Executor | None = None) -> KeyLookup:
    """Reads key records from a book: one look-up by id. A database behind a network is read in
    ``pool``, which must be of one thread, so that the event loop never waits for it."""
    sql = f"SELECT {', '.join(COLUMNS[Key])} FROM {TABLES[Key]} WHERE key_id = ?"  # noqa: S608

    def find(key_id: str) -> KeyRecord | None:
        for row in reader.rows(sql, (key_id,)):
            key = Key(*row)
            return KeyRecord(
                key.key_id, key.tenant, key.digest, key.revoked is not None, key.expires
            )
        return None

    async def lookup(key_id: str) -> KeyRecord | None:
        if pool is None:
            return find(key_id)
        return await asyncio.get_running_loop().run_in_executor(pool, find, key_id)

    return lookup


class _Process:
    """What lives as long as the event loop does."""

    def __init__(
        self,
        settings: Settings,
        app: App,
        ledger: Ledger,
        stock: Stock | None,
        listener: socket.socket,
        on_ready: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._app = app
        self._ledger = ledger
        self._stock = stock
        self._swapper: Swapper | None = None
        self._listener = listener
        self._on_ready = on_ready
        self._admin = AdminServer(settings.admin_socket, ledger, self._refresh if stock else None)
        self._server = _Uvicorn(_config(app, settings.limits.connections))
        self._signals = 0
        self._told = asyncio.Event()
        self._told_twice = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        helpers = [
            loop.create_task(self._app.desk.watch()),
            loop.create_task(self._app.log.run()),
            loop.create_task(self._app.answers.run()),
        ]
        batches = self._app.batches
        assert batches is not None, "a server has them"
        try:
            if self._stock is not None:
                # Here, not before: an engine may have tasks of its own on this loop.
                self._swapper = Swapper(self._app.floor, self._stock, self._publish)
                await self._load(self._swapper)
            await self._admin.start()
            running = loop.create_task(batches.run())
            try:
                await self._serve()
            finally:
                running.cancel()
                await asyncio.wait((running,))
        finally:
            for helper in helpers:
                helper.cancel()
            self._app.log.flush()
            await self._admin.close()
            if self._swapper is not None:
                await self._swapper.close()
            for engine in self._app.floor.engines.values():
                await engine.close()

    async def _load(self, swapper: Swapper) -> None:
        """The first refresh. A signal gives it up."""
        loading = asyncio.ensure_future(swapper.refresh())
        told = asyncio.ensure_future(self._told.wait())
        await asyncio.wait((loading, told), return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if not loading.done():
            loading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await loading
        gc.freeze()

    async def _refresh(self) -> Refreshed:
        if self._app.desk.draining or self._swapper is None:
            raise Refused("the server is shutting down")
        changed = await self._swapper.refresh()
        return Refreshed(changed.loaded, changed.going)

    async def _publish(self, offer: Offer) -> None:
        try:
            await self._ledger.do(PublishPrice(terms=offer.price.terms()))
        except LedgerError as error:
            raise Refused(f"a price cannot be published: {error}") from error

    async def _serve(self) -> None:
        serving = asyncio.ensure_future(self._server.serve(sockets=[self._listener]))
        try:
            await self._announce(serving)
            await self._until_told(serving)
            await self._drain()
        finally:
            self._server.should_exit = True
            await serving

    def _signalled(self) -> None:
        (self._told_twice if self._told.is_set() else self._told).set()

    async def _announce(self, serving: asyncio.Future[None]) -> None:
        while not self._server.started:
            if serving.done():
                await serving
                raise Refused("the HTTP server ended before it began")
            await asyncio.sleep(0.005)
        host, port = self._listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self._on_ready(f"http://{shown}:{port}")

    async def _until_told(self, serving: asyncio.Future[None]) -> None:
        told = asyncio.ensure_future(self._told.wait())
        await asyncio.wait((told, serving), return_when=asyncio.FIRST_COMPLETED)
        told.cancel()

    async def _drain(self) -> None:
        desk = self._app.desk
        log.info("draining %d requests", desk.running)
        drained = asyncio.ensure_future(desk.drain(self._settings.limits.drain_seconds))
        hurry = asyncio.ensure_future(self._told_twice.wait())
        await asyncio.wait((drained, hurry), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not drained.done():
            drained.cancel()
            await desk.drain(0)


class _Uvicorn(uvicorn.Server):
    """Uvicorn without its signal handlers: it would die of SIGTERM again after a clean exit."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: App, connections: int) -> uvicorn.Config:
    class Protocol(BoundedProtocol):
        most = connections

    return uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        log_level="critical",
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=CONNECTION_SECONDS,
    )


def _allow_files(connections: int) -> None:
    """Each connection is a file, and so is that of a remote engine behind it; the common limit of
    1,024 would end both in the middle of a request."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * connections + 512
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _open_access(settings: Settings, reader: Reader) -> Access:
    limits = settings.limits
    default = Policy(
        requests_per_minute=limits.requests_per_minute, tokens_per_minute=limits.tokens_per_minute
    )
    pool = ThreadPoolExecutor(1, "gateway-keys") if is_postgres(settings.ledger) else None
    return Access(key_lookup(reader, pool), _open_shelf(settings.shelf), default)


def _open_rates(settings: Settings) -> Rates:
    """One process counts in memory; many count in the database that they share. A rate needs no
    durable commit: after a power failure a minute has passed."""
    if not is_postgres(settings.ledger):
        return MemoryRates()
    return SharedRates(_open_shelf(settings.shelf, durable=False))


def _open_batches(settings: Settings) -> Batches:
    if isinstance(settings.files, Path):
        settings.files.touch(mode=0o600)
    try:
        return Batches(
            lambda: open_database(settings.files),
            lambda: open_reader(settings.ledger),
            settings.batch_limits,
        )
    except ShelfUnavailable as error:
        raise Refused(str(error)) from error


def _open_shelf(target: Path | str, durable: bool = True) -> Database:
    try:
        return open_database(target, durable)
    except ShelfUnavailable as error:
        raise Refused(str(error)) from error


def _open(path: Path | str) -> Ledger:
    try:
        return open_ledger(path)
    except LedgerLocked as error:
        raise Refused(
            f"a server of this workspace is running already: process {error.pid} has {error.path}"
        ) from error
    except LedgerError as error:
        raise Refused(f"the ledger cannot be opened: {error}") from error


@contextlib.contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise Refused(f"{host!r} is no address of this machine: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as error:
            advice = {
                errno.EADDRINUSE: "stop what uses it, or choose another port",
                errno.EADDRNOTAVAIL: "this machine has no such address: choose another host",
            }.get(error.errno or 0, "choose another port or host")
            raise Refused(
                f"port {port} of {host} cannot be used: {error.strerror}; {advice}"
            ) from error
        listener.setblocking(False)
        yield listener
    finally:
        listener.close()


def _publish(ledger: Ledger, offers: Mapping[str, Offer]) -> None:
    """Puts the prices of all offers on record; a price that is on record already stays."""
    try:
        for offer in offers.values():
            ledger.do_now(PublishPrice(terms=offer.price.terms()))
    except LedgerError as error:
        raise Refused(f"a price cannot be published: {error}") from error
