"""The embedding engine against the model's own forward, one text at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel, AutoTokenizer

from avocado.data.chat import Chat
from avocado.engine.embedding import PASS, EmbeddingEngine, passes
from avocado.engine.engine import (
    EngineBusy,
    EngineError,
    Finish,
    PromptTooLong,
    Sampling,
    Unsupported,
)
from avocado.engine.vectors import POOLING
from avocado.terms.usage import Usage
from tests.engine.small_embedder import write_embedder

TEXTS = ("a", "Das Treffen ist am 12. März.", "会议在三月十二日举行", "avocado " * 90)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedder(tmp_path_factory.mktemp("embedder") / "model")


def play(folder: Path, scene: Callable[[EmbeddingEngine], Awaitable[None]], **options: Any) -> None:
    async def whole() -> None:
        engine = EmbeddingEngine.load(folder, **options)
        try:
            async with asyncio.timeout(60):
                await scene(engine)
        finally:
            await engine.close()

    asyncio.run(whole())


async def embed(
    engine: EmbeddingEngine, *given: str | tuple[int, ...], dimensions: int | None = None
) -> Finish:
    (finish,) = [
        event
        async for event in engine.embed([engine.prepare_input(each) for each in given], dimensions)
    ]
    assert isinstance(finish, Finish)
    return finish


def numbers(vector: bytes) -> Any:
    return np.frombuffer(vector, "<f4")


def alone(folder: Path, text: str) -> Any:
    """The last token's state of one text, by transformers, scaled to length 1."""
    model = AutoModel.from_pretrained(str(folder)).eval()
    ids = AutoTokenizer.from_pretrained(str(folder))(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        state = model(input_ids=ids).last_hidden_state[0, -1]
    return (state / state.norm()).numpy()


def test_vectors_are_those_of_each_text_alone(folder: Path) -> None:
    async def scene(engine: EmbeddingEngine) -> None:
        finish = await embed(engine, *TEXTS)
        counts = [len(engine.prepare_input(text).ids) for text in TEXTS]
        assert finish.usage == Usage(sum(counts))
        for text, vector in zip(TEXTS, finish.vectors, strict=True):
            np.testing.assert_allclose(numbers(vector), alone(folder, text), atol=2e-6)
            assert abs(float(np.linalg.norm(numbers(vector))) - 1) < 1e-5
        assert len({*finish.vectors}) == len(TEXTS)

    play(folder, scene)


def test_a_text_ends_with_the_token_that_stands_for_it_and_ids_are_as_they_are(
    folder: Path,
) -> None:
    async def scene(engine: EmbeddingEngine) -> None:
        prompt = engine.prepare_input("hello")
        assert engine.prepare_input("hello there").ids[-1] == prompt.ids[-1]
        same = await embed(engine, "hello", prompt.ids)
        assert same.vectors[0] == same.vectors[1]
        for wrong in ((), (-1,), (1 << 30,)):
            with pytest.raises(ValueError, match="ids are from 0 to"):
                engine.prepare_input(wrong)

    play(folder, scene)


@given(st.lists(st.integers(1, 600), min_size=1, max_size=300))
def test_passes_hold_each_input_once_and_bounded(lengths: list[int]) -> None:
    made = list(passes(lengths))
    assert sorted(place for each in made for place in each) == list(range(len(lengths)))
    for each in made:
        assert len(each) == 1 or len(each) * max(lengths[place] for place in each) <= PASS


def test_dimensions_are_cut_only_where_the_model_declares_it(tmp_path: Path, folder: Path) -> None:
    async def whole(engine: EmbeddingEngine) -> None:
        engine.check_dimensions(32)
        for wrong in (16, 33):
            with pytest.raises(Unsupported, match="vectors have 32 numbers") as caught:
                engine.check_dimensions(wrong)
            assert caught.value.field == "dimensions"

    async def cut(engine: EmbeddingEngine) -> None:
        engine.check_dimensions(8)
        with pytest.raises(Unsupported):
            engine.check_dimensions(33)
        long = numbers((await embed(engine, "hello")).vectors[0])
        short = numbers((await embed(engine, "hello", dimensions=8)).vectors[0])
        np.testing.assert_allclose(short, long[:8] / np.linalg.norm(long[:8]), atol=1e-6)

    play(folder, whole)
    play(write_embedder(tmp_path / "matryoshka", is_matryoshka=True), cut)


def test_it_makes_no_text(folder: Path) -> None:
    async def scene(engine: EmbeddingEngine) -> None:
        prompt = engine.prepare_input("x")
        for refused in (
            lambda: engine.prepare(Chat(())),
            lambda: engine.prepare_text("x"),
            lambda: engine.generate(prompt, Sampling(1)),
        ):
            with pytest.raises(Unsupported, match="embeddings, not text"):
                refused()

    play(folder, scene)


def test_bounds_and_cancelling(folder: Path) -> None:
    async def scene(engine: EmbeddingEngine) -> None:
        with pytest.raises(PromptTooLong, match="exceed the context of 64 tokens"):
            await embed(engine, "avocado " * 90)
        prompt = engine.prepare_input("hello")
        many = [prompt] * 200_000
        running = [engine.embed(many, None), engine.embed([prompt], None)]
        with pytest.raises(EngineBusy):
            engine.embed([prompt], None)
        assert engine.occupancy.running == 1
        assert engine.occupancy.waiting == 1
        assert await running[0].cancel() == Usage(200_000 * len(prompt.ids))
        assert [type(event) async for event in running[1]] == [Finish]
        assert engine.occupancy.running == 0

    play(folder, scene, context_length=64, max_queue=2)


def test_a_closed_engine_leaves_nobody_waiting(folder: Path) -> None:
    async def scene(engine: EmbeddingEngine) -> None:
        running = engine.embed([engine.prepare_input("hello")] * 200_000, None)
        await asyncio.sleep(0)
        await engine.close()
        with pytest.raises(EngineError, match="closed"):
            [event async for event in running]
        with pytest.raises(EngineError, match="closed"):
            await embed(engine, "x")

    play(folder, scene)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (str(POOLING), {"pooling_mode_mean_tokens": True}, "only pooling by the last token"),
        (
            "modules.json",
            [{"type": "sentence_transformers.models.Dense"}],
            "Dense' is not computed",
        ),
        ("config.json", {"model_type": "bert"}, "only those of qwen2 and qwen3|does not load"),
    ],
)
def test_another_kind_of_model_is_refused(
    tmp_path: Path, name: str, content: Any, sentence: str
) -> None:
    folder = write_embedder(tmp_path / "model")
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(EngineError, match=sentence):
        EmbeddingEngine.load(folder)
