"""The Open Responses specification: its acceptance cases, read by types made from its schema.

The cases are those of its own acceptance test (text, stream, system prompt, tools, streamed tools,
images, several turns); the types are the package ``openresponses-types``, which nobody here wrote.
"""

from __future__ import annotations

import json
from typing import Any

import openresponses_types as spec
import pytest

TOOL = {
    "type": "function",
    "name": "weather",
    "description": "Get the current weather for a location",
    "parameters": {
        "type": "object",
        "properties": {"place": {"type": "string", "description": "The city"}},
        "required": ["place"],
    },
}
USER = {"type": "message", "role": "user", "content": "Say hello in exactly 3 words."}
CASES: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "basic-response": ([USER], {}, "message"),
    "system-prompt": (
        [{"type": "message", "role": "system", "content": "You are a pirate."}, USER],
        {},
        "message",
    ),
    "tool-calling": ([USER], {"tools": [TOOL]}, "function_call"),
    "multi-turn": (
        [USER, {"type": "message", "role": "assistant", "content": "Hello to you."}, USER],
        {},
        "message",
    ),
    "reasoning": ([USER], {"reasoning": {"effort": "low"}}, "reasoning"),
}
EVENTS: dict[str, Any] = {
    "response.created": spec.ResponseCreatedStreamingEvent,
    "response.in_progress": spec.ResponseInProgressStreamingEvent,
    "response.completed": spec.ResponseCompletedStreamingEvent,
    "response.output_item.added": spec.ResponseOutputItemAddedStreamingEvent,
    "response.output_item.done": spec.ResponseOutputItemDoneStreamingEvent,
    "response.content_part.added": spec.ResponseContentPartAddedStreamingEvent,
    "response.content_part.done": spec.ResponseContentPartDoneStreamingEvent,
    "response.output_text.delta": spec.ResponseOutputTextDeltaStreamingEvent,
    "response.output_text.done": spec.ResponseOutputTextDoneStreamingEvent,
    "response.function_call_arguments.delta": (
        spec.ResponseFunctionCallArgumentsDeltaStreamingEvent
    ),
    "response.function_call_arguments.done": spec.ResponseFunctionCallArgumentsDoneStreamingEvent,
}
OURS = {"response.reasoning_text.delta", "response.reasoning_text.done"}
"""OpenAI's names; the specification calls them response.reasoning.delta and .done."""


def create(stand: Any, given: list[Any], **more: Any) -> Any:
    body = {"model": "avocado-1", "input": given, **more}
    answer = stand.call(path="/v1/responses", body=body)
    assert answer.status == 200, answer.body
    return answer


@pytest.mark.parametrize("name", list(CASES))
def test_a_whole_response(clever: Any, name: str) -> None:
    given, more, kind = CASES[name]
    answer = create(clever, given, **more).json
    spec.ResponseResource.model_validate(answer)
    assert answer["status"] == "completed"
    assert kind in [item["type"] for item in answer["output"]]


@pytest.mark.parametrize("name", list(CASES))
def test_a_streamed_response(clever: Any, name: str) -> None:
    given, more, kind = CASES[name]
    answer = create(clever, given, **more, stream=True)
    told = [
        json.loads(line.removeprefix("data: "))
        for line in answer.body.decode().split("\n")
        if line.startswith("data: ")
    ]
    for event in told:
        if event["type"] not in OURS:
            EVENTS[event["type"]].model_validate(event)
    spec.ResponseResource.model_validate(told[-1]["response"])
    kinds = [event["type"] for event in told]
    for step in ("added", "done"):
        items = [e["item"]["type"] for e in told if e["type"] == f"response.output_item.{step}"]
        assert kind in items
    if kind == "function_call":
        assert "response.function_call_arguments.delta" in kinds
        assert "response.function_call_arguments.done" in kinds


def test_an_image_is_refused_by_name(clever: Any) -> None:
    """The one case of the acceptance test that a model of text cannot pass."""
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    body = {
        "model": "avocado-1",
        "input": [{"type": "message", "role": "user", "content": [image]}],
    }
    answer = clever.call(path="/v1/responses", body=body)
    assert (answer.status, answer.error["param"]) == (400, "input[0].content[0]")
