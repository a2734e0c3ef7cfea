"""The wire: what is understood, what is refused by name, and what answers look like."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from avocado.data.chat import Chat, Prompt
from avocado.engine.engine import Delta, Finish, FinishReason
from avocado.gateway.errors import ApiError, bad_request
from avocado.gateway.surface import Answer, Ask, Bill, Serving
from avocado.gateway.surfaces.chat_completions import ChatCompletions
from avocado.gateway.surfaces.chat_voice import ChatVoice
from avocado.terms.money import Money
from avocado.terms.usage import Usage

SERVING = Serving("req_1", 1_700_000_000, "avocado-1", "release-abc")
BILL = Bill(Usage(7, 5, 3, 2), Money(12_345))
SURFACE = ChatCompletions()


def voice(usage: bool = False) -> ChatVoice:
    ask = Ask("m", Chat(()), stream=True, usage_wanted=usage)
    return SURFACE.voice(ask, SERVING, (Prompt("hi", (1,)),))


def answer(text: str, reason: FinishReason = "stop") -> Answer:
    return Answer(text, Finish(reason, BILL.usage))


def turns(ask: Ask) -> list[dict[str, Any]]:
    assert isinstance(ask.prompt, Chat)
    return [dict(message) for message in ask.prompt.messages]


def body(**more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}


def read(**more: Any) -> Ask:
    return SURFACE.read(json.dumps(body(**more)).encode())


def refused(value: Any) -> ApiError:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(ApiError) as caught:
        SURFACE.read(data)
    assert caught.value.status == 400
    assert caught.value.type == "invalid_request_error"
    return caught.value


def test_everything_that_is_served_is_read() -> None:
    ask = read(
        messages=[
            {"role": "developer", "content": "be brief"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
            {"role": "assistant", "content": "ok", "refusal": None, "tool_calls": None},
            {"role": "user", "content": "go"},
        ],
        max_completion_tokens=9,
        temperature=0,
        top_p=0.5,
        top_k=3,
        seed=-7,
        stop=["x", "y"],
        stream=True,
        stream_options={"include_usage": True},
        user="u",
        metadata={"k": "v"},
    )
    assert [message["role"] for message in turns(ask)] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert turns(ask)[1]["content"] == "a\nb"
    assert (ask.max_tokens, ask.temperature, ask.top_p, ask.top_k) == (9, 0.0, 0.5, 3)
    assert (ask.seed, ask.stop, ask.stream, ask.usage_wanted, ask.user) == (
        -7,
        ("x", "y"),
        True,
        True,
        "u",
    )


def test_defaults_are_those_of_openai() -> None:
    ask = read()
    assert ask == Ask("m", ask.prompt)
    assert (ask.temperature, ask.top_p, ask.stream, ask.max_tokens, ask.stop) == (
        1,
        1,
        False,
        None,
        (),
    )
    nulls = dict.fromkeys(
        (
            "max_tokens temperature top_p stop seed stream stream_options user metadata tools n "
            "logprobs response_format logit_bias"
        ).split()
    )
    assert read(**nulls) == ask


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("functions", [{"name": "f"}]),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy"}),
        ("prediction", {"type": "content", "content": "x"}),
        ("store", True),
        ("service_tier", "flex"),
        ("web_search_options", {}),
        ("prompt_cache_key", "k"),
        ("safety_identifier", "s"),
        ("verbosity", "low"),
    ],
)
def test_what_is_not_served_is_refused_by_name(name: str, value: Any) -> None:
    error = refused(body(**{name: value}))
    assert (error.param, error.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tools", []),
        ("tool_choice", "auto"),
        ("logprobs", False),
        ("n", 1),
        ("response_format", {"type": "text"}),
        ("logit_bias", {}),
        ("presence_penalty", 0),
        ("frequency_penalty", 0.0),
        ("modalities", ["text"]),
        ("store", False),
        ("service_tier", "auto"),
        ("parallel_tool_calls", True),
    ],
)
def test_what_changes_nothing_may_be_said(name: str, value: Any) -> None:
    assert read(**{name: value}) == read()


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stop": [1]}, "stop[0]"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ({"user": "x" * 513}, "user"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"n": 9}, "n"),
        ({"n": 0}, "n"),
        ({"n": 10**9}, "n"),
        ({"n": True}, "n"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 6}, "top_logprobs"),
        ({"logprobs": True, "logit_bias": {"1": 1}}, "logprobs"),
        ({"logit_bias": {"the": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        (
            {"reasoning_effort": "none", "thinking": {"type": "enabled"}},
            "reasoning_effort",
        ),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "name": "Jo"}]}, "messages[0].name"),
        ({"messages": [{"role": "user", "content": "x", "weight": 1}]}, "messages[0].weight"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"model": 3}, "model"),
        ({"best_of": 3}, "best_of"),
        ({"chat_template_kwargs": {"date": "today"}}, "chat_template_kwargs.date"),
    ],
)
def test_what_is_wrong_is_named(more: dict[str, Any], param: str) -> None:
    assert refused(body(**more)).param == param


def test_images_are_refused_clearly_and_never_fetched() -> None:
    image = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}
    error = refused(body(messages=[{"role": "user", "content": [image]}]))
    assert error.param == "messages[0].content[0]"
    assert "text only" in error.message


def test_a_missing_model_is_named() -> None:
    error = refused({"messages": [{"role": "user", "content": "hi"}]})
    assert (error.param, error.code) == ("model", "missing_parameter")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b'"x"',
        b"{",
        b'{"model":"m","messages":[]} x',
        b"[" * 100_000,
        b'{"tools":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"metadata":' + b'{"a":' * 50_000,
        b"\xff\xfe",
        b'{"model":"\xff"}',
        b'{"\xff":1}',
    ],
)
def test_fault_26_what_is_no_object_or_nested_without_end_is_a_400(data: bytes) -> None:
    refused(data)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_fault_27_numbers_that_are_none(word: str) -> None:
    refused(
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":%s}' % word.encode()
    )


@pytest.mark.parametrize("escape", [rb"\ud800", rb"\udc00", rb"\ud800A", rb"\ud800\u0041"])
def test_fault_28_a_lone_surrogate_is_a_400(escape: bytes) -> None:
    refused(b'{"model":"m","messages":[{"role":"user","content":"%s"}]}' % escape)


@given(st.text())
def test_fault_28_every_other_text_is_carried_without_loss(text: str) -> None:
    sent = msgspec.json.encode(body(messages=[{"role": "user", "content": text}]))
    assert turns(SURFACE.read(sent))[0]["content"] == text
    speaker = voice()
    sent = speaker.delta(0, Delta(text, 1)) + speaker.last([answer(text).finish], BILL)
    said = [event["choices"][0]["delta"].get("content", "") for event in _events(sent)]
    assert "".join(said) == text
    whole = json.loads(voice().whole([answer(text)], BILL))
    assert whole["choices"][0]["message"]["content"] == text


def test_fault_29_an_answer_that_looks_like_the_end_stays_content() -> None:
    text = "a\n\ndata: [DONE]\n\n\r\ndata: {}"
    sent = voice().delta(0, Delta(text, 1))
    assert sent.count(b"\n\n") == 1
    assert sent.endswith(b"\n\n")
    assert _events(sent)[0]["choices"][0]["delta"]["content"] == text


def test_openai_reads_a_whole_answer() -> None:
    data = voice().whole([answer("hé", "length")], BILL)
    read = ChatCompletion.model_validate_json(data, strict=True)
    assert read.choices[0].message.content == "hé"
    assert read.choices[0].finish_reason == "length"
    usage = read.usage
    assert isinstance(usage, CompletionUsage)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (7, 5, 12)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 3
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 2
    assert b'"cost":0.000012345,"cost_currency":"USD"' in data


@pytest.mark.parametrize("usage", [False, True])
def test_openai_reads_a_stream(usage: bool) -> None:
    speaker = voice(usage)
    sent = speaker.first() + speaker.delta(0, Delta("a", 1))
    sent += speaker.last([answer("a").finish], BILL)
    assert sent.endswith(b"data: [DONE]\n\n")
    chunks = [ChatCompletionChunk.model_validate(event, strict=False) for event in _events(sent)]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[1].choices[0].delta.content == "a"
    assert chunks[2].choices[0].finish_reason == "stop"
    assert len(chunks) == (4 if usage else 3)
    assert (chunks[-1].usage is not None) == usage
    assert {chunk.id for chunk in chunks} == {"chatcmpl-req_1"}


def test_a_broken_stream_says_why_and_ends() -> None:
    sent = voice(True).broken(bad_request("why", "p", "c"), BILL)
    (event,) = _events(sent)
    assert event["error"] == {
        "message": "why",
        "type": "invalid_request_error",
        "param": "p",
        "code": "c",
    }
    assert event["choices"][0]["finish_reason"] == "error"
    assert event["usage"]["total_tokens"] == 12


@given(st.binary(max_size=300))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    refused(data)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
_NAMES = [
    "max_tokens",
    "temperature",
    "stop",
    "seed",
    "tools",
    "n",
    "logit_bias",
    "stream",
    "metadata",
]


@given(st.dictionaries(st.sampled_from(_NAMES), _json, max_size=4))
def test_any_json_is_an_ask_or_a_400_that_names_a_parameter(more: dict[str, Any]) -> None:
    error = _refusal(more)
    if error is not None:
        assert (error.status, bool(error.param)) == (400, True)
        assert str(error.param).split("[")[0].split(".")[0] in {*more, "stream_options"}


def _refusal(more: dict[str, Any]) -> ApiError | None:
    try:
        read(**more)
    except ApiError as error:
        return error
    return None


def _events(sent: bytes) -> list[Any]:
    parts = sent.decode().split("\n\n")
    return [
        json.loads(part.removeprefix("data: ")) for part in parts if part and part[6:] != "[DONE]"
    ]
