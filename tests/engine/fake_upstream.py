"""A small OpenAI-compatible server that fails on request: real HTTP on 127.0.0.1; and an engine
in front of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from avocado.data.chat import Chat
from avocado.engine.engine import Finish, Sampling
from avocado.engine.remote import RemoteEngine
from avocado.engine.replica import Patience


@dataclass(frozen=True)
class Plan:
    """What one request gets. ``usage``: with every event, with the last one, or never; or its text
    as it stands. ``*_after`` count words. ``split``: bytes of one write."""

    words: tuple[str, ...] = ("Hello", " there", "!")
    usage: Literal["continuous", "last", "none"] | str = "last"
    finish: str | None = "stop"
    stop_reason: Any = None
    prompt_tokens: int | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "text/event-stream"
    drop: bool = False
    """The connection closes without a word."""
    fail_after: int | None = None
    hang_after: int | None = None
    end_after: int | None = None
    reset_after: int | None = None
    split: int = 0
    delay: float = 0.0
    first: tuple[str, ...] = ()
    """Data of events before all others."""
    deltas: tuple[dict[str, Any], ...] | None = None
    """Chat deltas instead of words."""
    logprobs: tuple[Any, ...] = ()


class FakeUpstream:
    def __init__(self) -> None:
        self.plan: Plan | Callable[[dict[str, Any]], Plan] = Plan()
        self.healthy = True
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.aborted = 0
        self.running = 0
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.paths.append(request.path)
        self.keys.append(request.headers.get("authorization"))
        plan = self.plan if isinstance(self.plan, Plan) else self.plan(body)
        if plan.drop:
            assert request.transport is not None
            request.transport.close()
            await asyncio.sleep(5)
        if plan.status != 200:
            said = {"error": {"message": "no " * 10, "type": "x"}}
            return web.json_response(said, status=plan.status, headers=plan.headers)
        response = web.StreamResponse()
        response.content_type = plan.content_type
        await response.prepare(request)
        self.running += 1
        try:
            async for data in _events(plan, body):
                if data is None:
                    assert request.transport is not None
                    request.transport.abort()
                    return response
                event = f"data: {data}\n\n".encode()
                step = plan.split or len(event)
                for start in range(0, len(event), step):
                    await response.write(event[start : start + step])
                    if plan.split:
                        await asyncio.sleep(0)
            await response.write_eof()
        except (ConnectionError, asyncio.CancelledError):
            self.aborted += 1
            raise
        finally:
            self.running -= 1
        return response

    async def health(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 503)


async def _events(plan: Plan, body: dict[str, Any]) -> AsyncIterator[str | None]:
    chat = "messages" in body
    prompt = plan.prompt_tokens
    if prompt is None:
        prompt = 7 if chat else len(body["prompt"])

    def event(done: int, choice: dict[str, Any] | None, with_usage: bool) -> str:
        usage = ""
        if plan.usage not in ("continuous", "last", "none"):
            usage = f', "usage": {plan.usage}' if with_usage else ""
        elif with_usage or plan.usage == "continuous":
            counts = {"prompt_tokens": prompt, "completion_tokens": done}
            usage = f', "usage": {json.dumps(counts)}'
        choices = json.dumps([] if choice is None else [choice])
        return f'{{"id": "x", "object": "chunk", "choices": {choices}{usage}}}'

    for data in plan.first:
        yield data
    said: list[Any] = list(plan.words if plan.deltas is None else plan.deltas)
    for done, word in enumerate(said):
        if done == plan.fail_after:
            yield '{"error": {"message": "out of memory", "code": 500}}'
            return
        if done == plan.reset_after:
            yield None
        if done == plan.end_after:
            return
        if done == plan.hang_after:
            await asyncio.sleep(100)
        await asyncio.sleep(plan.delay)
        choice: dict[str, Any] = {"index": 0, "finish_reason": None}
        if plan.deltas is not None:
            choice["delta"] = word
        elif chat:
            choice["delta"] = {"content": word}
        else:
            choice["text"] = word
        if plan.logprobs:
            choice["logprobs"] = plan.logprobs[done]
        yield event(done + 1, choice, False)
    end: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
    total = len(said) + (plan.finish == "stop" and plan.stop_reason is None)
    if plan.finish is not None:
        last: dict[str, Any] = {
            "index": 0,
            "finish_reason": plan.finish,
            "stop_reason": plan.stop_reason,
        }
        yield event(total, last | end, False)
    if plan.usage != "none":
        yield event(total, None, True)
    yield "[DONE]"


@asynccontextmanager
async def serving() -> AsyncIterator[FakeUpstream]:
    fake = FakeUpstream()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", fake.answer)
    app.router.add_post("/v1/completions", fake.answer)
    app.router.add_get("/health", fake.health)
    app.router.add_get("/v1/models", fake.health)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    host, port = server.sockets[0].getsockname()
    fake.url = f"http://{host}:{port}"
    try:
        yield fake
    finally:
        await runner.cleanup()


HURRY = Patience(connect=2, idle=5, total=20, health=0)
HELLO = Chat(({"role": "user", "content": "Hi"},))
SOME = Sampling(50, 0.0)


def play(scene: Awaitable[None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scene, 30)

    asyncio.run(bounded())


@asynccontextmanager
async def remote(
    count: int = 1, **options: Any
) -> AsyncIterator[tuple[RemoteEngine, list[FakeUpstream]]]:
    async with AsyncExitStack() as stack:
        fakes = [await stack.enter_async_context(serving()) for _ in range(count)]
        options = {"context_length": 4096, "patience": HURRY, **options}
        engine = RemoteEngine([fake.url for fake in fakes], "m", **options)
        try:
            yield engine, fakes
        finally:
            await engine.close()


async def collect(
    engine: RemoteEngine, sampling: Sampling, chat: Chat = HELLO
) -> tuple[str, Finish]:
    text = ""
    async for event in engine.generate(engine.prepare(chat), sampling):
        if isinstance(event, Finish):
            return text, event
        text += event.text
    raise AssertionError("it ended without Finish")


async def eventually(holds: Callable[[], bool], seconds: float = 2.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not happen"
        await asyncio.sleep(0.01)
