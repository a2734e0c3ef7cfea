"""Gathering from teachers: real HTTP, every channel of thoughts, nothing paid for twice."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from avocado.data.problem import Problem
from avocado.errors import Refused
from avocado.rewards import Reward
from avocado.terms.money import Money
from avocado.train.gathering import Journal, choose, gather, summary, wanted
from avocado.train.methods import Distillation, Judge, Teacher
from avocado.train.teachers import split_reasoning

Reply = Callable[[dict[str, Any]], dict[str, Any] | int]


@asynccontextmanager
async def serving(reply: Reply, seen: list[dict[str, Any]]) -> AsyncIterator[str]:
    """A server that speaks OpenAI's chat completions; an int is an error status."""

    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        seen.append({**body, "key": request.headers.get("authorization")})
        message = reply(body)
        if isinstance(message, int):
            return web.json_response({"error": {"message": f"no: {message}"}}, status=message)
        finish = message.pop("finish", "stop")
        return web.json_response(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": finish}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
            }
        )

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        assert runner.addresses
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def say(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def double(body: dict[str, Any]) -> dict[str, Any]:
    """A right answer, from a teacher that is called good; else one that is off by one."""
    number = int(body["messages"][-1]["content"].split()[-1])
    return say(str(2 * number + (body["model"] != "good")))


PROBLEMS = [
    Problem(
        ({"role": "user", "content": f"double {number}"},),
        reference=str(2 * number),
        language="de" if number % 2 else "en",
        licence="CC0-1.0",
        source="sums",
        file="sums.jsonl",
        row=number + 1,
    )
    for number in range(6)
]


def teacher(url: str, model: str = "good", **more: Any) -> Teacher:
    return Teacher(model, url, "Apache-2.0", price_input="1", price_output="4", **more)


def run(
    reply: Reply,
    path: Path,
    make: Callable[[str], Distillation],
    seen: list[dict[str, Any]] | None = None,
    limit: Money | None = None,
) -> tuple[Distillation, list[Any]]:
    async def go() -> tuple[Distillation, list[Any]]:
        async with serving(reply, [] if seen is None else seen) as url:
            distillation, journal = make(url), Journal(path)
            try:
                return distillation, await gather(distillation, PROBLEMS, journal, limit=limit)
            finally:
                journal.close()

    return asyncio.run(go())


def both(url: str) -> Distillation:
    return Distillation(
        teachers=(teacher(url, "bad", samples=2), teacher(url, revision="r7", samples=2)),
        rewards=(Reward("exact"),),
    )


def test_the_best_verified_answer_is_kept_with_its_record(tmp_path: Path) -> None:
    distillation, attempts = run(double, tmp_path / "j.jsonl", both)
    kept = choose(distillation, PROBLEMS, attempts)
    assert [each.row["messages"][-1]["content"] for each in kept] == ["0", "2", "4", "6", "8", "10"]
    record = kept[3].record
    assert (record["teacher"], record["revision"], record["license"]) == (
        "good",
        "r7",
        "Apache-2.0",
    )
    assert record["sampling"].keys() == {"temperature", "top_p", "max_tokens", "seed"}
    assert (record["file"], record["row"], record["score"]) == ("sums.jsonl", 4, 1.0)
    assert kept[3].row["license"] == "CC0-1.0"

    said = summary(distillation, PROBLEMS, attempts, kept)
    assert said["languages"] == {"de": {"asked": 3, "kept": 3}, "en": {"asked": 3, "kept": 3}}
    bad, good = said["teachers"]
    assert (bad["answers"], bad["kept"], good["answers"], good["kept"]) == (12, 0, 12, 6)
    # 12 answers of 10 tokens at 1 and 5 at 4 for a million
    assert good["cost"].startswith("0.00036")


def test_an_interrupted_gathering_asks_for_the_rest_only(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    first: list[dict[str, Any]] = []
    second: list[dict[str, Any]] = []
    _, whole = run(double, tmp_path / "whole.jsonl", both)

    def fails_after_seven(body: dict[str, Any]) -> dict[str, Any] | int:
        return double(body) if len(first) <= 7 else 401

    with pytest.raises(Refused, match="no: 401"):
        run(fails_after_seven, path, both, first)
    path.write_bytes(path.read_bytes() + b'{"key": "torn')  # by a kill in mid-write
    answered = len(Journal(path).attempts)
    assert 0 < answered <= 7
    _, attempts = run(double, path, both, second)
    assert len(second) == len(whole) - answered
    plain = [(each.key, each.text, each.score) for each in attempts]
    assert plain == [(each.key, each.text, each.score) for each in whole]


def test_a_teacher_of_another_revision_is_asked_anew(tmp_path: Path) -> None:
    one = Distillation(teachers=(teacher("http://127.0.0.1:1/v1"),))
    two = Distillation(teachers=(teacher("http://127.0.0.1:1/v1", revision="r8"),))
    keys = [{each.key for each in wanted(each, PROBLEMS)} for each in (one, two)]
    assert not keys[0] & keys[1]
    seeds = [each.seed for each in wanted(one, PROBLEMS)]
    assert seeds == [each.seed for each in wanted(one, PROBLEMS)]
    assert len(set(seeds)) == len(PROBLEMS)


def test_the_budget_stops_it_and_what_was_paid_for_stays(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"the budget is 0\.0001"):
        run(double, tmp_path / "j.jsonl", both, limit=Money.parse("0.0001"))
    assert len(Journal(tmp_path / "j.jsonl").attempts) >= 4


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "no: 401"), (404, "no: 404"), (400, "answers nothing")],
)
def test_a_teacher_that_cannot_answer_is_named(tmp_path: Path, status: int, said: str) -> None:
    def many(url: str) -> Distillation:
        return Distillation(teachers=(teacher(url, samples=8),))

    with pytest.raises(Refused, match=said) as caught:
        run(lambda _: status, tmp_path / "j.jsonl", many)
    assert "teacher good" in caught.value.reasons[0]


