"""A suite: questions in order, how answers are graded, and what it is for; hashed by content.

Read from JSONL, one row an item: ``{"id": …, "language": …, "messages": […], "answer": …}``. Knows
nothing about models; :mod:`avocado.evaluate.run` asks the questions.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from avocado.errors import Refused
from avocado.evaluate.graders import (
    Exact,
    Grade,
    Grader,
    JsonValue,
    check_answer,
    grader,
)
from avocado.evaluate.json_values import is_structure, refuse_constant, unique
from avocado.lineage import Json, canonical, digest

Role = Literal["target", "guard"]
"""What a suite is for: the gain that is wanted, or what must not be lost on the way."""

MAX_TOKENS: Final = 256
"""Tokens that an answer may have where nothing says otherwise."""

_NEEDED: Final = ("id", "language", "messages")
_ALLOWED: Final = (*_NEEDED, "answer", "cluster", "choices", "fields")
_ROLES: Final = ("system", "user", "assistant", "tool")


class SuiteError(ValueError):
    """A suite that cannot be used; the sentence names the file and the line, or the item."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question. The messages end where the model has to speak.

    Items of one ``cluster`` (a document, a conversation) are not independent of each other.
    ``answer`` is "" where the grade needs none; ``choices`` and ``fields`` are for grades by choice
    and by reward functions.
    """

    id: str
    language: str
    messages: tuple[Mapping[str, Any], ...]
    answer: str
    cluster: str | None = None
    choices: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        row: dict[str, Json] = {
            "id": self.id,
            "language": self.language,
            "messages": [dict(message) for message in self.messages],
        }
        given = {"answer": self.answer, "cluster": self.cluster}
        row |= {name: value for name, value in given.items() if value}
        if self.choices:
            row["choices"] = list(self.choices)
        if self.fields:
            row["fields"] = dict(self.fields)
        return row

    @property
    def sha256(self) -> str:
        """The hash of its content, id and language included."""
        return digest(canonical(self.to_json()))


@dataclass(frozen=True)
class Suite:
    """Items in the order of their file, ids unique, at least one."""

    name: str
    items: tuple[Item, ...]
    grade: Grade
    role: Role = "target"
    max_tokens: int = MAX_TOKENS
    thinking: bool = False
    """Whether the model is asked to think first; thoughts are never graded."""

    @classmethod
    def read(
        cls,
        path: Path,
        grade: Grade | None = None,
        *,
        name: str | None = None,
        role: Role = "target",
        max_tokens: int = MAX_TOKENS,
        thinking: bool = False,
    ) -> Suite:
        """Reads JSONL, strictly. ``name`` is the file's by default.

        Without a ``grade`` it is ``json`` where every answer is an object or list, else ``exact``.

        Raises:
            SuiteError: no such file, not UTF-8, no items, a row that is not an item, or one that
                the grade cannot be held against.
        """
        rows = _rows(path)
        items: list[Item] = []
        seen: dict[str, int] = {}
        for number, line in enumerate(rows, start=1):
            try:
                item = _item(line)
                if not item.answer and (grade is None or grade.needs_answer):
                    raise SuiteError("no 'answer'")
                if item.id in seen:
                    raise SuiteError(f"the id {item.id!r} is that of line {seen[item.id]} too")
                if grade is not None or item.choices:
                    check_answer(grade or Exact(), item.answer, item.choices)
            except ValueError as error:
                raise SuiteError(f"{path}, line {number}: {error}") from error
            seen[item.id] = number
            items.append(item)
        if not items:
            raise SuiteError(f"{path} is empty: a suite needs items")
        if grade is None:
            grade = JsonValue() if all(is_structure(item.answer) for item in items) else Exact()
        return cls(name or path.stem, tuple(items), grade, role, max_tokens, thinking)

    def write(self, folder: Path) -> Path:
        """Writes ``<name>.jsonl`` in canonical form; reading it gives the items back."""
        plain = re.sub(r"[^\w.-]", "_", self.name)
        path = folder / f"{plain}.jsonl"
        path.write_bytes(b"".join(canonical(item.to_json()) + b"\n" for item in self.items))
        return path

    @property
    def languages(self) -> tuple[str, ...]:
        """In the order in which they first appear."""
        return tuple(dict.fromkeys(item.language for item in self.items))

    @property
    def metric(self) -> str:
        """What a score is, in a table's words."""
        return self.grade.metric

    @cached_property
    def sha256(self) -> str:
        """The hash of all items, in order, and of how they are asked and graded."""
        how = [msgspec.to_builtins(self.grade), self.max_tokens, self.thinking]
        return digest(canonical([how, *(item.sha256 for item in self.items)]))

    @cached_property
    def grader(self) -> Grader:
        """Grades by text alone.

        Raises:
            SuiteError: the grade's settings are wrong, or text alone does not decide.
        """
        try:
            return grader(self.grade)
        except (ValueError, Refused) as error:
            raise SuiteError(f"suite {self.name!r}: {error}") from error

    def check(self) -> None:
        """Whether the grade's settings are right, which is better known before a model is loaded.

        Raises:
            SuiteError: they are not.
        """
        if self.grade.decided_by_text:
            _ = self.grader

    def facts(self) -> dict[str, Json]:
        """What its artifact's manifest says."""
        return {
            "name": self.name,
            "role": self.role,
            "grade": msgspec.to_builtins(self.grade),
            "max_tokens": self.max_tokens,
            "thinking": self.thinking,
            "items": dict(Counter(item.language for item in self.items)),
            "sha256": self.sha256,
        }


def _rows(path: Path) -> list[str]:
    try:
        rows = path.read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        raise SuiteError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        row = error.object[: error.start].count(b"\n") + 1
        raise SuiteError(f"{path}, line {row}: not UTF-8") from error
    if rows and not rows[-1].strip():
        rows.pop()
    return rows


def _item(line: str) -> Item:
    """One row; the error says what is wrong with it."""
    try:
        row = json.loads(line, object_pairs_hook=unique, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise SuiteError("not a JSON object")
    missing = [key for key in _NEEDED if key not in row]
    unknown = sorted(row.keys() - set(_ALLOWED))
    if missing or unknown:
        wrong = f"no {missing[0]!r}" if missing else f"unknown key {unknown[0]!r}"
        raise SuiteError(f"{wrong}: an item has {', '.join(_ALLOWED)}")
    for key in ("id", "language", "answer", "cluster"):
        if key in row and (not isinstance(row[key], str) or not row[key].strip()):
            raise SuiteError(f"{key!r} must be text and not empty")
    choices, fields = row.get("choices", []), row.get("fields", {})
    if not isinstance(choices, list) or not all(isinstance(c, str) and c for c in choices):
        raise SuiteError("'choices' must be a list of texts that are not empty")
    if not isinstance(fields, dict):
        raise SuiteError("'fields' must be an object")
    return Item(
        row["id"],
        row["language"],
        _messages(row["messages"]),
        row.get("answer", ""),
        row.get("cluster"),
        tuple(choices),
        fields,
    )


def _messages(messages: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(messages, list) or not messages:
        raise SuiteError("'messages' must be a list and not empty")
    for place, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise SuiteError(f"message {place} needs a role, one of {', '.join(_ROLES)}")
        if not isinstance(message.get("content"), str):
            raise SuiteError(f"message {place} needs a content of text")
    if messages[-1]["role"] not in ("user", "tool"):
        raise SuiteError("the last message must be the user's or a tool's: the model answers it")
    return tuple(messages)
