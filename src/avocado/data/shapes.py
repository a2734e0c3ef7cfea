"""Shapes: the forms that training data comes in, told by a row's columns, and what each can serve.

A conversation can serve as an example or as a prompt with its last answer as the reference; what a
shape cannot serve is said, never guessed. Knows nothing about files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from avocado.data import comparisons, conversations, turns
from avocado.data.conversations import Row, Talk
from avocado.data.document import Document
from avocado.data.example import Example
from avocado.data.preference import Label, Preference
from avocado.data.problem import Problem
from avocado.data.provenance import UNDETERMINED, UNKNOWN
from avocado.data.record import Record, RecordType
from avocado.data.rejection import InvalidRow

Reader = Callable[[Row], Mapping[str, Any]]

ORIGIN: Final = frozenset(("language", "license", "source", "group", "id", "metadata"))
"""Columns of any shape that say where a row comes from."""

MEDIA: Final = frozenset(("image", "images", "audio", "audios", "video", "videos"))


@dataclass(frozen=True)
class Shape:
    """``columns`` are those that it uses; ``readers`` give the parts of each kind that it serves.

    The first of them is what it is by nature: what a row becomes where no method says otherwise.
    """

    name: str
    title: str
    columns: frozenset[str]
    matches: Callable[[Row], bool]
    readers: Mapping[RecordType, Reader]

    @property
    def kind(self) -> RecordType:
        return next(iter(self.readers))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row was read; ``licence`` holds where it states none, ``group`` names its column."""

    file: str
    row: int
    licence: str = UNKNOWN
    group: str | None = None


def _conversation(reader: Callable[[Row], Talk], *columns: str) -> Mapping[RecordType, Reader]:
    used = frozenset((*columns, "reference", "answer"))

    def example(row: Row) -> Mapping[str, Any]:
        said, tools = reader(row)
        turns.check_conversation(said)
        return {"messages": said, "tools": tools}

    def problem(row: Row) -> Mapping[str, Any]:
        said, tools = reader(row)
        answer = None
        if said[-1]["role"] == "assistant":
            said, answer = said[:-1], said[-1]["content"] or None
        turns.check_prompt(said)
        reference = _reference(row)
        return {
            "messages": said,
            "tools": tools,
            "reference": answer if reference is None else reference,
            "fields": _fields(row, used),
        }

    return {Example: example, Problem: problem}


def _prompt(row: Row) -> Mapping[str, Any]:
    asked = conversations.prompt(row["prompt"])
    turns.check_prompt(asked)
    return {
        "messages": asked,
        "tools": turns.tools(row.get("tools")),
        "reference": _reference(row),
        "fields": _fields(row, frozenset(("prompt", "tools", "reference", "answer"))),
    }


def _reference(row: Row) -> str | None:
    """The right answer as text: a number as it is written, anything larger as JSON."""
    value = row.get("reference", row.get("answer"))
    if value is None or isinstance(value, str):
        return value
    return turns.json_form(value, "the reference").decode()


def _fields(row: Row, used: frozenset[str]) -> dict[str, Any]:
    """What else the row says, for rewards. ``source`` and the like are its provenance."""
    left = {key: row[key] for key in sorted(row.keys() - used - (ORIGIN - {"id", "metadata"}))}
    for key, value in left.items():
        turns.json_form(value, f"the column {key!r}")
    return left


def _text(row: Row) -> Mapping[str, Any]:
    return {"text": turns.text_of(row["text"], "text")}


