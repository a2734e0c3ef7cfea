"""Serving: where the console listens, under which address, and how it stops in good order."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from types import FrameType
from typing import TYPE_CHECKING, Final

from avocado.configuration import CONFIG, ConsoleConfig
from avocado.console import links, people
from avocado.console.console import Console
from avocado.console.store import open_store
from avocado.errors import Refused
from avocado.workspace import Workspace, write_atomically

if TYPE_CHECKING:
    from starlette.types import ASGIApp

DRAIN_SECONDS: Final = 10
CONNECTIONS: Final = 1000
URL_FILE: Final = "console-url"
"""Where a running console says how it is reached, for other commands."""


def listen(config: ConsoleConfig, host: str | None, port: int | None) -> socket.socket:
    """Binds, so that a free port (0) is known before anything is said.

    Raises:
        Refused: the address is taken or not ours, or strangers could listen in.
    """
    at = host or config.host
    if not is_loopback(at) and not (config.public_url or "").startswith("https://"):
        raise Refused(
            f"at {at} the console could be reached over plain HTTP, and passwords read on the way: "
            f'set [console] public_url = "https://…" in {CONFIG} and put a proxy with TLS before it'
        )
    number = config.port if port is None else port
    listener = socket.socket(socket.AF_INET6 if ":" in at else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((at, number))
    except OSError as error:
        listener.close()
        raise Refused(f"the console cannot listen at {at}:{number}: {error.strerror}") from error
    return listener


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def origin_of(config: ConsoleConfig, listener: socket.socket | None = None) -> str:
    """How browsers reach the console."""
    if config.public_url is not None:
        return config.public_url.rstrip("/")
    host, port = listener.getsockname()[:2] if listener else (config.host, config.port)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def known_origin(workspace: Workspace) -> str:
    """The same for a command that is not the console: what a running one wrote down."""
    with suppress(OSError):
        return (workspace.state / URL_FILE).read_text().strip()
    return origin_of(workspace.config.console)


def first_link(console: Console) -> str | None:
    """The link by which the first operator comes in, while there is none; the same one until it is
    used or over. It lies in a file of mode 0600 and is printed, and nowhere else."""
    database = open_store(console.place)
    try:
        if any(each.role == "owner" for each in people.of_tenant(database, None)):
            return None
        now = console.clock()
        with suppress(OSError, links.LinkSpent):
            url = console.first_link.read_text().strip()
            links.look(database, url.rpartition("/")[2], now)
            return url
        token = links.make(database, "first", "", "owner", None, "the first start", now)
        url = f"{console.origin}/link/{token}"
        write_atomically(console.first_link, f"{url}\n".encode(), mode=0o600)
        return url
    finally:
        database.close()


def serve(
    console: Console, app: ASGIApp, listener: socket.socket, ready: Callable[[], None]
) -> None:
    """Serves until SIGINT or SIGTERM; running answers end, streams are told to."""
    import uvicorn

    trusted = list(console.config.trusted_proxies)

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """Leaves in good order, with exit code 0; a second Ctrl-C does not wait."""
            console.stopping.set()
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready()

    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        proxy_headers=bool(trusted),
        forwarded_allow_ips=trusted or None,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        limit_concurrency=CONNECTIONS,
    )
    url_file = console.workspace.state / URL_FILE
    write_atomically(url_file, f"{console.origin}\n".encode())
    try:
        Server(config).run(sockets=[listener])
    finally:
        url_file.unlink(missing_ok=True)
        listener.close()
