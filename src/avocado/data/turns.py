"""Turns: the messages of a row, parsed strictly in OpenAI's form, and the order they must have.

Other forms (ShareGPT, Alpaca) are rewritten into this one first, so every message passes here.
Knows nothing about files, records or templates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from avocado.data.rejection import BROKEN_ORDER, EMPTY_TURN, InvalidRow
from avocado.lineage import canonical

Turn = Mapping[str, Any]

ROLES: Final = ("system", "user", "assistant", "tool")

MEDIA: Final = frozenset(
    ("image", "image_url", "input_image", "input_audio", "audio", "audio_url", "video", "file")
)
"""Kinds of content parts that are no text."""

_MESSAGE_KEYS: Final = frozenset(
    ("role", "content", "name", "tool_calls", "tool_call_id", "weight", "reasoning_content")
)


def messages(value: Any, column: str = "messages") -> tuple[Turn, ...]:
    """The turns of ``column``. Text parts are joined into one string, because that is what
    templates render; keys without a value are left out; everything else stays as it was written.

    Raises:
        InvalidRow: it is no list of messages, or one of them is wrong.
    """
    if not isinstance(value, list) or not value:
        raise InvalidRow(f"{column} must be a list with at least a user and an assistant turn")
    return tuple(message(each, f"message {place}") for place, each in enumerate(value, 1))


def message(value: Any, where: str) -> dict[str, Any]:
    """One turn; ``where`` is what a refusal calls it."""
    if not isinstance(value, dict):
        raise InvalidRow(f"{where} must be an object with role and content")
    role = value.get("role")
    if role not in ROLES:
        raise InvalidRow(f"{where} has the role {role!r} (known: {', '.join(ROLES)})")
    kept = {key: item for key, item in value.items() if item is not None}
    unknown = sorted(kept.keys() - _MESSAGE_KEYS)
    if unknown:
        known = ", ".join(sorted(_MESSAGE_KEYS))
        raise InvalidRow(f"unknown key {unknown[0]!r} (in {where}; known: {known})")
    content = _content(kept.get("content"), where)
    calls = _calls(kept, where)
    if not content.strip() and not calls and role != "tool":
        raise InvalidRow(f"{where} ({role}) is empty", EMPTY_TURN)
    if kept.get("weight", 1) not in (0, 1) or isinstance(kept.get("weight"), bool):
        raise InvalidRow(f"{where}: weight must be 0 or 1")
    for key in ("reasoning_content", "name", "tool_call_id"):
        if not isinstance(kept.get(key, ""), str):
            raise InvalidRow(f"{where}: {key} must be a text")
    if kept.get("reasoning_content") and role != "assistant":
        raise InvalidRow(f"{where}: only an assistant has reasoning_content")
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
        if isinstance(kind, str) and kind in MEDIA:
            raise InvalidRow(f"{where}: a part of type {kind!r} is no text: only text is learnt")
        if kind != "text" or not isinstance(part.get("text"), str):
            raise InvalidRow(f"{where}: a part of type {kind!r} is not supported, only text is")
        texts.append(part["text"])
    return "".join(texts)


def _calls(value: Turn, where: str) -> list[dict[str, Any]]:
    calls = value.get("tool_calls")
    if calls is None:
        return []
    if value["role"] != "assistant":
        raise InvalidRow(f"{where}: only an assistant calls tools")
    if not isinstance(calls, list) or not calls:
        raise InvalidRow(f"{where}: tool_calls must be a list with at least one call")
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise InvalidRow(f"{where}: a tool call needs function.name and function.arguments")
        if not isinstance(function.get("arguments"), str | dict):
            raise InvalidRow(f"{where}: function.arguments must be JSON text or an object")
    json_form(calls, f"{where}: tool_calls")
    return calls


def tools(value: Any) -> tuple[Mapping[str, Any], ...]:
    """The tools on offer, in OpenAI's form; a list written as JSON text is read.

    Raises:
        InvalidRow: they are no such list.
    """
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidRow(f"tools is a text, but no JSON: {error}") from error
    if not isinstance(value, list) or not all(
        isinstance(tool, dict)
        and tool.get("type") == "function"
        and isinstance(tool.get("function"), dict)
        and isinstance(tool["function"].get("name"), str)
        for tool in value
    ):
        raise InvalidRow('tools must be a list of {"type": "function", "function": {"name": …}}')
    json_form(value, "tools")
    return tuple(value)


def json_form(value: Any, what: str) -> bytes:
    """``value`` in canonical JSON; a table's cell may hold what JSON has no word for.

    Raises:
        InvalidRow: it has no such form, as bytes and NaN have none; ``what`` is what it is called.
    """
    try:
        return canonical(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRow(f"{what} has no form in JSON: {error}") from error


def check_conversation(turns: Sequence[Turn]) -> None:
    """Whether there is an answer to learn, in an order that a template can render.

    Raises:
        InvalidRow: there is none, or a turn is where none may be.
    """
    if not any(turn["role"] == "assistant" for turn in turns):
        raise InvalidRow("no assistant turn, so there is nothing to learn")
    if not any(turn["role"] == "assistant" and turn.get("weight", 1) for turn in turns):
        raise InvalidRow("every assistant turn has weight 0, so there is nothing to learn")
    _check_order(turns)
    last = turns[-1]["role"]
    if last != "assistant":
        detail = f"it ends with a {last} turn: the last turn must be the assistant's"
        raise InvalidRow(detail, BROKEN_ORDER)


def check_prompt(turns: Sequence[Turn]) -> None:
    """Whether an assistant can answer these turns.

    Raises:
        InvalidRow: they are empty, end with the assistant, or a turn is where none may be.
    """
    if not turns:
        raise InvalidRow("the prompt is empty", EMPTY_TURN)
    _check_order(turns)
    last = turns[-1]["role"]
    if last not in ("user", "tool"):
        detail = f"the prompt ends with a {last} turn: the last must be the user's"
        raise InvalidRow(detail, BROKEN_ORDER)


def _check_order(turns: Sequence[Turn]) -> None:
    roles = [turn["role"] for turn in turns]
    if "system" in roles[1:]:
        raise InvalidRow("a system message may only come first", BROKEN_ORDER)
    talk = roles[1:] if roles[0] == "system" else roles
    if not talk:
        raise InvalidRow("it has only a system message")
    if talk[0] != "user":
        raise InvalidRow(f"the first turn must be the user's, not {talk[0]}'s", BROKEN_ORDER)
    for before, turn in pairwise(turns):
        if turn["role"] == "tool" and not (before.get("tool_calls") or before["role"] == "tool"):
            raise InvalidRow("a tool turn must follow the assistant's tool call", BROKEN_ORDER)
        if before.get("tool_calls") and turn["role"] != "tool":
            raise InvalidRow("a tool call must be followed by the tool's answer", BROKEN_ORDER)


def user(text: Any, column: str) -> dict[str, Any]:
    """The user's turn with ``text`` of ``column``; raises as :func:`text_of` does."""
    return {"role": "user", "content": text_of(text, column)}


def assistant(text: Any, column: str) -> dict[str, Any]:
    """The assistant's turn with ``text`` of ``column``; raises as :func:`text_of` does."""
    return {"role": "assistant", "content": text_of(text, column)}


def text_of(text: Any, column: str) -> str:
    """``text`` as it is.

    Raises:
        InvalidRow: it is no text, or blank.
    """
    if text is None:
        raise InvalidRow(f"it has no {column}")
    if not isinstance(text, str):
        raise InvalidRow(f"{column} must be a text, not {type(text).__name__}")
    if not text.strip():
        raise InvalidRow(f"{column} is empty", EMPTY_TURN)
    return text
