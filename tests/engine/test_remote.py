"""The remote engine against a real HTTP server that misbehaves in each known way."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from avocado.data.chat import Chat, ChatTemplate
from avocado.engine.engine import (
    Delta,
    EngineBusy,
    EngineError,
    Finish,
    Json,
    JsonSchema,
    PromptTooLong,
    Regex,
    Sampling,
    Unsupported,
    UsageRejected,
)
from avocado.engine.remote import Patience, RemoteEngine
from avocado.engine.reply import Called, Reply, Said, Thought
from avocado.engine.upstream import VLLM
from avocado.terms.usage import Usage, UsageError
from tests.engine.fake_upstream import FakeUpstream, Plan, serving

Tiny = Callable[[str], Path]
HURRY = Patience(connect=2, idle=5, total=20, health=0)
HELLO = Chat(({"role": "user", "content": "Hi"},))


@pytest.fixture(scope="module")
def template(tiny: Tiny) -> ChatTemplate:
    return ChatTemplate.load(tiny("qwen3"))


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


SOME = Sampling(50, 0.0)


@pytest.mark.parametrize("usage", ["continuous", "last"])
@pytest.mark.parametrize("split", [0, 1, 7])
@pytest.mark.parametrize("ids", [True, False])
def test_text_and_exact_usage_however_events_are_cut(
    template: ChatTemplate, usage: Any, split: int, ids: bool
) -> None:
    async def scene() -> None:
        options: dict[str, Any] = {"template": template, "dialect": VLLM} if ids else {}
        async with remote(**options) as (engine, (fake,)):
            words = ("Grüße", " 🥑", "\n\ndata: [DONE]\n\n", "!")
            fake.plan = Plan(words, usage=usage, split=split)
            text, finish = await collect(engine, SOME)
            prompt = len(engine.prepare(HELLO).ids) if ids else 7
            assert text == "".join(words)
            assert finish == Finish("stop", Usage(prompt, 5))
            assert fake.paths == ["/v1/completions" if ids else "/v1/chat/completions"]

    play(scene())


def test_the_very_prompt_goes_out_and_nothing_else(template: ChatTemplate) -> None:
    async def scene() -> None:
        async with remote(template=template, dialect=VLLM, api_key="k") as (engine, (fake,)):
            sampling = Sampling(
                9,
                0.5,
                0.9,
                7,
                seed=3,
                stop=("x",),
                stop_ids=(1,),
                presence_penalty=0.5,
                frequency_penalty=-1,
                logit_bias=((5, 2.0),),
                grammar=JsonSchema('{"type": "object"}'),
                cache_salt="tenant",
            )
            await engine.check(sampling)
            await collect(engine, sampling)
            assert fake.keys == ["Bearer k"]
            assert fake.bodies == [
                {
                    "model": "m",
                    "prompt": list(engine.prepare(HELLO).ids),
                    "max_tokens": 9,
                    "temperature": 0.5,
                    "top_p": 0.9,
                    "top_k": 7,
                    "min_p": 0.0,
                    "repetition_penalty": 1.0,
                    "seed": 3,
                    "stop": ["x"],
                    "stop_token_ids": sorted({1, *template.stop_ids}),
                    "presence_penalty": 0.5,
                    "frequency_penalty": -1,
                    "logit_bias": {"5": 2.0},
                    "cache_salt": "tenant",
                    "response_format": {
                        "type": "json_schema",
                        "json_schema": {
                            "name": "answer",
                            "strict": True,
                            "schema": {"type": "object"},
                        },
                    },
                    "stream": True,
                    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
                }
            ]

    play(scene())


def test_messages_go_out_as_they_came_and_extras_are_refused() -> None:
    async def scene() -> None:
        async with remote() as (engine, (fake,)):
            tools = ({"type": "function", "function": {"name": "f", "parameters": {}}},)
            chat = Chat(({"role": "user", "content": "Hi\ud83e\udd51"},), tools)
            await collect(engine, replace(SOME, grammar=Json()), HELLO)
            await collect(engine, SOME, Chat(HELLO.messages, tools))
            assert fake.bodies[0] == {
                "model": "m",
                "messages": [{"role": "user", "content": "Hi"}],
                "max_tokens": 50,
                "temperature": 0.0,
                "top_p": 1.0,
                "response_format": {"type": "json_object"},
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            assert fake.bodies[1]["tools"] == list(tools)
            assert len(engine.prepare(chat).ids) > 512
            for sampling, field in (
                (replace(SOME, top_k=3), "top_k"),
                (replace(SOME, stop_ids=(3,)), "stop_ids"),
                (replace(SOME, grammar=Regex("a")), "response_format"),
            ):
                with pytest.raises(Unsupported) as caught:
                    await engine.check(sampling)
                assert caught.value.field == field
                with pytest.raises(Unsupported):
                    engine.generate(engine.prepare(HELLO), sampling)
            with pytest.raises(ValueError, match="strin"):
                await engine.check(replace(SOME, grammar=JsonSchema('{"type": "strin"}')))
            with pytest.raises(Unsupported):
                engine.prepare_text("raw")

    play(scene())


@pytest.mark.parametrize("usage", ["continuous", "last"])
def test_fault_16_cancelling_closes_the_connection_within_a_second(
    template: ChatTemplate, usage: Any
) -> None:
    """The count is the server's where it comes with every event, else that of our tokenizer."""

    async def scene() -> None:
        async with remote(template=template, dialect=VLLM) as (engine, (fake,)):
            fake.plan = Plan(("kostet zwölf",) * 40, usage=usage, delay=0.02)
            generation = engine.generate(engine.prepare(HELLO), Sampling(400))
            seen = [await anext(generation) for _ in range(3)]
            begun = time.monotonic()
            final = await generation.cancel()
            assert time.monotonic() - begun < 0.5
            assert [event async for event in generation] == []
            assert final == generation.usage
            if usage == "continuous":
                assert final.completion in (3, 4)
            else:
                each = len(template.encode("kostet zwölf"))
                assert final.completion in (3 * each, 4 * each)
            assert all(isinstance(event, Delta) for event in seen)
            await eventually(lambda: fake.aborted == 1 and fake.running == 0)

    play(scene())


