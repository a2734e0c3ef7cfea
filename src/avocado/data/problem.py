"""Problem: a prompt that a model is to answer itself, and what a right answer is known by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from avocado.data.provenance import Provenance, read_provenance
from avocado.lineage import canonical, digest


@dataclass(frozen=True, slots=True)
class Problem(Provenance):
    """``messages`` end with the user's turn. ``reference`` is the right answer where the row has
    one (a conversation's own last answer); ``fields`` are the row's other columns, for rewards.
    """

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    reference: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        return digest(canonical({"messages": list(self.messages), "tools": list(self.tools)}))

    def to_json(self) -> dict[str, Any]:
        return {
            "messages": list(self.messages),
            **({"tools": list(self.tools)} if self.tools else {}),
            **({} if self.reference is None else {"reference": self.reference}),
            **({"fields": dict(self.fields)} if self.fields else {}),
            **self.provenance(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Problem:
        return cls(
            tuple(value["messages"]),
            tuple(value.get("tools", ())),
            value.get("reference"),
            value.get("fields", {}),
            **read_provenance(value),
        )
