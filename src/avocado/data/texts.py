"""Texts: what a record says, and who says it, whatever kind of record it is.

The checks compare and count texts; here they are taken out of conversations, pairs, labelled
answers, documents and problems. Knows nothing about what is done with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from avocado.data.document import Document
from avocado.data.example import Example
from avocado.data.preference import Label, Preference
from avocado.data.problem import Problem
from avocado.data.record import Record

Turn = Mapping[str, Any]


def turns(record: Record) -> tuple[Turn, ...]:
    """Every turn of the record, those to learn from last; a document has none."""
    match record:
        case Example() | Problem():
            return record.messages
        case Preference():
            return (*record.prompt, record.chosen, record.rejected)
        case Label():
            return (*record.prompt, record.answer)
        case Document():
            return ()


def asked(record: Record) -> list[str]:
    """What the user says, turn by turn."""
    return [str(turn["content"]) for turn in turns(record) if turn["role"] == "user"]


def said(record: Record) -> list[str]:
    """Everything that is said but for the system's turn, which is the same for many rows."""
    if isinstance(record, Document):
        return [record.text]
    return [text for turn in turns(record) if turn["role"] != "system" for text in _of(turn)]


def learnt(record: Record) -> list[tuple[str, str]]:
    """What the model is to say, with a mark that tells a good answer from a bad one."""
    match record:
        case Example():
            return [("", text) for turn in _answers(record.messages) for text in _of(turn)]
        case Preference():
            good = [("+", text) for text in _of(record.chosen)]
            return good + [("-", text) for text in _of(record.rejected)]
        case Label():
            mark = "+" if record.desirable else "-"
            return [(mark, text) for text in _of(record.answer)]
        case Problem():
            return [] if record.reference is None else [("", record.reference)]
        case Document():
            return []


def prose(record: Record) -> str:
    """What may show the record's language: what is asked and answered, but no JSON and no tools."""
    if isinstance(record, Document):
        return record.text
    spoken = (
        str(turn["content"]).strip()
        for turn in turns(record)
        if turn["role"] in ("user", "assistant")
    )
    return "\n".join(text for text in spoken if text and text[0] not in "{[<")


def features(record: Record) -> Iterator[str]:
    """What the record has that not every one has, for counting."""
    found = turns(record)
    if sum(turn["role"] == "user" for turn in found) > 1:
        yield "several questions"
    if any(turn["role"] == "system" for turn in found):
        yield "system message"
    if getattr(record, "tools", ()):
        yield "tools"
    if any(turn.get("reasoning_content") for turn in found):
        yield "reasoning"


def _answers(messages: Sequence[Turn]) -> list[Turn]:
    return [each for each in messages if each["role"] == "assistant" and each.get("weight", 1)]


def _of(turn: Turn) -> Iterator[str]:
    """The texts of one turn: reasoning, content, the calls of tools."""
    if turn.get("reasoning_content"):
        yield str(turn["reasoning_content"])
    if turn.get("content"):
        yield str(turn["content"])
    for call in turn.get("tool_calls") or ():
        yield f"{call['function']['name']} {call['function']['arguments']}"
