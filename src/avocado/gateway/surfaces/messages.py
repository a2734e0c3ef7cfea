"""``POST /v1/messages``: what Anthropic's clients ask. Knows nothing about answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from avocado.data.chat import Chat, Prompt
from avocado.engine.engine import Grammar, JsonSchema
from avocado.gateway.errors import bad_request, unsupported
from avocado.gateway.surface import Ask, Serving
from avocado.gateway.surfaces.chat_completions import Name
from avocado.gateway.surfaces.history import History, PastCall
from avocado.gateway.surfaces.message_voice import MessageVoice
from avocado.gateway.surfaces.tools import Choice, Function, Toolset, choose
from avocado.gateway.wire import Neutral, Short, read_json, read_stops, refuse_set

NEUTRAL: Final[Neutral] = {
    "container": (),
    "context_management": (),
    "diagnostics": (),
    "inference_geo": (),
    "mcp_servers": ([],),
    "service_tier": ("auto", "standard_only"),
    "speed": ("standard",),
}


class CacheControl(Struct, forbid_unknown_fields=True):
    """A hint where to cache. What a customer's prompts begin with alike is computed once in any
    case, so it changes nothing here."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(Struct, tag="text", tag_field="type", forbid_unknown_fields=True):
    text: str
    cache_control: CacheControl | None = None
    citations: list[Any] | None = None


class ThinkingBlock(Struct, tag="thinking", tag_field="type", forbid_unknown_fields=True):
    thinking: str
    signature: str = ""


class ToolUseBlock(Struct, tag="tool_use", tag_field="type", forbid_unknown_fields=True):
    id: str
    name: str
    input: dict[str, Any]
    cache_control: CacheControl | None = None


class ToolResultBlock(Struct, tag="tool_result", tag_field="type", forbid_unknown_fields=True):
    tool_use_id: str
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None


Block = TextBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock


class AnthropicMessage(Struct, forbid_unknown_fields=True):
    role: Literal["user", "assistant"]
    content: str | list[Block]


class AnthropicTool(Struct, forbid_unknown_fields=True):
    name: Name
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None


class AutoChoice(Struct, tag="auto", tag_field="type", forbid_unknown_fields=True):
    disable_parallel_tool_use: bool | None = None


class AnyChoice(Struct, tag="any", tag_field="type", forbid_unknown_fields=True):
    disable_parallel_tool_use: bool | None = None


class ToolChoice(Struct, tag="tool", tag_field="type", forbid_unknown_fields=True):
    name: str
    disable_parallel_tool_use: bool | None = None


class NoChoice(Struct, tag="none", tag_field="type", forbid_unknown_fields=True):
    pass