SHAPES: Final = (
    Shape(
        "preference",
        "preference pairs",
        frozenset(("prompt", "chosen", "rejected", "tools")),
        lambda row: "chosen" in row and "rejected" in row,
        {Preference: comparisons.pair},
    ),
    Shape(
        "openai-preference",
        "OpenAI preference pairs",
        frozenset(("input", "preferred_output", "non_preferred_output")),
        lambda row: "preferred_output" in row and "non_preferred_output" in row,
        {Preference: comparisons.openai_pair},
    ),
    Shape(
        "label",
        "labelled answers",
        frozenset(("prompt", "completion", "messages", "label", "tools")),
        lambda row: (
            ("label" in row and "prompt" in row and "completion" in row)
            or ("messages" in row and isinstance(row.get("label"), bool))
        ),
        {Label: comparisons.label},
    ),
    Shape(
        "messages",
        "OpenAI messages",
        frozenset(("messages", "tools", "parallel_tool_calls")),
        lambda row: "messages" in row and not isinstance(row.get("label"), bool),
        _conversation(conversations.openai, "messages", "tools", "parallel_tool_calls"),
    ),
    Shape(
        "sharegpt",
        "ShareGPT",
        frozenset(("conversations", "system", "tools")),
        lambda row: "conversations" in row,
        _conversation(conversations.sharegpt, "conversations", "system", "tools"),
    ),
    Shape(
        "alpaca",
        "Alpaca",
        frozenset(("instruction", "input", "output", "system", "history")),
        lambda row: "instruction" in row,
        _conversation(conversations.alpaca, "instruction", "input", "output", "system", "history"),
    ),
    Shape(
        "completion",
        "prompt and completion",
        frozenset(("prompt", "completion", "tools")),
        lambda row: "prompt" in row and "completion" in row and "label" not in row,
        _conversation(conversations.completion, "prompt", "completion", "tools"),
    ),
    Shape(
        "prompt",
        "prompts",
        frozenset(("prompt", "tools", "reference", "answer")),
        lambda row: "prompt" in row and not row.keys() & {"completion", "chosen", "rejected"},
        {Problem: _prompt},
    ),
    Shape("text", "raw text", frozenset(("text",)), lambda row: "text" in row, {Document: _text}),
)
"""Every shape; where a row has the columns of two, the earlier one is meant."""


BY_NAME: Final[Mapping[str, Shape]] = {shape.name: shape for shape in SHAPES}


def detect(row: Row, kind: RecordType | None = None) -> Shape | None:
    """The shape of ``row``: one that serves ``kind`` where there is one, else any, else None."""
    found = [shape for shape in SHAPES if shape.matches(row)]
    serving = [shape for shape in found if kind is None or kind in shape.readers]
    return next(iter(serving or found), None)


def serving(kind: RecordType | None) -> str:
    """The shapes that can be read as ``kind``, or all, for a refusal."""
    return ", ".join(shape.title for shape in SHAPES if kind is None or kind in shape.readers)


def columns(value: Any) -> dict[str, Any]:
    """A row's columns, those without a value left out.

    Raises:
        InvalidRow: it is no object.
    """
    if not isinstance(value, dict):
        raise InvalidRow("a row must be a JSON object, such as one with messages")
    return {key: item for key, item in value.items() if item is not None}


def unused(row: Row, shape: Shape, kind: RecordType) -> Iterable[str]:
    """The columns of ``row`` that nothing reads; a problem keeps them all."""
    if kind is Problem:
        return ()
    return [column for column in row if column not in shape.columns and column not in ORIGIN]


def parse(row: Row, shape: Shape, kind: RecordType, origin: Origin) -> Record:
    """``row`` as a record of ``kind``, which ``shape`` must serve.

    Raises:
        InvalidRow: it cannot be learnt from; the text says why and what would be right.
    """
    if not MEDIA.isdisjoint(row) and (
        column := next((c for c in row if c in MEDIA and row[c]), "")
    ):
        raise InvalidRow(f"it has {column}: only text is learnt")
    metadata = row.get("metadata")
    grouped = metadata.get("group") if isinstance(metadata, dict) else None
    return kind(
        **shape.readers[kind](row),
        language=_word(row, "language", UNDETERMINED),
        licence=_word(row, "license", origin.licence),
        source=_word(row, "source", origin.file),
        file=origin.file,
        row=origin.row,
        group=_group(row, origin.group, row.get("group", grouped)),
    )


def _word(row: Row, column: str, default: str) -> str:
    text = row.get(column)
    if text is None:
        return default
    if not isinstance(text, str) or not text.strip():
        raise InvalidRow(f"{column} must be a text, not {text!r}")
    return text.strip()


def _group(row: Row, column: str | None, given: Any) -> str:
    value = given if column is None else row.get(column)
    if value is None:
        if column is None:
            return ""
        raise InvalidRow(f"it has no column {column!r} to be grouped by")
    if isinstance(value, bool | float) or not isinstance(value, str | int):
        raise InvalidRow(f"{column or 'group'} must be a text or a whole number, not {value!r}")
    return str(value)
