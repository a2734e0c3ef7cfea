"""Conversations: rows of OpenAI, ShareGPT, Alpaca and prompt/completion form as turns and tools.

Each reader takes a row (an object without empty columns) and gives its turns in OpenAI's form. It
checks each turn; whether the whole can be learnt is for the record that is made of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from avocado.data import turns
from avocado.data.rejection import InvalidRow
from avocado.data.turns import Turn

Row = Mapping[str, Any]
Talk = tuple[tuple[Turn, ...], tuple[Mapping[str, Any], ...]]
"""Turns and the tools on offer."""

_SPEAKERS: Final = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "call",
    "observation": "tool",
    "function_response": "tool",
    "tool": "tool",
}


def openai(row: Row) -> Talk:
    """``messages`` and ``tools``, as OpenAI's fine-tuning takes them."""
    return turns.messages(row["messages"]), turns.tools(row.get("tools"))


def sharegpt(row: Row) -> Talk:
    """``conversations`` of ``from`` and ``value``; ``system`` and ``tools`` beside them.

    ``function_call`` is an assistant's turn whose text is ``{"name": …, "arguments": {…}}`` or a
    list of those, ``observation`` the tool's answer. Items with ``role`` are OpenAI's own.
    """
    said = row["conversations"]
    if not isinstance(said, list) or not said:
        raise InvalidRow("conversations must be a list with at least a human and a gpt turn")
    found = tuple(_spoken(each, f"message {place}") for place, each in enumerate(said, 1))
    if row.get("system"):
        if found[0]["role"] == "system":
            raise InvalidRow("it has a system column and a system turn: one of them is enough")
        found = ({"role": "system", "content": turns.text_of(row["system"], "system")}, *found)
    return found, _plain_tools(row.get("tools"))


def _spoken(value: Any, where: str) -> Turn:
    if not isinstance(value, dict):
        raise InvalidRow(f"{where} must be an object with from and value")
    if "role" in value and "from" not in value:
        return turns.message(value, where)
    kept = {key: item for key, item in value.items() if item is not None}
    unknown = sorted(kept.keys() - {"from", "value", "weight"})
    if unknown:
        raise InvalidRow(f"unknown key {unknown[0]!r} (in {where}; known: from, value, weight)")
    speaker, text = kept.get("from"), kept.get("value")
    role = _SPEAKERS.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise InvalidRow(f"{where} is from {speaker!r} (known: {', '.join(_SPEAKERS)})")
    if not isinstance(text, str):
        raise InvalidRow(f"{where}: value must be a text")
    weight = {"weight": kept["weight"]} if "weight" in kept else {}
    if role == "call":
        called = {"role": "assistant", "content": "", "tool_calls": _called(text, where)}
        return turns.message({**called, **weight}, where)
    return turns.message({"role": role, "content": text, **weight}, where)


def _called(text: str, where: str) -> list[dict[str, Any]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRow(f"{where}: a function_call must be JSON: {error}") from error
    calls = value if isinstance(value, list) else [value]
    if not calls or not all(isinstance(each, dict) for each in calls):
        raise InvalidRow(f"{where}: a function_call must be an object with name and arguments")
    return [
        {"type": "function", "function": {key: each.get(key) for key in ("name", "arguments")}}
        for each in calls
    ]


def _plain_tools(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Tools may stand without OpenAI's wrapper: ``{"name": …, "parameters": …}``."""
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidRow(f"tools is a text, but no JSON: {error}") from error
    if isinstance(value, list):
        value = [
            {"type": "function", "function": each}
            if isinstance(each, dict) and "function" not in each and "name" in each
            else each
            for each in value
        ]
    return turns.tools(value)


def alpaca(row: Row) -> Talk:
    """``instruction`` (with ``input`` below it) and ``output``; ``system``; ``history`` of earlier
    ``[instruction, output]`` pairs. Without an output it is a prompt."""
    found: list[Turn] = []
    if row.get("system"):
        found.append({"role": "system", "content": turns.text_of(row["system"], "system")})
    history = row.get("history") or []
    if not isinstance(history, list):
        raise InvalidRow("history must be a list of [instruction, output] pairs")
    for place, pair in enumerate(history, 1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise InvalidRow(f"history {place} must be an [instruction, output] pair")
        found.append(turns.user(pair[0], f"history {place}'s instruction"))
        found.append(turns.assistant(pair[1], f"history {place}'s output"))
    asked = turns.text_of(row.get("instruction"), "instruction")
    if row.get("input"):
        asked = f"{asked}\n{turns.text_of(row['input'], 'input')}"
    found.append({"role": "user", "content": asked})
    if "output" in row:
        found.append(turns.assistant(row["output"], "output"))
    return tuple(found), ()


def completion(row: Row) -> Talk:
    """``prompt`` and ``completion``: texts, or lists of messages."""
    return (*prompt(row["prompt"]), *answers(row["completion"], "completion")), turns.tools(
        row.get("tools")
    )


def prompt(value: Any) -> tuple[Turn, ...]:
    """The turns of a ``prompt`` column: a list of messages, or one text of the user's."""
    if isinstance(value, list):
        return turns.messages(value, "prompt")
    return (turns.user(value, "prompt"),)


def answers(value: Any, column: str) -> tuple[Turn, ...]:
    """The turns of an answer's column: a list of messages, one of them, or a text."""
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        return turns.messages(value, column)
    return (turns.assistant(value, column),)
