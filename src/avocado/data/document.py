"""Document: raw text to continue a base's pretraining on. Knows no template: none is applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from avocado.data.provenance import Provenance, read_provenance
from avocado.lineage import canonical, digest


@dataclass(frozen=True, slots=True)
class Document(Provenance):
    """One ``text``; the model learns every token of it, and the end-of-text token after it."""

    text: str

    @property
    def sha256(self) -> str:
        return digest(canonical({"text": self.text}))

    def to_json(self) -> dict[str, Any]:
        return {"text": self.text, **self.provenance()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Document:
        return cls(value["text"], **read_provenance(value))
