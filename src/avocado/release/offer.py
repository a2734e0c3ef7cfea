"""Offer: a release under a public name, at a price. Frozen; a new price is a new offer version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from avocado.lineage import Manifest
from avocado.terms.price import PriceSheet


@dataclass(frozen=True)
class Offer:
    """``name`` is what customers write as ``model``; ``release`` the artifact id that serves it."""

    name: str
    release: str
    price: PriceSheet
    created: int
    """Unix seconds: the ``created`` field of ``/v1/models``."""
    id: str = ""

    def manifest(self) -> Manifest:
        facts = {"name": self.name, "price": self.price.terms(), "created": self.created}
        return Manifest("offer", facts, parents={"release": self.release})

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Offer:
        facts: Mapping[str, Any] = manifest.facts
        return cls(
            name=facts["name"],
            release=manifest.parents["release"],
            price=PriceSheet(**facts["price"]),
            created=facts["created"],
            id=manifest.id,
        )
