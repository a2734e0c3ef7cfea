"""``/v1/messages``: blocks in and out, Anthropic's events, its key header and shape of errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from avocado.data.chat import Chat
from avocado.engine.engine import Calls, JsonSchema
from avocado.engine.scripted import Script
from avocado.gateway.surfaces.messages import Messages

MakeStand = Callable[..., Any]
TOOL: Any = {"name": "look", "input_schema": {"type": "object"}}
FULL = (
    "<think>\nlet me see\n</think>\n\nI look.\n"
    '<tool_call>\n{"name": "look", "arguments": {"at": "it"}}\n</tool_call>'
)
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def body(messages: Any = None, **more: Any) -> dict[str, Any]:
    messages = messages or [{"role": "user", "content": "hello"}]
    return {"model": "avocado-1", "messages": messages, "max_tokens": 50, **more}


def create(stand: Any, messages: Any = None, **more: Any) -> Any:
    key = {"x-api-key": stand.key.text, "Authorization": None}
    return stand.call(path="/v1/messages", body=body(messages, **more), headers=key)


def error(answer: Any) -> dict[str, Any]:
    told = answer.json
    assert set(told) == {"type", "error", "request_id"}
    assert (told["type"], told["request_id"]) == ("error", answer.headers["request-id"])
    return dict(told["error"])


def events(answer: Any) -> list[Any]:
    found = []
    for block in answer.body.decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def read(**more: Any) -> Any:
    return Messages().read(json.dumps(body(**more)).encode())


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def turns(**more: Any) -> list[Any]:
    prompt = read(**more).prompt
    assert isinstance(prompt, Chat)
    return [dict(turn) for turn in prompt.messages]


def test_a_plain_message(stand: Any) -> None:
    answer = create(stand, system="be brief", metadata={"user_id": "u"})
    message = Message.model_validate(answer.json)
    assert message.content[0].type == "text"
    assert message.content[0].text == "one two three four five"
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 6)
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    assert stand.hold_of(answer).state == "settled"


def test_blocks(make_stand: MakeStand) -> None:
    stand = make_stand(Script(FULL))
    thinking = {"type": "enabled", "budget_tokens": 1024}
    message = Message.model_validate(create(stand, tools=[TOOL], thinking=thinking).json)
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert message.stop_reason == "tool_use"
    assert message.content[2].type == "tool_use"
    assert message.content[2].input == {"at": "it"}


def test_a_stream(make_stand: MakeStand) -> None:
    stand = make_stand(Script(FULL))
    told = events(create(stand, tools=[TOOL], stream=True))
    for event in told:
        EVENT.validate_python(event)
    kinds = [event["type"] for event in told]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    open_block, seen = None, []
    for event in told[1:-2]:
        if event["type"] == "content_block_start":
            assert open_block is None
            open_block = event["index"]
            seen.append(event["content_block"]["type"])
        else:
            assert event["index"] == open_block
        if event["type"] == "content_block_stop":
            open_block = None
    assert open_block is None
    assert seen == ["thinking", "text", "tool_use"]
    parts = [event["delta"] for event in told if event["type"] == "content_block_delta"]
    assert "".join(part.get("thinking", "") for part in parts) == "let me see"
    assert "".join(part.get("text", "") for part in parts) == "I look."
    written = [part["partial_json"] for part in parts if "partial_json" in part]
    assert len(written) > 1
    assert json.loads("".join(written)) == {"at": "it"}
    assert told[-2]["delta"]["stop_reason"] == "tool_use"
    assert told[-2]["usage"]["output_tokens"] == stand.charges[0].usage.completion


def test_arguments_that_are_no_json_stand_in_an_object_of_a_whole_message(
    make_stand: MakeStand,
) -> None:
    """As Anthropic's documents on fine-grained tool streaming have it; a stream shows them."""
    written = '{"at": it}'
    stand = make_stand(
        Script(f'<tool_call>\n{{"name": "look", "arguments": {written}}}\n</tool_call>')
    )
    (block,) = create(stand, tools=[TOOL]).json["content"]
    assert block["input"] == {"INVALID_JSON": written}
    told = events(create(stand, tools=[TOOL], stream=True))
    parts = [event["delta"] for event in told if event["type"] == "content_block_delta"]
    assert "".join(part["partial_json"] for part in parts) == written


@pytest.mark.parametrize(
    ("more", "reason", "sequence"),
    [
        ({}, "end_turn", None),
        ({"stop_sequences": ["three"]}, "stop_sequence", "three"),
        ({"max_tokens": 2}, "max_tokens", None),
    ],
)
def test_why_it_stopped(stand: Any, more: Any, reason: str, sequence: str | None) -> None:
    whole = create(stand, **more).json
    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, sequence)
    last = events(create(stand, **more, stream=True))[-2]["delta"]
    assert (last["stop_reason"], last["stop_sequence"]) == (reason, sequence)


