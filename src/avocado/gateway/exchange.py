"""Exchange: one HTTP request and its answer over raw ASGI, and what the log will say of it.

Knows bytes, headers and limits of size and time. Knows nothing about keys, models or money.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from avocado.gateway.errors import KEY_IN_USE, ApiError, bad_request
from avocado.gateway.rates import Meter
from avocado.terms.usage import Usage

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_JSON: Final = (b"content-type", b"application/json")
_EVENTS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that was given before: the ``request`` that it was given to, content type, body."""

    fingerprint: str
    request: str
    kind: str
    body: bytes


class Recorder(Protocol):
    """Takes down an answer while it is sent (``idempotency.Tape``)."""

    def note(self, data: bytes) -> None: ...

    async def keep(self, kind: str, last: bytes) -> None: ...

    async def elsewhere(self, running: bool) -> Kept | None: ...

    def end(self) -> None: ...


class ClientGone(Exception):
    """The client hung up before its request was complete: there is nobody to answer."""


def new_id() -> str:
    """A request id: milliseconds since 1970 and 80 random bits, so ids sort roughly by time."""
    # Randomness is drawn for many ids at once: a system call costs as much as all the rest here.
    if not _drawn:
        drawn = os.urandom(10 * 256)
        _drawn.extend(drawn[place : place + 10].hex() for place in range(0, len(drawn), 10))
    return f"req_{time.time_ns() // 1_000_000:011x}{_drawn.pop()}"


_drawn: list[str] = []


