"""Likelihoods of given tokens against transformers' own forward, by the weights that serve."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from avocado.engine.embedded import EmbeddedEngine
from avocado.engine.engine import EngineError, Likelihood, Measured, PromptTooLong, Scorer
from avocado.engine.likelihood import Measuring
from avocado.engine.scripted import ScriptedEngine

Tiny = Callable[[str], Path]


def reference(folder: Path, pairs: list[Measured]) -> list[Likelihood]:
    """One by one, whole, by ``log_softmax`` of transformers' logits."""
    model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    found = []
    for before, asked in pairs:
        with torch.inference_mode():
            logits = model(torch.tensor([[*before, *asked]])).logits[0]
        mine = logits[len(before) - 1 : -1].log_softmax(-1)
        told = tuple(float(mine[place, token]) for place, token in enumerate(asked))
        found.append(Likelihood(told, mine.argmax(-1).tolist() == list(asked)))
    return found


def drawn(count: int, longest: int, vocabulary: int = 400) -> list[Measured]:
    dice = random.Random(count)

    def ids(most: int) -> tuple[int, ...]:
        return tuple(dice.randrange(vocabulary) for _ in range(dice.randint(1, most)))

    return [(ids(longest), ids(12)) for _ in range(count)]


def on(folder: Path, *groups: list[Measured]) -> list[list[Likelihood]]:
    async def ask() -> list[list[Likelihood]]:
        engine = EmbeddedEngine.load(folder)
        try:
            return await asyncio.gather(*(engine.likelihoods(group) for group in groups))
        finally:
            await engine.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "qwen3_moe", "qwen3_5_text"])
def test_likelihoods_are_those_of_transformers(tiny: Tiny, architecture: str) -> None:
    folder = tiny(architecture)
    pairs = drawn(17, 60)
    (mine,) = on(folder, pairs)
    theirs = reference(folder, pairs)
    for one, other in zip(mine, theirs, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=2e-4)
        assert one.greedy == other.greedy


def test_a_text_longer_than_a_piece_is_the_same(tiny: Tiny) -> None:
    pairs: list[Measured] = [(tuple(range(3, 390)) * 2, tuple(range(20, 120)))]
    (mine,) = on(tiny("qwen3"), pairs)
    assert mine[0].logprobs == pytest.approx(reference(tiny("qwen3"), pairs)[0].logprobs, abs=2e-4)


def test_what_the_model_says_greedily_is_greedy_and_nothing_else_is(tiny: Tiny) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(str(tiny("qwen3")), dtype=torch.float32)
    before = (7, 90, 12)
    whole = model.generate(torch.tensor([before]), max_new_tokens=9, do_sample=False)[0].tolist()
    asked = tuple(whole[len(before) :])
    ((same, other),) = on(
        tiny("qwen3"), [(before, asked), (before, (*asked[:-1], (asked[-1] + 1) % 400))]
    )
    assert (same.greedy, other.greedy) == (True, False)
    assert same.total == pytest.approx(sum(same.logprobs))
    assert same.total > other.total


def test_nothing_asked_is_certain_and_order_is_kept(tiny: Tiny) -> None:
    pairs = drawn(9, 30)
    found = on(tiny("qwen3"), [*pairs, ((5,), ())], list(reversed(pairs)))
    assert found[0][-1] == Likelihood((), True)
    for one, other in zip(found[0][:-1], reversed(found[1]), strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_what_does_not_fit_and_unknown_ids_are_refused(tiny: Tiny) -> None:
    with pytest.raises(PromptTooLong, match="exceed the context of 1024"):
        on(tiny("qwen3"), [((1,) * 1020, (1,) * 6)])
    with pytest.raises(ValueError, match="ids that this model does not know"):
        on(tiny("qwen3"), [((1,), (10**6,))])
    with pytest.raises(ValueError, match="nothing stands before"):
        on(tiny("qwen3"), [((), (1,))])


def test_a_model_that_fails_fails_who_asked_and_the_engine_goes_on(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> None:
        engine = EmbeddedEngine.load(tiny("qwen3"))
        compute = Measuring._compute

        def fail(self: Measuring, group: Any) -> None:
            raise RuntimeError("out of memory")

        try:
            monkeypatch.setattr(Measuring, "_compute", fail)
            with pytest.raises(EngineError, match="out of memory"):
                await engine.likelihoods(drawn(2, 9))
            monkeypatch.setattr(Measuring, "_compute", compute)
            assert len(await engine.likelihoods(drawn(2, 9))) == 2
        finally:
            await engine.close()
        with pytest.raises(EngineError, match="closed"):
            await engine.likelihoods(drawn(2, 9))

    asyncio.run(ask())


def test_the_embedded_engine_tells_and_a_scripted_one_does_not(tiny: Tiny) -> None:
    assert issubclass(EmbeddedEngine, Scorer)
    assert not isinstance(ScriptedEngine(), Scorer)
