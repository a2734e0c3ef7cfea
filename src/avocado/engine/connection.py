"""HTTP/1.1 to one server over connections that are kept: what a remote engine asks of a client.

A request leaves in one write, and what came in one read is read as one part, however many chunks it
was. That is most of what a general client costs at thirty-five chunks an answer. It follows no
redirect, uses no proxy and decompresses nothing. Knows nothing about models or events.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Final, cast
from urllib.parse import urlsplit

import httptools

HEAD_BYTES: Final = 2**17
"""Status line and headers of an answer, at most."""
BODY_BYTES: Final = 2**18
"""Of a body that nobody has read yet; then the server has to wait."""
KEEP_SECONDS: Final = 4.0
"""How long a connection that rests is used again: less than uvicorn's (and so vLLM's) 5 s, so that
no request meets a server that is just closing."""


class ConnectionBroken(Exception):
    """The connection ended, or what came over it is not HTTP."""


class NoConnection(ConnectionBroken):
    """The server could not be reached; it got nothing."""


class Connection(asyncio.Protocol):
    """One connection, and the answer that is read from it. ``release`` ends each request."""

    def __init__(self, owner: Connections) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        """Of the answer; names in lower case."""
        self.complete = True
        """Whether the whole answer came. It may not have been read yet."""
        self.rests_since = 0.0
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self.headers = {}
        self._headed = False
        self._head_size = 0
        self._parts: list[bytes] = []
        self._size = 0
        self._paused = False
        self._keep = False
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # -- a request and its answer ----------------------------------------------------------------

    async def ask(self, request: bytes, idle: float, total: float) -> None:
        """Sends and waits for the answer's headers. ``idle``: seconds between two reads, at most;
        ``total``: until the answer is complete.

        Raises:
            ConnectionBroken: it ended before.
            TimeoutError: it took too long.
        """
        self._reset()
        self.complete = False
        self._idle, self._moved = idle, self._loop.time()
        self._deadline = self._moved + total
        self._timer = self._loop.call_later(min(idle, total), self._look)
        self._transport.write(request)
        while not self._headed:
            await self._wait()

    async def read(self) -> bytes:
        """What came of the body since the last time; nothing when all was read. Raises as
        ``ask``, after what came before."""
        while not self._parts:
            if self.complete:
                return b""
            await self._wait()
        part = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self._size = [], 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return part

    def release(self) -> None:
        """The answer is no longer wanted. A complete one leaves the connection to the next request;
        else it is closed, which is how a server is told to stop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.complete and self._keep and self._failure is None and not self._paused:
            self._owner.take_back(self)
        else:
            self._transport.abort()

    @property
    def closing(self) -> bool:
        """Whether either side has hung up."""
        return self._transport.is_closing()

    def abort(self) -> None:
        """Closes at once."""
        self._transport.abort()

    async def _wait(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._waiter = self._loop.create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _look(self) -> None:
        """The timer: one a request, set anew only when it fires."""
        due = min(self._moved + self._idle, self._deadline)
        wait = due - self._loop.time()
        if wait > 0:
            self._timer = self._loop.call_later(wait, self._look)
        else:
            self._fail(TimeoutError())

    def _fail(self, failure: Exception) -> None:
        self._failure = self._failure or failure
        self._transport.abort()
        self._wake()

    # -- what asyncio calls ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        if self.complete:
            self._keep = False  # an answer to nothing that was asked
            self._transport.abort()
            return
        self._moved = self._loop.time()
        if not self._headed:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionBroken(f"no HTTP: {str(error)[:100]}"))
            return
        if not self._headed and self._head_size > HEAD_BYTES:
            self._fail(ConnectionBroken(f"headers of more than {HEAD_BYTES} bytes"))
            return
        if self._size > BODY_BYTES and not self._paused and not self.complete:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._keep = False
        if not self.complete:
            endless = b"content-length" not in self.headers and not self._chunked()
            if self._headed and endless and exc is None and self._failure is None:
                self.complete = True  # its end is that of the connection
            else:
                self._failure = self._failure or ConnectionBroken(str(exc or "closed"))
        self._owner.forget(self)
        self._wake()

    def _chunked(self) -> bool:
        return b"chunked" in self.headers.get(b"transfer-encoding", b"").lower()

    # -- what the parser calls -------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:
            self._keep = False  # a second answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._headed:  # else it is a trailer
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self.status = status
            self._headed = True

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self._parts.append(body)
            self._size += len(body)

    def on_message_complete(self) -> None:
        if not self._headed:
            self.headers = {}  # 100 Continue and the like
        elif not self.complete:
            self.complete = True
            self._keep = self._parser.should_keep_alive()