def test_one_tool_at_a_time_is_no_stop_sequence(make_stand: MakeStand) -> None:
    stand = make_stand(Script(FULL + FULL))
    one = {"type": "auto", "disable_parallel_tool_use": True}
    whole = create(stand, tools=[TOOL], tool_choice=one).json
    assert (whole["stop_reason"], whole["stop_sequence"]) == ("tool_use", None)
    assert [block["type"] for block in whole["content"]].count("tool_use") == 1
    quiet = create(make_stand(Script("no")), tools=[TOOL], tool_choice=one).json
    assert quiet["stop_reason"] == "end_turn"


def test_what_came_out_can_go_back_in() -> None:
    history = [
        {"role": "user", "content": "q"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "text", "text": "I look.", "citations": None},
                {"type": "tool_use", "id": "a", "name": "look", "input": {}},
                {"type": "tool_use", "id": "b", "name": "look", "input": {"x": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "b", "content": "B", "is_error": True},
                {
                    "type": "tool_result",
                    "tool_use_id": "a",
                    "content": [_text("A")],
                },
                {"type": "text", "text": "go on", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ]
    found = turns(messages=history, system=[{"type": "text", "text": "kind"}], tools=[TOOL])
    assert [turn["role"] for turn in found] == "system user assistant tool tool user".split()
    assert (found[2]["reasoning_content"], found[2]["content"]) == ("hm", "I look.")
    assert [turn["content"] for turn in found[3:]] == ["A", "Error: B", "go on"]


def test_choices_and_formats() -> None:
    named = read(tools=[TOOL], tool_choice={"type": "tool", "name": "look"})
    assert (named.forced, isinstance(named.grammar, Calls)) == (True, True)
    assert (named.grammar_from, named.prompt.tools[0]["function"]["name"]) == (
        "tool_choice",
        "look",
    )
    held = read(tools=[{**TOOL, "strict": True}])
    assert (held.forced, held.grammar_from) == (False, "tools[0].strict")
    assert read(tools=[TOOL], tool_choice={"type": "any"}).forced
    assert read(tools=[TOOL], tool_choice={"type": "none"}).prompt.tools == ()
    schema = {"type": "json_schema", "schema": {"type": "object"}}
    assert read(output_config={"format": schema}).grammar == JsonSchema('{"type":"object"}')
    assert read(thinking={"type": "adaptive"}).prompt.thinking
    assert not read(thinking={"type": "disabled"}).prompt.thinking


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"temperature": 1.5}, "temperature"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"container": "x"}, "container"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"output_config": {"effort": "high"}}, "output_config.effort"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0]"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "messages[1].role",
        ),
        ({"logprobs": True}, "logprobs"),
    ],
)
def test_what_is_not_served_is_named(stand: Any, more: Any, param: str) -> None:
    answer = stand.call(path="/v1/messages", body={**body(), **more})
    told = error(answer)
    assert (answer.status, told["type"]) == (400, "invalid_request_error")
    assert str(told["param"]).startswith(param)
    assert stand.charges == []


def test_refusals_have_anthropics_types(make_stand: MakeStand) -> None:
    stand = make_stand(credit=0)
    answer = create(stand)
    assert (answer.status, error(answer)["type"]) == (402, "billing_error")
    answer = stand.call(path="/v1/messages", body=body(), headers={"Authorization": None})
    assert (answer.status, error(answer)["type"]) == (401, "authentication_error")
    answer = create(stand, model="other")
    assert (answer.status, error(answer)["type"]) == (404, "not_found_error")
    answer = stand.call("GET", "/v1/messages")
    assert (answer.status, error(answer)["type"]) == (405, "invalid_request_error")
    answer = stand.call(path="/v1/messages/batches", body={})
    assert (answer.status, error(answer)["type"]) == (404, "not_found_error")
    answer = create(make_stand(Script(fail_after=0)))
    assert (answer.status, error(answer)["type"]) == (503, "overloaded_error")


def test_an_engine_that_fails_mid_stream(make_stand: MakeStand) -> None:
    stand = make_stand(Script("a b c", fail_after=2))
    told = events(create(stand, stream=True))
    assert [event["type"] for event in told][-3:] == [
        "content_block_stop",
        "message_delta",
        "error",
    ]
    assert told[-2]["usage"]["output_tokens"] == stand.charges[0].usage.completion == 2


def test_the_key_header_of_anthropic_opens_nothing_else(stand: Any) -> None:
    headers = {"Authorization": None, "x-api-key": stand.key.text}
    assert stand.ask(headers=headers).status == 401
