"""``POST /v1/chat/completions``: what OpenAI's clients ask. Knows nothing about answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from avocado.data.chat import Chat, Prompt
from avocado.engine.engine import Grammar, Json, JsonSchema
from avocado.gateway.errors import bad_request, unsupported
from avocado.gateway.surface import Ask, Serving
from avocado.gateway.surfaces.chat_voice import ChatVoice
from avocado.gateway.surfaces.history import History, PastCall
from avocado.gateway.surfaces.tools import Choice, Function, Toolset, choose
from avocado.gateway.wire import (
    MAX_CHOICES,
    Neutral,
    Short,
    read_bias,
    read_json,
    read_stops,
    refuse_set,
)

NEUTRAL: Final[Neutral] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "prediction": (),
    "prompt_cache_key": (),
    "prompt_cache_retention": (),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
# The same for what messages carry.
NEUTRAL_IN_MESSAGE: Final[Neutral] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "name": (),
    "refusal": (),
}
_KINDS: Final = {"image_url": "images", "input_audio": "audio", "file": "files"}

Name = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]


class ChatPart(Struct, forbid_unknown_fields=True):
    """One part of a message's content. Only text is served."""

    type: str
    text: str | None = None
    image_url: Any = None
    input_audio: Any = None
    file: Any = None
    refusal: Any = None


class CalledFunction(Struct, forbid_unknown_fields=True):
    name: str
    arguments: str
    parsed_arguments: Any = None
    """OpenAI's helpers send their own reading of ``arguments`` back with it; so does ``parsed``."""


class ToolCall(Struct, forbid_unknown_fields=True):
    id: str
    function: CalledFunction
    type: Literal["function"] = "function"
    index: int | None = None
    """Of a stream's chunk; it says nothing here."""


class ChatMessage(Struct, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ChatPart] | None = None
    name: Any = None
    refusal: Any = None
    annotations: Any = None
    audio: Any = None
    function_call: Any = None
    parsed: Any = None
    reasoning_content: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[ToolCall] | None = None


