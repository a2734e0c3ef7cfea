"""Pure statistics: is one model better than another on the same items, and by how much?

Every function takes plain numbers and returns plain numbers; nothing is read, written or drawn
without a seed. Items are assumed independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

RESAMPLES = 10_000
SEED = 20260101
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Comparison:
    """``other`` against ``base`` on the same ``n`` items, right or wrong.

    ``won``: items that only ``other`` has right; ``lost``: only ``base``. ``low`` and ``high``
    bound the difference of the rates (:func:`interval`); ``p`` is :func:`mcnemar`'s.
    """

    n: int
    base: int
    other: int
    won: int
    lost: int
    low: float
    high: float
    p: float

    @property
    def difference(self) -> float:
        return (self.other - self.base) / self.n


def compare(
    base: Sequence[bool],
    other: Sequence[bool],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison:
    """Compares two models item by item; ``base[i]`` and ``other[i]`` are of the same item.

    Raises:
        ValueError: no items, or not as many of one as of the other.
    """
    if len(base) != len(other) or not base:
        raise ValueError(f"{len(base)} and {len(other)} results do not pair")
    won = sum(b and not a for a, b in zip(base, other, strict=True))
    lost = sum(a and not b for a, b in zip(base, other, strict=True))
    low, high = interval(base, other, confidence=confidence, resamples=resamples, seed=seed)
    return Comparison(len(base), sum(base), sum(other), won, lost, low, high, mcnemar(won, lost))


def wilson(right: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Score interval of a proportion (E. B. Wilson 1927, JASA 22:209, without continuity
    correction)."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate, scale = right / n, 1 + z * z / n
    middle = (rate + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(won: int, lost: int) -> float:
    """Two-sided exact p-value that wins and losses are equally likely: McNemar's test (1947,
    Psychometrika 12:153) on the binomial distribution of the discordant pairs."""
    n, few = won + lost, min(won, lost)
    ways = tail = 1
    for k in range(1, few + 1):
        ways = ways * (n - k + 1) // k
        tail += ways
    return min(1.0, float(2 * tail / 2**n))


def interval(
    base: Sequence[bool],
    other: Sequence[bool],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float]:
    """Bounds of the difference of two rates on the same items: the wider, on each side, of the
    paired bootstrap and Newcombe's interval.

    The bootstrap alone knows nothing of what it hasn't seen: with five wins out of five it would
    say "exactly 100 points better", and its 95% held the truth in 26 to 84% of simulated suites of
    10 to 30 items with gains as large as ours are. Newcombe's keeps it honest there (together: 96%
    or more everywhere); on hundreds of items with wins and losses the two agree.
    """
    differences = [int(b) - int(a) for a, b in zip(base, other, strict=True)]
    low, high = bootstrap(differences, confidence=confidence, resamples=resamples, seed=seed)
    floor, roof = newcombe(base, other, confidence=confidence)
    return min(low, floor), max(high, roof)


def bootstrap(
    differences: Sequence[float],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float]:
    """Percentile interval of the mean difference over resampled items (Efron 1979, Ann. Statist.
    7:1; for paired test items see Koehn 2004, EMNLP).

    Drawing n items with replacement and counting how often each distinct difference comes up is one
    multinomial draw, so a resample costs a few numbers whatever n is.
    """
    import numpy

    values, counts = numpy.unique(numpy.asarray(differences, dtype=float), return_counts=True)
    n = int(counts.sum())
    # The legacy generator: numpy froze its stream for good (NEP 19), so a seed means one result.
    draws = numpy.random.RandomState(seed).multinomial(n, counts / n, size=resamples)
    means = draws @ values / n
    tail = (1 - confidence) / 2
    low, high = numpy.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def newcombe(
    base: Sequence[bool], other: Sequence[bool], *, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Interval of the difference of two paired proportions from their Wilson intervals (R. G.
    Newcombe 1998, Statist. Med. 17:2635, method 10)."""
    n = len(base)
    both = sum(a and b for a, b in zip(base, other, strict=True))
    won, lost = sum(other) - both, sum(base) - both
    neither = n - both - won - lost
    product = float(both * neither - won * lost)
    if product > 0:
        product = max(0.0, product - n / 2)  # his continuity correction of phi
    margins = sum(other) * (n - sum(other)) * sum(base) * (n - sum(base))
    phi = product / math.sqrt(margins) if margins else 0.0
    p1, p2 = sum(base) / n, sum(other) / n
    (l1, u1), (l2, u2) = wilson(sum(base), n, confidence), wilson(sum(other), n, confidence)

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    return p2 - p1 - reach(p2 - l2, u1 - p1), p2 - p1 + reach(u2 - p2, p1 - l1)
