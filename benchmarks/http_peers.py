"""What a gateway is measured with: a fake OpenAI upstream, a bare pass-through, and the load.

Each is one process, started by ``benchmarks/gateway.py``; servers print their URL when ready.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
from typing import Any, cast

WORDS = [f" word{number}" for number in range(32)]
USAGE = {"prompt_tokens": 77, "completion_tokens": 32, "total_tokens": 109}
MODEL = "fake"
ASK: dict[str, Any] = {
    "model": MODEL,
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Tell me about durable journals. " * 8},
    ],
    "max_tokens": 64,
}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}


# -- the fake upstream -----------------------------------------------------------------------------


def _event(choices: list[Any], **more: Any) -> bytes:
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    return b"data: " + json.dumps({**head, "choices": choices, **more}).encode() + b"\n\n"


def _choice(delta: dict[str, str], reason: str | None = None) -> list[Any]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _answers() -> tuple[bytes, bytes]:
    """The upstream's two answers, as they go over the wire: whole, and as 35 events."""
    message = {"role": "assistant", "content": "".join(WORDS)}
    body = json.dumps(
        {
            "id": "c-1",
            "object": "chat.completion",
            "created": 1,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": USAGE,
        }
    ).encode()
    whole = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    whole += b"content-length: %d\r\n\r\n" % len(body) + body
    events = [_event(_choice({"role": "assistant", "content": ""}))]
    events += [_event(_choice({"content": word})) for word in WORDS]
    events += [_event(_choice({}, "stop")), _event([], usage=USAGE), b"data: [DONE]\n\n"]
    stream = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    return whole, stream + b"".join(map(_chunk, events)) + b"0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """Answers at once; a stream leaves in one write, so that the reader's cost is what is seen."""

    whole, stream = _answers()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, mark, body = self._buffer.partition(b"\r\n\r\n")
        if mark and head.startswith(b"GET"):  # how a gateway asks for our health
            self._buffer = b""
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        elif mark and len(body) >= int(head.lower().partition(b"content-length:")[2].split()[0]):
            self._buffer = b""
            streamed = b'"stream":true' in body.replace(b" ", b"")
            self._transport.write(self.stream if streamed else self.whole)


async def upstream() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    _ready(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _ready(port: int) -> None:
    print(f"http://127.0.0.1:{port}", flush=True)


# -- the bare pass-through -------------------------------------------------------------------------


async def passthrough(target: str) -> None:
    import aiohttp
    import uvicorn

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {"content-type": "application/json"}
        url = target + "/v1/chat/completions"
        async with session.post(url, data=body, headers=headers) as answer:
            kind = answer.headers["content-type"].encode()
            fields = [(b"content-type", kind)]
            if answer.content_length is not None:
                fields.append((b"content-length", b"%d" % answer.content_length))
            await send({"type": "http.response.start", "status": 200, "headers": fields})
            async for part in answer.content.iter_any():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(app, lifespan="off", ws="none", log_level="critical", access_log=False)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    _ready(listener.getsockname()[1])
    await uvicorn.Server(config).serve(sockets=[listener])
    await session.close()


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


# -- the load --------------------------------------------------------------------------------------


class Load(asyncio.Protocol):
    """One closed-loop connection: asks, reads the whole answer, checks it, asks again."""

    def __init__(self, request: bytes, streamed: bool, until: float, times: list[float]) -> None:
        self._request = request
        self._mark = b"0\r\n\r\n" if streamed else b"}"
        self._streamed = streamed
        self._until = until
        self._times = times
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._ask()

    def _ask(self) -> None:
        self._buffer = b""
        self._began = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._buffer.endswith(self._mark) or not self._whole():
            return
        now = time.perf_counter()
        end = b"data: [DONE]" if self._streamed else b'"total_tokens"'
        if not self._buffer.startswith(b"HTTP/1.1 200") or end not in self._buffer:
            self.done.set_exception(RuntimeError(self._buffer[:600].decode()))
            self._transport.close()
            return
        self._times.append(now - self._began)
        if now < self._until:
            self._ask()
        else:
            self._transport.close()
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server hung up"))

    def _whole(self) -> bool:
        if self._streamed:
            return True
        head, _, body = self._buffer.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2]
        return not length or len(body) >= int(length.split()[0])


async def load(
    url: str,
    key: str,
    streamed: bool,
    connections: int,
    seconds: float,
    path: str = "/v1/chat/completions",
    model: str = MODEL,
) -> None:
    """Prints requests, requests a second and percentiles in ms, as JSON."""
    host, _, port = url.removeprefix("http://").partition(":")
    body = json.dumps({**ASK, "model": model, **(STREAM if streamed else {})}).encode()
    request = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    times: list[float] = []
    began = time.perf_counter()
    loop = asyncio.get_running_loop()
    gc.disable()
    links = [
        await loop.create_connection(
            lambda: Load(request, streamed, began + seconds, times), host, int(port)
        )
        for _ in range(connections)
    ]
    await asyncio.gather(*(link.done for _, link in links))
    took = time.perf_counter() - began
    times.sort()
    at = {
        name: times[int(len(times) * part)] * 1000 for name, part in (("p50", 0.5), ("p99", 0.99))
    }
    print(json.dumps({"n": len(times), "rps": len(times) / took, **at}))
