"""The evaluation through the engine that serves, on the model that ships: nothing is faked."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from pathlib import Path

from avocado.engine.embedded import EmbeddedEngine
from avocado.evaluate.graders import JsonValue
from avocado.evaluate.page import page
from avocado.evaluate.run import run
from avocado.evaluate.scorecard import Measured, Scorecard
from avocado.evaluate.scored import Scored
from avocado.evaluate.suite import Item, Suite

SEEDLING = Path(str(files("avocado") / "seedling" / "model"))
QUESTIONS = ("Am 3. Mai für 12,50 €", "On May 3 for $12.50", "会议在三月十二日")


def test_a_score_does_not_depend_on_how_many_questions_run_at_once() -> None:
    async def scores() -> None:
        engine = EmbeddedEngine.load(SEEDLING)
        try:
            items = tuple(
                Item(f"q{n}", "de", ({"role": "user", "content": f"{text} {n}"},), '{"a": 1}')
                for n, text in enumerate(QUESTIONS * 4)
            )
            suite = Suite("seedling", items, JsonValue(), max_tokens=24)
            one = await run(engine, suite, concurrency=1)
            many = await run(engine, suite, concurrency=12)
            assert one == many
            assert all(0 < result.completion <= 24 for result in one)
            assert any(result.text for result in one)
            scored = [Scored.of(suite, one, many)]
            card = Scorecard.of(scored, parents={}, measured=Measured("b", "c"), sampling={})
            assert (card.overall.won, card.overall.lost, card.overall.p) == (0, 0, 1.0)
            assert "undecided" in page(card, scored)
        finally:
            await engine.close()

    asyncio.run(scores())