class Exchange:
    """One request. ``answered`` is set with the last byte of the answer."""

    __slots__ = (
        "_receive",
        "_send",
        "_task",
        "address",
        "answered",
        "batch",
        "began",
        "charge",
        "completion",
        "currency",
        "first",
        "headers",
        "id",
        "keep_unpaid",
        "key_id",
        "meter",
        "method",
        "model",
        "more",
        "named",
        "outcome",
        "owned",
        "path",
        "prompt",
        "query",
        "release",
        "said",
        "serves",
        "shape",
        "status",
        "tape",
        "tenant",
        "user",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.id = new_id()
        self.began = time.monotonic()
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        client = scope.get("client")
        self.address: str = client[0] if client else "local"
        self._receive = receive
        self._send = send
        self._task: asyncio.Task[Any] | None = None
        self.answered = False
        self.owned = False
        """Whether a paid task will write the log's line, after its settlement."""
        self.query: bytes = scope.get("query_string", b"")
        self.shape: Callable[[ApiError, str], bytes] = openai_shape
        """How an error is written; it gets the request's id too."""
        self.named: tuple[tuple[bytes, bytes], ...] = ((b"x-request-id", self.id.encode()),)
        """The headers that name this request."""
        self.more: tuple[tuple[bytes, bytes], ...] = ()
        """Headers that the answer carries, whatever it is."""
        self.tape: Recorder | None = None
        self.meter: Meter | None = None
        self.batch = False
        """Whether it is a line of a batch, billed at the batch's price."""
        self.keep_unpaid: Callable[[bytes], Awaitable[None]] | None = None
        """Stores a whole answer, but for its cost, before it is paid; raises where it cannot, and
        then the answer is not paid. None where an answer need not outlive this process."""
        # For the log.
        self.status = 0
        self.outcome = ""
        self.tenant = ""
        self.key_id = ""
        self.model = ""
        self.release = ""
        """The release that serves it, as the command line shows it."""
        self.serves = ""
        """The whole id of that release, while the request counts as one of its."""
        self.said = b""
        """The request's body, where the operator wants it in the log."""
        self.first: float | None = None
        """When a stream's first bytes went out, on the monotonic clock."""
        self.user: str | None = None
        self.prompt = 0
        self.completion = 0
        self.charge = 0
        self.currency = ""

    async def body(self, limit: int, seconds: float) -> bytes:
        """The whole body of a JSON request.

        Raises:
            ApiError: 415 for another content type, 413 above ``limit`` bytes (nothing beyond it is
                kept), 408 if it takes longer than ``seconds``.
            ClientGone: the client hung up.
        """
        kind = self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            raise ApiError(415, "Send Content-Type: application/json", code="unsupported_media")
        if self.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise ApiError(415, "Send the body without Content-Encoding", code="unsupported_media")
        declared = self.headers.get(b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > limit:
            raise too_large(limit)
        # Uvicorn knows whether more of it is to come; mostly not, and then nothing can be late.
        if getattr(getattr(self._receive, "__self__", None), "more_body", True) is False:
            return await self._whole(limit)
        try:
            async with asyncio.timeout(seconds):
                return await self._whole(limit)
        except TimeoutError:
            raise ApiError(408, f"The body did not arrive within {seconds:g} s") from None

    async def _whole(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise too_large(limit)
            if not message.get("more_body", False):
                return b"".join((*parts, part)) if parts else part
            parts.append(part)

    async def pieces(self, seconds: float) -> AsyncIterator[bytes]:
        """A body of any kind and size as it arrives; nothing of it is kept here.

        Raises:
            ApiError: 415 for an encoded one, 408 where nothing comes for ``seconds``.
            ClientGone: the client hung up.
        """
        if self.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise ApiError(415, "Send the body without Content-Encoding", code="unsupported_media")
        more = True
        while more:
            try:
                async with asyncio.timeout(seconds):
                    message = await self._receive()
            except TimeoutError:
                raise ApiError(408, f"Nothing of the body came for {seconds:g} s") from None
            if message["type"] == "http.disconnect":
                raise ClientGone
            more = message.get("more_body", False)
            if piece := message.get("body", b""):
                yield piece

    async def gone(self) -> None:
        """Returns when the client hung up, the answer is complete, or we hung up."""
        self._task = asyncio.current_task()
        try:
            while (await self._receive())["type"] != "http.disconnect":
                pass
        finally:
            self._task = None

    def hang_up(self) -> None:
        """Ends a connection whose answer is not complete; harmless otherwise."""
        if self.answered or self._task is None:
            return
        self._task.cancel()
        # ASGI has no word for this: closing would first wait for a client that reads nothing.
        transport = getattr(getattr(self._send, "__self__", None), "transport", None)
        if transport is not None:
            transport.abort()

    def bill(self, usage: Usage, charge: int, currency: str) -> None:
        """What the log will say was charged, in nano-units."""
        self.prompt, self.completion = usage.prompt, usage.completion
        self.charge, self.currency = charge, currency

    async def reply(
        self, status: int, body: bytes, more: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        """One whole JSON answer."""
        if self.tape is not None and status == 200:
            await self.tape.keep("application/json", body)
        self.status = status
        headers = [
            _JSON,
            (b"content-length", b"%d" % len(body)),
            *self.named,
            *self.more,
            *more,
        ]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})
        self.answered = True

    async def show(self, kind: bytes, body: bytes) -> None:
        """One whole answer that is not JSON."""
        self.status = 200
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *self.named]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})
        self.answered = True

    async def show_parts(
        self, kind: bytes, size: int, parts: AsyncIterator[bytes], seconds: float
    ) -> None:
        """One answer of ``size`` bytes that is too long to be in memory at once.

        Raises:
            ClientGone: it takes nothing for ``seconds``, or there are fewer bytes than promised.
        """
        self.status = 200
        headers = [(b"content-type", kind), (b"content-length", b"%d" % size), *self.named]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        async for part in parts:
            size -= len(part)
            try:
                async with asyncio.timeout(seconds):
                    await self._send(
                        {"type": "http.response.body", "body": part, "more_body": True}
                    )
            except TimeoutError:
                raise ClientGone from None
        if size:
            raise ClientGone
        await self._send({"type": "http.response.body", "body": b""})
        self.answered = True

    async def refuse(self, error: ApiError) -> None:
        """An error answer, in OpenAI's shape if no other is set."""
        if self.tape is not None and error.code == KEY_IN_USE:
            kept = await self.tape.elsewhere(error.retry_after is not None)
            if kept is not None:
                await self.replay(kept)
                return
        more: tuple[tuple[bytes, bytes], ...] = ()
        if error.retry_after is not None:
            more += ((b"retry-after", b"%d" % error.retry_after),)
        if error.allow is not None:
            more += ((b"allow", error.allow.encode()),)
        self.outcome = self.outcome or (error.code or error.type)
        await self.reply(error.status, self.shape(error, self.id), more)

    async def open_stream(self, first: bytes) -> None:
        """Status 200 and the first events."""
        if self.tape is not None:
            self.tape.note(first)
        self.first = time.monotonic()
        self.status = 200
        headers = [*_EVENTS, *self.named, *self.more]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": first, "more_body": True})

    async def event(self, data: bytes) -> None:
        if self.tape is not None:
            self.tape.note(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def close_stream(self, last: bytes) -> None:
        if self.tape is not None:
            await self.tape.keep(_EVENTS[0][1].decode(), last)
        await self._send({"type": "http.response.body", "body": last})
        self.answered = True

    async def replay(self, kept: Kept) -> None:
        """An answer that was given before, byte for byte; a stream comes as a whole."""
        self.status, self.outcome = 200, "replayed"
        fields = [(b"content-type", kept.kind.encode()), *_EVENTS[1:]]
        fields += [
            (b"content-length", b"%d" % len(kept.body)),
            *self.named,
            (b"original-request", kept.request.encode()),
            (b"idempotent-replayed", b"true"),
            *self.more,
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": fields})
        await self._send({"type": "http.response.body", "body": kept.body})
        self.answered = True


Handler = Callable[[Exchange], Awaitable[None]]
"""Answers the requests of one route."""


def openai_shape(error: ApiError, request: str) -> bytes:
    return error.body()


def too_large(limit: int) -> ApiError:
    return ApiError(413, f"The body is larger than {limit} bytes", code="request_too_large")


def idempotency_key(exchange: Exchange) -> str | None:
    """The Idempotency-Key header, checked.

    Raises:
        ApiError: 400 for one that is empty, longer than 200 characters, or not printable ASCII.
    """
    raw = exchange.headers.get(b"idempotency-key")
    if raw is None:
        return None
    if not 0 < len(raw) <= 200 or not all(32 <= byte < 127 for byte in raw):
        raise bad_request(
            "Idempotency-Key needs 1 to 200 printable ASCII characters", "Idempotency-Key"
        )
    return raw.decode("ascii")
