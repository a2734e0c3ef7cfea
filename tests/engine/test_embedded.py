"""The embedded engine against transformers' own ``generate``, alone and in company."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from avocado.data.chat import Chat, Prompt
from avocado.engine.embedded import EmbeddedEngine
from avocado.engine.engine import (
    Delta,
    EngineBusy,
    EngineError,
    Finish,
    PromptTooLong,
    Sampling,
)

Tiny = Callable[[str], Path]
ARCHITECTURES = ["qwen2", "qwen3", "qwen3_moe", "qwen3_5_text"]
TEXTS = ("kostet 12 €", "会议" * 9, "a", "la reunión cuesta mil pesos " * 4, "🦔" * 40, "x" * 300)


def ask(text: str) -> Chat:
    return Chat(({"role": "user", "content": text},))


@asynccontextmanager
async def running(folder: Path, **options: Any) -> AsyncIterator[EmbeddedEngine]:
    engine = EmbeddedEngine.load(folder, **options)
    try:
        yield engine
    finally:
        await engine.close()


async def collect(engine: EmbeddedEngine, prompt: Prompt, sampling: Sampling) -> tuple[str, Finish]:
    text = ""
    async for event in engine.generate(prompt, sampling):
        if isinstance(event, Finish):
            return text, event
        assert event.text
        text += event.text
    raise AssertionError("it ended without Finish")


def reference(folder: Path, engine: EmbeddedEngine, prompt: Prompt, limit: int) -> tuple[str, int]:
    """Text and count of what transformers generates greedily for ``prompt`` alone."""
    model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    ids = torch.tensor([prompt.ids])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False
    )[0, len(prompt.ids) :].tolist()
    return engine.template.decode(out).rstrip("\ufffd"), len(out)


def play(scene: Awaitable[None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scene, 60)

    asyncio.run(bounded())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_text_is_that_of_transformers_alone(architecture: str, tiny: Tiny) -> None:
    async def scene() -> None:
        async with running(tiny(architecture)) as engine:
            for text in TEXTS:
                prompt = engine.prepare(ask(text))
                expected, count = reference(tiny(architecture), engine, prompt, 24)
                got, finish = await collect(engine, prompt, Sampling(24, temperature=0))
                assert got == expected
                assert finish.usage.completion == count
                assert finish.usage.prompt == len(prompt.ids)
                assert finish.reason == ("length" if count == 24 else "stop")

    play(scene())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
)
def test_company_changes_nothing(architecture: str, seed: int, tiny: Tiny) -> None:
    """Requests that join, end and are cancelled at random get what they would get alone: greedy
    ones, and seeded ones too."""
    draw = random.Random(seed)
    greedy = [Sampling(draw.randint(1, 40), temperature=0) for _ in range(10)]
    seeded = [
        Sampling(draw.randint(1, 40), 1.5, draw.choice((1.0, 0.8)), draw.choice((0, 9)), seed=n)
        for n in range(10)
    ]

    async def scene() -> None:
        async with running(tiny(architecture), max_batch=5) as engine:
            prompts = [engine.prepare(ask(text)) for text in TEXTS]
            work = [(draw.choice(prompts), sampling) for sampling in greedy + seeded]
            alone = [await collect(engine, *each) for each in work]

            async def later(prompt: Prompt, sampling: Sampling) -> tuple[str, Finish]:
                await asyncio.sleep(draw.random() * 0.05)
                return await collect(engine, prompt, sampling)

            async def disturb() -> None:
                await asyncio.sleep(draw.random() * 0.05)
                generation = engine.generate(draw.choice(prompts), Sampling(60, 1.0))
                await asyncio.sleep(draw.random() * 0.02)
                await generation.cancel()

            noise = [asyncio.create_task(disturb()) for _ in range(6)]
            together = await asyncio.gather(*(later(*each) for each in work))
            await asyncio.gather(*noise)
            assert list(together) == alone

    play(scene())


def test_the_same_seed_gives_the_same_text_and_another_another(tiny: Tiny) -> None:
    async def scene() -> None:
        async with running(tiny("qwen3")) as engine:
            prompt = engine.prepare(ask("a"))

            async def text(seed: int | None) -> str:
                return (await collect(engine, prompt, Sampling(20, 2.0, seed=seed)))[0]

            assert await text(7) == await text(7)
            assert len({await text(n) for n in range(5)}) == 5
            assert await text(None) != await text(None)

    play(scene())


def test_a_stop_string_ends_the_text_and_its_tokens_count(tiny: Tiny) -> None:
    async def scene() -> None:
        async with running(tiny("qwen3")) as engine:
            prompt = engine.prepare(ask("会议" * 9))
            whole, finish = await collect(engine, prompt, Sampling(40, temperature=0))
            stop = whole[len(whole) // 2 :][:3]
            got, stopped = await collect(engine, prompt, Sampling(40, temperature=0, stop=(stop,)))
            assert got == whole.partition(stop)[0]
            assert stopped.reason == "stop"
            assert 0 < stopped.usage.completion < finish.usage.completion

    play(scene())


def test_deltas_count_up_to_the_usage(tiny: Tiny) -> None:
    async def scene() -> None:
        async with running(tiny("qwen3")) as engine:
            generation = engine.generate(engine.prepare(ask("a")), Sampling(30, temperature=0))
            counts = []
            async for event in generation:
                if isinstance(event, Delta):
                    counts.append(event.completion)
            assert counts == sorted(set(counts)) or counts[-1] == counts[-2]
            assert counts[-1] <= generation.usage.completion <= 30
            assert await generation.cancel() == generation.usage

    play(scene())


def test_cancel_stops_within_a_step_and_frees_the_place(tiny: Tiny) -> None:
    async def scene() -> None:
        async with running(tiny("qwen3"), max_batch=1) as engine:
            prompt = engine.prepare(ask("a"))
            first = engine.generate(prompt, Sampling(900, 1.0, seed=1))
            waiting = engine.generate(prompt, Sampling(900, 1.0, seed=2))
            assert isinstance(await anext(first), Delta)
            assert (await waiting.cancel()).completion == 0
            usage = await first.cancel()
            assert 1 <= usage.completion < 900
            assert [event async for event in first] == []
            text, _ = await collect(engine, prompt, Sampling(5, temperature=0))
            assert text
            assert first.usage == usage  # nothing was generated after it

    play(scene())


def test_a_full_queue_is_busy_and_drains(tiny: Tiny) -> None:
    async def scene() -> None:
        async with running(tiny("qwen3"), max_batch=1, max_queue=2) as engine:
            prompt = engine.prepare(ask("a"))
            running_one = engine.generate(prompt, Sampling(400, 1.0, seed=1))
            await anext(running_one)
            queued = [engine.generate(prompt, Sampling(2, temperature=0)) for _ in range(2)]
            with pytest.raises(EngineBusy):
                engine.generate(prompt, Sampling(2, temperature=0))
            await running_one.cancel()
            for generation in queued:
                assert isinstance([event async for event in generation][-1], Finish)
            assert await collect(engine, prompt, Sampling(2, temperature=0))

    play(scene())


def test_requests_wait_for_memory_and_get_the_same_text(tiny: Tiny) -> None:
    """Room for 1,040 tokens: two answers of 400 end beside each other, but three begin."""

    async def scene() -> None:
        per_token = 3 * 2 * 2 * 16 * 4  # layers × sides × heads × dim × bytes
        async with running(tiny("qwen3"), memory=1040 * per_token) as engine:
            prompt = engine.prepare(ask("a"))
            work = [Sampling(n, temperature=0) for n in (360, 20, 300, 390, 5, 350)]
            alone = [await collect(engine, prompt, each) for each in work]
            decoder: Any = engine._scheduler._decoder
            real, most = decoder.step, 0

            def watched(tokens: list[int]) -> torch.Tensor:
                nonlocal most
                most = max(most, len(tokens))
                logits: torch.Tensor = real(tokens)
                return logits

            decoder.step = watched
            parked, park = [], decoder.park

            def parking(row: int) -> Any:
                parked.append(park(row))
                return parked[-1]

            decoder.park = parking
            together = await asyncio.gather(*(collect(engine, prompt, each) for each in work))
            assert together == alone
            assert most == 3
            assert len(parked) >= 1

    play(scene())


def test_what_cannot_fit_is_refused_before_it_waits(tiny: Tiny) -> None:
    async def scene() -> None:
        async with running(tiny("qwen3"), context_length=64) as engine:
            prompt = engine.prepare(ask("a"))
            with pytest.raises(PromptTooLong, match="64 tokens"):
                engine.generate(prompt, Sampling(64))
            for ids in ((), (-1,), (10**6,)):
                with pytest.raises(ValueError, match="empty, or holds ids"):
                    engine.generate(Prompt("", ids), Sampling(1))

    play(scene())
    with pytest.raises(EngineError, match="a context of 4096 tokens is more"):
        EmbeddedEngine.load(tiny("qwen3"), context_length=4096)


def test_a_long_prompt_in_pieces_is_the_prompt_at_once(tiny: Tiny) -> None:
    async def scene() -> None:
        async with running(tiny("qwen3")) as engine:
            prompt = engine.prepare(ask("der Termin ist am 12. März und kostet 7 € " * 40))
            assert 512 < len(prompt.ids) < 1000
            expected, _ = reference(tiny("qwen3"), engine, prompt, 12)
            company = [
                asyncio.create_task(collect(engine, engine.prepare(ask(t)), Sampling(40, 1.0)))
                for t in TEXTS
            ]
            got, _ = await collect(engine, prompt, Sampling(12, temperature=0))
            await asyncio.gather(*company)
            assert got == expected

    play(scene())


def test_a_failing_pass_fails_its_requests_and_the_engine_goes_on(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with running(tiny("qwen3")) as engine:
            prompt = engine.prepare(ask("a"))
            expected = await collect(engine, prompt, Sampling(9, temperature=0))
            decoder: Any = engine._scheduler._decoder
            real, steps = decoder.step, 0

            def failing(tokens: list[int]) -> torch.Tensor:
                nonlocal steps
                steps += 1
                if steps == 4:
                    raise RuntimeError("out of memory")
                logits: torch.Tensor = real(tokens)
                return logits * float("nan") if steps == 8 else logits

            monkeypatch.setattr(decoder, "step", failing)
            for reason in ("out of memory", "not finite"):
                generation = engine.generate(prompt, Sampling(9, temperature=0))
                with pytest.raises(EngineError, match=reason):
                    await asyncio.wait_for(drain(generation), 10)
                assert generation.usage.completion == 4
                assert await generation.cancel() == generation.usage
            assert await collect(engine, prompt, Sampling(9, temperature=0)) == expected

    async def drain(generation: Any) -> None:
        async for _ in generation:
            pass

    play(scene())


def test_a_failing_prefill_fails_only_those_who_come_in(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with running(tiny("qwen3")) as engine:
            prompt = engine.prepare(ask("a"))
            old = engine.generate(prompt, Sampling(60, temperature=0))
            await anext(old)
            decoder: Any = engine._scheduler._decoder

            def failing(prompts: Any, salts: Any) -> Any:
                raise MemoryError("no room")

            with monkeypatch.context() as patch:
                patch.setattr(decoder, "prefill", failing)
                with pytest.raises(EngineError, match="no room"):
                    await collect(engine, prompt, Sampling(3, temperature=0))
            assert isinstance([event async for event in old][-1], Finish)

    play(scene())


def test_closing_fails_what_runs_and_waits_and_refuses_what_comes(tiny: Tiny) -> None:
    async def scene() -> None:
        engine = EmbeddedEngine.load(tiny("qwen3"), max_batch=1)
        prompt = engine.prepare(ask("a"))
        streams = [engine.generate(prompt, Sampling(900, 1.0)) for _ in range(3)]
        await anext(streams[0])
        await engine.close()
        for stream in streams:
            with pytest.raises(EngineError, match="closed"):
                async for _ in stream:
                    pass
        with pytest.raises(EngineError, match="closed"):
            engine.generate(prompt, Sampling(1))
        await engine.close()

    play(scene())


def test_it_serves_one_event_loop_after_another(tiny: Tiny) -> None:
    engine = EmbeddedEngine.load(tiny("qwen3"))
    prompt = engine.prepare(ask("a"))

    async def abandon() -> None:
        engine.generate(prompt, Sampling(900, 1.0))

    async def whole() -> tuple[str, Finish]:
        return await collect(engine, prompt, Sampling(9, temperature=0))

    first = asyncio.run(whole())
    asyncio.run(abandon())  # its loop closes while the request runs
    assert asyncio.run(whole()) == first
    asyncio.run(engine.close())


def test_the_event_loop_stays_free(tiny: Tiny) -> None:
    async def scene() -> None:
        async with running(tiny("qwen3")) as engine:
            prompt = engine.prepare(ask("a"))
            work = [
                asyncio.create_task(collect(engine, prompt, Sampling(200, 1.0, seed=n)))
                for n in range(8)
            ]
            loop, worst = asyncio.get_running_loop(), 0.0
            while not all(task.done() for task in work):
                start = loop.time()
                await asyncio.sleep(0.001)
                worst = max(worst, loop.time() - start)
            assert worst < 0.5

    play(scene())


def test_prompts_are_prepared_on_many_threads_while_it_generates(tiny: Tiny) -> None:
    async def scene() -> None:
        async with running(tiny("qwen3")) as engine:
            expected = {text: engine.prepare(ask(text)) for text in TEXTS}
            prompt = expected["a"]
            alone = await collect(engine, prompt, Sampling(300, 1.0, seed=1))

            def prepare() -> bool:
                return all(
                    engine.prepare(ask(text)) == expected[text] for _ in range(40) for text in TEXTS
                )

            busy = [asyncio.to_thread(prepare) for _ in range(4)]
            work = [collect(engine, prompt, Sampling(300, 1.0, seed=1)) for _ in range(4)]
            *same, first, second, third, fourth = await asyncio.gather(*busy, *work)
            assert all(same)
            assert first == second == third == fourth == alone

    play(scene())


def test_a_lora_adapter_is_folded_in(tiny: Tiny, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base: Any = AutoModelForCausalLM.from_pretrained(str(tiny("qwen3")), dtype=torch.float32)
    torch.manual_seed(3)
    tuned: Any = get_peft_model(
        base, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    )
    tuned.save_pretrained(tmp_path)

    async def scene() -> None:
        async with running(tiny("qwen3"), adapter=tmp_path) as engine:
            prompt = engine.prepare(ask("kostet"))
            ids = torch.tensor([prompt.ids])
            out = tuned.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=16,
                do_sample=False,
            )[0, len(prompt.ids) :].tolist()
            got, _ = await collect(engine, prompt, Sampling(16, temperature=0))
            assert got == engine.template.decode(out).rstrip("\ufffd")

    play(scene())


def test_weights_that_are_not_safetensors_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    for path in tiny("qwen3").iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(EngineError, match="does not load"):
        EmbeddedEngine.load(tmp_path)
