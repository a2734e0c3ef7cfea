"""The gate: may this checkpoint go out? Pure; the answer carries every reason.

A paid release needs a gain over its base whose confidence interval lies above the margin, no
language that lost more than allowed, and licences that let its outputs be sold. An open release
needs licences that let it be published, and must not be worse than its base where it was scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from avocado.evaluate.compare import Comparison
from avocado.terms.licence import Verdict


@dataclass(frozen=True, slots=True)
class Group:
    """Base and checkpoint on the same items: one language, or all of them (``name`` "all").

    ``base`` and ``refined`` are shares of right answers in 0..1; ``low`` and ``high`` bound their
    difference at the scorecard's confidence.
    """

    name: str
    items: int
    base: float
    refined: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        return self.refined - self.base


def group(name: str, compared: Comparison) -> Group:
    """A row of a scorecard as the gate reads it."""
    n = compared.n
    return Group(name, n, compared.base / n, compared.other / n, compared.low, compared.high)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator asks for, in shares of right answers (0.01 is one point)."""

    min_gain: float = 0.0
    max_regression: float = 0.0


@dataclass(frozen=True, slots=True)
class Approved:
    """It may go out."""

    approved: bool = field(default=True, init=False)
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """It stays in, for these reasons."""

    reasons: tuple[str, ...]
    approved: bool = field(default=False, init=False)


Decision = Approved | Refused


def decide(
    overall: Group | None, languages: Sequence[Group], verdict: Verdict, rules: Rules
) -> Decision:
    """Approved, or refused with every reason. ``overall`` None means that there is no scorecard."""
    reasons = [*_evidence(overall, languages, verdict.purpose == "sale", rules), *verdict.reasons]
    return Refused(tuple(reasons)) if reasons else Approved()


def _evidence(
    overall: Group | None, languages: Sequence[Group], paid: bool, rules: Rules
) -> list[str]:
    if overall is None:
        return (
            ["there is no scorecard of this checkpoint: run avocado evaluate first"] if paid else []
        )
    reasons = []
    if paid and not overall.low > rules.min_gain:
        reasons.append(
            f"no proven gain: {_points(overall)} over {overall.items} items, and the interval "
            f"[{overall.low:+.1%}, {overall.high:+.1%}] does not lie above {rules.min_gain:+.1%}"
        )
    elif not paid and overall.difference < -rules.max_regression:
        reasons.append(f"worse than its base: {_points(overall)} over {overall.items} items")
    reasons.extend(
        f"worse in {group.name}: {_points(group)} over {group.items} items; allowed is a loss "
        f"of {rules.max_regression:.1%}"
        for group in languages
        if group.difference < -rules.max_regression
    )
    return reasons


def _points(group: Group) -> str:
    return f"base {group.base:.1%}, refined {group.refined:.1%} ({group.difference:+.1%})"


def decision_facts(
    decision: Decision, overall: Group | None, verdict: Verdict, rules: Rules
) -> dict[str, Any]:
    """What a release's manifest says of the gate: the rules, the evidence, and who may be told."""
    return {
        "approved": decision.approved,
        "purpose": verdict.purpose,
        "min_gain": rules.min_gain,
        "max_regression": rules.max_regression,
        "gain": None if overall is None else round(overall.difference, 6),
        "licences": [
            {
                "role": part.role,
                "name": part.name,
                "licence": part.licence,
                "text_sha256": part.text_sha256,
            }
            for part in verdict.components
        ],
        "notices": list(verdict.notices),
    }