class Connections:
    """The connections to the server at ``url``; they belong to one event loop."""

    def __init__(
        self, url: str, api_key: str | None, *, connect: float, idle: float, total: float
    ) -> None:
        """``connect``, ``idle``, ``total``: seconds, at most, as in ``Connection.ask``.

        Raises:
            ValueError: the address is none, or the key does not fit in a header.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address of an HTTP server")
        if "@" in parts.netloc:
            raise ValueError(f"the address of {parts.hostname} must carry no password; use a key")
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port or (443 if self._secure else 80)
        self._connect, self._idle, self._total = connect, idle, total
        self._base = parts.path.rstrip("/")
        fields = {"Host": parts.netloc, "Accept": "*/*"}
        if api_key is not None:
            fields["Authorization"] = f"Bearer {api_key}"
        for name, value in fields.items():
            if not (value.isascii() and value.isprintable()):
                raise ValueError(f"{name} of {url} must be printable ASCII")
        if not (self._base.isascii() and self._base.isprintable() and " " not in self._base):
            raise ValueError(f"the path of {url!r} must be written in ASCII, as in a request")
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._fields = lines.encode()
        self._resting: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._context: ssl.SSLContext | None = None

    async def post(self, path: str, body: bytes) -> Connection:
        """Sends JSON; the connection from which the answer is read. Its headers have come.

        Raises:
            NoConnection: the server cannot be reached, or not in time.
            ConnectionBroken, TimeoutError: as ``Connection.ask``.
        """
        head = b"POST %s HTTP/1.1\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        target = (self._base + path).encode()
        return await self._ask(head % (target, self._fields, len(body)) + body, self._total)

    async def status(self, path: str, seconds: float) -> int:
        """What the server answers to GET. Raises as ``post``."""
        target = (self._base + path).encode()
        request = b"GET %s HTTP/1.1\r\n%s\r\n" % (target, self._fields)
        connection = await self._ask(request, seconds)
        connection.release()
        return connection.status

    async def _ask(self, request: bytes, total: float) -> Connection:
        connection = self._rested() or await self._new()
        try:
            await connection.ask(request, min(self._idle, total), total)
        except BaseException:
            connection.release()
            raise
        return connection

    def _rested(self) -> Connection | None:
        """The connection that rests the shortest, if any is fresh."""
        if not self._resting:
            return None
        newest = self._resting.pop()
        age = asyncio.get_running_loop().time() - newest.rests_since
        if age <= KEEP_SECONDS and not newest.closing:
            return newest
        newest.abort()
        while self._resting:
            self._resting.pop().abort()
        return None

    async def _new(self) -> Connection:
        loop = asyncio.get_running_loop()
        if self._secure and self._context is None:
            self._context = await asyncio.to_thread(ssl.create_default_context)
        try:
            async with asyncio.timeout(self._connect):
                _, connection = await loop.create_connection(
                    lambda: Connection(self), self._host, self._port, ssl=self._context
                )
        except (OSError, TimeoutError) as error:  # OSError: TLS too
            raise NoConnection(f"{type(error).__name__}: {error}") from error
        self._open.add(connection)
        return connection

    def take_back(self, connection: Connection) -> None:
        """A connection whose answer is complete. Those that rest for too long are closed."""
        now = connection.rests_since = asyncio.get_running_loop().time()
        self._resting.append(connection)
        while now - self._resting[0].rests_since > KEEP_SECONDS:
            self._resting.popleft().abort()

    def forget(self, connection: Connection) -> None:
        """A connection that is no more."""
        self._open.discard(connection)
        if connection in self._resting:
            self._resting.remove(connection)

    def close(self) -> None:
        for connection in list(self._open):
            connection.abort()
