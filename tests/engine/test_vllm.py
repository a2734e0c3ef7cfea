"""A real vLLM on the CPU, in an environment of its own: ``make test-vllm``.

It serves the seedling in fp32, so what it says can be held against the embedded engine.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

from avocado.data.chat import Chat, ChatTemplate
from avocado.engine.embedded import EmbeddedEngine
from avocado.engine.engine import (
    Calls,
    Delta,
    Engine,
    EngineBusy,
    EngineError,
    Finish,
    Generation,
    Json,
    JsonSchema,
    Regex,
    Sampling,
    TokenLogprob,
)
from avocado.engine.reply import Called, Reply, joined
from avocado.engine.supervisor import Care
from avocado.engine.vllm import Launch, VllmEngine
from tests.cli.serving import PRICE, charges, make_shop, serving, set_engine

PYTHON = os.environ.get("AVOCADO_VLLM_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="AVOCADO_VLLM_PYTHON names no interpreter"),
]
SEEDLING = Path(str(files("avocado") / "seedling" / "model"))
QUESTIONS = (
    "What is 12 + 5?",
    "Das Treffen ist am 12. März 2024 und kostet 1.234,56 €.",
    "会议在三月十二日举行，费用一千元",
    "Tell me a story about an avocado 🥑",
)


def ask(text: str) -> Chat:
    return Chat(({"role": "user", "content": text},))


async def collect(
    engine: Engine, text: str, sampling: Sampling
) -> tuple[str, Finish, list[TokenLogprob]]:
    said = ""
    told: list[TokenLogprob] = []
    async for event in engine.generate(engine.prepare(ask(text)), sampling):
        if isinstance(event, Finish):
            return said, event, told
        said += event.text
        told += list(event.logprobs)
    raise AssertionError("it ended without Finish")


@asynccontextmanager
async def running(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[VllmEngine]:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    launch = Launch(
        Path(PYTHON or ""),
        SEEDLING,
        folder / "vllm.log",
        max_running=4,
        max_queue=4,
        extra=("--dtype", "float32"),
    )
    care = Care(start=300, pulse=1, silence=20, stop=20)
    engine = await VllmEngine.start(launch, ChatTemplate.load(SEEDLING), care=care)
    try:
        yield engine
    finally:
        await engine.close()


def play(scene: Awaitable[None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scene, 900)

    asyncio.run(bounded())


def test_vllm_serves_as_the_embedded_engine_does_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One start, since it takes a minute: text, counts, caps, cancel, overload, crash, drain."""

    async def scene() -> None:
        begun = time.monotonic()
        async with running(tmp_path, monkeypatch) as engine:
            print(f"started in {time.monotonic() - begun:.0f} s")
            embedded = EmbeddedEngine.load(SEEDLING)
            try:
                await equal_texts(engine, embedded)
                await equal_logprobs(engine, embedded)
            finally:
                await embedded.close()
            await grammars(engine)
            await calls(engine)
            await cancelled(engine)
            await overloaded(engine)
            await killed(engine)
            last = engine.server.pid
            assert last is not None
            assert members(last)
        groups.append(last)

    groups: list[int] = []
    play(scene())
    end = time.monotonic() + 10
    while members(groups[0]) and time.monotonic() < end:
        time.sleep(0.05)  # killed, they take a moment to be gone
    assert not members(groups[0])


