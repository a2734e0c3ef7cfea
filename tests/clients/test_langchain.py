"""LangChain's ChatOpenAI (its own environment: ``make test-clients``)."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import (  # type: ignore[import-not-found,unused-ignore]
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.tools import tool  # type: ignore[import-not-found,unused-ignore]
from langchain_openai import ChatOpenAI  # type: ignore[import-not-found,unused-ignore]
from pydantic import BaseModel, SecretStr


@tool  # type: ignore[untyped-decorator,unused-ignore]
def weather(place: str) -> str:
    """The weather in a place."""
    return "rain"


class Weather(BaseModel):
    """The weather."""

    city: str
    degrees: int


@pytest.fixture
def model(clever: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="avocado-1",
        base_url=f"{clever.url}/v1",
        api_key=SecretStr(clever.key.text),
        max_retries=0,
        temperature=0,
    )


def test_invoke(model: ChatOpenAI) -> None:
    answer = model.invoke([SystemMessage("be brief"), HumanMessage("hi")])
    assert answer.content == "one two three four five"
    assert answer.usage_metadata
    assert answer.usage_metadata["output_tokens"] == 6


def test_stream(model: ChatOpenAI) -> None:
    chunks = list(model.stream("hi", stream_usage=True))
    assert "".join(str(chunk.content) for chunk in chunks) == "one two three four five"
    assert any(chunk.usage_metadata for chunk in chunks)


def test_batch(model: ChatOpenAI) -> None:
    assert len(model.batch(["a", "b", "c"])) == 3


def test_tools_and_back(model: ChatOpenAI) -> None:
    bound = model.bind_tools([weather])
    first = bound.invoke("weather?")
    (call,) = first.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"place": "Oslo"})
    result = ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])
    assert bound.invoke([HumanMessage("weather?"), first, result]).content == "It rains."


def test_tools_in_a_stream(model: ChatOpenAI) -> None:
    whole: Any = None
    for chunk in model.bind_tools([weather]).stream("weather?"):
        whole = chunk if whole is None else whole + chunk
    assert whole.tool_calls[0]["args"] == {"place": "Oslo"}


def test_a_tool_that_must_be_called(model: ChatOpenAI) -> None:
    bound = model.bind_tools([weather], tool_choice="weather", strict=True)
    assert bound.invoke("weather?").tool_calls


@pytest.mark.parametrize("method", ["json_schema", "json_mode", "function_calling"])
def test_structured_output(clever: Any, model: ChatOpenAI, method: Any) -> None:
    from avocado.engine.scripted import Script
    from tests.clients.conftest import answer

    told = '{"city": "Oslo", "degrees": 7}'
    called = '{"name": "Weather", "arguments": ' + told + "}"

    def script(prompt: Any, sampling: Any) -> Script:
        if method == "function_calling":
            return Script(called)
        return Script(told) if method == "json_mode" else answer(prompt, sampling)

    clever.engine.script = script
    found = model.with_structured_output(Weather, method=method).invoke("weather as json?")
    assert found == Weather(city="Oslo", degrees=7)


def test_the_responses_api(clever: Any) -> None:
    model = ChatOpenAI(
        model="avocado-1",
        base_url=f"{clever.url}/v1",
        api_key=SecretStr(clever.key.text),
        max_retries=0,
        use_responses_api=True,
        store=False,
    )
    assert model.invoke("hi").text == "one two three four five"
    whole: Any = None
    for chunk in model.stream("hi"):
        whole = chunk if whole is None else whole + chunk
    assert whole.text == "one two three four five"
    called: Any = model.bind_tools([weather], strict=False).invoke("weather?")
    assert called.tool_calls[0]["args"] == {"place": "Oslo"}
