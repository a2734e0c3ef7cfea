"""Protocol: uvicorn's HTTP/1.1 with bounds on the head of a request, and errors in our shape.

Uvicorn waits for headers without end and keeps them without limit, and says what is wrong with
malformed HTTP in plain text. Knows nothing about what is served.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from avocado.gateway.errors import ApiError, bad_request, unavailable
from avocado.gateway.exchange import new_id

HEAD_BYTES = 2 * 1024 * 1024
"""Request line and headers together."""

HEAD_SECONDS = 15.0
"""How long they may take, from the connection or the request's first byte on."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    head_seconds = HEAD_SECONDS
    most = 8192
    """Connections that are served at once."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._crowded = False
        self._in_head = True
        self._head = 0
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._crowded = len(self.connections) > self.most
        if len(self.connections) > 2 * self.most:
            transport.abort()
            return
        self._late = self.loop.call_later(self.head_seconds, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._crowded:
            # Not before it has asked: an answer to nobody's question is lost with the connection.
            self._end(unavailable("The server has too many connections; try again", "overloaded"))
            return
        if self._in_head:
            self._head += len(data)
            if self._head > HEAD_BYTES:
                self._end(ApiError(431, f"The headers are larger than {HEAD_BYTES} bytes"))
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head = self._head or 1  # what began it was not counted: a read, at most
        if self._late is None:
            self._late = self.loop.call_later(self.head_seconds, self._too_late)

    def on_headers_complete(self) -> None:
        self._in_time()
        self._in_head = False
        self._head = 0
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._end(bad_request(msg, code="invalid_http"))

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        if self._head:
            self._end(ApiError(408, f"The headers did not arrive within {self.head_seconds:g} s"))
        else:
            self.transport.close()

    def _end(self, error: ApiError) -> None:
        """Answers outside of any request and closes; the client may have sent half of one."""
        body = error.body()
        phrase = HTTPStatus(error.status).phrase
        retry = f"Retry-After: {error.retry_after}\r\n" if error.retry_after is not None else ""
        self.transport.write(
            f"HTTP/1.1 {error.status} {phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nX-Request-Id: {new_id()}\r\n"
            f"{retry}Connection: close\r\n\r\n".encode()
            + body
        )
        self.transport.close()
