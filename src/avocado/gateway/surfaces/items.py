"""Input items of ``/v1/responses``: messages, tool calls, their results and thoughts, in order.

An answer of the model comes back as several items; here they become one turn again. An item's kind
decides which of its fields may stand there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from msgspec import Struct

from avocado.gateway.errors import bad_request, unsupported
from avocado.gateway.surfaces.history import History, PastCall

_PARTS: Final = {
    "system": ("input_text",),
    "developer": ("input_text",),
    "user": ("input_text",),
    "assistant": ("output_text", "input_text"),
    "output": ("input_text",),
    "reasoning": ("reasoning_text",),
}
_FIELDS: Final = {
    "message": {"role", "content"},
    "function_call": {"call_id", "name", "arguments"},
    "function_call_output": {"call_id", "output"},
    "reasoning": {"content", "summary"},
}


class InputPart(Struct, forbid_unknown_fields=True):
    """One part of a content. Only text is served."""

    type: str
    text: str | None = None
    annotations: list[Any] | None = None
    """Of an earlier answer, as are ``logprobs``; they are not the model's to read."""
    logprobs: list[Any] | None = None
    detail: Any = None
    file_data: Any = None
    file_id: Any = None
    file_url: Any = None
    filename: Any = None
    image_url: Any = None
    input_audio: Any = None
    refusal: Any = None


class InputItem(Struct, forbid_unknown_fields=True):
    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    id: str | None = None
    status: str | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[InputPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[InputPart] | None = None
    summary: list[InputPart] | None = None
    encrypted_content: Any = None


@dataclass
class _Turn:
    """An answer of the model, as its items come."""

    place: str
    text: str | None = None
    thoughts: list[str] = field(default_factory=list)
    calls: list[PastCall] = field(default_factory=list)


class _Reader:
    def __init__(self) -> None:
        self.history = History()
        self._turn: _Turn | None = None

    def turn(self, place: str) -> _Turn:
        if self._turn is None:
            self._turn = _Turn(place)
        return self._turn

    def end(self) -> None:
        """The model's turn is over."""
        turn, self._turn = self._turn, None
        if turn is None:
            return
        if turn.text is None and not turn.calls:
            raise bad_request(
                f"Invalid value for {turn.place}: reasoning without the answer that it led to",
                turn.place,
            )
        self.history.assistant(turn.text or "", turn.place, "\n".join(turn.thoughts), turn.calls)

    def item(self, item: InputItem, place: str) -> None:
        kind = item.type
        allowed = _FIELDS[kind]
        for name in ("role", "content", "call_id", "name", "arguments", "output", "summary"):
            if getattr(item, name) is not None and name not in allowed:
                raise bad_request(f"An item of type {kind} has no {name}", f"{place}.{name}")
        for name in allowed - {"summary"} - ({"content"} if kind == "reasoning" else set()):
            if getattr(item, name) is None:
                raise bad_request(f"An item of type {kind} needs {name}", f"{place}.{name}")
        if item.encrypted_content is not None:
            raise unsupported(f"{place}.encrypted_content")
        match kind:
            case "message":
                self._message(item, place)
            case "function_call":
                call = PastCall(item.call_id or "", item.name or "", item.arguments or "")
                self.turn(place).calls.append(call)
            case "function_call_output":
                self.end()
                text = _text(item.output, "output", f"{place}.output")
                self.history.result(item.call_id or "", text, f"{place}.call_id")
            case "reasoning":
                if self._turn is not None and (self._turn.text is not None or self._turn.calls):
                    self.end()
                self.turn(place).thoughts.append(
                    _text(item.content or "", "reasoning", f"{place}.content")
                )

    def _message(self, item: InputItem, place: str) -> None:
        role = item.role or "user"
        text = _text(item.content, role, f"{place}.content")
        if role == "assistant":
            turn = self.turn(place)
            if turn.text is not None or turn.calls:
                self.end()
                turn = self.turn(place)
            turn.text = text
            return
        self.end()
        if role == "user":
            self.history.say("user", text)
        else:
            self.history.open(text)


def read_items(
    instructions: str | None, given: str | Sequence[InputItem]
) -> tuple[Mapping[str, Any], ...]:
    """The conversation as turns.

    Raises:
        ApiError: 400, naming the item.
    """
    reader = _Reader()
    if instructions:
        reader.history.open(instructions)
    if isinstance(given, str):
        reader.history.say("user", given)
    else:
        for index, item in enumerate(given):
            reader.item(item, f"input[{index}]")
    reader.end()
    return reader.history.turns()


def _text(content: str | Sequence[InputPart] | None, of: str, place: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for index, part in enumerate(content):
        where = f"{place}[{index}]"
        if part.type not in _PARTS[of]:
            kind = part.type[:40]
            raise unsupported(where, f"This model reads text only, and no {kind!r} stands here")
        extra = (part.detail, part.file_data, part.file_id, part.file_url, part.filename)
        if part.text is None or any((*extra, part.image_url, part.input_audio, part.refusal)):
            raise bad_request(f"Invalid value for {where}: a text part has text alone", where)
        texts.append(part.text)
    return "\n".join(texts)
