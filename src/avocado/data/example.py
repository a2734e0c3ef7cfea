"""Example: one conversation to learn from, with where it came from and what its licence is.

A frozen value with its hash and its form in a corpus. Knows nothing about files, shapes, tokens or
templates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from avocado.data.provenance import Provenance, read_provenance
from avocado.lineage import canonical, digest


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
