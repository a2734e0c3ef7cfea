"""Preferences: a better and a worse answer to one prompt, or one answer labelled good or bad.

Frozen values with their hashes and their form in a corpus. Knows nothing about files or shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from avocado.data.provenance import Provenance, read_provenance
from avocado.lineage import canonical, digest

Turns = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Preference(Provenance):
    """After ``prompt`` (which ends with the user's or a tool's turn), the assistant turn ``chosen``
    is better than ``rejected``."""

    prompt: Turns
    chosen: Mapping[str, Any]
    rejected: Mapping[str, Any]
    tools: Turns = ()

    @property
    def sha256(self) -> str:
        return digest(canonical(_learnt(self.to_json(), "prompt", "chosen", "rejected", "tools")))

    def to_json(self) -> dict[str, Any]:
        return {
            "prompt": list(self.prompt),
            "chosen": self.chosen,
            "rejected": self.rejected,
            **({"tools": list(self.tools)} if self.tools else {}),
            **self.provenance(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Preference:
        return cls(
            tuple(value["prompt"]),
            value["chosen"],
            value["rejected"],
            tuple(value.get("tools", ())),
            **read_provenance(value),
        )


@dataclass(frozen=True, slots=True)
class Label(Provenance):
    """After ``prompt``, the assistant turn ``answer`` is ``desirable``, or it is not."""

    prompt: Turns
    answer: Mapping[str, Any]
    desirable: bool
    tools: Turns = ()

    @property
    def sha256(self) -> str:
        return digest(canonical(_learnt(self.to_json(), "prompt", "answer", "desirable", "tools")))

    def to_json(self) -> dict[str, Any]:
        return {
            "prompt": list(self.prompt),
            "answer": self.answer,
            "desirable": self.desirable,
            **({"tools": list(self.tools)} if self.tools else {}),
            **self.provenance(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Label:
        return cls(
            tuple(value["prompt"]),
            value["answer"],
            value["desirable"],
            tuple(value.get("tools", ())),
            **read_provenance(value),
        )


def _learnt(row: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: row[key] for key in keys if key in row}
