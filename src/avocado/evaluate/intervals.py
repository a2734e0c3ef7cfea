"""Intervals of a rate, of a difference of two rates, and of a mean. Pure arithmetic.

Sizes may be fractions: where items come in clusters they are effective sizes.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 10_000
SEED: Final = 20260101

_MANY: Final = 1_000
"""Degrees of freedom from which Student's t is taken for normal (2 in 10,000 off, at 97.5 %)."""


def normal(confidence: float) -> float:
    """How many standard errors a two-sided normal interval reaches."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


@lru_cache(maxsize=4096)
def student(confidence: float, degrees: int) -> float:
    """How many standard errors a two-sided interval reaches by Student's t (1908, Biometrika 6:1).

    Integrates the density after x = √ν·tan θ, where it is a power of a cosine, and bisects.
    """
    if degrees >= _MANY:
        return normal(confidence)
    tail = (1 - confidence) / 2
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)

    def beyond(angle: float, steps: int = 256) -> float:
        width = (math.pi / 2 - angle) / steps  # Simpson's rule
        values = [math.cos(angle + k * width) ** (degrees - 1) for k in range(steps)]
        values.append(float(degrees == 1))
        total = values[0] + values[-1] + 4 * sum(values[1:-1:2]) + 2 * sum(values[2:-1:2])
        return scale * width / 3 * total

    low, high = 0.0, math.pi / 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if beyond(middle) > tail else (low, middle)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def wilson(right: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Score interval of a proportion (E. B. Wilson 1927, JASA 22:209, without continuity
    correction)."""
    z = normal(confidence)
    rate, scale = right / n, 1 + z * z / n
    middle = (rate + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(max(0.0, rate * (1 - rate)) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def newcombe(
    cells: tuple[float, float, float, float], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Interval of the difference of two paired proportions from their Wilson intervals (R. G.
    Newcombe 1998, Statist. Med. 17:2635, method 10).

    ``cells``: items that both have right, only the base, only the other, neither.
    """
    both, lost, won, neither = cells
    n = both + lost + won + neither
    base, other = both + lost, both + won
    product = both * neither - won * lost
    if product > 0:
        product = max(0.0, product - n / 2)  # his continuity correction of phi
    margins = other * (n - other) * base * (n - base)
    phi = product / math.sqrt(margins) if margins > 0 else 0.0
    p1, p2 = base / n, other / n
    (l1, u1), (l2, u2) = wilson(base, n, confidence), wilson(other, n, confidence)

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    return p2 - p1 - reach(p2 - l2, u1 - p1), p2 - p1 + reach(u2 - p2, p1 - l1)


def unseen(clusters: int, confidence: float = CONFIDENCE) -> float:
    """The largest share of a population that ``clusters`` draws may have missed altogether: the
    exact bound on 0 of n (Clopper and Pearson 1934, Biometrika 26:404; the "rule of three")."""
    return float(1 - ((1 - confidence) / 2) ** (1 / clusters))


def resampled(
    sums: Sequence[float], sizes: Sequence[float], resamples: int = RESAMPLES, seed: int = SEED
) -> Any:
    """Means of resampled clusters, sorted: the bootstrap (Efron 1979, Ann. Statist. 7:1; paired
    test items: Koehn 2004, EMNLP; whole clusters: Davison and Hinkley 1997, §3.8).

    ``sums`` and ``sizes`` are the totals and item counts of each cluster; an item alone is a
    cluster of one. Returns a numpy array of ``resamples`` means.

    Where few clusters are distinct, counting how often each comes up is one multinomial draw, so
    that a resample costs a few numbers whatever n is.
    """
    import numpy

    # The legacy generator: numpy froze its stream for good (NEP 19), so a seed means one result.
    random = numpy.random.RandomState(seed)
    table = numpy.column_stack([sums, sizes]).astype(float)
    clusters = len(table)
    distinct, counts = numpy.unique(table, axis=0, return_counts=True)
    if len(distinct) <= max(16, clusters // 4):
        taken = random.multinomial(clusters, counts / clusters, size=resamples)
        return numpy.sort(taken @ distinct[:, 0] / (taken @ distinct[:, 1]))
    means = numpy.empty(resamples)
    step = max(1, 2_000_000 // clusters)
    alike = clusters * table[0, 1] if (table[:, 1] == table[0, 1]).all() else None
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        taken = random.randint(clusters, size=(rows, clusters))
        items = table[taken, 1].sum(axis=1) if alike is None else alike
        means[start : start + rows] = table[taken, 0].sum(axis=1) / items
    return numpy.sort(means)
