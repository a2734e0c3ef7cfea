"""Prompts that begin alike: the same answers bit for bit, counted exactly, and nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avocado.data.chat import Prompt
from avocado.engine.decoder import CHUNK
from avocado.engine.embedded import EmbeddedEngine
from avocado.engine.engine import Delta, EngineError, Finish, Sampling
from avocado.engine.prefix import Prefixes

Tiny = Callable[[str], Path]
LONG = "der Termin ist am 12. März und kostet 7 € " * 40
TOLD = Sampling(6, temperature=0, logprobs=True)


def piece(number: int) -> Any:
    return [(torch.tensor([number]), torch.tensor([number]))]


def numbers(found: list[Any]) -> list[int]:
    return [int(each[0][0]) for each in found]


ids = st.lists(st.integers(0, 2), max_size=14)


@given(ids, ids, st.sampled_from(["a", "b", ""]), st.sampled_from(["a", "b", ""]))
def test_what_is_found_is_the_common_beginning_in_whole_pieces(
    kept: list[int], asked: list[int], one: str, other: str
) -> None:
    prefixes = Prefixes(4, 1000)
    prefixes.keep(kept, one, [piece(n) for n in range(len(kept))])
    common = 0
    while common < min(len(kept), len(asked)) and kept[common] == asked[common]:
        common += 1
    whole = min(common // 4, (len(kept) - 1) // 4, (len(asked) - 1) // 4)
    expected = list(range(max(0, whole))) if one == other != "" else []
    assert numbers(prefixes.find(asked, other)) == expected


def test_the_pieces_used_last_are_kept() -> None:
    prefixes = Prefixes(2, 6)  # three pieces
    for n in range(3):
        prefixes.keep([n, n, 9], "s", [piece(n)])
    assert numbers(prefixes.find([0, 0, 1], "s")) == [0]
    prefixes.keep([7, 7, 9], "s", [piece(7)])
    assert [len(prefixes.find([n, n, 5], "s")) for n in (0, 1, 2, 7)] == [1, 0, 1, 1]
    prefixes.clear()
    assert prefixes.find([0, 0, 1], "s") == []


def play(folder: Path, scene: Callable[[EmbeddedEngine], Awaitable[None]], **options: Any) -> None:
    async def bounded() -> None:
        engine = EmbeddedEngine.load(folder, **options)
        try:
            await asyncio.wait_for(scene(engine), 60)
        finally:
            await engine.close()

    asyncio.run(bounded())


async def said(
    engine: EmbeddedEngine, prompt: Prompt, salt: str, sampling: Sampling = TOLD
) -> tuple[list[Any], int]:
    """Text and exact log-probabilities, and how many tokens of the prompt were cached."""
    out: list[Any] = []
    async for event in engine.generate(prompt, replace(sampling, cache_salt=salt)):
        if isinstance(event, Finish):
            assert event.usage.prompt == len(prompt.ids)
            return out, event.usage.cached
        out.append((event.text, [each.logprob for each in event.logprobs]))
    raise AssertionError("it ended without Finish")


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "qwen3_moe"])
def test_a_cached_beginning_changes_no_bit(architecture: str, tiny: Tiny) -> None:
    async def scene(engine: EmbeddedEngine) -> None:
        first, second, third = (
            engine.prepare_text(LONG + end)
            for end in ("a", "会议 and more", LONG[: len(LONG) // 9])
        )
        fresh = [await said(engine, each, "") for each in (first, second, third)]
        assert [cached for _, cached in fresh] == [0, 0, 0]
        mine = [await said(engine, each, "mine") for each in (first, second, third, first)]
        whole = (len(first.ids) - 1) // CHUNK * CHUNK
        assert whole >= CHUNK
        assert [cached for _, cached in mine] == [0, whole, whole, whole]
        assert [text for text, _ in mine[:3]] == [text for text, _ in fresh]
        assert mine[3][0] == fresh[0][0]
        assert (await said(engine, first, "another"))[1] == 0
        company = [said(engine, each, "mine", TOLD) for each in (first, second, third) * 2]
        together = await asyncio.gather(*company)
        assert [cached for _, cached in together] == [whole] * 6

    play(tiny(architecture), scene)


def test_models_with_other_memory_and_short_prompts_cache_nothing(tiny: Tiny) -> None:
    async def scene(engine: EmbeddedEngine) -> None:
        for text in (LONG, "short"):
            prompt = engine.prepare_text(text)
            cached = [(await said(engine, prompt, "s"))[1] for _ in range(2)]
            assert cached == ([0, CHUNK] if text == LONG and plain else [0, 0])

    for architecture in ("qwen3_5_text", "qwen3"):
        plain = architecture == "qwen3"
        play(tiny(architecture), scene)


def test_a_cancelled_request_knows_what_was_cached(tiny: Tiny) -> None:
    async def scene(engine: EmbeddedEngine) -> None:
        prompt = engine.prepare_text(LONG)
        await said(engine, prompt, "s")
        generation = engine.generate(prompt, Sampling(300, 1.0, cache_salt="s"))
        assert isinstance(await anext(generation), Delta)
        assert generation.usage.cached == CHUNK
        usage = await generation.cancel()
        assert usage.cached == CHUNK
        assert usage.completion >= 1

    play(tiny("qwen3"), scene)


def test_what_failed_is_not_kept(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that are none would come back with every prompt that begins alike."""

    async def scene(engine: EmbeddedEngine) -> None:
        decoder: Any = engine._scheduler._decoder
        prompt = engine.prepare_text(LONG)
        real = decoder._model

        def broken(*args: Any, **options: Any) -> torch.Tensor:
            logits: torch.Tensor = real(*args, **options)
            return logits * float("nan")

        broken.device, broken.config = real.device, real.config  # type: ignore[attr-defined]
        with monkeypatch.context() as patch:
            patch.setattr(decoder, "_model", broken)
            with pytest.raises(EngineError, match="not finite"):
                await said(engine, prompt, "s")
        assert (await said(engine, prompt, "s"))[1] == 0

    play(tiny("qwen3"), scene)


def test_its_memory_is_bounded(tiny: Tiny) -> None:
    async def scene(engine: EmbeddedEngine) -> None:
        prompts = [engine.prepare_text(f"{n} {LONG}") for n in range(4)]
        for prompt in prompts:
            await said(engine, prompt, "s")
        decoder: Any = engine._scheduler._decoder
        assert len(decoder._prefixes._pieces) == 2
        assert (await said(engine, prompts[3], "s"))[1] == CHUNK
        assert (await said(engine, prompts[0], "s"))[1] == 0

    per_token = 3 * 2 * 2 * 16 * 4  # layers × sides × heads × dim × bytes
    play(tiny("qwen3"), scene, memory=8 * CHUNK * per_token)
