"""OpenAI's official client for Python, on every endpoint that it knows and we serve."""

from __future__ import annotations

import json
from typing import Any

import openai
import pydantic
import pytest

MODEL = "avocado-1"
MESSAGES: Any = [{"role": "user", "content": "hi"}]
PARAMETERS = {"type": "object", "properties": {"place": {"type": "string"}}}
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]
FLAT: Any = [{"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": False}]


class Weather(pydantic.BaseModel):
    city: str
    degrees: int


class weather(pydantic.BaseModel):
    place: str


@pytest.fixture
def client(clever: Any) -> openai.OpenAI:
    return clever.client()  # type: ignore[no-any-return]


def test_chat_with_a_tool_and_back(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model=MODEL, messages=MESSAGES, tools=TOOLS)
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls
    call: Any = message.tool_calls[0]
    assert json.loads(call.function.arguments) == {"place": "Oslo"}
    history: Any = [
        *MESSAGES,
        message,
        {"role": "tool", "tool_call_id": call.id, "content": "rain"},
    ]
    second = client.chat.completions.create(model=MODEL, messages=history, tools=TOOLS)
    assert second.choices[0].message.content == "It rains."


def test_the_stream_helper_accumulates_a_call(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES, tools=TOOLS) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    call: Any = (final.choices[0].message.tool_calls or [])[0]
    assert (call.function.name, final.choices[0].message.content) == ("weather", "I look.")
    assert "tool_calls.function.arguments.done" in kinds


def test_parse_with_pydantic(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Weather)
    assert parsed.choices[0].message.parsed == Weather(city="Oslo", degrees=7)
    tool = openai.pydantic_function_tool(weather)
    called = client.chat.completions.parse(
        model=MODEL, messages=MESSAGES, tools=[tool], tool_choice="required"
    )
    calls: Any = called.choices[0].message.tool_calls
    assert calls[0].function.parsed_arguments == weather(place="Oslo")


def test_strict_tools_that_the_model_may_call(client: openai.OpenAI) -> None:
    tool = openai.pydantic_function_tool(weather)
    parsed = client.chat.completions.parse(model=MODEL, messages=MESSAGES, tools=[tool])
    calls: Any = parsed.choices[0].message.tool_calls
    assert calls[0].function.parsed_arguments == weather(place="Oslo")
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES, tools=[tool]) as stream:
        kinds = [event.type for event in stream]
        assert kinds.count("tool_calls.function.arguments.delta") > 1
        final: Any = stream.get_final_completion().choices[0].message.tool_calls
    assert final[0].function.parsed_arguments == weather(place="Oslo")


def test_thoughts(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, reasoning_effort="medium"
    )
    message: Any = answer.choices[0].message
    assert (message.reasoning_content, message.content) == ("hm hm", "It is so.")
    assert answer.usage
    assert answer.usage.completion_tokens_details
    assert answer.usage.completion_tokens_details.reasoning_tokens == 4


def test_log_probabilities_and_several(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, logprobs=True, top_logprobs=2, n=2
    )
    for choice in answer.choices:
        assert choice.logprobs
        assert choice.logprobs.content
        assert len(choice.logprobs.content[0].top_logprobs) == 2


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=["a", "b"], logprobs=1)
    assert [choice.text for choice in answer.choices] == ["one two three four five"] * 2
    stream = client.completions.create(model=MODEL, prompt="a", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "one two three four five"


def test_responses(client: openai.OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input="hi", store=False)
    assert answer.output_text == "one two three four five"
    parsed = client.responses.parse(model=MODEL, input="hi", text_format=Weather)
    assert parsed.output_parsed == Weather(city="Oslo", degrees=7)
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model=MODEL, input="hi", previous_response_id=answer.id)


def test_a_streamed_response(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="hi", tools=FLAT) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()
    assert [item.type for item in final.output] == ["message", "function_call"]
    assert {"response.function_call_arguments.done", "response.completed"} <= kinds


def test_a_response_with_a_tool_and_back(client: openai.OpenAI) -> None:
    first = client.responses.create(
        model=MODEL, input="hi", tools=FLAT, include=["message.output_text.logprobs"]
    )
    call: Any = first.output[-1]
    history: Any = [
        {"role": "user", "content": "hi"},
        *(item.model_dump(exclude_none=True) for item in first.output),
        {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
    ]
    second = client.responses.create(model=MODEL, input=history, tools=FLAT)
    assert second.output_text == "It rains."


def test_a_response_with_thoughts_and_back(client: openai.OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="hi", reasoning={"effort": "low"})
    assert [item.type for item in first.output] == ["reasoning", "message"]
    history: Any = [
        {"role": "user", "content": "hi"},
        *(item.model_dump(exclude_none=True) for item in first.output),
        {"role": "user", "content": "and?"},
    ]
    assert client.responses.create(model=MODEL, input=history).status == "completed"


def test_models_and_embeddings(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=MODEL, input="x")
    assert caught.value.param == "model"


def test_the_raw_answer_has_the_request_id(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
    assert raw.headers["x-request-id"] == raw.parse()._request_id
