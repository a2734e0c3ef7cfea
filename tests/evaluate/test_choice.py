"""Multiple choice by log-likelihood, against arithmetic and against transformers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from avocado.data.chat import Chat
from avocado.engine.embedded import EmbeddedEngine
from avocado.engine.engine import Likelihood, Measured
from avocado.engine.scripted import ScriptedEngine
from avocado.evaluate.cache import Cache
from avocado.evaluate.choice import likeliest
from avocado.evaluate.graders import Choice
from avocado.evaluate.run import Result, run
from avocado.evaluate.suite import Item, Suite, SuiteError

SEEDLING = Path(str(files("avocado") / "seedling" / "model"))
ASKED = ("Am 3. Mai für 12,50 €", "On May 3 for $12.50", "会议在三月十二日", "Le 4 juin, 20 €")
CHOICES = ("2024-05-03", "May", '{"date": "2024-05-03", "amount": 12.5}', "三月十二日")


def suite(grade: Choice, count: int = 4) -> Suite:
    items = (
        Item(f"i{n}", "de", ({"role": "user", "content": text},), CHOICES[n], choices=CHOICES)
        for n, text in enumerate(ASKED[:count])
    )
    return Suite("quiz", tuple(items), grade)


class Counting(ScriptedEngine):
    """A word is as likely as it is short; tells how many pairs it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs = 0

    async def likelihoods(self, pairs: Sequence[Measured]) -> list[Likelihood]:
        self.pairs += len(pairs)
        return [Likelihood(tuple(-1.0 for _ in asked), False) for _, asked in pairs]


def test_bytes_make_up_for_length_and_the_first_of_equals_wins() -> None:
    assert likeliest([-4.0, -3.0], ["abcdefgh", "ab"], Choice("none")) == 1
    assert likeliest([-4.0, -3.0], ["abcdefgh", "ab"], Choice("bytes")) == 0
    assert likeliest([-3.0, -3.0], ["会", "abc"], Choice("bytes")) == 0
    assert likeliest([-2.0, -3.0], ["会", "abcdef"], Choice("bytes")) == 1


def test_nothing_is_generated_and_what_was_asked_is_kept(tmp_path: Path) -> None:
    engine, seen = Counting(), list[tuple[int, int]]()
    results = asyncio.run(
        run(
            engine,
            suite(Choice("none")),
            cache=Cache(tmp_path, "m"),
            progress=lambda *done: seen.append(done),
        )
    )
    assert [each.text for each in results] == [CHOICES[0]] * 4
    assert [each.correct for each in results] == [True, False, False, False]
    assert (engine.pairs, results[0].completion, seen[-1]) == (16, 0, (4, 4))
    again = Counting()
    assert asyncio.run(run(again, suite(Choice("none")), cache=Cache(tmp_path, "m"))) == results
    assert again.pairs == 0


def test_an_engine_that_does_not_tell_is_refused_clearly() -> None:
    with pytest.raises(SuiteError, match="ScriptedEngine does not say how likely"):
        asyncio.run(run(ScriptedEngine(), suite(Choice())))


@pytest.mark.parametrize("normalize", ["bytes", "none"])
def test_choices_are_those_that_transformers_finds_likeliest(normalize: Any) -> None:
    grade = Choice(normalize)

    async def ask() -> tuple[tuple[Result, ...], list[str]]:
        engine = EmbeddedEngine.load(SEEDLING)
        model: Any = AutoModelForCausalLM.from_pretrained(str(SEEDLING), dtype=torch.float32)
        expected = []
        try:
            for item in suite(grade).items:
                before = engine.prepare(Chat(item.messages)).ids
                totals = []
                for choice in item.choices:
                    asked = engine.prepare_text(choice).ids
                    with torch.inference_mode():
                        logits = model(torch.tensor([[*before, *asked]])).logits[0]
                    mine = logits[len(before) - 1 : -1].log_softmax(-1)
                    total = sum(float(mine[n, token]) for n, token in enumerate(asked))
                    totals.append(total / len(choice.encode()) if normalize == "bytes" else total)
                expected.append(CHOICES[totals.index(max(totals))])
            return await run(engine, suite(grade)), expected
        finally:
            await engine.close()

    results, expected = asyncio.run(ask())
    assert [each.text for each in results] == expected
    assert [each.correct for each in results] == [
        a == b for a, b in zip(expected, CHOICES, strict=True)
    ]
