"""Likelihoods from a server that speaks vLLM's dialect, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from avocado.data.chat import ChatTemplate
from avocado.engine.engine import EngineError, Likelihood, PromptTooLong, Scorer, Unsupported
from avocado.engine.remote import RemoteEngine
from avocado.engine.upstream import OPENAI, VLLM, Dialect

OTHER = {"7": {"logprob": 0.0, "rank": 1}}
Say = Callable[[dict[str, Any], int], tuple[int, Any]]
"""A request's body and its number to a status and an answer."""


def told(body: dict[str, Any], _: int) -> tuple[int, Any]:
    """A token is as likely as its id is small, and the likeliest where it is even."""
    rows: list[Any] = [None]
    for token in body["prompt"][1:]:
        row = {str(token): {"logprob": -float(token), "rank": 1 + token % 2, "decoded_token": "x"}}
        if token % 2:
            row["0"] = {"logprob": 0.0, "rank": 1, "decoded_token": "y"}
        rows.append(row)
    return 200, {"choices": [{"index": 0, "text": "z", "prompt_logprobs": rows}]}


@asynccontextmanager
async def serving(
    template: ChatTemplate, say: Say, dialect: Dialect = VLLM
) -> AsyncIterator[tuple[RemoteEngine, list[dict[str, Any]]]]:
    bodies: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        status, said = say(bodies[-1], len(bodies))
        return web.json_response(said, status=status)

    app = web.Application()
    app.router.add_post("/v1/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    engine = RemoteEngine(
        [f"http://127.0.0.1:{port}"], "m", context_length=64, template=template, dialect=dialect
    )
    try:
        yield engine, bodies
    finally:
        await engine.close()
        await runner.cleanup()


def test_each_asked_token_is_told_and_greedy_is_its_rank(template: ChatTemplate) -> None:
    async def ask() -> None:
        async with serving(template, told) as (engine, bodies):
            assert isinstance(engine, Scorer)
            pairs = [((1, 2), (4, 6)), ((9,), (3, 2)), ((5, 5), ())]
            assert await engine.likelihoods(pairs) == [
                Likelihood((-4.0, -6.0), True),
                Likelihood((-3.0, -2.0), False),
                Likelihood((), True),
            ]
            assert sorted(each["prompt"] for each in bodies) == [[1, 2, 4, 6], [9, 3, 2]]
            assert not any(each.get("stream") for each in bodies)

    asyncio.run(ask())


def test_a_busy_server_is_asked_again(
    template: ChatTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avocado.engine.remote_likelihood.PAUSE", 0.001)

    async def ask() -> None:
        def busy(body: dict[str, Any], number: int) -> tuple[int, Any]:
            return (503, {}) if number < 3 else told(body, number)

        async with serving(template, busy) as (engine, bodies):
            assert await engine.likelihoods([((1,), (2,))]) == [Likelihood((-2.0,), True)]
            assert len(bodies) == 3

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ((200, {"choices": [{"text": "z"}]}), "does not say how likely"),
        ((200, {"choices": [{"prompt_logprobs": [None]}]}), "does not say how likely"),
        (
            (200, {"choices": [{"prompt_logprobs": [None, {"7": {"logprob": 0, "rank": 1}}]}]}),
            "other",
        ),
        ((200, {"choices": []}), "cannot be read"),
        ((200, []), "cannot be read"),
        ((400, {"error": "prompt_logprobs is unknown"}), "answered 400"),
    ],
)
def test_an_answer_that_does_not_tell_is_an_error(
    template: ChatTemplate, said: tuple[int, Any], error: str
) -> None:
    async def ask() -> None:
        async with serving(template, lambda *_: said) as (engine, _):
            with pytest.raises(EngineError, match=error):
                await engine.likelihoods([((1,), (2,))])

    asyncio.run(ask())


def test_what_does_not_fit_and_a_server_that_cannot_are_refused(template: ChatTemplate) -> None:
    async def ask() -> None:
        async with serving(template, told) as (engine, bodies):
            with pytest.raises(PromptTooLong, match="do not fit the context of 64"):
                await engine.likelihoods([((1,) * 60, (2,) * 4)])
            with pytest.raises(ValueError, match="nothing stands before"):
                await engine.likelihoods([((), (2,))])
            assert not bodies
        async with serving(template, told, OPENAI) as (engine, _):
            with pytest.raises(Unsupported, match=r"\(openai\) does not score given tokens"):
                await engine.likelihoods([((1,), (2,))])

    asyncio.run(ask())
