"""Record: what one row of a corpus can be, and which kind each method of a recipe learns from.

Every record has its provenance, a ``sha256`` of what is learnt, and ``to_json`` with its inverse
``from_json``. Knows nothing about files or shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from avocado.data.document import Document
from avocado.data.example import Example
from avocado.data.preference import Label, Preference
from avocado.data.problem import Problem

Record = Example | Document | Preference | Label | Problem

RecordType = type[Example] | type[Document] | type[Preference] | type[Label] | type[Problem]

LEARNT_BY: Final[Mapping[str, RecordType]] = {
    "supervised": Example,
    "pretraining": Document,
    "dpo": Preference,
    "kto": Label,
    "grpo": Problem,
    "distillation": Problem,
}
"""A recipe's ``method`` → the one kind of record that it reads."""

PLURAL: Final[Mapping[RecordType, str]] = {
    Example: "conversations",
    Document: "raw text",
    Preference: "preference pairs",
    Label: "labelled answers",
    Problem: "prompts",
}
"""What people call records of each kind."""

SINGULAR: Final[Mapping[RecordType, str]] = {
    Example: "conversation",
    Document: "document",
    Preference: "preference pair",
    Label: "labelled answer",
    Problem: "prompt",
}

FILE: Final[Mapping[RecordType, str]] = {
    Example: "examples.jsonl",
    Document: "documents.jsonl",
    Preference: "preferences.jsonl",
    Label: "labels.jsonl",
    Problem: "problems.jsonl",
}
"""The file of a frozen corpus that holds records of each kind."""
