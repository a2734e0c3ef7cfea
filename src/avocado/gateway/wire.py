"""``/v1/chat/completions``: what OpenAI's clients send and expect.

Parsing is strict. A parameter that we don't serve is a 400 that names it, unless it stands at the
value that changes nothing (``n: 1``, ``tools: []``); nothing is silently ignored. Answers carry
usage with ``cost`` beside it, an exact decimal. Knows nothing about money, engines or sockets.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from avocado.data.chat import Chat, Message
from avocado.engine.engine import FinishReason
from avocado.gateway.errors import ApiError, bad_request, unsupported
from avocado.gateway.surface import Ask, Bill, Serving

MAX_STOPS: Final = 4

Short = Annotated[str, Meta(max_length=512)]

# What the parameters below mean nothing at. None (null) means nothing for all of them.
_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "audio": (),
    "frequency_penalty": (0, 0.0),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0, 0.0),
    "prompt_cache_key": (),
    "prompt_cache_retention": (),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (),
    "verbosity": ("medium",),
    "web_search_options": (),
}
# The same for what assistant messages of an earlier answer carry when a client sends them back.
_NEUTRAL_IN_MESSAGE: Final[dict[str, tuple[Any, ...]]] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "name": (),
    "reasoning_content": ("",),
    "refusal": (),
    "tool_call_id": (),
    "tool_calls": ([],),
}
_KINDS: Final = {"image_url": "images", "input_audio": "audio", "file": "files"}


class _Part(Struct, forbid_unknown_fields=True):
    """One part of a message's content. Only text is served."""

    type: str
    text: str | None = None
    image_url: Any = None
    input_audio: Any = None
    file: Any = None
    refusal: Any = None


