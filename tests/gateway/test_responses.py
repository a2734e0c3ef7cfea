"""``/v1/responses``: items in and out, events in OpenAI's order, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from avocado.engine.engine import Calls, Json, JsonSchema
from avocado.engine.scripted import Script
from avocado.gateway.errors import ApiError
from avocado.gateway.surfaces.items import InputItem, InputPart, read_items
from avocado.gateway.surfaces.responses import Responses

MakeStand = Callable[..., Any]
TOOL: Any = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}
FULL = (
    "<think>\nlet me see\n</think>\n\nI look.\n"
    '<tool_call>\n{"name": "look", "arguments": {"at": "it"}}\n</tool_call>'
)
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def create(stand: Any, given: Any = "hello", **more: Any) -> Any:
    return stand.call(path="/v1/responses", body={"model": "avocado-1", "input": given, **more})


def events(answer: Any) -> list[Any]:
    """The events of a stream, each of which OpenAI's client can read."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.body.decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        EVENT.validate_python(event)
        found.append(event)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def test_a_plain_response(stand: Any) -> None:
    answer = create(stand, instructions="be brief", metadata={"k": "v"})
    read = Response.model_validate(answer.json)
    assert (read.output_text, read.status) == ("one two three four five", "completed")
    assert (read.instructions, read.metadata) == ("be brief", {"k": "v"})
    assert answer.json["store"] is False
    assert read.usage is not None
    assert read.usage.output_tokens == 6
    assert answer.json["usage"]["cost"] == pytest.approx(stand.charges[0].charge / 1e9)