class Thinking(Struct, forbid_unknown_fields=True):
    """``budget_tokens`` is a wish: only ``max_tokens`` bounds what is thought and said."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Meta(ge=1)] | None = None


class SchemaOutput(Struct, forbid_unknown_fields=True):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(Struct, forbid_unknown_fields=True):
    format: SchemaOutput | None = None


class MessageMetadata(Struct, forbid_unknown_fields=True):
    user_id: Short | None = None


class MessagesRequest(Struct, forbid_unknown_fields=True):
    model: str
    max_tokens: Annotated[int, Meta(ge=1)]
    messages: Annotated[list[AnthropicMessage], Meta(min_length=1)]
    system: str | list[TextBlock] | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    tools: list[AnthropicTool] | None = None
    tool_choice: AutoChoice | AnyChoice | ToolChoice | NoChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    metadata: MessageMetadata | None = None
    cache_control: CacheControl | None = None
    container: Any = None
    context_management: Any = None
    diagnostics: Any = None
    inference_geo: Any = None
    mcp_servers: Any = None
    service_tier: Any = None
    speed: Any = None


_decode = msgspec.json.Decoder(MessagesRequest).decode


class Messages:
    """The surface of ``POST /v1/messages``."""

    names: Mapping[str, str] = {"stop": "stop_sequences", "response_format": "output_config"}

    def read(self, body: bytes) -> Ask:
        request: MessagesRequest = read_json(_decode, body)
        refuse_set(request, NEUTRAL)
        toolset = _tools(request)
        wanted = request.output_config.format if request.output_config else None
        grammar: Grammar | None = toolset.grammar
        if wanted is not None:
            if toolset.tools:
                raise unsupported(
                    "output_config", "output_config.format and tools exclude each other"
                )
            grammar = JsonSchema(msgspec.json.encode(wanted.schema).decode())
        thinking = request.thinking is not None and request.thinking.type != "disabled"
        return Ask(
            model=request.model,
            prompt=Chat(_turns(request), toolset.tools, thinking),
            stream=request.stream is True,
            usage_wanted=True,
            max_tokens=request.max_tokens,
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            top_k=request.top_k or 0,
            stop=(*read_stops(request.stop_sequences, "stop_sequences"), *toolset.stop),
            grammar=grammar,
            grammar_from=toolset.grammar_from or "output_config",
            forced=toolset.forced,
            user=request.metadata.user_id if request.metadata else None,
        )

    def voice(self, ask: Ask, serving: Serving, prompts: Sequence[Prompt]) -> MessageVoice:
        return MessageVoice(ask, serving, prompts[0])


def _tools(request: MessagesRequest) -> Toolset:
    functions = [
        Function(tool.name, tool.description, tool.input_schema, tool.strict is True)
        for tool in request.tools or ()
    ]
    match request.tool_choice:
        case AnyChoice():
            choice = Choice("required")
        case ToolChoice(name=name):
            choice = Choice("required", name)
        case NoChoice():
            choice = Choice("none")
        case _:
            choice = Choice("auto")
    parallel = getattr(request.tool_choice, "disable_parallel_tool_use", None) is not True
    return choose(functions, choice, parallel, ("tools", "tool_choice"))


def _turns(request: MessagesRequest) -> tuple[Mapping[str, Any], ...]:
    history = History()
    if request.system:
        history.open(_joined(request.system, "system"))
    for index, message in enumerate(request.messages):
        place = f"messages[{index}]"
        if message.role == "user":
            _user(history, message, place)
        else:
            _assistant(history, message, place)
    if request.messages[-1].role == "assistant":
        raise unsupported(
            f"messages[{len(request.messages) - 1}].role",
            "The last message must be the user's: an answer that you begin is not continued",
        )
    return history.turns()


def _joined(content: str | Sequence[TextBlock] | None, place: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for index, block in enumerate(content):
        if block.citations:
            raise unsupported(f"{place}[{index}].citations")
    return "\n".join(block.text for block in content)


def _user(history: History, message: AnthropicMessage, place: str) -> None:
    if isinstance(message.content, str):
        history.say("user", message.content)
        return
    texts = []
    for index, block in enumerate(message.content):
        where = f"{place}.content[{index}]"
        match block:
            case TextBlock():
                texts.append(block)
            case ToolResultBlock():
                if texts:
                    raise bad_request("Tool results come before text", where)
                said = _joined(block.content, f"{where}.content")
                # Qwen's templates have no other way to say it.
                shown = f"Error: {said}" if block.is_error else said
                history.result(block.tool_use_id, shown, f"{where}.tool_use_id")
            case _:
                raise bad_request("This block belongs into an assistant message", where)
    if texts:
        history.say("user", _joined(texts, f"{place}.content"))
    elif not message.content:
        raise bad_request("A message needs content", f"{place}.content")


def _assistant(history: History, message: AnthropicMessage, place: str) -> None:
    blocks: Sequence[Block] = (
        (TextBlock(message.content),) if isinstance(message.content, str) else message.content
    )
    texts, thoughts, calls = [], [], []
    for index, block in enumerate(blocks):
        match block:
            case TextBlock():
                texts.append(block)
            case ThinkingBlock():
                thoughts.append(block.thinking)
            case ToolUseBlock():
                arguments = msgspec.json.encode(block.input).decode()
                calls.append(PastCall(block.id, block.name, arguments))
            case ToolResultBlock():
                raise bad_request(
                    "A tool result belongs into a user message", f"{place}.content[{index}]"
                )
    history.assistant(_joined(texts, f"{place}.content"), place, "\n".join(thoughts), calls)