def test_one_refused_prompt_is_counted_and_the_others_go_on(tmp_path: Path) -> None:
    def reply(body: dict[str, Any]) -> dict[str, Any] | int:
        return 400 if body["messages"][-1]["content"] == "double 3" else double(body)

    distillation, attempts = run(
        reply, tmp_path / "j.jsonl", lambda url: Distillation(teachers=(teacher(url),))
    )
    kept = choose(distillation, PROBLEMS, attempts)
    assert len(kept) == 5
    assert summary(distillation, PROBLEMS, attempts, kept)["teachers"][0]["failed"] == 1


def test_a_busy_server_is_asked_again(tmp_path: Path) -> None:
    times: Counter[str] = Counter()

    def reply(body: dict[str, Any]) -> dict[str, Any] | int:
        text = body["messages"][-1]["content"]
        times[text] += 1
        return double(body) if times[text] > 1 else 429

    _, attempts = run(
        reply, tmp_path / "j.jsonl", lambda url: Distillation(teachers=(teacher(url),))
    )
    assert all(each.error is None for each in attempts)


def test_a_judge_grades_and_a_cut_answer_is_worth_nothing(tmp_path: Path) -> None:
    def reply(body: dict[str, Any]) -> dict[str, Any]:
        if body["model"] == "judge":
            right = "double 2\n" in body["messages"][-1]["content"]
            return say(json.dumps({"grade": 9}) if right else 'sure: {"grade": 2}')
        text = body["messages"][-1]["content"]
        return {**double(body), "finish": "length" if text == "double 4" else "stop"}

    distillation, attempts = run(
        reply,
        tmp_path / "j.jsonl",
        lambda url: Distillation(teachers=(teacher(url),), judge=Judge("judge", url)),
    )
    kept = choose(distillation, PROBLEMS, attempts)
    assert [each.row["messages"][0]["content"] for each in kept] == ["double 2"]
    assert kept[0].record["parts"] == {"judge": 0.9}


def test_tool_calls_and_keys_go_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    seen: list[dict[str, Any]] = []
    monkeypatch.setenv("TEACHER_KEY", "secret")
    distillation, attempts = run(
        lambda _: say("", tool_calls=[call], finish="tool_calls"),
        tmp_path / "j.jsonl",
        lambda url: Distillation(teachers=(teacher(url, key_env="TEACHER_KEY"),)),
        seen,
    )
    kept = choose(distillation, PROBLEMS, attempts)
    assert kept[0].row["messages"][-1]["tool_calls"] == [call]
    assert seen[0]["key"] == "Bearer secret"
    monkeypatch.delenv("TEACHER_KEY")
    with pytest.raises(Refused, match="TEACHER_KEY"):
        run(
            double,
            tmp_path / "k.jsonl",
            lambda url: Distillation(teachers=(teacher(url, key_env="TEACHER_KEY"),)),
        )


@pytest.mark.parametrize(
    ("text", "apart", "thought", "answer"),
    [
        ("four", "", "", "four"),
        ("four", "two and two", "two and two", "four"),
        ("<think>\ntwo and two\n</think>\n\nfour", "", "two and two", "four"),
        ("two and two\n</think>\n\nfour", "", "two and two", "four"),
        (
            "<|channel|>analysis<|message|>two and two<|end|><|start|>assistant"
            "<|channel|>final<|message|>four<|return|>",
            "",
            "two and two",
            "four",
        ),
        ("a <b> c", "", "", "a <b> c"),
    ],
)
def test_thoughts_are_told_from_answers(text: str, apart: str, thought: str, answer: str) -> None:
    assert split_reasoning(text, apart) == (thought, answer)


def test_thoughts_are_learnt_only_where_the_recipe_says_so(tmp_path: Path) -> None:
    for reasoning, expected in (("drop", None), ("keep", "hm")):

        def make(url: str, reasoning: Any = reasoning) -> Distillation:
            return Distillation(teachers=(teacher(url),), reasoning=reasoning)

        distillation, attempts = run(
            lambda _: say("<think>hm</think>four"), tmp_path / f"{reasoning}.jsonl", make
        )
        turn = choose(distillation, PROBLEMS, attempts)[0].row["messages"][-1]
        assert turn.get("reasoning_content") == expected
