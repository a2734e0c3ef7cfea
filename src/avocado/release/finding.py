"""A finding: one gain or guard of the gate, looked at, in numbers and in a sentence. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

ALL: Final = "all"
"""What stands for a language in the row of all items."""

State = Literal["met", "failed", "undecided"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Shares of the score in 0..1; ``low`` and ``high`` bound the difference at ``confidence``.

    ``threshold`` is what the difference has to exceed: by its whole interval where ``proof`` is
    asked, else as it was seen. ``more``: items that would tell, where it is undecided and a number
    would. ``p``: of a guard, that it is not broken, after Holm's correction.
    """

    kind: Literal["gain", "guard"]
    suite: str
    language: str
    threshold: float
    proof: bool
    confidence: float
    items: int
    clusters: int
    base: float
    refined: float
    low: float
    high: float
    detectable: float
    state: State
    more: int | None = None
    p: float | None = None

    @property
    def difference(self) -> float:
        return self.refined - self.base

    def __str__(self) -> str:
        """The whole sentence: what was asked, what was seen, and what would tell."""
        where = self.suite if self.language == ALL else f"{self.language} of {self.suite}"
        seen = (
            f"base {self.base:.1%}, refined {self.refined:.1%} ({self.difference:+.1%}) over "
            f"{self.items} items"
        )
        if not self.proof:
            word = "not worse" if self.state == "met" else "worse"
            return f"{word} in {where}: {seen}; no loss may be seen"
        text = f"{self._claim()} {where}: {seen}, and the interval {self._relation()}"
        if self.state != "undecided":
            return text
        if self.more is None:
            return f"{text}; no number of items would tell at this difference"
        return f"{text}; about {self.more:,} more items would tell"

    def _claim(self) -> str:
        if self.kind == "gain":
            return "proven gain on" if self.state == "met" else "no proven gain on"
        words = {"met": "kept in", "failed": "worse in", "undecided": "not proven to be kept in"}
        return words[self.state]

    def _relation(self) -> str:
        broken = self.kind == "guard" and self.state == "failed"
        verb = "lies" if broken or self.state == "met" else "does not lie"
        side = "below" if broken else "above"
        return f"[{self.low:+.1%}, {self.high:+.1%}] {verb} {side} {self.threshold:+.1%}"

    def to_json(self) -> dict[str, Any]:
        """As a manifest keeps it: six significant digits."""
        return {
            name: float(f"{value:.6g}") if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }
