"""How Anthropic's clients read an answer: a message of blocks, whole or as events in order.

``message_start``, then each block from ``content_block_start`` to ``content_block_stop``, then
``message_delta`` with the reason and the usage, and ``message_stop``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from avocado.data.chat import Prompt
from avocado.engine.engine import Delta, Finish
from avocado.engine.reply import Argued, Called, Piece, Said, Thought
from avocado.gateway.errors import ApiError
from avocado.gateway.surface import Answer, Ask, Bill, Serving
from avocado.gateway.surfaces.history import INVALID
from avocado.gateway.surfaces.reading import Reading, read_whole
from avocado.gateway.surfaces.tools import CALL_END
from avocado.gateway.wire import Number, cost_of, encode, named_event

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class ThinkingContent(Struct, tag="thinking", tag_field="type"):
    thinking: str
    signature: str = ""


class TextContent(Struct, tag="text", tag_field="type"):
    text: str
    citations: None = None


class ToolUseContent(Struct, tag="tool_use", tag_field="type"):
    id: str
    name: str
    input: dict[str, Any]


class MessageUsage(Struct):
    """``input_tokens`` are those that were not read from the cache, as Anthropic counts."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    cost: Number
    cost_currency: str


class AnthropicAnswer(Struct):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[ThinkingContent | TextContent | ToolUseContent]
    stop_reason: StopReason
    stop_sequence: str | None
    usage: MessageUsage


def usage_of(bill: Bill) -> MessageUsage:
    usage = bill.usage
    return MessageUsage(
        usage.prompt - usage.cached,
        usage.completion,
        0,
        usage.cached,
        cost_of(bill),
        bill.cost.currency,
    )


TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def anthropic_error(error: ApiError, request: str) -> bytes:
    """An error in Anthropic's shape; our ``code`` and ``param`` stand beside what it knows."""
    return encode({**_error(error), "request_id": request})


def _error(error: ApiError) -> dict[str, Any]:
    kind = TYPES.get(error.status, "api_error" if error.status >= 500 else TYPES[400])
    told = {"type": kind, "message": error.message, "param": error.param, "code": error.code}
    return {"type": "error", "error": told}


class MessageVoice:
    """Writes the answer to one ask."""

    def __init__(self, ask: Ask, serving: Serving, prompt: Prompt) -> None:
        self._ask = ask
        self._serving = serving
        self._prompt = prompt
        self._reading = Reading(ask, prompt)
        self._block: type[Piece] | None = None
        self._index = -1

    def whole(self, answers: Sequence[Answer], bill: Bill) -> bytes:
        (answer,) = answers
        pieces, reason = read_whole(self._ask, self._prompt, answer)
        stop, sequence = self._stop(reason, answer.finish)
        return encode(
            AnthropicAnswer(
                f"msg_{self._serving.id}",
                "message",
                "assistant",
                self._serving.model,
                [self._content(piece) for piece in pieces],
                stop,
                sequence,
                usage_of(bill),
            )
        )

    def _content(self, piece: Piece) -> ThinkingContent | TextContent | ToolUseContent:
        match piece:
            case Thought():
                return ThinkingContent(piece.text)
            case Said():
                return TextContent(piece.text)
            case Called():
                return ToolUseContent(self._id(piece), piece.name, _input(piece.arguments))
            case Argued():
                raise AssertionError("a whole answer has whole calls")

    def _id(self, call: Called) -> str:
        return f"toolu_{self._serving.id.removeprefix('req_')}_{call.index}"

    def _stop(self, reason: str, finish: Finish) -> tuple[StopReason, str | None]:
        if reason == "tool_calls":
            return "tool_use", None
        if reason == "length":
            return "max_tokens", None
        if finish.stop is not None and finish.stop != CALL_END:
            return "stop_sequence", finish.stop
        return "end_turn", None

    # -- a stream --------------------------------------------------------------------------------

    def first(self) -> bytes:
        message: dict[str, Any] = {
            "id": f"msg_{self._serving.id}",
            "type": "message",
            "role": "assistant",
            "model": self._serving.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {
                "input_tokens": len(self._prompt.ids),
                "output_tokens": 0,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
            },
        }
        return _event("message_start", message=message)

    def delta(self, choice: int, delta: Delta) -> bytes:
        return self._pieces(self._reading.feed(delta.text))

    def last(self, ends: Sequence[Finish], bill: Bill) -> bytes:
        (end,) = ends
        rest = self._rest()
        stop, sequence = self._stop(self._reading.reason(end.reason), end)
        ended = {"stop_reason": stop, "stop_sequence": sequence}
        return (
            rest
            + _event("message_delta", delta=ended, usage=usage_of(bill))
            + _event("message_stop")
        )

    def broken(self, error: ApiError, bill: Bill | None) -> bytes:
        usage = b""
        if bill is not None:
            ended = {"stop_reason": None, "stop_sequence": None}
            usage = _event("message_delta", delta=ended, usage=usage_of(bill))
        return self._rest() + usage + named_event("error", _error(error))

    def _rest(self) -> bytes:
        return self._pieces(self._reading.end()) + self._close()

    def _pieces(self, pieces: Sequence[Piece]) -> bytes:
        return b"".join(self._piece(piece) for piece in pieces)

    def _piece(self, piece: Piece) -> bytes:
        if isinstance(piece, Called):
            block = {"type": "tool_use", "id": self._id(piece), "name": piece.name, "input": {}}
            opened = self._open(Called, block)
            return opened + self._argued(piece.arguments) if piece.arguments else opened
        match piece:
            case Argued():
                return self._argued(piece.text)
            case Said():
                block = {"type": "text", "text": ""}
                change = {"type": "text_delta", "text": piece.text}
            case Thought():
                block = {"type": "thinking", "thinking": "", "signature": ""}
                change = {"type": "thinking_delta", "thinking": piece.text}
        opened = b"" if self._block is type(piece) else self._open(type(piece), block)
        return opened + _event("content_block_delta", index=self._index, delta=change)

    def _argued(self, text: str) -> bytes:
        change = {"type": "input_json_delta", "partial_json": text}
        return _event("content_block_delta", index=self._index, delta=change)

    def _open(self, kind: type[Piece], block: dict[str, Any]) -> bytes:
        closed = self._close()
        self._block = kind
        self._index += 1
        return closed + _event("content_block_start", index=self._index, content_block=block)

    def _close(self) -> bytes:
        if self._block is None:
            return b""
        signed = b""
        if self._block is Thought:
            signature = {"type": "signature_delta", "signature": ""}
            signed = _event("content_block_delta", index=self._index, delta=signature)
        self._block = None
        return signed + _event("content_block_stop", index=self._index)


def _input(arguments: str) -> dict[str, Any]:
    """A whole block's input is an object. Arguments that are none, or were cut, stand in it as
    Anthropic's documents tell clients to send such ones back."""
    try:
        return msgspec.json.decode(arguments, type=dict[str, Any])
    except (ValueError, RecursionError):
        return {INVALID: arguments}


def _event(kind: str, **fields: Any) -> bytes:
    return named_event(kind, {"type": kind, **fields})
