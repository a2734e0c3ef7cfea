"""LiteLLM as a client, by OpenAI's and by Anthropic's dialect (``make test-clients``)."""

from __future__ import annotations

import json
from typing import Any

import litellm  # type: ignore[import-not-found,unused-ignore]
import pytest

MESSAGES: Any = [{"role": "user", "content": "hi"}]
PARAMETERS = {"type": "object", "properties": {"place": {"type": "string"}}}
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]


@pytest.fixture(params=["openai", "anthropic"])
def to(request: Any, clever: Any) -> dict[str, Any]:
    base = f"{clever.url}/v1" if request.param == "openai" else clever.url
    return {
        "model": f"{request.param}/avocado-1",
        "api_base": base,
        "api_key": clever.key.text,
        "messages": MESSAGES,
        "max_tokens": 50,
        "num_retries": 0,
    }


def test_a_completion(to: dict[str, Any]) -> None:
    answer: Any = litellm.completion(**to)
    assert answer.choices[0].message.content == "one two three four five"
    assert answer.usage.completion_tokens == 6


def test_a_stream(to: dict[str, Any]) -> None:
    chunks: Any = litellm.completion(**to, stream=True, stream_options={"include_usage": True})
    found = list(chunks)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in found if chunk.choices)
    assert text == "one two three four five"
    assert [c.usage.completion_tokens for c in found if getattr(c, "usage", None)][-1] == 6


@pytest.mark.parametrize("stream", [False, True])
def test_tools_and_back(to: dict[str, Any], stream: bool) -> None:
    given: Any = litellm.completion(**to, tools=TOOLS, stream=stream)
    first: Any = litellm.stream_chunk_builder(list(given)) if stream else given
    message = first.choices[0].message
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments) == {"place": "Oslo"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    history = [*MESSAGES, message.model_dump(exclude_none=True), result]
    second: Any = litellm.completion(**{**to, "messages": history}, tools=TOOLS)
    assert second.choices[0].message.content == "It rains."


def test_a_wrong_key(to: dict[str, Any]) -> None:
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**{**to, "api_key": "no"})


def test_text_completion_and_responses(clever: Any) -> None:
    to: Any = {"api_base": f"{clever.url}/v1", "api_key": clever.key.text}
    text: Any = litellm.text_completion(
        model="text-completion-openai/avocado-1", prompt="once", **to
    )
    assert text.choices[0].text == "one two three four five"
    answer: Any = litellm.responses(model="openai/avocado-1", input="hi", store=False, **to)
    assert answer.output[0].content[0].text == "one two three four five"