class _Message(Struct, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[_Part] | None = None
    name: Any = None
    refusal: Any = None
    annotations: Any = None
    audio: Any = None
    function_call: Any = None
    reasoning_content: Any = None
    tool_call_id: Any = None
    tool_calls: Any = None


class _StreamOptions(Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class _Request(Struct, forbid_unknown_fields=True):
    model: str
    messages: Annotated[list[_Message], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    user: Short | None = None
    metadata: Annotated[dict[Short, Short], Meta(max_length=16)] | None = None
    audio: Any = None
    frequency_penalty: Any = None
    function_call: Any = None
    functions: Any = None
    logit_bias: Any = None
    logprobs: Any = None
    modalities: Any = None
    n: Any = None
    parallel_tool_calls: Any = None
    prediction: Any = None
    presence_penalty: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    reasoning_effort: Any = None
    response_format: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None
    tool_choice: Any = None
    tools: Any = None
    top_logprobs: Any = None
    verbosity: Any = None
    web_search_options: Any = None


_decode = msgspec.json.Decoder(_Request).decode
_encode = msgspec.json.Encoder().encode
_UNKNOWN = re.compile(r"unknown field `(.*?)`(?: - at `\$\.?(.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"missing required field `(.*?)`(?: - at `\$\.?(.*)`)?$")
_PLACE = re.compile(r" - at `\$\.?(.*)`$", re.DOTALL)


def read_json(decode: Any, body: bytes) -> Any:
    """Decodes one body; every way in which it can be wrong is a 400 that says where."""
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"The body is not valid JSON: {error}", code="invalid_json") from None
    except RecursionError:
        raise bad_request("The body is nested too deeply", code="invalid_json") from None


def _misfit(said: str) -> ApiError:
    unknown = _UNKNOWN.search(said)
    if unknown is not None:
        name = ".".join(part for part in (unknown.group(2), unknown.group(1)) if part)
        return bad_request(f"Unknown parameter: {name!r}", name, "unknown_parameter")
    missing = _MISSING.search(said)
    if missing is not None:
        name = ".".join(part for part in (missing.group(2), missing.group(1)) if part)
        return bad_request(f"Missing required parameter: {name!r}", name, "missing_parameter")
    place = _PLACE.search(said)
    if place is None:
        return bad_request(f"The body must be a JSON object: {said}")
    return bad_request(
        f"Invalid value for {place.group(1)}: {said[: place.start()]}", place.group(1)
    )


def _refuse_set(value: Struct, neutral: dict[str, tuple[Any, ...]], prefix: str = "") -> None:
    for name, harmless in neutral.items():
        given = getattr(value, name)
        if given is None or any(type(given) is type(h) and given == h for h in harmless):
            continue
        if harmless and name == "n":
            raise unsupported("n", "n must be 1: this server gives one choice a request")
        raise unsupported(prefix + name)


def _text(content: str | list[_Part] | None, place: str) -> str:
    if isinstance(content, str):
        return content
    if not content:
        raise bad_request(f"Invalid value for {place}: it needs text", place)
    texts = []
    for index, part in enumerate(content):
        where = f"{place}[{index}]"
        if part.type != "text":
            kind = _KINDS.get(part.type, f"content parts of type {part.type[:40]!r}")
            raise unsupported(where, f"This model reads text only: {kind} are not supported")
        if part.text is None or any((part.image_url, part.input_audio, part.file, part.refusal)):
            raise bad_request(f"Invalid value for {where}: a text part has text alone", where)
        texts.append(part.text)
    return "\n".join(texts)


def _messages(request: _Request) -> tuple[Message, ...]:
    read: list[Message] = []
    for index, message in enumerate(request.messages):
        place = f"messages[{index}]"
        role: str = message.role
        if role in ("tool", "function"):
            raise unsupported(f"{place}.role", "Tools are not supported by this server")
        _refuse_set(message, _NEUTRAL_IN_MESSAGE, f"{place}.")
        text = _text(message.content, f"{place}.content")
        read.append({"role": "system" if role == "developer" else role, "content": text})
    return tuple(read)


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    found = () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)
    if len(found) > MAX_STOPS:
        raise bad_request(f"Invalid value for stop: at most {MAX_STOPS} strings", "stop")
    if not all(0 < len(each) <= 512 for each in found):
        raise bad_request("Invalid value for stop: each string has 1 to 512 characters", "stop")
    return found


def _max_tokens(request: _Request) -> int | None:
    old, new = request.max_tokens, request.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise bad_request(
            "max_tokens and max_completion_tokens say different things; send one of them",
            "max_tokens",
        )
    return old if new is None else new


class ChatCompletions:
    """The surface of ``POST /v1/chat/completions``."""

    def read(self, body: bytes) -> Ask:
        request: _Request = read_json(_decode, body)
        _refuse_set(request, _NEUTRAL)
        stream = request.stream is True
        options = request.stream_options
        if options is not None and not stream:
            raise bad_request("stream_options needs stream: true", "stream_options")
        return Ask(
            model=request.model,
            chat=Chat(_messages(request)),
            stream=stream,
            usage_wanted=options is not None and options.include_usage is True,
            max_tokens=_max_tokens(request),
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            top_k=request.top_k or 0,
            seed=request.seed,
            stop=_stops(request.stop),
            user=request.user,
        )

    def voice(self, ask: Ask, serving: Serving) -> ChatVoice:
        return ChatVoice(serving, ask.usage_wanted)


class ChatVoice:
    """Writes one chat completion, whole or as server-sent events.

    What repeats in every event is encoded once; text is always a JSON string, so an answer that
    contains ``data: [DONE]`` stays content.
    """

    def __init__(self, serving: Serving, usage_wanted: bool) -> None:
        self._usage_wanted = usage_wanted
        self._serving = serving
        self._open = self._head("chat.completion.chunk")
        self._null = b',"usage":null' if usage_wanted else b""
        self._delta = b"data: " + self._open + b',"choices":[{"index":0,"delta":{"content":'
        self._end = b'},"logprobs":null,"finish_reason":null}]' + self._null + b"}\n\n"

    def _head(self, kind: str) -> bytes:
        serving = self._serving
        head = {
            "id": f"chatcmpl-{serving.id}",
            "object": kind,
            "created": serving.created,
            "model": serving.model,
            "system_fingerprint": serving.release,
        }
        return _encode(head)[:-1]

    def whole(self, text: str, reason: FinishReason, bill: Bill) -> bytes:
        return b"".join(
            (
                self._head("chat.completion"),
                b',"choices":[{"index":0,"message":{"role":"assistant","content":',
                _encode(text),
                b',"refusal":null},"logprobs":null,"finish_reason":"',
                reason.encode(),
                b'"}],"usage":',
                usage_json(bill),
                b"}",
            )
        )

    def first(self) -> bytes:
        return (
            b"data: "
            + self._open
            + b',"choices":[{"index":0,"delta":{"role":"assistant","content":""'
            + self._end
        )

    def delta(self, text: str) -> bytes:
        return self._delta + _encode(text) + self._end

    def last(self, reason: FinishReason, bill: Bill) -> bytes:
        usage = b""
        if self._usage_wanted:
            usage = b"data: " + self._open + b',"choices":[],"usage":' + usage_json(bill) + b"}\n\n"
        return self._closing(reason.encode()) + self._null + b"}\n\n" + usage + b"data: [DONE]\n\n"

    def broken(self, error: ApiError, bill: Bill | None) -> bytes:
        usage = b',"usage":' + usage_json(bill) if bill and self._usage_wanted else b""
        told = b',"error":' + _encode(error.fields())
        return self._closing(b"error") + usage + told + b"}\n\ndata: [DONE]\n\n"

    def _closing(self, reason: bytes) -> bytes:
        return (
            b"data: "
            + self._open
            + b',"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"'
            + reason
            + b'"}]'
        )


def usage_json(bill: Bill) -> bytes:
    """OpenAI's usage object, and ``cost``: the exact charge in units of the currency."""
    usage = bill.usage
    return (
        b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
        b'"prompt_tokens_details":{"cached_tokens":%d,"audio_tokens":0},'
        b'"completion_tokens_details":{"reasoning_tokens":%d,"audio_tokens":0,'
        b'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0},'
        b'"cost":%s,"cost_currency":"%s"}'
    ) % (
        usage.prompt,
        usage.completion,
        usage.total,
        usage.cached,
        usage.reasoning,
        bill.cost.decimal().encode(),
        bill.cost.currency.encode(),
    )
