"""The remote engine and what goes wrong: each known failure of a server, over real HTTP."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from avocado.data.chat import Chat, ChatTemplate
from avocado.engine.engine import (
    Delta,
    EngineBusy,
    EngineError,
    Finish,
    Sampling,
    UsageRejected,
)
from avocado.engine.remote import RemoteEngine
from avocado.engine.upstream import VLLM
from avocado.terms.usage import Usage, UsageError
from tests.engine.fake_upstream import (
    HELLO,
    HURRY,
    SOME,
    Plan,
    collect,
    eventually,
    play,
    remote,
)


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
