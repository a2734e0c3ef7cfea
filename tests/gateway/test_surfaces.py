"""Tools, thoughts, formats, several answers: what chat completions say beyond plain text."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from openai.types.chat import ChatCompletionChunk

from avocado.data.chat import Prompt
from avocado.engine import upstream
from avocado.engine.engine import Calls, Json, JsonSchema, Sampling
from avocado.engine.scripted import Script
from avocado.engine.tool_call import call_schema

MakeStand = Callable[..., Any]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"tells the {name}",
            "parameters": {"type": "object", "properties": {"place": {"$ref": "#/$defs/place"}}},
        },
    }
    for name in ("weather", "time")
]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"place": "Oslo"}}\n</tool_call>'
OTHER = '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>'
THINKING = "<think>\nlet me see\n</think>\n\n"


def hermes(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


class Seen:
    """Keeps what the engine was asked."""

    def __init__(self, reply: str) -> None:
        self.reply = reply
        self.prompts: list[Prompt] = []
        self.samplings: list[Sampling] = []

    def __call__(self, prompt: Prompt, sampling: Sampling) -> Script:
        self.prompts.append(prompt)
        self.samplings.append(sampling)
        return Script(self.reply)


def said(answer: Any) -> tuple[dict[str, Any], str]:
    (choice,) = answer.json["choices"]
    return choice["message"], choice["finish_reason"]


def joined(answer: Any) -> dict[int, dict[str, Any]]:
    """What a client that reads a stream puts together, by choice."""
    found: dict[int, dict[str, Any]] = {}
    for event in answer.events():
        ChatCompletionChunk.model_validate(event)
        for choice in event["choices"]:
            mine = found.setdefault(
                choice["index"], {"content": "", "thought": "", "calls": {}, "logprobs": []}
            )
            delta = choice["delta"]
            mine["content"] += delta.get("content") or ""
            mine["thought"] += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls", ()):
                if "id" in call:
                    assert call["index"] not in mine["calls"], "a call begins once"
                    mine["calls"][call["index"]] = {**call, "function": {**call["function"]}}
                else:
                    whole = mine["calls"][call["index"]]["function"]
                    whole["arguments"] += call["function"]["arguments"]
            if choice["logprobs"]:
                mine["logprobs"] += choice["logprobs"]["content"]
            mine["reason"] = choice["finish_reason"] or mine.get("reason")
    return found


def test_tool_calls_come_with_ids_and_the_right_reason(make_stand: MakeStand) -> None:
    stand = make_stand(Script(f"I look.\n{CALL}\n{OTHER}"))
    message, reason = said(stand.ask(tools=TOOLS))
    assert reason == "tool_calls"
    assert message["content"] == "I look."
    calls = message["tool_calls"]
    assert [call["function"]["name"] for call in calls] == ["weather", "time"]
    assert json.loads(calls[0]["function"]["arguments"]) == {"place": "Oslo"}
    assert len({call["id"] for call in calls}) == 2
    (choice,) = joined(stand.ask(tools=TOOLS, stream=True)).values()
    assert (choice["content"], choice["reason"]) == ("I look.", "tool_calls")
    for streamed, call in zip(choice["calls"].values(), calls, strict=True):
        assert streamed["function"] == call["function"]


def test_a_call_is_streamed_as_it_is_written(make_stand: MakeStand) -> None:
    stand = make_stand(Script(hermes("weather", place="Oslo in the far north of it")))
    fragments = [
        call
        for event in stand.ask(tools=TOOLS, stream=True).events()
        for choice in event["choices"]
        for call in choice["delta"].get("tool_calls", ())
    ]
    assert fragments[0]["function"] == {"name": "weather", "arguments": ""}
    assert len(fragments) > 6
    assert all("id" not in call and "name" not in call["function"] for call in fragments[1:])


@pytest.mark.parametrize("stream", [False, True])
def test_arguments_that_are_no_json_come_as_they_were_written(
    make_stand: MakeStand, stream: bool
) -> None:
    written = '{"place": Oslo, }'
    stand = make_stand(
        Script(f'<tool_call>\n{{"name": "weather", "arguments": {written}}}\n</tool_call>')
    )
    answer = stand.ask(tools=TOOLS, stream=stream)
    if stream:
        calls, reason = (joined(answer)[0][name] for name in ("calls", "reason"))
    else:
        message, reason = said(answer)
        calls = message["tool_calls"]
    assert (calls[0]["function"]["arguments"], reason) == (written, "tool_calls")


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_cut_in_its_arguments_is_the_front_of_one(
    make_stand: MakeStand, stream: bool
) -> None:
    stand = make_stand(Script(hermes("weather", place="Oslo and much more of it")))
    answer = stand.ask(tools=TOOLS, stream=stream, max_tokens=7)
    if stream:
        calls, reason = (joined(answer)[0][name] for name in ("calls", "reason"))
    else:
        message, reason = said(answer)
        calls = message["tool_calls"]
    arguments = calls[0]["function"]["arguments"]
    assert (arguments, reason) == ('{"place": "Oslo and ', "length")


def test_the_models_broken_arguments_may_go_back_to_it(make_stand: MakeStand) -> None:
    stand = make_stand()
    seen = stand.engine.script = Seen("ok")
    call = {"id": "c", "type": "function", "function": {"name": "time", "arguments": '{"a": '}}
    history: list[Any] = [
        {"role": "user", "content": "and?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "these are no JSON"},
    ]
    assert stand.ask(messages=history, tools=TOOLS).status == 200
    assert "INVALID_JSON" in seen.prompts[-1].text


def test_a_stream_never_shows_a_part_of_a_call(make_stand: MakeStand) -> None:
    stand = make_stand(Script(f"Well <tool then {CALL}"))
    for event in stand.ask(tools=TOOLS, stream=True).events():
        for choice in event["choices"]:
            assert "<tool_call>" not in (choice["delta"].get("content") or "")


def test_what_is_no_call_stays_text(make_stand: MakeStand) -> None:
    text = "<tool_call>\nnot json\n</tool_call>"
    message, reason = said(make_stand(Script(text)).ask(tools=TOOLS))
    assert (message["content"], reason) == (text, "stop")
    message, reason = said(make_stand(Script(CALL)).ask())
    assert (message["content"], reason) == (CALL, "stop"), "without tools it is text"


def test_a_call_cut_at_the_maximum_is_length(make_stand: MakeStand) -> None:
    message, reason = said(make_stand(Script(f"a {CALL}")).ask(tools=TOOLS, max_tokens=3))
    assert reason == "length"
    assert "tool_calls" not in message


def test_tools_reach_the_template_and_none_keeps_them_away(make_stand: MakeStand) -> None:
    stand = make_stand()
    seen = stand.engine.script = Seen(CALL)
    assert said(stand.ask(tools=TOOLS))[1] == "tool_calls"
    assert "tells the weather" in seen.prompts[-1].text
    assert said(stand.ask(tools=TOOLS, tool_choice="none"))[1] == "stop"
    assert "tells the weather" not in seen.prompts[-1].text


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "time"}}])
def test_a_call_that_must_be_is_held_by_a_grammar(make_stand: MakeStand, choice: Any) -> None:
    stand = make_stand()
    seen = stand.engine.script = Seen('{"name": "time", "arguments": {"place": "Rome"}}')
    message, reason = said(stand.ask(tools=TOOLS, tool_choice=choice))
    assert (reason, message["content"]) == ("tool_calls", None)
    assert message["tool_calls"][0]["function"]["name"] == "time"
    names = ["weather", "time"] if choice == "required" else ["time"]
    grammar = seen.samplings[-1].grammar
    assert isinstance(grammar, Calls)
    assert [name for name, _ in grammar.schemas] == names
    assert (grammar.must, grammar.several) == (True, choice == "required")
    # What a tool's schema refers to in itself still lies where the reference points.
    schema = call_schema(grammar.schemas)
    calls = schema.get("anyOf", [schema])
    assert [call["properties"]["name"]["const"] for call in calls] == names
    place = calls[0]["properties"]["arguments"]["$ref"].removeprefix("#/$defs/")
    inner = schema["$defs"][place]["properties"]["place"]["$ref"]
    assert inner == f"#/$defs/{place}/$defs/place"
    streamed = joined(stand.ask(tools=TOOLS, tool_choice=choice, stream=True))[0]
    assert streamed["calls"][0]["function"]["name"] == "time"
    assert (streamed["content"], streamed["reason"]) == ("", "tool_calls")


def test_several_calls_may_be_made_where_one_must_be(make_stand: MakeStand) -> None:
    stand = make_stand()
    seen = stand.engine.script = Seen(f"{CALL}\n{OTHER}")
    message, reason = said(stand.ask(tools=TOOLS, tool_choice="required"))
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["weather", "time"]
    assert (message["content"], reason) == (None, "tool_calls")
    stand.ask(tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
    grammar = seen.samplings[-1].grammar
    assert isinstance(grammar, Calls)
    assert not grammar.several


def strict(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {}, "additionalProperties": False}
    function = {"name": name, "strict": True, "parameters": parameters}
    return {"type": "function", "function": function}


def test_strict_tools_are_held_whenever_the_model_calls_them(make_stand: MakeStand) -> None:
    stand = make_stand()
    seen = stand.engine.script = Seen(f"I look.\n{OTHER}")
    message, reason = said(stand.ask(tools=[TOOLS[0], strict("time")]))
    assert (message["content"], reason) == ("I look.", "tool_calls")
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["time"]
    (loose, held) = (
        '{"type":"object"}',
        '{"type":"object","properties":{},"additionalProperties":',
    )
    grammar = seen.samplings[-1].grammar
    assert grammar == Calls(
        (("weather", loose), ("time", held + "false}")), must=False, several=True
    )
    stand.ask(tools=[strict("time")], parallel_tool_calls=False)
    one = seen.samplings[-1]
    assert isinstance(one.grammar, Calls)
    assert not one.grammar.several
    assert one.stop == (), "the grammar ends it, and not a mark that may stand in a value"


def test_strict_tools_that_the_engine_cannot_hold_are_named(make_stand: MakeStand) -> None:
    stand = make_stand()

    async def check(sampling: Sampling) -> None:
        upstream.check(sampling, upstream.OPENAI, ids=False)

    stand.engine.check = check
    answer = stand.ask(tools=[TOOLS[0], strict("time")])
    assert (answer.status, answer.error["param"]) == (400, "tools[1].strict")
    assert stand.ask(tools=[strict("time")], tool_choice="required").status == 200


def test_one_call_at_most_where_asked(make_stand: MakeStand) -> None:
    stand = make_stand(Script(f"{CALL}\n{OTHER}"))
    message, reason = said(stand.ask(tools=TOOLS, parallel_tool_calls=False))
    assert reason == "tool_calls"
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["weather"]


def test_calls_and_results_go_back_in_the_order_of_the_calls(make_stand: MakeStand) -> None:
    stand = make_stand()
    seen = stand.engine.script = Seen("ok")
    calls = [
        {"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": "{}"}}
        for n, name in enumerate(("weather", "time"))
    ]
    history: list[Any] = [
        {"role": "user", "content": "and?"},
        {"role": "assistant", "content": None, "tool_calls": calls, "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
        {"role": "tool", "tool_call_id": "c0", "content": "rain"},
    ]
    answer = stand.ask(messages=history, tools=TOOLS)
    assert answer.status == 200
    text = seen.prompts[-1].text
    assert text.index("tool: rain") < text.index("tool: noon")


@pytest.mark.parametrize(
    ("history", "param"),
    [
        ([{"role": "tool", "tool_call_id": "x", "content": "?"}], "messages[1].tool_call_id"),
        (
            [{"role": "assistant", "content": "", "tool_calls": [("a", "{}")]}],
            "messages[1]",
        ),
        (
            [
                {"role": "assistant", "content": "", "tool_calls": [("a", "{}")]},
                {"role": "user", "content": "never mind"},
            ],
            "messages[1]",
        ),
        (
            [{"role": "assistant", "content": "", "tool_calls": [("a", "{}"), ("a", "{}")]}],
            "messages[1]",
        ),
        ([{"role": "user", "content": "x", "tool_calls": [("a", "{}")]}], "messages[1].tool_calls"),
        ([{"role": "user", "content": "x", "tool_call_id": "a"}], "messages[1].tool_call_id"),
    ],
)
def test_a_history_that_does_not_add_up(stand: Any, history: Any, param: str) -> None:
    for message in history:
        if "tool_calls" in message:
            message["tool_calls"] = [
                {"id": name, "type": "function", "function": {"name": "f", "arguments": given}}
                for name, given in message["tool_calls"]
            ]
    answer = stand.ask(messages=[{"role": "user", "content": "q"}, *history])
    assert (answer.status, answer.error["param"]) == (400, param)
    assert stand.charges == []


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}}, ...),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": TOOLS, "response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_tools_that_are_not_served(stand: Any, more: Any, param: Any) -> None:
    answer = stand.ask(**more)
    assert answer.status == 400
    named = answer.error["param"]
    assert named.startswith("tool_choice" if param is ... else param)


@pytest.mark.parametrize(
    "asked",
    [
        {"reasoning_effort": "low"},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"thinking": {"type": "enabled"}},
    ],
)
def test_thoughts_stand_apart_and_are_counted(make_stand: MakeStand, asked: Any) -> None:
    stand = make_stand()
    seen = stand.engine.script = Seen(THINKING + "It is so.")
    answer = stand.ask(**asked)
    message, reason = said(answer)
    assert (message["reasoning_content"], message["content"]) == ("let me see", "It is so.")
    assert reason == "stop"
    assert "think: yes" in seen.prompts[-1].text
    details = answer.json["usage"]["completion_tokens_details"]
    assert details["reasoning_tokens"] == stand.charges[0].usage.reasoning == 5
    streamed = joined(stand.ask(**asked, stream=True))[0]
    assert (streamed["thought"], streamed["content"]) == ("let me see", "It is so.")


def test_no_thought_unless_asked(make_stand: MakeStand) -> None:
    stand = make_stand()
    seen = stand.engine.script = Seen("x")
    for quiet in ({}, {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}):
        assert "reasoning_content" not in said(stand.ask(**quiet))[0]
        assert "think: yes" not in seen.prompts[-1].text


def test_a_model_that_cannot_think_or_call_says_so(make_stand: MakeStand) -> None:
    stand = make_stand()
    plain = stand.engine.prepare

    def prepare(chat: Any) -> Prompt:
        prompt: Prompt = plain(type(chat)(chat.messages))
        return prompt

    stand.engine.prepare = prepare
    answer = stand.ask(reasoning_effort="high")
    assert (answer.status, answer.error["param"]) == (400, "reasoning_effort")
    answer = stand.ask(tools=TOOLS)
    assert (answer.status, answer.error["param"]) == (400, "tools")
    assert stand.charges == []


def test_formats_are_grammars(make_stand: MakeStand) -> None:
    stand = make_stand()
    seen = stand.engine.script = Seen('{"a": 1}')
    stand.ask(response_format={"type": "json_object"})
    assert seen.samplings[-1].grammar == Json()
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    given = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert said(stand.ask(response_format=given))[0]["content"] == '{"a": 1}'
    grammar = seen.samplings[-1].grammar
    assert isinstance(grammar, JsonSchema)
    assert json.loads(grammar.schema) == schema


def test_a_grammar_that_the_engine_refuses_names_the_parameter(make_stand: MakeStand) -> None:
    stand = make_stand()

    async def check(sampling: Sampling) -> None:
        raise ValueError("the grammar is too large")

    stand.engine.check = check
    answer = stand.ask(response_format={"type": "json_object"})
    assert (answer.status, answer.error["param"]) == (400, "response_format")
    answer = stand.ask(tools=TOOLS, tool_choice="required")
    assert (answer.status, answer.error["param"]) == (400, "tool_choice")


def test_everything_that_is_asked_reaches_the_engine(make_stand: MakeStand) -> None:
    stand = make_stand()
    seen = stand.engine.script = Seen("x")
    stand.ask(
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={"7": -100, "9": 3.5},
        seed=5,
        stop=["END"],
        top_k=3,
        top_p=0.5,
        temperature=0.25,
        max_completion_tokens=9,
    )
    assert seen.samplings[-1] == Sampling(
        9, 0.25, 0.5, 3, 5, ("END",), (), 0.5, -0.5, ((7, -100.0), (9, 3.5)), cache_salt="acme"
    )


def test_log_probabilities(make_stand: MakeStand) -> None:
    stand = make_stand(Script("one two"))
    whole = stand.ask(logprobs=True, top_logprobs=2).json["choices"][0]["logprobs"]
    assert [token["token"] for token in whole["content"]] == ["one ", "two"]
    first = whole["content"][0]
    assert (first["bytes"], len(first["top_logprobs"])) == (list(b"one "), 2)
    streamed = joined(stand.ask(logprobs=True, top_logprobs=2, stream=True))[0]
    assert streamed["logprobs"] == whole["content"]


def test_no_log_probability_is_lost_where_text_is_held_back(make_stand: MakeStand) -> None:
    stand = make_stand(Script(f"{THINKING}Well {CALL}"))
    whole = stand.ask(logprobs=True, tools=TOOLS).json["choices"][0]["logprobs"]["content"]
    streamed = joined(stand.ask(logprobs=True, tools=TOOLS, stream=True))[0]["logprobs"]
    assert "".join(token["token"] for token in whole) == f"{THINKING}Well {CALL}"
    assert streamed == whole


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_are_held_together_and_charged_once(
    make_stand: MakeStand, stream: bool
) -> None:
    stand = make_stand()
    replies = iter(["a", "b b", "c c c"])
    stand.engine.script = lambda prompt, sampling: Script(next(replies))
    answer = stand.ask(n=3, max_tokens=10, seed=4, stream=stream)
    if stream:
        texts = [choice["content"] for _, choice in sorted(joined(answer).items())]
    else:
        texts = [choice["message"]["content"] for choice in answer.json["choices"]]
    assert texts == ["a", "b b", "c c c"]
    (charge,) = stand.charges
    assert (charge.usage.prompt, charge.usage.completion) == (2, 2 + 3 + 4)
    hold = stand.hold_of(answer)
    assert (hold.n, hold.max_tokens) == (3, 10)


def test_several_answers_are_drawn_with_seeds_of_their_own(make_stand: MakeStand) -> None:
    stand = make_stand()
    seen = stand.engine.script = Seen("x")
    stand.ask(n=3, seed=2**63 - 1)
    assert len({sampling.seed for sampling in seen.samplings}) == 3


def test_one_of_several_fails_and_all_stop(make_stand: MakeStand) -> None:
    stand = make_stand()
    scripts = iter([Script("a " * 500, delay=0.01), Script(fail_after=2, reply="x " * 9)])
    stand.engine.script = lambda prompt, sampling: next(scripts)
    answer = stand.ask(n=2)
    assert answer.status == 503
    assert (stand.engine.running, stand.charges) == (0, [])


def test_a_full_engine_starts_none_of_several(make_stand: MakeStand) -> None:
    stand = make_stand(Script("a " * 500, delay=0.01))
    stand.engine.capacity = 2
    answer = stand.ask(n=3)
    assert answer.status == 429
    stand.until(lambda: stand.engine.running == 0)
    assert stand.charges == []


def test_money_for_one_is_not_money_for_eight(make_stand: MakeStand) -> None:
    stand = make_stand(credit=100_000)  # 125 completion tokens
    assert stand.ask(n=1, max_tokens=100).status == 200
    assert stand.ask(n=8, max_tokens=100).status == 402


def test_embeddings_say_that_there_are_none(stand: Any) -> None:
    answer = stand.call(path="/v1/embeddings", body={"model": "avocado-1", "input": "x"})
    assert (answer.status, answer.error["param"]) == (400, "model")
    answer = stand.call(path="/v1/embeddings", body={"model": "other", "input": "x"})
    assert answer.status == 404
