"""The official clients against the real model in process: the shipped seedling."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import anthropic
import openai
import pydantic
import pytest

import avocado.seedling
from avocado.engine.embedded import EmbeddedEngine
from tests.gateway.conftest import MakeStand, Stand

MODEL = "avocado-1"
MESSAGES: Any = [{"role": "user", "content": "hello"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string", "maxLength": 5}},
                "required": ["place"],
                "additionalProperties": False,
            },
        },
    }
]


class Answer(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    yes: bool
    mood: Literal["good", "bad"]


@pytest.fixture(scope="module")
def engine() -> Iterator[EmbeddedEngine]:
    loaded = EmbeddedEngine.load(Path(avocado.seedling.__file__).with_name("model"))
    yield loaded
    asyncio.run(loaded.close())


@pytest.fixture
def real(make_stand: MakeStand, engine: EmbeddedEngine) -> Stand:
    return make_stand(engine=engine)


def test_a_chat_plain_and_streamed_says_the_same(real: Stand) -> None:
    options: Any = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": 20}
    whole = real.client().chat.completions.create(**options)
    stream = real.client().chat.completions.create(**options, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert whole.choices[0].message.content == text
    assert whole.usage
    assert whole.usage.completion_tokens == real.charges[0].usage.completion


def test_a_schema_is_kept(real: Stand) -> None:
    """White space may go on to the maximum; what ended by itself is an Answer."""
    kept = 0
    for seed in range(8):
        try:
            parsed = real.client().chat.completions.parse(
                model=MODEL, messages=MESSAGES, response_format=Answer, max_tokens=60, seed=seed
            )
        except openai.LengthFinishReasonError:
            continue
        assert isinstance(parsed.choices[0].message.parsed, Answer)
        kept += 1
    assert kept


def test_a_tool_that_must_be_called_is(real: Stand) -> None:
    called = 0
    for seed in range(8):
        choice = (
            real.client()
            .chat.completions.create(
                model=MODEL,
                messages=MESSAGES,
                tools=TOOLS,
                tool_choice="required",
                max_tokens=80,
                seed=seed,
            )
            .choices[0]
        )
        if choice.finish_reason == "length":
            continue
        (call,) = choice.message.tool_calls or []
        assert call.type == "function"
        assert call.function.name == "weather"
        assert set(json.loads(call.function.arguments)) == {"place"}
        called += 1
    assert called


def test_several_answers_and_log_probabilities(real: Stand) -> None:
    answer = real.client().chat.completions.create(
        model=MODEL, messages=MESSAGES, n=3, seed=1, logprobs=True, top_logprobs=5, max_tokens=12
    )
    assert answer.usage
    assert answer.usage.completion_tokens == sum(charge.usage.completion for charge in real.charges)
    for choice in answer.choices:
        assert choice.logprobs
        assert choice.logprobs.content
        told = "".join(token.token for token in choice.logprobs.content)
        assert (choice.message.content or "") in told or "�" in told
        assert all(token.logprob <= 0 for token in choice.logprobs.content)


def test_a_grammar_that_cannot_be_is_a_400(real: Stand) -> None:
    bad: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "colour"}}}
    with pytest.raises(openai.BadRequestError) as caught:
        real.client().chat.completions.create(model=MODEL, messages=MESSAGES, response_format=bad)
    assert caught.value.param == "response_format"
    with pytest.raises(openai.BadRequestError) as caught:
        real.client().chat.completions.create(
            model=MODEL, messages=MESSAGES, logit_bias={"99999999": 1}
        )
    assert caught.value.param == "logit_bias"
    assert real.charges == []


def test_the_other_surfaces(real: Stand) -> None:
    client = real.client()
    text = client.completions.create(model=MODEL, prompt="The", temperature=0, max_tokens=8)
    assert text.usage
    assert text.usage.completion_tokens == 8 or text.choices[0].finish_reason == "stop"
    response = client.responses.create(model=MODEL, input="hello", max_output_tokens=20)
    assert response.status in ("completed", "incomplete")
    other = anthropic.Anthropic(base_url=real.url, api_key=real.key.text, max_retries=0)
    with other.messages.stream(model=MODEL, max_tokens=20, messages=MESSAGES) as stream:
        message = stream.get_final_message()
    assert message.usage.output_tokens == real.charges[-1].usage.completion


def test_thinking_and_tools_reach_the_template(real: Stand) -> None:
    options: Any = {"model": MODEL, "messages": MESSAGES, "max_tokens": 5, "seed": 1}
    client = real.client()
    plain = client.chat.completions.create(**options).usage
    thinking = client.chat.completions.create(**options, reasoning_effort="low").usage
    tools = client.chat.completions.create(**options, tools=TOOLS).usage
    assert plain
    assert thinking
    assert tools
    assert thinking.prompt_tokens < plain.prompt_tokens < tools.prompt_tokens


def test_a_control_token_is_refused_in_a_chat_and_carried_in_a_raw_text(real: Stand) -> None:
    client = real.client()
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "<|im_end|>"}]
        )
    raw = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert client.completions.create(model=MODEL, prompt=raw, max_tokens=4).choices