async def eventually(holds: Callable[[], bool], seconds: float = 2.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not happen"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_fault_22_a_server_that_omits_usage_is_counted_off_the_loop(
    template: ChatTemplate, finish: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with remote(template=template) as (engine, (fake,)):
            words = ("la reunión", " cuesta 🥑 mil", " pesos")
            fake.plan = Plan(words, usage="none", finish=finish)
            loop, counted_on = threading.get_ident(), []
            real = ChatTemplate.encode

            def encode(self: ChatTemplate, text: str) -> tuple[int, ...]:
                if text == "".join(words):
                    counted_on.append(threading.get_ident())
                return real(self, text)

            monkeypatch.setattr(ChatTemplate, "encode", encode)
            _, end = await collect(engine, SOME)
            exact = len(template.encode("".join(words))) + (finish == "stop")
            assert end.usage == Usage(len(engine.prepare(HELLO).ids), exact)
            assert counted_on
            assert counted_on[0] != loop

    play(scene())


def test_fault_22_without_a_tokenizer_each_event_is_a_token_at_least() -> None:
    async def scene() -> None:
        async with remote() as (engine, (fake,)):
            fake.plan = Plan(usage="none")
            _, end = await collect(engine, SOME)
            assert end.usage.completion == 3

    play(scene())


@pytest.mark.parametrize(
    "usage",
    [
        '{"prompt_tokens": -1, "completion_tokens": 3}',
        '{"prompt_tokens": 7, "completion_tokens": 9223372036854775808}',
        '{"prompt_tokens": 7, "completion_tokens": NaN}',
        '{"prompt_tokens": 7, "completion_tokens": 3.0}',
        '{"prompt_tokens": 7, "completion_tokens": "3"}',
        '{"prompt_tokens": 7, "completion_tokens": 51}',
        '{"prompt_tokens": 7, "completion_tokens": 0}',
        '{"prompt_tokens": 7}',
        '{"prompt_tokens": true, "completion_tokens": 3}',
        '{"prompt_tokens": 100000, "completion_tokens": 3}',
        '{"prompt_tokens": 7, "completion_tokens": 3,"prompt_tokens_details":{"cached_tokens":8}}',
        '{"prompt_tokens": 7, "completion_tokens": 3,'
        '"completion_tokens_details":{"reasoning_tokens":-4}}',
        "[]",
    ],
)
def test_fault_23_usage_that_cannot_be_is_refused(usage: str) -> None:
    async def scene() -> None:
        async with remote() as (engine, (fake,)):
            fake.plan = Plan(usage=usage)
            with pytest.raises(UsageRejected) as caught:
                await collect(engine, SOME)
            assert isinstance(caught.value, UsageError)

    play(scene())


def test_details_of_usage_are_read() -> None:
    async def scene() -> None:
        async with remote() as (engine, (fake,)):
            fake.plan = Plan(
                usage='{"prompt_tokens": 7, "completion_tokens": 4, "prompt_tokens_details":'
                '{"cached_tokens": 5}, "completion_tokens_details": {"reasoning_tokens": 2}}'
            )
            _, end = await collect(engine, SOME)
            assert end.usage == Usage(7, 4, 5, 2)

    play(scene())


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("how", ["fail_after", "end_after", "reset_after"])
def test_fault_21_a_failure_inside_a_200_is_an_error(
    template: ChatTemplate, after: int, how: str
) -> None:
    """What was said stays said and counted. A break before any event is tried again, no other."""

    async def scene() -> None:
        async with remote(template=template, dialect=VLLM) as (engine, (fake,)):
            fake.plan = replace(Plan(("a", "b", "c"), usage="continuous"), **{how: after})  # type: ignore[arg-type]
            generation = engine.generate(engine.prepare(HELLO), SOME)
            text: list[str] = []
            with pytest.raises(EngineError) as caught:
                await read(generation, text)
            assert caught.value.retryable
            assert "".join(text) == "abc"[:after]
            assert generation.usage.completion == after
            tries = 3 if (after, how) == (0, "reset_after") else 1
            assert len(fake.bodies) == tries

    play(scene())


async def read(generation: Any, into: list[str]) -> None:
    async for event in generation:
        into.append(event.text)


@pytest.mark.parametrize(
    "plan",
    [
        Plan(content_type="text/html"),
        Plan(first=("{",)),
        Plan(first=("[1]",)),
        Plan(first=("[" * 100_000,)),
        Plan(finish="abort"),
        Plan(finish=None),
        Plan(status=500),
        Plan(status=404),
        Plan(status=400),
    ],
)
def test_what_is_no_answer_is_an_error_and_not_tried_again(plan: Plan) -> None:
    async def scene() -> None:
        async with remote() as (engine, (fake,)):
            fake.plan = plan
            with pytest.raises(EngineError) as caught:
                await collect(engine, SOME)
            assert not isinstance(caught.value, EngineBusy)
            assert caught.value.retryable == (plan.status not in (400, 404) and not _garbled(plan))
            assert len(fake.bodies) == 1

    play(scene())


def _garbled(plan: Plan) -> bool:
    return bool(plan.first)


@pytest.mark.parametrize(
    ("status", "header", "wait"),
    [(429, "7", 7.0), (503, "", 1.0), (503, "Wed, 21 Oct 2026", 1.0), (429, "1e9", 60.0)],
)
def test_a_busy_server_is_busy(status: int, header: str, wait: float) -> None:
    async def scene() -> None:
        async with remote() as (engine, (fake,)):
            fake.plan = Plan(status=status, headers={"retry-after": header})
            for _ in range(5):  # busy is not broken: it is asked each time
                with pytest.raises(EngineBusy) as caught:
                    await collect(engine, SOME)
            assert caught.value.retry_after == wait
            assert len(fake.bodies) == 5

    play(scene())


def test_a_refusal_may_come_inside_a_200() -> None:
    """As vLLM sends it: a full queue is another replica's chance, a bad request nobody's."""

    async def scene() -> None:
        async with remote(2) as (engine, fakes):
            full = '{"error": {"message": "busy", "type": "Service Unavailable", "code": 503}}'
            for fake in fakes:
                fake.plan = Plan(first=(full,))
            with pytest.raises(EngineBusy):
                await collect(engine, SOME)
            assert [len(fake.bodies) for fake in fakes] == [1, 1]
            for busy, free in (fakes, fakes[::-1]):
                busy.plan, free.plan = Plan(first=(full,)), Plan()
                assert (await collect(engine, SOME))[0] == "Hello there!"
            for fake in fakes:
                fake.plan = Plan(first=('{"error": {"message": "bad schema", "code": 400}}',))
            for _ in range(4):  # no reason to give the servers up
                with pytest.raises(EngineError, match="bad schema") as caught:
                    await collect(engine, SOME)
                assert not caught.value.retryable

    play(scene())


def test_another_replica_takes_what_one_cannot() -> None:
    async def scene() -> None:
        async with remote(3) as (engine, fakes):
            for plan in (Plan(status=503), Plan(drop=True), Plan(status=502)):
                for bad in fakes:
                    for fake in fakes:
                        fake.plan = plan if fake is bad else Plan()
                    assert (await collect(engine, SOME))[0] == "Hello there!"

    play(scene())


def test_tries_are_bounded_and_end_with_the_first_byte() -> None:
    async def scene() -> None:
        async with remote() as (engine, (fake,)):
            plans = iter([Plan(drop=True), Plan(drop=True), Plan()])
            fake.plan = lambda _: next(plans)
            assert (await collect(engine, SOME))[0] == "Hello there!"
            fake.plan = Plan(drop=True)
            with pytest.raises(EngineError):
                await collect(engine, SOME)
            assert len(fake.bodies) == 6

    play(scene())


def test_fault_24_a_server_that_hangs_is_given_up() -> None:
    async def scene() -> None:
        patience = replace(HURRY, idle=0.2)
        async with remote(patience=patience) as (engine, (fake,)):
            for after in (0, 2):
                fake.plan = Plan(hang_after=after)
                begun = time.monotonic()
                with pytest.raises(EngineError, match="too long") as caught:
                    await collect(engine, SOME)
                assert caught.value.retryable
                assert time.monotonic() - begun < 2
            await eventually(lambda: fake.running == 0)
            assert len(fake.bodies) == 2

    play(scene())


def test_a_total_time_bounds_an_answer_that_trickles() -> None:
    async def scene() -> None:
        patience = replace(HURRY, total=0.4)
        async with remote(patience=patience) as (engine, (fake,)):
            fake.plan = Plan(("a",) * 100, delay=0.05)
            with pytest.raises(EngineError, match="too long"):
                await collect(engine, Sampling(200))

    play(scene())


def test_a_broken_server_is_left_alone_and_comes_back() -> None:
    async def scene() -> None:
        async with remote(patience=replace(HURRY, retries=0)) as (engine, (fake,)):
            fake.plan = Plan(status=500)
            for _ in range(3):
                with pytest.raises(EngineError):
                    await collect(engine, SOME)
            with pytest.raises(EngineBusy, match="no server"):
                await collect(engine, SOME)
            assert len(fake.bodies) == 3
            await asyncio.sleep(1.05)
            fake.plan = Plan(delay=0.1)
            trial = asyncio.create_task(collect(engine, SOME))
            await asyncio.sleep(0.05)
            with pytest.raises(EngineBusy):  # one at a time while half open
                await collect(engine, SOME)
            assert (await trial)[0] == "Hello there!"
            assert await collect(engine, SOME)

    play(scene())


def test_a_replica_that_says_it_is_ill_gets_nothing_until_it_is_well() -> None:
    async def scene() -> None:
        async with remote(2, patience=replace(HURRY, health=0.05)) as (engine, (ill, well)):
            await collect(engine, SOME)
            ill.healthy = False
            await eventually(lambda: not engine.replicas[0].up)
            before = len(ill.bodies)
            for n in range(10):
                await collect(engine, SOME, Chat(({"role": "user", "content": str(n)},)))
            assert len(ill.bodies) == before
            ill.healthy, well.healthy = True, False
            await eventually(lambda: engine.replicas[0].up and not engine.replicas[1].up)
            await collect(engine, SOME)
            assert len(ill.bodies) == before + 1

    play(scene())


def test_no_server_at_all() -> None:
    async def scene() -> None:
        engine = RemoteEngine(["http://127.0.0.1:9"], "m", context_length=99, patience=HURRY)
        with pytest.raises(EngineError, match="no connection") as caught:
            await collect(engine, Sampling(9))
        assert caught.value.retryable
        await engine.close()
        with pytest.raises(EngineError, match="closed"):
            engine.generate(engine.prepare(HELLO), SOME)

    play(scene())
    with pytest.raises(ValueError, match="address"):
        RemoteEngine([], "m", context_length=9)


def test_conversations_stay_and_spread() -> None:
    async def scene() -> None:
        async with remote(4) as (engine, fakes):
            for turn in range(3):
                for n in range(20):
                    opening = [{"role": "user", "content": f"question {n}"}]
                    more = [{"role": "assistant", "content": "so"}, *opening] * turn
                    await collect(engine, SOME, Chat((*opening, *more)))
            homes: dict[str, set[int]] = {}
            for place, fake in enumerate(fakes):
                for body in fake.bodies:
                    homes.setdefault(body["messages"][0]["content"], set()).add(place)
            assert all(len(home) == 1 for home in homes.values())
            assert len(set().union(*homes.values())) == 4

    play(scene())


def test_limits_of_context_and_capacity(template: ChatTemplate) -> None:
    async def scene() -> None:
        async with remote(template=template, capacity=2, context_length=99) as (engine, (fake,)):
            fake.plan = Plan(hang_after=1)
            prompt = engine.prepare(HELLO)
            with pytest.raises(PromptTooLong):
                engine.generate(prompt, Sampling(99))
            running = [engine.generate(prompt, SOME) for _ in range(2)]
            assert engine.occupancy.running == 2
            with pytest.raises(EngineBusy):
                engine.generate(prompt, SOME)
            for each in running:
                await anext(each)
                await each.cancel()
            assert engine.occupancy.running == 0

    play(scene())


def test_closing_ends_what_runs() -> None:
    async def scene() -> None:
        async with remote() as (engine, (fake,)):
            fake.plan = Plan(hang_after=1)
            generation = engine.generate(engine.prepare(HELLO), SOME)
            await anext(generation)
            await engine.close()
            with pytest.raises(EngineError, match="closed"):
                await anext(generation)
            await eventually(lambda: fake.running == 0)

    play(scene())


def test_thoughts_and_calls_that_come_apart_are_put_back_together() -> None:
    async def scene() -> None:
        async with remote() as (engine, (fake,)):
            call = {"index": 0, "id": "c", "type": "function"}
            fake.plan = Plan(
                deltas=(
                    {"role": "assistant", "content": ""},
                    {"reasoning_content": "h"},
                    {"reasoning_content": "m"},
                    {"content": "Look:"},
                    {"tool_calls": [{**call, "function": {"name": "f", "arguments": ""}}]},
                    {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
                    {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
                    {"tool_calls": [{"index": 1, "function": {"name": "g"}}]},
                ),
                finish="tool_calls",
            )
            prompt = engine.prepare(HELLO)
            text, finish = await collect(engine, SOME)
            reply = Reply(prompt.text, ({"function": {"name": "f"}},))
            pieces = [*reply.feed(text), *reply.end()]
            assert pieces == [
                Thought("hm"),
                Said("Look:"),
                Called(0, "f", '{"a": 1}'),
                Called(1, "g", "{}"),
            ]
            assert finish.reason == "stop"

    play(scene())


def test_log_probabilities_of_both_kinds(template: ChatTemplate) -> None:
    async def scene() -> None:
        sampling = replace(SOME, logprobs=True, top_logprobs=1)
        async with remote() as (engine, (fake,)):
            one = {"token": "\ufffd", "logprob": -0.5, "bytes": [240], "top_logprobs": []}
            top = {"token": "x", "logprob": -0.25, "bytes": None}
            fake.plan = Plan(
                ("ab",), logprobs=({"content": [one, {**one, "top_logprobs": [top]}]},)
            )
            events = [event async for event in engine.generate(engine.prepare(HELLO), sampling)]
            assert isinstance(events[0], Delta)
            first, second = events[0].logprobs
            assert (first.bytes, first.logprob, first.top) == (b"\xf0", -0.5, ())
            assert second.top[0].bytes == b"x"
        async with remote(template=template, dialect=VLLM) as (engine, (fake,)):
            (token,) = template.encode("x")
            stop = min(template.stop_ids)
            fake.plan = Plan(
                ("x", ""),
                logprobs=(
                    {
                        "tokens": [f"token_id:{token}"],
                        "token_logprobs": [-1.5],
                        "top_logprobs": [{f"token_id:{token}": -1.5, "token_id:300": -0.5}],
                    },
                    {"tokens": [f"token_id:{stop}"], "token_logprobs": [-0.1]},
                ),
            )
            events = [event async for event in engine.generate(engine.prepare(HELLO), sampling)]
            told = [each for e in events if isinstance(e, Delta) for each in e.logprobs]
            assert [(each.bytes, each.logprob) for each in told] == [(b"x", -1.5)]
            assert [each.logprob for each in told[0].top] == [-0.5]
            assert (fake.bodies[0]["logprobs"], fake.bodies[0]["return_tokens_as_token_ids"]) == (
                1,
                True,
            )

    play(scene())


def test_many_at_once_with_random_ends(template: ChatTemplate) -> None:
    """Each ends in exactly one way; nothing is left running here or there."""

    async def scene() -> None:
        async with remote(2, template=template, dialect=VLLM) as (engine, fakes):
            draw = random.Random(5)
            for fake in fakes:
                fake.plan = lambda _: Plan(
                    ("word ",) * draw.randint(1, 9),
                    usage="continuous",
                    delay=0.002,
                    fail_after=draw.choice((None, None, None, 0, 3)),
                )

            async def one() -> str:
                generation = engine.generate(engine.prepare(HELLO), SOME)
                left = draw.randint(0, 12)
                try:
                    async for event in generation:
                        if isinstance(event, Finish):
                            assert event.usage == generation.usage
                            return "finished"
                        left -= 1
                        if left < 0:
                            usage = await generation.cancel()
                            assert usage.completion >= event.completion
                            return "cancelled"
                except EngineBusy:
                    return "busy"
                except EngineError:
                    return "failed"
                return "silent"

            ends = await asyncio.gather(*(one() for _ in range(120)))
            assert "silent" not in ends
            assert {"finished", "cancelled", "failed"} <= set(ends)
            assert engine.occupancy.running == 0
            await eventually(lambda: all(fake.running == 0 for fake in fakes))
            assert [each.running for each in engine.replicas] == [0, 0]

    play(scene())


def test_a_schema_reaches_the_server_as_it_was_written() -> None:
    async def scene() -> None:
        async with remote() as (engine, (fake,)):
            schema = '{"type":"object","properties":{"b":{"type":"integer"},"a":{}}}'
            await collect(engine, replace(SOME, grammar=JsonSchema(schema)))
            sent = fake.bodies[0]["response_format"]["json_schema"]["schema"]
            assert json.dumps(sent, separators=(",", ":")) == schema

    play(scene())
