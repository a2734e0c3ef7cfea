"""The console itself: what all its pages share. Knows nothing of HTTP."""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from avocado.billing.daybook import FILE
from avocado.cli.lanes import writing_at_once
from avocado.console.key_box import KeyBox
from avocado.console.store import open_store, place_of
from avocado.console.threads import Threads
from avocado.gateway.keys import Throttle
from avocado.workspace import Workspace

if TYPE_CHECKING:
    from avocado.console.page import Route
    from avocado.gateway.admin import Submit

FIRST_LINK: Final = "console-link"
"""Where the first operator's link lies, 0600, until it is used."""


class Console:
    """One process's console over a workspace. ``origin`` is how browsers reach it, such as
    ``https://console.example.com``."""

    def __init__(
        self,
        workspace: Workspace,
        origin: str,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.workspace = workspace
        self.config = workspace.config.console
        self.origin = origin.rstrip("/")
        self.clock = clock
        self.place = place_of(workspace)
        self.routes: Sequence[Route] = ()
        self.threads = Threads(workspace.ledger, self.place, workspace.state / FILE)
        self.by_address = Throttle(burst=20, seconds=300)
        self.by_account = Throttle(burst=10, seconds=600)
        self.by_mail = Throttle(burst=3, seconds=600)
        self.playground = KeyBox()
        self.streams: dict[str, int] = {}
        """Streams of fragments that are open, by session; the event loop's alone."""
        self.kept: dict[str, object] = {}
        """What pages keep for the life of the process, under names of their own."""
        self._secret = hmac.digest(workspace.pepper(), b"console", "sha256")
        self._lock = threading.Lock()
        self._writers = 0
        self._stack = ExitStack()
        self._do: Submit | None = None
        self.stopping = threading.Event()
        """Set when the process is to end: streams end by themselves."""
        open_store(self.place).close()
        if not (isinstance(workspace.ledger, Path) and workspace.has_ledger):
            with self.writing():
                pass  # there is a ledger to read, from now on

    @property
    def secure(self) -> bool:
        """Whether browsers come by HTTPS, so that cookies can be bound to this very host."""
        return self.origin.startswith("https://")

    @property
    def host(self) -> str:
        """The only Host that is answered."""
        return urlsplit(self.origin).netloc.lower()

    @property
    def api_url(self) -> str:
        """How customers reach the paid API, without a slash at its end."""
        given = self.config.api_url or self.gateway_url
        return given.rstrip("/").removesuffix("/v1")

    @property
    def gateway_url(self) -> str:
        """How this process reaches the paid API: straight, where both run on one machine. A server
        that was started at another port than avocado.toml names says where it is."""
        told = self.server_urls()
        return self.configured_url if not told or self.configured_url in told else told[0]

    def server_urls(self) -> list[str]:
        """Where running servers of this workspace said that they listen, as reached from here."""
        found = [urlsplit(each) for each in self.workspace.server_urls()]
        return [f"http://{_reachable(each.hostname or '')}:{each.port}" for each in found]

    @property
    def configured_url(self) -> str:
        """Where avocado.toml says that the paid API is."""
        serve = self.workspace.config.serve
        return f"http://{_reachable(serve.host)}:{serve.port}"

    @property
    def first_link(self) -> Path:
        return self.workspace.state / FIRST_LINK

    def sign(self, purpose: str, text: str) -> str:
        """A seal that only this workspace's consoles can make, hex."""
        return hmac.digest(self._secret, f"{purpose}\0{text}".encode(), "sha256").hex()

    @contextmanager
    def writing(self) -> Iterator[Submit]:
        """``do(operation) -> result``, for one thread or several at once. Without a running server
        it is this process that opens the book, once for all of its threads that write just now."""
        with self._lock:
            if self._writers == 0:
                self._do = self._stack.enter_context(writing_at_once(self.workspace))
            self._writers += 1
            do = self._do
        assert do is not None
        try:
            yield do
        finally:
            with self._lock:
                self._writers -= 1
                if self._writers == 0:
                    self._do = None
                    self._stack.close()

    def close(self) -> None:
        self.stopping.set()
        self.threads.close()


def _reachable(host: str) -> str:
    """Where a server that listens at ``host`` answers on its own machine."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - it is read, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
