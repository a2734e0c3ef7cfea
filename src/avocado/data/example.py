"""Example: one conversation to learn from, with where it came from and what its licence is.

Parses one row of OpenAI's chat fine-tuning format into a frozen value, or says in one sentence why
it cannot. Knows nothing about files, tokens or templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from avocado.data.provenance import UNDETERMINED, UNKNOWN, Provenance, read_provenance
from avocado.data.rejection import InvalidRow
from avocado.lineage import canonical, digest

ROLES: Final = ("system", "user", "assistant", "tool")
_ROW_KEYS: Final = frozenset(
    ("messages", "tools", "language", "license", "source", "id", "metadata", "parallel_tool_calls")
)
_MESSAGE_KEYS: Final = frozenset(
    ("role", "content", "name", "tool_calls", "tool_call_id", "weight", "reasoning_content")
)


@dataclass(frozen=True, slots=True)
class Example(Provenance):
    """One conversation. ``messages`` and ``tools`` are what the template renders."""

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def sha256(self) -> str:
        """The hash of what is learnt: the same conversation from two files has one hash."""
        return digest(canonical({"messages": list(self.messages), "tools": list(self.tools)}))

    @property
    def user_texts(self) -> tuple[str, ...]:
        """What the user says, turn by turn."""
        return tuple(each["content"] for each in self.messages if each["role"] == "user")

    def to_json(self) -> dict[str, Any]:
        """The row of a frozen corpus; :meth:`from_json` is its inverse."""
        return {
            "messages": list(self.messages),
            **({"tools": list(self.tools)} if self.tools else {}),
            **self.provenance(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Example:
        return cls(
            tuple(value["messages"]), tuple(value.get("tools", ())), **read_provenance(value)
        )


def parse(value: Any, *, file: str, row: int, licence: str = UNKNOWN) -> Example:
    """One decoded row of OpenAI's ``messages`` format as an :class:`Example`.

    ``licence`` holds where the row states none. Text parts are joined into one string, because
    that is what templates render; everything else stays as it was written.

    Raises:
        InvalidRow: it is no such row; the text says what is wrong and what would be right.
    """
    if not isinstance(value, dict):
        raise InvalidRow("a row must be a JSON object with messages")
    if "messages" not in value:
        found = ", ".join(sorted(map(str, value))) or "nothing"
        raise InvalidRow(f"it has no messages (it has: {found})")
    _refuse_unknown(value, _ROW_KEYS, "put your own fields under metadata")
    messages = value["messages"]
    if not isinstance(messages, list) or not messages:
        raise InvalidRow("messages must be a list with at least a user and an assistant turn")
    parsed = tuple(_message(message, place) for place, message in enumerate(messages, 1))
    _check_order(parsed)
    return Example(
        parsed,
        _tools(value.get("tools")),
        language=_text_field(value, "language", UNDETERMINED),
        licence=_text_field(value, "license", licence),
        source=_text_field(value, "source", file),
        file=file,
        row=row,
    )


def _refuse_unknown(value: Mapping[str, Any], known: frozenset[str], hint: str) -> None:
    unknown = sorted(value.keys() - known)
    if unknown:
        raise InvalidRow(f"unknown key {unknown[0]!r} ({hint}; known: {', '.join(sorted(known))})")


def _text_field(value: Mapping[str, Any], key: str, default: str) -> str:
    text = value.get(key)
    if text is None:
        return default
    if not isinstance(text, str) or not text.strip():
        raise InvalidRow(f"{key} must be a text, not {text!r}")
    return text.strip()


def _message(message: Any, place: int) -> dict[str, Any]:
    where = f"message {place}"
    if not isinstance(message, dict):
        raise InvalidRow(f"{where} must be an object with role and content")
    role = message.get("role")
    if role not in ROLES:
        raise InvalidRow(f"{where} has the role {role!r} (known: {', '.join(ROLES)})")
    _refuse_unknown(message, _MESSAGE_KEYS, f"in {where}")
    content = _content(message.get("content"), where)
    calls = _calls(message, where)
    if not content.strip() and not calls and role != "tool":
        raise InvalidRow(f"{where} ({role}) is empty")
    if message.get("weight", 1) not in (0, 1) or isinstance(message.get("weight"), bool):
        raise InvalidRow(f"{where}: weight must be 0 or 1")
    for key in ("reasoning_content", "name", "tool_call_id"):
        if not isinstance(message.get(key, ""), str | None):
            raise InvalidRow(f"{where}: {key} must be a text")
    if message.get("reasoning_content") and role != "assistant":
        raise InvalidRow(f"{where}: only an assistant has reasoning_content")
    kept = {key: item for key, item in message.items() if item is not None}
    return {**kept, "content": content, **({"tool_calls": calls} if calls else {})}


def _content(content: Any, where: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRow(f"{where}: content must be a text or a list of text parts")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise InvalidRow(f"{where}: a part of type {kind!r} is not supported, only text is")
        texts.append(part["text"])
    return "".join(texts)


def _calls(message: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    calls = message.get("tool_calls")
    if calls is None:
        return []
    if message["role"] != "assistant":
        raise InvalidRow(f"{where}: only an assistant calls tools")
    if not isinstance(calls, list) or not calls:
        raise InvalidRow(f"{where}: tool_calls must be a list with at least one call")
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise InvalidRow(f"{where}: a tool call needs function.name and function.arguments")
        if not isinstance(function.get("arguments"), str | dict):
            raise InvalidRow(f"{where}: function.arguments must be JSON text or an object")
    return calls


def _check_order(messages: Sequence[Mapping[str, Any]]) -> None:
    roles = [message["role"] for message in messages]
    if "assistant" not in roles:
        raise InvalidRow("no assistant turn, so there is nothing to learn")
    if not any(m["role"] == "assistant" and m.get("weight", 1) for m in messages):
        raise InvalidRow("every assistant turn has weight 0, so there is nothing to learn")
    if "system" in roles[1:]:
        raise InvalidRow("a system message may only come first")
    talk = roles[1:] if roles[0] == "system" else roles
    if talk[0] != "user":
        raise InvalidRow(f"the first turn must be the user's, not {talk[0]}'s")
    if roles[-1] != "assistant":
        raise InvalidRow(f"it ends with a {roles[-1]} turn: the last turn must be the assistant's")
    for before, message in pairwise(messages):
        if message["role"] == "tool" and not (before.get("tool_calls") or before["role"] == "tool"):
            raise InvalidRow("a tool turn must follow the assistant's tool call")
        if before.get("tool_calls") and message["role"] != "tool":
            raise InvalidRow("a tool call must be followed by the tool's answer")


def _tools(tools: Any) -> tuple[Mapping[str, Any], ...]:
    if tools is None:
        return ()
    if not isinstance(tools, list) or not all(
        isinstance(tool, dict)
        and tool.get("type") == "function"
        and isinstance(tool.get("function"), dict)
        and isinstance(tool["function"].get("name"), str)
        for tool in tools
    ):
        raise InvalidRow('tools must be a list of {"type": "function", "function": {"name": …}}')
    return tuple(tools)
