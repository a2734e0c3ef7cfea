"""Offer: a release under a public name, at a price, for whom and how long. Pure and frozen.

What changes is a new offer version: an offer that somebody was billed under stays what it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

from avocado.lineage import Manifest
from avocado.terms.price import PriceSheet

PLAN: Final = "plan:"
_WORD: Final = re.compile(r"(plan:)?[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DATES: Final = ("begins", "deprecated", "ends")

State = Literal["ahead", "sold", "deprecated", "over"]


@dataclass(frozen=True)
class Offer:
    """``name`` is what customers write as ``model``; ``release`` the artifact id that serves it.

    ``audience``: customers, and plans as ``plan:NAME``, that may know of it; none named: all.
    ``begins``, ``deprecated`` and ``ends`` are Unix seconds: it is sold from ``begins`` until
    ``ends``, and with a warning from ``deprecated`` on. ``successor`` is the name to change to.

    Raises:
        ValueError: an audience that is no name, or dates out of order.
    """

    name: str
    release: str
    price: PriceSheet
    created: int
    """Unix seconds: the ``created`` field of ``/v1/models``."""
    id: str = ""
    audience: tuple[str, ...] = ()
    begins: int | None = None
    deprecated: int | None = None
    ends: int | None = None
    successor: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "audience", tuple(sorted(set(self.audience))))
        for word in self.audience:
            if not _WORD.fullmatch(word):
                raise ValueError(f"{word!r} is no customer, and no plan such as plan:pro")
        dates = [date for name in _DATES if (date := getattr(self, name)) is not None]
        if any(later <= earlier for earlier, later in pairwise(dates)):
            raise ValueError("an offer begins, is deprecated and ends in that order")
        if self.successor == self.name:
            raise ValueError(f"{self.name} cannot be its own successor")

    def admits(self, tenant: str, plan: str | None) -> bool:
        """Whether a customer on ``plan`` may know of it."""
        if not self.audience:
            return True
        return tenant in self.audience or (plan is not None and f"{PLAN}{plan}" in self.audience)

    def state(self, now: float) -> State:
        """At ``now``, in Unix seconds."""
        if self.begins is not None and now < self.begins:
            return "ahead"
        if self.ends is not None and now >= self.ends:
            return "over"
        if self.deprecated is not None and now >= self.deprecated:
            return "deprecated"
        return "sold"

    def manifest(self) -> Manifest:
        """What is not set is left out, so that offers made before there were such terms keep their
        ids."""
        facts: dict[str, Any] = {
            "name": self.name,
            "price": self.price.terms(),
            "created": self.created,
        }
        if self.audience:
            facts["audience"] = list(self.audience)
        for name in (*_DATES, "successor"):
            if getattr(self, name) is not None:
                facts[name] = getattr(self, name)
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
            audience=tuple(facts.get("audience", ())),
            successor=facts.get("successor"),
            **{name: facts.get(name) for name in _DATES},
        )