def test_thoughts_text_and_calls_are_items(make_stand: MakeStand) -> None:
    stand = make_stand(Script(FULL))
    answer = create(stand, tools=[TOOL], reasoning={"effort": "low"}).json
    kinds = [item["type"] for item in answer["output"]]
    assert kinds == ["reasoning", "message", "function_call"]
    thought, message, call = answer["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "let me see"}]
    assert message["content"][0]["text"] == "I look."
    assert (call["name"], json.loads(call["arguments"])) == ("look", {"at": "it"})
    assert answer["usage"]["output_tokens_details"]["reasoning_tokens"] == 5


def test_a_stream_tells_the_same_in_order(make_stand: MakeStand) -> None:
    stand = make_stand(Script(FULL))
    told = events(create(stand, tools=[TOOL], stream=True))
    kinds = [event["type"].removeprefix("response.") for event in told]
    reasoning = ["reasoning_text.delta"] * kinds.count("reasoning_text.delta")
    text = ["output_text.delta"] * kinds.count("output_text.delta")
    arguments = ["function_call_arguments.delta"] * kinds.count("function_call_arguments.delta")
    assert len(arguments) > 1
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *reasoning,
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        *text,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        *arguments,
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert told[0]["response"]["output"] == [], "nothing was said yet"
    final = told[-1]["response"]
    assert [event["item"] for event in told if event["type"].endswith("item.done")] == final[
        "output"
    ]
    assert "".join(event["delta"] for event in told if event["type"].endswith("text.delta")) == (
        "let me seeI look."
    )
    written = [event["delta"] for event in told if event["type"].endswith("arguments.delta")]
    assert "".join(written) == final["output"][-1]["arguments"]
    whole = create(stand, tools=[TOOL]).json
    assert whole["output"][-1]["arguments"] == final["output"][-1]["arguments"]
    same = ("status", "usage", "text", "tools", "tool_choice", "temperature", "error")
    assert {name: final[name] for name in same} == {name: whole[name] for name in same}


def test_an_answer_cut_at_the_maximum_is_incomplete(make_stand: MakeStand) -> None:
    stand = make_stand(Script("a b c d"))
    whole = create(stand, max_output_tokens=2).json
    assert (whole["status"], whole["incomplete_details"]) == (
        "incomplete",
        {"reason": "max_output_tokens"},
    )
    assert whole["output"][-1]["status"] == "incomplete"
    told = events(create(stand, max_output_tokens=2, stream=True))
    assert told[-1]["type"] == "response.incomplete"
    assert told[-1]["response"]["output"][-1]["status"] == "incomplete"


def test_an_engine_that_fails_mid_stream_fails_the_response(make_stand: MakeStand) -> None:
    stand = make_stand(Script("a b c d", fail_after=2))
    told = events(create(stand, stream=True))
    assert told[-1]["type"] == "response.failed"
    failed = told[-1]["response"]
    assert (failed["status"], failed["error"]["code"]) == ("failed", "server_error")
    assert failed["usage"]["output_tokens"] == stand.charges[0].usage.completion == 2


def test_an_empty_answer_has_a_message(make_stand: MakeStand) -> None:
    stand = make_stand(Script(""))
    assert create(stand).json["output"][0]["content"][0]["text"] == ""
    told = events(create(stand, stream=True))
    assert told[-1]["response"]["output"][0]["content"][0]["text"] == ""


def test_log_probabilities_are_those_of_the_text(make_stand: MakeStand) -> None:
    stand = make_stand(Script("<think> a b </think> c d"))
    include = ["message.output_text.logprobs"]
    whole = create(stand, include=include, top_logprobs=1).json["output"][-1]["content"][0]
    assert [token["token"] for token in whole["logprobs"]] == ["c ", "d"]
    told = events(create(stand, include=include, top_logprobs=1, stream=True))
    streamed = [t for e in told if e["type"] == "response.output_text.delta" for t in e["logprobs"]]
    assert streamed == whole["logprobs"]
    assert told[-1]["response"]["output"][-1]["content"][0] == whole


def test_formats_and_choices_reach_the_engine(make_stand: MakeStand) -> None:
    stand = make_stand()
    seen: list[Any] = []

    def script(prompt: Any, sampling: Any) -> Script:
        seen.append(sampling)
        return Script('{"name": "look", "arguments": {}}')

    stand.engine.script = script
    schema = {"type": "object"}
    create(stand, text={"format": {"type": "json_object"}})
    create(stand, text={"format": {"type": "json_schema", "name": "x", "schema": schema}})
    assert (seen[0].grammar, seen[1].grammar) == (Json(), JsonSchema('{"type":"object"}'))
    answer = create(stand, tools=[TOOL], tool_choice={"type": "function", "name": "look"}).json
    assert [item["type"] for item in answer["output"]] == ["function_call"]
    create(stand, tools=[{**TOOL, "strict": True}])
    assert seen[-1].grammar == Calls((("look", '{"type":"object"}'),), must=False, several=True)


def test_what_came_out_can_go_back_in() -> None:
    items = [
        InputItem(role="system", content="be kind"),
        InputItem(role="user", content=[InputPart("input_text", "hi")]),
        InputItem(type="reasoning", content=[InputPart("reasoning_text", "hm")], summary=[]),
        InputItem(role="assistant", content=[InputPart("output_text", "I look.", [], [])], id="m"),
        InputItem(type="function_call", call_id="a", name="look", arguments="{}"),
        InputItem(type="function_call", call_id="b", name="look", arguments='{"x":1}'),
        InputItem(type="function_call_output", call_id="b", output="B"),
        InputItem(type="function_call_output", call_id="a", output=[InputPart("input_text", "A")]),
        InputItem(role="assistant", content="so"),
        InputItem(role="assistant", content="and"),
    ]
    turns = read_items("be brief", items)
    assert [turn["role"] for turn in turns] == (
        "system user assistant tool tool assistant assistant".split()
    )
    assert turns[0]["content"] == "be brief\n\nbe kind"
    assert (turns[2]["content"], turns[2]["reasoning_content"]) == ("I look.", "hm")
    assert [call["function"]["arguments"] for call in turns[2]["tool_calls"]] == [{}, {"x": 1}]
    assert [turn["content"] for turn in turns[3:5]] == ["A", "B"]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"conversation": "c"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"max_tool_calls": 1}, "max_tool_calls"),
        ({"include": ["reasoning.encrypted_content"]}, "include[0]"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": "x", "call_id": "y"}]}, "input[0].call_id"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0]",
        ),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input[0]"),
        ({"input": [{"type": "function_call", "call_id": "a", "name": "f"}]}, "input[0].arguments"),
        (
            {"input": [{"type": "function_call_output", "call_id": "a", "output": "x"}]},
            "input[0].call_id",
        ),
        ({"max_output_tokens": 10**9}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
    ],
)
def test_what_is_not_served_is_named(stand: Any, more: Any, param: str) -> None:
    answer = create(stand, **more)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert stand.charges == []


def test_what_changes_nothing_may_be_said() -> None:
    quiet = {
        "store": False,
        "background": False,
        "truncation": "disabled",
        "service_tier": "auto",
        "previous_response_id": None,
        "include": [],
        "reasoning": {"effort": "none", "summary": None},
        "text": {"format": {"type": "text"}},
        "tools": [],
        "tool_choice": "auto",
    }
    body = {"model": "m", "input": "x"}
    plain = Responses().read(json.dumps(body).encode())
    loud = Responses().read(json.dumps({**body, **quiet}).encode())
    assert plain.prompt == loud.prompt
    with pytest.raises(ApiError) as caught:
        Responses().read(json.dumps({**body, "frequency": 1}).encode())
    assert caught.value.code == "unknown_parameter"