def members(group: int) -> list[str]:
    """Command lines of the group's living processes (Linux)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            _, _, state = (folder / "stat").read_text().rpartition(") ")
            name = (folder / "comm").read_text().strip()
        except OSError:  # it ended meanwhile
            continue
        if int(state.split()[2]) == group and not state.startswith("Z"):
            found.append(name)
    return found


async def equal_texts(engine: VllmEngine, embedded: EmbeddedEngine) -> None:
    same = 0
    for text in QUESTIONS:
        ours, theirs = [await collect(each, text, Sampling(40, 0.0)) for each in (embedded, engine)]
        assert theirs[1].usage.prompt == ours[1].usage.prompt
        same += (ours[0], ours[1].reason, ours[1].usage.completion) == (
            theirs[0],
            theirs[1].reason,
            theirs[1].usage.completion,
        )
    assert same >= len(QUESTIONS) - 1  # kernels differ in the last bits, and a tie may fall apart
    stop = (await collect(embedded, QUESTIONS[1], Sampling(40, 0.0)))[0][2:4]
    for each in (embedded, engine):
        _, finish, _ = await collect(each, QUESTIONS[1], Sampling(40, 0.0, stop=(stop,)))
        assert (finish.reason, finish.stop) == ("stop", stop)


async def equal_logprobs(engine: VllmEngine, embedded: EmbeddedEngine) -> None:
    sampling = Sampling(8, 0.0, logprobs=True, top_logprobs=3)
    for text in QUESTIONS[:2]:
        ours, theirs = [(await collect(each, text, sampling))[2] for each in (embedded, engine)]
        assert [each.bytes for each in ours] == [each.bytes for each in theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=0.02)
            assert [top.bytes for top in one.top[:1]] == [top.bytes for top in other.top[:1]]


async def grammars(engine: VllmEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Rom", "Köln"]}, "days": {"type": "integer"}},
        "required": ["city", "days"],
        "additionalProperties": False,
    }
    for seed in range(3):
        text, finish, _ = await collect(
            engine, "Where?", Sampling(200, 1.0, seed=seed, grammar=JsonSchema(json.dumps(schema)))
        )
        if finish.reason == "stop":
            jsonschema.validate(json.loads(text), schema)
    text, finish, _ = await collect(engine, "Say", Sampling(30, 1.0, grammar=Regex("[ab]{6}")))
    assert re.fullmatch("[ab]{6}", text)
    text, finish, _ = await collect(engine, "Say", Sampling(300, 0.0, grammar=Json()))
    assert finish.reason == "length" or isinstance(json.loads(text), dict)
    with pytest.raises(ValueError, match="strin"):
        await engine.check(Sampling(9, grammar=JsonSchema('{"type": "strin"}')))


async def calls(engine: VllmEngine) -> None:
    """Structural tags: calls that must be, that may be, and a thought before what is held."""
    parameters = {
        "type": "object",
        "properties": {"city": {"enum": ["Rom", "Köln"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    schemas = (("weather", json.dumps(parameters)),)
    must = Calls(schemas, must=True, several=False)
    for seed in range(3):
        text, finish, _ = await collect(
            engine, "Where?", Sampling(90, 1.0, seed=seed, grammar=must)
        )
        reply = Reply("assistant\n", ({"function": {"name": "weather"}},))
        (call,) = joined([*reply.feed(text), *reply.end()])
        assert isinstance(call, Called)
        assert (call.name, finish.reason) == ("weather", "stop")
        jsonschema.validate(json.loads(call.arguments), parameters)
    free = Calls(schemas, must=False, several=True)
    text, _, _ = await collect(engine, "Hello", Sampling(20, 0.0, grammar=free))
    assert text == (await collect(engine, "Hello", Sampling(20, 0.0)))[0], "text is free"
    thinking = engine.prepare_text(engine.prepare(ask("Why?")).text + "<think>\n")
    told = []
    for grammar in (None, Regex("[ab]{6}"), must):
        generation = engine.generate(thinking, Sampling(20, 0.0, grammar=grammar))
        events = [event async for event in generation]
        told.append("".join(event.text for event in events if isinstance(event, Delta)))
    # All but its end is free: an answer must follow.
    assert told[0]
    assert all(text.startswith(told[0]) for text in told)


async def cancelled(engine: VllmEngine) -> None:
    generation = engine.generate(engine.prepare(ask("Count")), endless(1500))
    event = await anext(generation)  # on a busy machine many tokens come as one
    assert isinstance(event, Delta)
    begun = time.monotonic()
    usage = await generation.cancel()
    assert time.monotonic() - begun < 1
    assert event.completion <= usage.completion < 1500  # what had come, read or not
    assert engine.occupancy.running == 0


def endless(tokens: int) -> Sampling:
    """Never ends by itself."""
    stops = ChatTemplate.load(SEEDLING).stop_ids
    return Sampling(tokens, 1.0, logit_bias=tuple((token, -100.0) for token in sorted(stops)))


async def overloaded(engine: VllmEngine) -> None:
    """Room for four that run and four that wait: others are refused at once, by us or by it."""

    async def one() -> str:
        try:
            _, finish, _ = await collect(engine, "Go", endless(60))
            assert finish.usage.completion == 60
        except EngineBusy:
            return "busy"
        return "served"

    ends = await asyncio.gather(*(one() for _ in range(20)))
    # A burst meets its queue before any of it runs, so the queue alone bounds it.
    assert ends.count("served") >= 4
    assert set(ends) == {"served", "busy"}
    # Its own bound holds too, where ours would let more in.
    engine._remote._capacity = 100
    ends = await asyncio.gather(*(one() for _ in range(20)))
    assert set(ends) == {"served", "busy"}


async def exhaust(generation: Generation) -> None:
    async for _ in generation:
        pass


async def killed(engine: VllmEngine) -> None:
    pid = engine.server.pid
    assert pid is not None
    # On a busy machine one of them may have come whole before the kill; not all four.
    sampling = endless(1500)
    running = [engine.generate(engine.prepare(ask("Count")), sampling) for _ in range(4)]
    await anext(running[0])
    os.killpg(pid, signal.SIGKILL)
    ends = await asyncio.gather(*map(exhaust, running), return_exceptions=True)
    broken = [end for end in ends if isinstance(end, EngineError)]
    assert broken, (ends, [each.usage for each in running])
    assert all(end is None or isinstance(end, EngineError) for end in ends)
    assert all(end.retryable for end in broken)
    assert running[0].usage.completion >= 1
    until = time.monotonic() + 300
    while True:
        try:
            text, _, _ = await collect(engine, QUESTIONS[0], Sampling(9, 0.0))
            break
        except EngineError:
            assert time.monotonic() < until
            await asyncio.sleep(1)
    assert text
    assert engine.server.pid != pid


def test_vllm_through_avocado_serve_charges_what_it_says(tmp_path: Path) -> None:
    """As a user has it: ``[engine]`` in avocado.toml, ``avocado serve``, OpenAI's client."""
    release, key = make_shop(tmp_path / "shop")
    set_engine(
        tmp_path / "shop",
        f'kind = "vllm"\n[engine.settings]\npython = {json.dumps(PYTHON)}\n'
        'max_running = 4\nmax_queue = 4\nextra = ["--dtype", "float32"]',
    )
    begun = time.monotonic()
    with serving(tmp_path / "shop", VLLM_CPU_KVCACHE_SPACE="1", OMP_NUM_THREADS="1") as front:
        print(f"avocado serve with vLLM answered after {time.monotonic() - begun:.0f} s")
        client = front.client(key)
        told = []
        begun = time.monotonic()
        for text in QUESTIONS:
            whole = client.chat.completions.create(
                model="avocado-1",
                messages=[{"role": "user", "content": text}],
                max_tokens=20,
                temperature=0,
            )
            chunks = list(
                client.chat.completions.create(
                    model="avocado-1",
                    messages=[{"role": "user", "content": text}],
                    max_tokens=20,
                    temperature=0,
                    stream=True,
                    stream_options={"include_usage": True},
                )
            )
            said = "".join(each.choices[0].delta.content or "" for each in chunks[:-1])
            assert whole.choices[0].message.content == said
            assert whole.system_fingerprint == release[:20]
            for usage in (whole.usage, chunks[-1].usage):
                assert usage
                told.append((usage.prompt_tokens, usage.completion_tokens))
        print(f"{len(told)} requests in {time.monotonic() - begun:.1f} s")
        raw = client.completions.create(model="avocado-1", prompt="The", max_tokens=5)
        assert raw.usage
        told.append((raw.usage.prompt_tokens, raw.usage.completion_tokens))
        begun = time.monotonic()
    print(f"stopped in {time.monotonic() - begun:.1f} s")
    found = charges(tmp_path / "shop")
    assert [(each.usage.prompt, each.usage.completion) for each in found] == told
    assert [each.charge for each in found] == [
        (prompt * PRICE.prompt + completion * PRICE.completion) // 1_000_000
        for prompt, completion in told
    ]
