"""Margin: each cost shared over what was served with it, in integers that sum to it exactly. Pure.

The formula. A release's use by a customer weighs

    4 × uncached prompt tokens + 1 × cached prompt tokens + 16 × completion tokens

(reasoning is part of completion). A cost goes to the releases whose it is (an engine's: those that
it is named for, else all that were served that month; a run's: those that came of it), in
proportion to weight; nano-units left over by rounding down go to the largest remainders. A cost of
releases that nobody used stays unshared, in a row of its own: an idle engine is nobody's margin.

Its limits. The weights say that an answer token costs about four times a prompt token, and a cached
one a quarter; that is the ratio at which open weights are commonly priced, not a measurement of
your engine. A month is one pot: a customer of its first day pays for an idle last day. Batch
requests weigh the same as others. Costs that are not named (people, traffic, payment fees) are not
in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from avocado.billing.costs import Cost

PROMPT_WEIGHT: Final = 4
CACHED_WEIGHT: Final = 1
COMPLETION_WEIGHT: Final = 16

Place = tuple[str, str]
"""(release, customer)."""
UNSHARED: Final[Place] = ("", "")
"""Of costs of what nobody used."""


def weigh(prompt: int, cached: int, completion: int) -> int:
    """What use weighs, see above; counts of tokens."""
    return (
        PROMPT_WEIGHT * (prompt - cached) + CACHED_WEIGHT * cached + COMPLETION_WEIGHT * completion
    )


def split(total: int, weights: Sequence[int]) -> list[int]:
    """Parts of ``total`` ≥ 0 in proportion to ``weights`` ≥ 0, that sum to it exactly (largest
    remainder; equal remainders in order).

    Raises:
        ValueError: no weight is above zero, or one is below.
    """
    whole = sum(weights)
    if whole <= 0 or min(weights) < 0 or total < 0:
        raise ValueError("a total of zero or more is shared by weights of zero or more, not all 0")
    parts = [total * weight // whole for weight in weights]
    lost = [total * weight % whole for weight in weights]
    for place in sorted(range(len(parts)), key=lambda place: -lost[place])[: total - sum(parts)]:
        parts[place] += 1
    return parts


def share(cost: Cost, weights: Mapping[Place, int]) -> dict[Place, int]:
    """Who bears how many nano-units of a cost, by release and customer. The parts sum to it."""
    theirs = {
        place: weight
        for place, weight in sorted(weights.items())
        if weight > 0 and (cost.releases is None or place[0] in cost.releases)
    }
    if not theirs:
        return {UNSHARED: cost.nanos} if cost.nanos else {}
    parts = split(cost.nanos, list(theirs.values()))
    return {place: part for place, part in zip(theirs, parts, strict=True) if part}


def share_all(
    costs: Iterable[Cost], weights: Mapping[Place, int]
) -> dict[tuple[str, str, str, str], int]:
    """(release, customer, currency, kind of cost) → nano-units, of all costs together."""
    found: dict[tuple[str, str, str, str], int] = {}
    for cost in costs:
        for place, part in share(cost, weights).items():
            key = (*place, cost.currency, cost.kind)
            found[key] = found.get(key, 0) + part
    return found
