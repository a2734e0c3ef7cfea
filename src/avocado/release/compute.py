"""Training compute of a release, held against the European threshold for modified models. Pure.

Who modifies a general-purpose model becomes its provider, with a provider's duties, where the
modification took more than a third of the compute of the original; where that is not known, more
than a third of 10²³ FLOP (Commission guidelines C(2025) 7719, sections 3.2). An engineering figure:
whether a duty follows is for a lawyer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

UNKNOWN_ORIGINAL: Final = 1e23
_TOKENS: Final = (
    (re.compile(r"Qwen/Qwen2\.5-(?:\d|\.)+B(?:-Instruct|-Base)?"), 18e12, "arXiv:2412.15115"),
    (re.compile(r"Qwen/Qwen3-(?:\d|\.)+B(?:-Base)?"), 36e12, "arXiv:2505.09388"),
)
"""Dense families whose makers published how many tokens they were trained on, and where."""


@dataclass(frozen=True, slots=True)
class Compute:
    """FLOP ``spent`` here, over all stages; ``original``: of the base, None where it is not known;
    ``source`` says whence."""

    spent: int
    original: float | None = None
    source: str = "not published"

    @property
    def threshold(self) -> float:
        return (UNKNOWN_ORIGINAL if self.original is None else self.original) / 3

    @property
    def over(self) -> bool:
        return self.spent > self.threshold

    def properties(self) -> Mapping[str, str]:
        """For a BOM: names and values."""
        return {
            "avocado:training-flop": f"{self.spent:.3e}",
            "avocado:base-training-flop": "unknown"
            if self.original is None
            else f"{self.original:.3e}",
            "avocado:eu-modification-threshold-flop": f"{self.threshold:.3e}",
            "avocado:over-eu-modification-threshold": "true" if self.over else "false",
        }

    def __str__(self) -> str:
        of = (
            "10²³ FLOP, the compute of the base not being known"
            if self.original is None
            else f"the base's {self.original:.2e} FLOP (6·N·D, tokens by {self.source})"
        )
        side = "above" if self.over else "below"
        return (
            f"{self.spent:.3g} FLOP, {side} the EU threshold of {self.threshold:.3g} for who "
            f"modifies a general-purpose model (C(2025) 7719: a third of {of})"
        )


def compute_of(base: str, parameters: int, spent: int) -> Compute:
    """``base``: the hub's id; ``parameters``: N of the base. The original is 6·N·D (Kaplan et al.
    2020), D by the makers' own report."""
    for pattern, tokens, source in _TOKENS:
        if pattern.fullmatch(base.partition("@")[0]):
            return Compute(spent, 6.0 * parameters * tokens, source)
    return Compute(spent)
