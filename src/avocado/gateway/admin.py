"""The admin socket: other commands of the workspace submit ledger operations to the server.

One process owns the ledger. While a server runs, it takes operations here: a Unix socket that only
its owner may open (0600), one JSON operation a line, one JSON result or failure back. A command
uses ``reach_ledger``: through the socket if a server runs, on the ledger itself if none does.
``Refresh`` is no operation of the ledger: it asks the server itself to offer what its workspace
offers now.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from avocado.errors import Refused
from avocado.ledger.errors import LedgerError
from avocado.ledger.ledger import open_ledger
from avocado.ledger.operation import (
    AnyOperation,
    AnyResult,
    Book,
    Failure,
    encode,
    failure,
)

log = logging.getLogger("avocado.gateway")

LINE_BYTES: Final = 2 << 20
"""Room for an operation with the largest document (1 MiB)."""
TIMEOUT_SECONDS: Final = 10.0
REFRESH_SECONDS: Final = 1800.0
"""How long a command waits for models to load."""
MAX_PATH_BYTES: Final = 100
"""What fits a Unix socket's address on every system."""


class Refresh(msgspec.Struct, frozen=True, tag_field="do", tag=True):
    """Makes the server offer what is declared now. Answered when it does."""


class Refreshed(msgspec.Struct, frozen=True, tag_field="is", tag=True):
    """Releases that were loaded, and releases that go when their last request has ended."""

    loaded: tuple[str, ...]
    going: tuple[str, ...]


_order: msgspec.json.Decoder[AnyOperation | Refresh] = msgspec.json.Decoder(AnyOperation | Refresh)
_answer: msgspec.json.Decoder[AnyResult | Refreshed | Failure] = msgspec.json.Decoder(
    AnyResult | Refreshed | Failure
)
Refresher = Callable[[], Awaitable[Refreshed]]


class NotRunning(Refused):
    """No server answers at this socket."""


class AdminRefused(Refused):
    """The server's ledger said no; ``code`` and ``fields`` are those of the LedgerError."""

    def __init__(self, failed: Failure) -> None:
        super().__init__(failed.message)
        self.code = failed.code
        self.fields = failed.fields


Submit = Callable[[AnyOperation], AnyResult]


@contextlib.contextmanager
def reach_ledger(ledger: Path | str, admin_socket: Path) -> Iterator[Submit]:
    """For commands: a ``submit`` that returns when the operation is durable, server or no server.

    Raises:
        AdminRefused: from ``submit``, when the ledger says no.
        Refused: the ledger cannot be opened, or the server went away.
    """
    try:
        client = AdminClient(admin_socket)
    except NotRunning:
        with _own_ledger(ledger) as submit:
            yield submit
    else:
        with client:
            yield client.submit


@contextlib.contextmanager
def _own_ledger(path: Path | str) -> Iterator[Submit]:
    try:
        ledger = open_ledger(path)
    except LedgerError as error:
        raise Refused(f"the ledger cannot be opened: {error}") from error

    def submit(operation: AnyOperation) -> AnyResult:
        try:
            return ledger.do_now(operation)
        except LedgerError as error:
            raise AdminRefused(failure(error)) from error

    with ledger:
        yield submit


class AdminServer:
    """Serves ``book`` at ``path`` until closed."""

    def __init__(self, path: Path, book: Book, refresh: Refresher | None = None) -> None:
        self._path = path
        self._refresh = refresh
        self._book = book
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listens.

        Raises:
            Refused: another server answers there, or the path is too long for a socket.
        """
        listener = socket.socket(socket.AF_UNIX)
        try:
            with _Address(self._path) as address:
                if _answers(address):
                    raise Refused(
                        f"a server of this workspace is running already ({self._path} answers)"
                    )
                self._path.unlink(missing_ok=True)
                # 0600 from its first moment: the mode of a socket is what umask leaves at bind.
                before = os.umask(0o177)
                try:
                    listener.bind(address)
                finally:
                    os.umask(before)
            self._server = await asyncio.start_unix_server(
                self._serve, sock=listener, limit=LINE_BYTES
            )
        except BaseException:
            listener.close()
            raise

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)
        for writer in list(self._open):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while line := await reader.readline():
                writer.write(msgspec.json.encode(await self._answer(line)) + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError) as error:
            log.warning("admin connection ended: %s", error)  # ValueError: a line without end
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, line: bytes) -> AnyResult | Refreshed | Failure:
        try:
            order = _order.decode(line)
            if not isinstance(order, Refresh):
                return await self._book.do(order)
            if self._refresh is None:
                return Failure(code="no_refresh", message="this server's offers do not change")
            return await self._refresh()
        except Refused as refused:
            return Failure(code="refused", message="; ".join(refused.reasons))
        except LedgerError as error:
            return failure(error)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Failure(code="bad_operation", message=f"this is no ledger operation: {error}")
        except Exception as error:
            log.exception("an admin operation failed")
            return Failure(code="internal", message=f"the server failed: {error!r}")


class AdminClient:
    """The other side, for commands: synchronous, one connection, as a context manager. Threads may
    share it: it asks one thing after the other."""

    def __init__(self, path: Path, timeout: float = TIMEOUT_SECONDS) -> None:
        """Connects.

        Raises:
            NotRunning: no server of this workspace runs.
        """
        self._path = path
        self._turn = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            with _Address(path) as address:
                self._socket.connect(address)
        except OSError as error:
            self._socket.close()
            raise NotRunning(f"no server answers at {path}: {error.strerror}") from error
        self._lines = self._socket.makefile("rb")

    def submit(self, operation: AnyOperation) -> AnyResult:
        """The ledger's result, durable.

        Raises:
            AdminRefused: the ledger said no.
            Refused: the server did not answer; asking again with the same id is safe.
        """
        answer = self._ask(encode(operation))
        assert not isinstance(answer, Refreshed)
        return answer

    def refresh(self, timeout: float = REFRESH_SECONDS) -> Refreshed:
        """Asks the server to offer what its workspace offers now; models may have to load.

        Raises:
            AdminRefused: it cannot, and its offers are what they were.
            Refused: the server did not answer.
        """
        self._socket.settimeout(timeout)
        answer = self._ask(msgspec.json.encode(Refresh()))
        assert isinstance(answer, Refreshed)
        return answer

    def _ask(self, line: bytes) -> AnyResult | Refreshed:
        try:
            with self._turn:
                self._socket.sendall(line + b"\n")
                line = self._lines.readline()
        except OSError as error:
            raise Refused(f"the server at {self._path} did not answer: {error}") from error
        if not line:
            raise Refused(f"the server at {self._path} closed before it answered")
        answer = _answer.decode(line)
        if isinstance(answer, Failure):
            raise AdminRefused(answer)
        return answer

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._lines.close()
        self._socket.close()

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Address:
    """A socket address for ``path``. One too long for the kernel is reached through its folder's
    descriptor, so a workspace may lie as deep as it likes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = -1

    def __enter__(self) -> str:
        if len(os.fsencode(self._path)) <= MAX_PATH_BYTES:
            return str(self._path)
        self._folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._folder}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        if self._folder >= 0:
            os.close(self._folder)


def _answers(address: str) -> bool:
    probe = socket.socket(socket.AF_UNIX)
    probe.settimeout(TIMEOUT_SECONDS)
    try:
        probe.connect(address)
    except OSError:
        return False
    finally:
        probe.close()
    return True
