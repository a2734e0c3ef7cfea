"""``POST /v1/responses``: what OpenAI's clients ask there. Nothing is stored, so a conversation
comes whole each time. Knows nothing about answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from avocado.data.chat import Chat, Prompt
from avocado.engine.engine import Grammar, Json, JsonSchema
from avocado.gateway.errors import bad_request, unsupported
from avocado.gateway.surface import Ask, Serving
from avocado.gateway.surfaces.chat_completions import Effort, Name
from avocado.gateway.surfaces.items import InputItem, read_items
from avocado.gateway.surfaces.response_voice import ResponsesAsk, ResponseVoice
from avocado.gateway.surfaces.tools import Choice, Function, Toolset, choose
from avocado.gateway.wire import Neutral, Short, read_json, refuse_set

NEUTRAL: Final[Neutral] = {
    "access_programs": (),
    "background": (False,),
    "background_options": (),
    "context_management": (),
    "conversation": (),
    "frequency_penalty": (0, 0.0),
    "image": (),
    "max_tool_calls": (),
    "moderation": (),
    "presence_penalty": (0, 0.0),
    "previous_response_id": (),
    "prompt": (),
    "prompt_cache_key": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "truncation": ("disabled",),
}
LOGPROBS: Final = "message.output_text.logprobs"


class ResponseTool(Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseToolChoice(Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    name: str


class PlainFormat(Struct, tag="text", tag_field="type", forbid_unknown_fields=True):
    pass


class ObjectFormat(Struct, tag="json_object", tag_field="type", forbid_unknown_fields=True):
    pass


class ResponseSchema(Struct, tag="json_schema", tag_field="type", forbid_unknown_fields=True):
    name: Name
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class TextConfig(Struct, forbid_unknown_fields=True):
    format: PlainFormat | ObjectFormat | ResponseSchema | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(Struct, forbid_unknown_fields=True):
    effort: Effort | None = None
    summary: Literal[None] = None
    generate_summary: Literal[None] = None


class ResponseStreamOptions(Struct, forbid_unknown_fields=True):
    include_obfuscation: Literal[False] | None = None


class ResponsesRequest(Struct, forbid_unknown_fields=True):
    model: str
    input: str | Annotated[list[InputItem], Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    include: list[Literal["message.output_text.logprobs"]] | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ResponseToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    metadata: Annotated[dict[Short, Short], Meta(max_length=16)] | None = None
    user: Short | None = None
    access_programs: Any = None
    background: Any = None
    background_options: Any = None
    context_management: Any = None
    conversation: Any = None
    frequency_penalty: Any = None
    image: Any = None
    max_tool_calls: Any = None
    moderation: Any = None
    presence_penalty: Any = None
    previous_response_id: Any = None
    prompt: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None
    truncation: Any = None


_decode = msgspec.json.Decoder(ResponsesRequest).decode


class Responses:
    """The surface of ``POST /v1/responses``."""

    names: Mapping[str, str] = {
        "messages": "input",
        "max_tokens": "max_output_tokens",
        "thinking": "reasoning",
        "response_format": "text.format",
    }

    def read(self, body: bytes) -> Ask:
        request: ResponsesRequest = read_json(_decode, body)
        refuse_set(request, NEUTRAL)
        stream = request.stream is True
        if request.stream_options is not None and not stream:
            raise bad_request("stream_options needs stream: true", "stream_options")
        toolset = _tools(request)
        grammar = _grammar(request, toolset)
        effort = request.reasoning.effort if request.reasoning else None
        return ResponsesAsk(
            model=request.model,
            prompt=Chat(
                read_items(request.instructions, request.input),
                toolset.tools,
                effort not in (None, "none"),
            ),
            stream=stream,
            usage_wanted=True,
            max_tokens=request.max_output_tokens,
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            stop=toolset.stop,
            logprobs=bool(request.top_logprobs or LOGPROBS in (request.include or ())),
            top_logprobs=request.top_logprobs or 0,
            grammar=grammar,
            grammar_from=toolset.grammar_from or "text.format",
            forced=toolset.forced,
            user=request.user,
            echo=_echo(request, effort),
        )

    def voice(self, ask: Ask, serving: Serving, prompts: Sequence[Prompt]) -> ResponseVoice:
        assert isinstance(ask, ResponsesAsk)
        return ResponseVoice(ask, serving, prompts[0])


def _tools(request: ResponsesRequest) -> Toolset:
    functions = [
        Function(tool.name, tool.description, tool.parameters, tool.strict is True)
        for tool in request.tools or ()
    ]
    given = request.tool_choice
    if isinstance(given, ResponseToolChoice):
        choice = Choice("required", given.name)
    else:
        choice = Choice(given or "auto")
    return choose(
        functions, choice, request.parallel_tool_calls is not False, ("tools", "tool_choice")
    )


def _grammar(request: ResponsesRequest, toolset: Toolset) -> Grammar | None:
    given = request.text.format if request.text else None
    if given is None or isinstance(given, PlainFormat):
        return toolset.grammar
    if toolset.tools:
        raise unsupported(
            "text.format", "text.format and tools that may be called exclude each other"
        )
    if isinstance(given, ObjectFormat):
        return Json()
    return JsonSchema(msgspec.json.encode(given.schema).decode())


def _echo(request: ResponsesRequest, effort: str | None) -> dict[str, Any]:
    """What a response repeats of its request."""
    given = request.text.format if request.text else None
    shown: dict[str, Any] = msgspec.to_builtins(given) if given else {"type": "text"}
    if isinstance(given, ResponseSchema):
        shown["strict"] = True  # the grammar holds the model to it in any case
    tools = [
        {**msgspec.to_builtins(tool), "strict": tool.strict is True} for tool in request.tools or ()
    ]
    return {
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "reasoning": {"effort": effort, "summary": None},
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": {"format": shown, "verbosity": "medium"},
        "tool_choice": msgspec.to_builtins(request.tool_choice or "auto"),
        "tools": tools,
        "top_logprobs": request.top_logprobs or 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "user": request.user,
    }