class StreamOptions(Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class FunctionDefinition(Struct, forbid_unknown_fields=True):
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChatTool(Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(Struct, forbid_unknown_fields=True):
    name: str


class NamedTool(Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    function: NamedFunction


class TextFormat(Struct, tag="text", tag_field="type", forbid_unknown_fields=True):
    pass


class JsonFormat(Struct, tag="json_object", tag_field="type", forbid_unknown_fields=True):
    pass


class NamedSchema(Struct, forbid_unknown_fields=True):
    name: Name
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class SchemaFormat(Struct, tag="json_schema", tag_field="type", forbid_unknown_fields=True):
    json_schema: NamedSchema


class TemplateOptions(Struct, forbid_unknown_fields=True):
    enable_thinking: bool | None = None


class ThinkingOption(Struct, forbid_unknown_fields=True):
    type: Literal["enabled", "disabled"]


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


class ChatRequest(Struct, forbid_unknown_fields=True):
    model: str
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    logit_bias: (
        Annotated[dict[str, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1024)] | None
    ) = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[ChatTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: TextFormat | JsonFormat | SchemaFormat | None = None
    reasoning_effort: Effort | None = None
    chat_template_kwargs: TemplateOptions | None = None
    thinking: ThinkingOption | None = None
    user: Short | None = None
    metadata: Annotated[dict[Short, Short], Meta(max_length=16)] | None = None
    audio: Any = None
    function_call: Any = None
    functions: Any = None
    modalities: Any = None
    prediction: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None
    verbosity: Any = None
    web_search_options: Any = None


_decode = msgspec.json.Decoder(ChatRequest).decode
MAX_NOW: Final = "max_completion_tokens"
"""What OpenAI calls ``max_tokens`` now."""


class ChatCompletions:
    """The surface of ``POST /v1/chat/completions``."""

    names: Mapping[str, str] = {"thinking": "reasoning_effort"}

    def read(self, body: bytes) -> Ask:
        request: ChatRequest = read_json(_decode, body)
        refuse_set(request, NEUTRAL)
        stream = request.stream is True
        options = request.stream_options
        if options is not None and not stream:
            raise bad_request("stream_options needs stream: true", "stream_options")
        toolset = _tools(request)
        grammar = _grammar(request, toolset)
        stops = read_stops(request.stop)
        check_logprobs(request.logprobs, request.top_logprobs, bool(request.logit_bias))
        return Ask(
            model=request.model,
            prompt=Chat(_messages(request), toolset.tools, _thinking(request)),
            stream=stream,
            usage_wanted=options is not None and options.include_usage is True,
            max_tokens=_max_tokens(request),
            max_from="max_tokens" if request.max_completion_tokens is None else MAX_NOW,
            n=request.n or 1,
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            top_k=request.top_k or 0,
            seed=request.seed,
            stop=(*stops, *toolset.stop),
            presence_penalty=request.presence_penalty or 0.0,
            frequency_penalty=request.frequency_penalty or 0.0,
            logit_bias=read_bias(request.logit_bias),
            logprobs=request.logprobs is True,
            top_logprobs=request.top_logprobs or 0,
            grammar=grammar,
            grammar_from=toolset.grammar_from or "response_format",
            forced=toolset.forced,
            user=request.user,
        )

    def voice(self, ask: Ask, serving: Serving, prompts: Sequence[Prompt]) -> ChatVoice:
        return ChatVoice(ask, serving, prompts[0])


def check_logprobs(logprobs: bool | None, top: int | None, biased: bool) -> None:
    """Raises ApiError: 400, what excludes each other."""
    if top and not logprobs:
        raise bad_request("top_logprobs needs logprobs: true", "top_logprobs")
    if logprobs and biased:
        raise unsupported("logprobs", "logprobs and logit_bias exclude each other")


def _text(content: str | list[ChatPart] | None, place: str) -> str:
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


def _messages(request: ChatRequest) -> tuple[Mapping[str, Any], ...]:
    history = History()
    for index, message in enumerate(request.messages):
        _add(history, message, f"messages[{index}]")
    return history.turns()


def _add(history: History, message: ChatMessage, place: str) -> None:
    refuse_set(message, NEUTRAL_IN_MESSAGE, f"{place}.")
    role = message.role
    if role == "function":
        raise unsupported(f"{place}.role", "Send the result of a tool with the role tool")
    for name in ("reasoning_content", "tool_calls"):
        if getattr(message, name) and role != "assistant":
            raise bad_request(f"Only an assistant message has {name}", f"{place}.{name}")
    if message.tool_call_id is not None and role != "tool":
        raise bad_request("Only a tool message has tool_call_id", f"{place}.tool_call_id")
    if role == "assistant":
        calls = [
            PastCall(call.id, call.function.name, call.function.arguments)
            for call in message.tool_calls or ()
        ]
        bare = message.content is None and calls
        text = "" if bare else _text(message.content, f"{place}.content")
        history.assistant(text, place, message.reasoning_content or "", calls)
        return
    text = _text(message.content, f"{place}.content")
    if role == "tool":
        if message.tool_call_id is None:
            raise bad_request("A tool message needs tool_call_id", f"{place}.tool_call_id")
        history.result(message.tool_call_id, text, f"{place}.tool_call_id")
    else:
        history.say("user" if role == "user" else "system", text)


def _tools(request: ChatRequest) -> Toolset:
    functions = [
        Function(
            tool.function.name,
            tool.function.description,
            tool.function.parameters,
            tool.function.strict is True,
        )
        for tool in request.tools or ()
    ]
    given = request.tool_choice
    if isinstance(given, NamedTool):
        choice = Choice("required", given.function.name)
    else:
        choice = Choice(given or "auto")
    return choose(
        functions, choice, request.parallel_tool_calls is not False, ("tools", "tool_choice")
    )


def _grammar(request: ChatRequest, toolset: Toolset) -> Grammar | None:
    given = request.response_format
    if given is None or isinstance(given, TextFormat):
        return toolset.grammar
    if toolset.tools:
        raise unsupported(
            "response_format", "response_format and tools that may be called exclude each other"
        )
    if isinstance(given, JsonFormat):
        return Json()
    return JsonSchema(msgspec.json.encode(given.json_schema.schema).decode())


def _thinking(request: ChatRequest) -> bool:
    """Whether to think first. Three dialects say it; they must not contradict each other."""
    said: dict[str, bool] = {}
    if request.reasoning_effort is not None:
        said["reasoning_effort"] = request.reasoning_effort != "none"
    if request.chat_template_kwargs and request.chat_template_kwargs.enable_thinking is not None:
        said["chat_template_kwargs"] = request.chat_template_kwargs.enable_thinking
    if request.thinking is not None:
        said["thinking"] = request.thinking.type == "enabled"
    if len(set(said.values())) > 1:
        names = " and ".join(said)
        raise bad_request(f"{names} say different things; send one of them", next(iter(said)))
    return any(said.values())


def _max_tokens(request: ChatRequest) -> int | None:
    old, new = request.max_tokens, request.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise bad_request(
            "max_tokens and max_completion_tokens say different things; send one of them",
            "max_tokens",
        )
    return old if new is None else new
