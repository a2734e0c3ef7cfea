"""A suite asked through a real engine protocol: order, failures, a full engine, cancellation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from avocado.engine.engine import EngineError
from avocado.engine.scripted import Script, ScriptedEngine
from avocado.evaluate.cache import Cache
from avocado.evaluate.graders import Exact, Judge, Rewarded
from avocado.evaluate.run import Result, run
from avocado.evaluate.suite import Item, Suite, SuiteError
from avocado.rewards import Reward


def suite(count: int, max_tokens: int = 8) -> Suite:
    items = (
        Item(
            f"i{n}", "en", ({"role": "user", "content": f"say {n}"},), f"say {n}" if n % 3 else "no"
        )
        for n in range(count)
    )
    return Suite("echo", tuple(items), Exact(), max_tokens=max_tokens)


def ask(
    engine: ScriptedEngine, count: int = 20, max_tokens: int = 8, **options: Any
) -> tuple[Result, ...]:
    return asyncio.run(run(engine, suite(count, max_tokens), **options))


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
    broken = Suite("s", (Item("i", "en", ({"role": "user"},), "x"),), Exact())
    with pytest.raises(SuiteError, match="item 'i': message 1 needs"):
        asyncio.run(run(ScriptedEngine(), broken))


class Killed(BaseException):
    """As if the process had been killed between two answers."""


def test_a_killed_run_goes_on_where_it_was_and_asks_nothing_twice(tmp_path: Path) -> None:
    whole = ask(ScriptedEngine())
    engine = ScriptedEngine(Script(delay=0.0005))

    def kill(done: int, total: int) -> None:
        if done == 7:
            raise Killed

    with pytest.raises((Killed, BaseExceptionGroup)):
        asyncio.run(
            run(engine, suite(20), concurrency=2, progress=kill, cache=Cache(tmp_path, "m"))
        )
    prompts: list[str] = []

    def heard(prompt: Any, _: Any) -> Script:
        prompts.append(prompt.text)
        return Script()

    again = ask(ScriptedEngine(heard), cache=Cache(tmp_path, "m"))
    assert 0 < len(prompts) <= 13
    assert again == whole
    prompts.clear()
    assert ask(ScriptedEngine(heard), cache=Cache(tmp_path, "m")) == whole
    assert prompts == []


def test_another_model_other_room_or_another_thought_is_asked_anew(tmp_path: Path) -> None:
    def asked(model: str, wanted: Suite) -> int:
        prompts: list[str] = []

        def heard(prompt: Any, _: Any) -> Script:
            prompts.append(prompt.text)
            return Script()

        asyncio.run(run(ScriptedEngine(heard), wanted, cache=Cache(tmp_path, model)))
        return len(prompts)

    assert asked("one", suite(4)) == 4
    assert asked("one", suite(4)) == 0
    assert asked("two", suite(4)) == 4
    assert asked("one", suite(4, max_tokens=9)) == 4
    thoughtful = Suite("echo", suite(4).items, Exact(), max_tokens=8, thinking=True)
    assert asked("one", thoughtful) == 4
    again = Suite("other name", suite(4).items, Exact(ignore_case=True), max_tokens=8)
    assert asked("one", again) == 0, "how an answer is graded does not change what was said"


def test_thoughts_are_cut_off_before_grading_and_stay_in_the_text() -> None:
    item = Item("i", "en", ({"role": "user", "content": "6 times 7?"},), "42")
    engine = ScriptedEngine(Script("<think>\n41? no\n</think>\n\n42"))
    (result,) = asyncio.run(run(engine, Suite("s", (item,), Exact())))
    assert (result.correct, result.score) == (True, 1.0)
    assert "41? no" in result.text
    unended = ScriptedEngine(Script("<think>\n42"))
    (result,) = asyncio.run(run(unended, Suite("s", (item,), Exact())))
    assert result.correct is False


def test_scores_that_are_no_right_or_wrong_say_so() -> None:
    item = Item("i", "en", ({"role": "user", "content": "x"},), "yes", cluster="page 3")
    rewards = (Reward("exact", weight=3), Reward("regex", pattern="[a-z]+"))
    engine = ScriptedEngine(Script("no"))
    (result,) = asyncio.run(run(engine, Suite("s", (item,), Rewarded(rewards))))
    assert (result.score, result.correct, result.cluster) == (0.25, None, "page 3")
    judge = Judge(url="http://127.0.0.1:9/v1", model="j")
    (result,) = asyncio.run(run(engine, Suite("s", (item,), judge)))
    assert (result.score, result.correct) == (0.5, None)
