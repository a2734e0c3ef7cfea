"""``/v1/completions``: raw texts, many at once, and OpenAI's old shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from openai.types import Completion

from avocado.engine.scripted import Script

MakeStand = Callable[..., Any]


def create(stand: Any, prompt: Any = "once upon", **more: Any) -> Any:
    body = {"model": "avocado-1", "prompt": prompt, **more}
    return stand.call(path="/v1/completions", body=body)


def test_a_text_goes_to_the_model_as_it_is(make_stand: MakeStand) -> None:
    stand = make_stand()
    prompts: list[str] = []

    def script(prompt: Any, sampling: Any) -> Script:
        prompts.append(prompt.text)
        return Script("<think>a</think> time")

    stand.engine.script = script
    answer = create(stand)
    read = Completion.model_validate(answer.json)
    assert read.choices[0].text == "<think>a</think> time", "nothing is read into it"
    assert prompts == ["once upon"]
    assert stand.hold_of(answer).max_tokens == 16, "OpenAI's default here"


def test_many_prompts_and_answers_are_one_charge(make_stand: MakeStand) -> None:
    stand = make_stand()
    stand.engine.script = lambda prompt, sampling: Script(f"{prompt.text}!")
    answer = create(stand, ["a b", "c"], n=2)
    texts = [choice["text"] for choice in answer.json["choices"]]
    assert texts == ["a b!", "a b!", "c!", "c!"]
    (charge,) = stand.charges
    assert (charge.usage.prompt, charge.usage.completion) == (3, 3 + 3 + 2 + 2)


def test_a_stream(make_stand: MakeStand) -> None:
    stand = make_stand(Script("x y"))
    answer = create(stand, ["a", "b"], stream=True, stream_options={"include_usage": True})
    texts = {0: "", 1: ""}
    reasons = {}
    told = answer.events()
    for event in told:
        for choice in event["choices"]:
            assert set(choice) == {"text", "index", "logprobs", "finish_reason"}
            texts[choice["index"]] += choice["text"]
            reasons[choice["index"]] = choice["finish_reason"]
    assert texts == {0: "x y", 1: "x y"}
    assert reasons == {0: "stop", 1: "stop"}
    assert told[-1]["usage"]["completion_tokens"] == 6


def test_log_probabilities_have_offsets(make_stand: MakeStand) -> None:
    stand = make_stand(Script("ab cd e"))
    told = create(stand, logprobs=1).json["choices"][0]["logprobs"]
    assert (told["tokens"], told["text_offset"]) == (["ab ", "cd ", "e"], [0, 3, 6])
    assert [list(top) for top in told["top_logprobs"]] == [["ab "], ["cd "], ["e"]]
    streamed = [
        event["choices"][0]["logprobs"] for event in create(stand, logprobs=1, stream=True).events()
    ]
    assert [place for each in streamed if each for place in each["text_offset"]] == [0, 3, 6]
    assert create(stand, logprobs=0).json["choices"][0]["logprobs"]["top_logprobs"] is None


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": 1, "logit_bias": {"1": 1}}, "logprobs"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, 2]}, "prompt[0]"),
        ({"prompt": ["a"] * 17}, "prompt"),
        ({"prompt": ["a"] * 3, "n": 8}, "n"),
        ({"max_tokens": 10**6}, "max_tokens"),
        ({"prompt": "a " * 5000}, "prompt"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_is_not_served_is_named(stand: Any, more: Any, param: str) -> None:
    answer = create(stand, **more)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert stand.charges == []


def test_an_engine_that_fails_mid_stream(make_stand: MakeStand) -> None:
    stand = make_stand(Script("a b c", fail_after=2))
    told = create(stand, stream=True).events()
    assert told[-1]["error"]["code"] == "engine_error"
    assert stand.charges[0].usage.completion == 2
