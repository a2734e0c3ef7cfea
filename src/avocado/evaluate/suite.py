"""A suite: questions with the one right answer each, read from JSONL, hashed by content.

One row an item: ``{"id": …, "language": …, "messages": […], "answer": …}``. Knows nothing about
models; :mod:`avocado.evaluate.run` asks the questions.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from avocado.lineage import Json, canonical, digest

Comparison = Literal["exact", "json"]
"""How an output is held against the answer. Both drop white space at the ends first.

``exact`` is equality of text. ``json`` is also satisfied by the same JSON value written otherwise
(key order, spaces, ``1.0`` for ``1``); it is the default where every answer is an object or list.
"""

_KEYS = ("id", "language", "messages", "answer")
_ROLES = ("system", "user", "assistant", "tool")


class SuiteError(ValueError):
    """A suite that cannot be used; the sentence names the file and the line, or the item."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question. The messages end where the model has to speak."""

    id: str
    language: str
    messages: tuple[Mapping[str, Any], ...]
    answer: str

    def to_json(self) -> dict[str, Json]:
        messages = [dict(message) for message in self.messages]
        return dict(zip(_KEYS, (self.id, self.language, messages, self.answer), strict=True))

    @property
    def sha256(self) -> str:
        """The hash of its content, id and language included."""
        return digest(canonical(self.to_json()))


@dataclass(frozen=True)
class Suite:
    """Items in the order of their file, ids unique, at least one."""

    name: str
    items: tuple[Item, ...]
    comparison: Comparison
    role: Literal["target", "guard"] = "target"
    """Where the gain is wanted, or what must not be lost on the way."""
    metric: str = "right answers"
    """What a score is."""

    @classmethod
    def read(cls, path: Path, comparison: Comparison | None = None) -> Suite:
        """Reads JSONL, strictly. The suite's name is the file's.

        Raises:
            SuiteError: no such file, not UTF-8, no items, or a row that is not an item.
        """
        try:
            lines = path.read_bytes().decode("utf-8-sig").split("\n")
        except OSError as error:
            raise SuiteError(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            row = error.object[: error.start].count(b"\n") + 1
            raise SuiteError(f"{path}, line {row}: not UTF-8") from error
        if lines and not lines[-1].strip():
            lines.pop()
        items: list[Item] = []
        seen: dict[str, int] = {}
        for row, line in enumerate(lines, start=1):
            try:
                item = _item(line)
                if item.id in seen:
                    raise SuiteError(f"the id {item.id!r} is that of line {seen[item.id]} too")
            except SuiteError as error:
                raise SuiteError(f"{path}, line {row}: {error}") from error
            seen[item.id] = row
            items.append(item)
        if not items:
            raise SuiteError(f"{path} is empty: a suite needs items")
        if comparison is None:
            comparison = "json" if all(_is_structure(item.answer) for item in items) else "exact"
        if comparison not in get_args(Comparison):
            raise SuiteError(f"comparison must be exact or json, not {comparison!r}")
        return cls(path.stem, tuple(items), comparison)

    def write(self, folder: Path) -> Path:
        """Writes ``<name>.jsonl`` in canonical form; reading it gives this suite back."""
        path = folder / f"{self.name}.jsonl"
        path.write_bytes(b"".join(canonical(item.to_json()) + b"\n" for item in self.items))
        return path

    @property
    def languages(self) -> tuple[str, ...]:
        """In the order in which they first appear."""
        return tuple(dict.fromkeys(item.language for item in self.items))

    @cached_property
    def sha256(self) -> str:
        """The hash of all items, in order, and of how answers are compared."""
        return digest(canonical([self.comparison, *(item.sha256 for item in self.items)]))

    def facts(self) -> dict[str, Json]:
        """What its artifact's manifest says."""
        return {
            "name": self.name,
            "comparison": self.comparison,
            "items": dict(Counter(item.language for item in self.items)),
            "sha256": self.sha256,
        }

    def is_right(self, output: str, answer: str) -> bool:
        """Whether ``output`` says what ``answer`` says."""
        output, answer = output.strip(), answer.strip()
        if output == answer:
            return True
        return self.comparison == "json" and _same_json(output, answer)


def _item(line: str) -> Item:
    """One row; the error says what is wrong with it."""
    try:
        row = json.loads(line, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise SuiteError("not a JSON object")
    missing = [key for key in _KEYS if key not in row]
    unknown = sorted(row.keys() - set(_KEYS))
    if missing or unknown:
        wrong = f"no {missing[0]!r}" if missing else f"unknown key {unknown[0]!r}"
        raise SuiteError(f"{wrong}: an item has {', '.join(_KEYS)}")
    for key in ("id", "language", "answer"):
        if not isinstance(row[key], str) or not row[key].strip():
            raise SuiteError(f"{key!r} must be text and not empty")
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise SuiteError("'messages' must be a list and not empty")
    for place, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise SuiteError(f"message {place} needs a role, one of {', '.join(_ROLES)}")
        if not isinstance(message.get("content"), str):
            raise SuiteError(f"message {place} needs a content of text")
    if messages[-1]["role"] not in ("user", "tool"):
        raise SuiteError("the last message must be the user's or a tool's: the model answers it")
    return Item(row["id"], row["language"], tuple(messages), row["answer"])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON allows a key twice and leaves its meaning open; we don't."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in an object")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _value(text: str) -> Json:
    """A JSON value with exact numbers.

    Raises:
        ValueError: not JSON, or nested too deeply to be an answer.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=Decimal,
            parse_int=Decimal,
        )
    except (RecursionError, ArithmeticError) as error:
        raise ValueError(str(error)) from error


def _is_structure(text: str) -> bool:
    try:
        return isinstance(_value(text), dict | list)
    except ValueError:
        return False


def _same_json(left: str, right: str) -> bool:
    try:
        return _equal(_value(left), _value(right))
    except ValueError:
        return False


def _equal(left: Json, right: Json) -> bool:
    if type(left) is not type(right):  # Decimal(1) == True in Python
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)
