"""Anthropic's official client for Python on ``/v1/messages``."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

MODEL = "avocado-1"
MESSAGES: Any = [{"role": "user", "content": "hi"}]
TOOLS: Any = [
    {
        "name": "weather",
        "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}},
    }
]


@pytest.fixture
def client(clever: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=clever.url, api_key=clever.key.text, max_retries=0)


def test_a_message(client: anthropic.Anthropic) -> None:
    message: Any = client.messages.create(model=MODEL, max_tokens=50, messages=MESSAGES)
    assert message.content[0].text == "one two three four five"
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 6)
    assert message._request_id.startswith("req_")


def test_a_stream(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model=MODEL, max_tokens=50, messages=MESSAGES) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == "one two three four five"
    assert final.usage.output_tokens == 6


def test_a_tool_and_back(client: anthropic.Anthropic) -> None:
    with client.messages.stream(
        model=MODEL, max_tokens=50, messages=MESSAGES, tools=TOOLS
    ) as stream:
        first: Any = stream.get_final_message()
    assert first.stop_reason == "tool_use"
    call = first.content[-1]
    assert (call.name, call.input) == ("weather", {"place": "Oslo"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    history: Any = [
        *MESSAGES,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    second: Any = client.messages.create(model=MODEL, max_tokens=50, messages=history, tools=TOOLS)
    assert second.content[0].text == "It rains."


def test_thinking_and_back(client: anthropic.Anthropic) -> None:
    first: Any = client.messages.create(
        model=MODEL,
        max_tokens=2000,
        messages=MESSAGES,
        thinking={"type": "enabled", "budget_tokens": 1024},
    )
    assert [block.type for block in first.content] == ["thinking", "text"]
    assert first.content[0].thinking == "hm hm"
    history: Any = [
        *MESSAGES,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": "and?"},
    ]
    assert client.messages.create(model=MODEL, max_tokens=9, messages=history).content


def test_a_tool_that_must_be_called(client: anthropic.Anthropic) -> None:
    message: Any = client.messages.create(
        model=MODEL, max_tokens=50, messages=MESSAGES, tools=TOOLS, tool_choice={"type": "any"}
    )
    assert [block.type for block in message.content] == ["tool_use"]


def test_errors_have_their_classes(clever: Any, client: anthropic.Anthropic) -> None:
    wrong = anthropic.Anthropic(base_url=clever.url, api_key="no", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError):
        wrong.messages.create(model=MODEL, max_tokens=5, messages=MESSAGES)
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="other", max_tokens=5, messages=MESSAGES)
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model=MODEL, max_tokens=20_000, messages=MESSAGES)


def test_a_stream_that_breaks_is_raised(clever: Any, client: anthropic.Anthropic) -> None:
    from avocado.engine.scripted import Script

    clever.engine.script = Script("a b c", fail_after=2)
    stream = client.messages.create(model=MODEL, max_tokens=9, messages=MESSAGES, stream=True)
    with pytest.raises(anthropic.APIStatusError):
        list(stream)
