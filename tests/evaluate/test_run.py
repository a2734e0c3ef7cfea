"""A suite asked through a real engine protocol: order, failures, a full engine, cancellation."""

from __future__ import annotations

import asyncio

import pytest

from avocado.engine.engine import EngineError
from avocado.engine.scripted import Script, ScriptedEngine
from avocado.evaluate.run import Result, run
from avocado.evaluate.suite import Item, Suite, SuiteError


def suite(count: int) -> Suite:
    items = (
        Item(
            f"i{n}", "en", ({"role": "user", "content": f"say {n}"},), f"say {n}" if n % 3 else "no"
        )
        for n in range(count)
    )
    return Suite("echo", tuple(items), "exact")


def ask(engine: ScriptedEngine, count: int = 20, **options: int) -> tuple[Result, ...]:
    return asyncio.run(run(engine, suite(count), **{"max_tokens": 8, **options}))  # type: ignore[arg-type]


def test_results_are_right_counted_and_in_the_suites_order() -> None:
    results = ask(ScriptedEngine(Script(delay=0.001)))
    assert [result.item for result in results] == [f"i{n}" for n in range(20)]
    assert [result.correct for result in results] == [bool(n % 3) for n in range(20)]
    assert (results[7].text, results[7].reason, results[7].completion) == ("say 7", "stop", 3)


def test_an_answer_that_is_cut_off_is_known_as_such() -> None:
    assert {result.reason for result in ask(ScriptedEngine(), max_tokens=1)} == {"length"}


def test_a_full_engine_is_waited_for_and_concurrency_is_kept() -> None:
    engine = ScriptedEngine(Script(delay=0.001), capacity=3)
    assert len(ask(engine, concurrency=10)) == 20


def test_progress_counts_every_item_once() -> None:
    seen: list[tuple[int, int]] = []
    asyncio.run(run(ScriptedEngine(), suite(9), progress=lambda *done: seen.append(done)))
    assert seen == [(n, 9) for n in range(1, 10)]


def test_a_failure_ends_the_run_and_cancels_the_rest() -> None:
    engine = ScriptedEngine(
        lambda prompt, _: Script(fail_after=1) if "say 4" in prompt.text else Script(hang_after=1)
    )
    with pytest.raises(EngineError, match="failed here"):
        ask(engine)
    assert (engine.running, engine.cancelled) == (0, 19)


def test_an_item_that_does_not_fit_is_named_before_anything_runs() -> None:
    engine = ScriptedEngine(context_length=10)
    with pytest.raises(SuiteError, match="item 'i0': 3 prompt tokens and 8"):
        ask(engine)


def test_an_item_that_the_template_refuses_is_named() -> None:
    broken = Suite("s", (Item("i", "en", ({"role": "user"},), "x"),), "exact")
    with pytest.raises(SuiteError, match="item 'i': message 1 needs"):
        asyncio.run(run(ScriptedEngine(), broken))
