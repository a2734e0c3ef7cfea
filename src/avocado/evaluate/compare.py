"""Is one model better than another on the same items, and by how much? Pure statistics.

Every function takes plain numbers and returns plain numbers; nothing is read, written or drawn
without a seed. Items are independent unless they say which cluster they belong to (one document,
one conversation, one template); then clusters are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any, Final

from avocado.evaluate.intervals import (
    CONFIDENCE,
    RESAMPLES,
    SEED,
    newcombe,
    normal,
    resampled,
    student,
    unseen,
)
from avocado.evaluate.significance import mcnemar, permutation

POWER: Final = 0.8
"""The chance of proving a true difference that plans aim at."""


@dataclass(frozen=True)
class Pairs:
    """Scores (0..1) of two models; ``base[i]`` and ``other[i]`` are of the same item.

    ``clusters[i]`` names what the item belongs to; None: every item stands alone.

    Raises:
        ValueError: no items, or not as many of one as of the other.
    """

    base: tuple[float, ...]
    other: tuple[float, ...]
    clusters: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.base) != len(self.other) or not self.base:
            raise ValueError(f"{len(self.base)} and {len(self.other)} results do not pair")
        if self.clusters is not None and len(self.clusters) != len(self.base):
            raise ValueError(f"{len(self.clusters)} clusters of {len(self.base)} items")

    @property
    def n(self) -> int:
        return len(self.base)

    @cached_property
    def binary(self) -> bool:
        """Whether every score says right or wrong."""
        return all(score in (0, 1) for scores in (self.base, self.other) for score in scores)

    @cached_property
    def cells(self) -> tuple[int, int, int, int]:
        """Of right and wrong: both right, only the base, only the other, neither."""
        found = list(zip(self.base, self.other, strict=True))
        return (
            found.count((1, 1)),
            found.count((1, 0)),
            found.count((0, 1)),
            found.count((0, 0)),
        )

    @cached_property
    def totals(self) -> tuple[list[float], list[int]]:
        """Of each cluster: the sum of its differences, and its items."""
        differences = [b - a for a, b in zip(self.base, self.other, strict=True)]
        if self.clusters is None:
            return differences, [1] * len(differences)
        sums: dict[str, float] = {}
        sizes: dict[str, int] = {}
        for cluster, difference in zip(self.clusters, differences, strict=True):
            sums[cluster] = sums.get(cluster, 0.0) + difference
            sizes[cluster] = sizes.get(cluster, 0) + 1
        return list(sums.values()), list(sizes.values())

    @property
    def clustered(self) -> bool:
        """Whether any cluster has several items."""
        return len(self.totals[0]) < self.n


class Estimate:
    """The mean difference of ``pairs``, with bounds at any confidence.

    Bounds are the widest, on each side, of those that apply:

    - the bootstrap over clusters, by percentiles;
    - of right and wrong: Newcombe's interval, on effective sizes where items come in clusters
      (Rao and Scott 1992, Biometrics 48:577: sizes divided by the design effect);
    - of scores, or where items come in clusters: Student's t with the clusters' standard error.

    The bootstrap alone knows nothing of what it hasn't seen: with five wins out of five it would
    say "exactly 100 points better", and its 95 % held the truth in 26 to 84 % of simulated suites
    of 10 to 30 items with gains as large as ours are. BCa bounds (Efron 1987, JASA 82:171) miss as
    often there; ``benchmarks/gate.py`` counts how often these do.
    """

    def __init__(self, pairs: Pairs, resamples: int = RESAMPLES, seed: int = SEED) -> None:
        self.pairs = pairs
        self._resamples, self._seed = resamples, seed
        sums, sizes = pairs.totals
        self.clusters = len(sums)
        self.difference = sum(sums) / pairs.n
        self._deviations = [s - self.difference * m for s, m in zip(sums, sizes, strict=True)]

    @cached_property
    def error(self) -> float:
        """Standard error of the difference, from the clusters' totals (a ratio estimate)."""
        if self.clusters < 2:
            return math.inf
        correction = self.clusters / (self.clusters - 1)
        return math.sqrt(correction * sum(d * d for d in self._deviations)) / self.pairs.n

    @cached_property
    def design_effect(self) -> float:
        """How many times larger clusters make the variance; at least 1."""
        n = self.pairs.n
        if not self.pairs.clustered:
            return 1.0
        differences = (b - a for a, b in zip(self.pairs.base, self.pairs.other, strict=True))
        alone = sum((each - self.difference) ** 2 for each in differences) / n / (n - 1)
        if not alone or self.clusters < 2:  # nothing varies: a cluster is one observation
            return n / self.clusters
        return max(1.0, self.error**2 / alone)

    @cached_property
    def _draws(self) -> Any:
        return resampled(*self.pairs.totals, self._resamples, self._seed)

    def bounds(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Low and high, two-sided: each is passed by the truth with at most half the rest."""
        if self.clusters < 2:
            return -1.0, 1.0  # one observation says nothing of the next
        tail = (1 - confidence) / 2
        found = [tuple(_quantile(self._draws, share) for share in (tail, 1 - tail))]
        if self.pairs.binary:
            effect = self.design_effect
            both, lost, won, neither = (cell / effect for cell in self.pairs.cells)
            found.append(newcombe((both, lost, won, neither), confidence))
        if not self.pairs.binary or self.pairs.clustered:
            reach = student(confidence, self.clusters - 1) * self.error
            if not any(self._deviations):  # all alike: what was not seen may be anything
                reach = unseen(self.clusters, confidence)
            found.append((self.difference - reach, self.difference + reach))
        low, high = min(each[0] for each in found), max(each[1] for each in found)
        return max(-1.0, low), min(1.0, high)

    def chance_of_more(self, threshold: float) -> float:
        """One-sided p-value against "the truth is ``threshold`` or more": the smallest α at which
        the bound at confidence 1 − 2α lies below ``threshold``."""
        low, high = 1e-7, 0.5
        if not self.bounds(1 - 2 * high)[1] < threshold:
            return 1.0
        for _ in range(20):  # to a part in 60,000
            middle = math.sqrt(low * high)
            below = self.bounds(1 - 2 * middle)[1] < threshold
            low, high = (low, middle) if below else (middle, high)
        return high

    def detectable(self, confidence: float = CONFIDENCE) -> float:
        """The smallest true difference that such a suite proves with a chance of ``POWER``; 1 where
        it proves none.

        Proven means that the low bound passes, so that is what is planned for, and where the gain
        is true: a model that wins more items also differs on more of them, which widens the
        interval. Losses stay as many as were seen, and chance wins as many as losses; the gain
        comes on top, in steps as large as the largest that was seen (of right and wrong, whole).
        One in five suites sees less than the truth by ``POWER``'s quantile of standard errors; its
        low bound has to pass too.
        """
        low, high = 0.0, 1.0
        if self.clusters < 2 or not self._shows(high, confidence):
            return 1.0
        for _ in range(14):  # to a part in 16,000
            middle = (low + high) / 2
            low, high = (low, middle) if self._shows(middle, confidence) else (middle, high)
        return high

    def _shows(self, gain: float, confidence: float) -> bool:
        """Whether the low bound passes zero where ``gain`` is true and chance is unkind."""
        n, effect = self.pairs.n, self.design_effect
        spread = self._variance(gain) * effect / n
        seen = gain - NormalDist().inv_cdf(POWER) * math.sqrt(spread)
        if self.pairs.binary:
            seen -= effect / n  # results are whole items: the bound may pass only at the next
        return seen > self._wider(confidence) * self._reach(seen, confidence) if seen > 0 else False

    def _reach(self, seen: float, confidence: float) -> float:
        """From ``seen`` down to the low bound, by formula, where a suite sees that."""
        n, effect, found = self.pairs.n, self.design_effect, []
        if self.pairs.binary:
            both, lost, won, neither = (cell / effect for cell in self._expected(seen))
            low, _ = newcombe((both, lost, won, neither), confidence)
            found.append((won - lost) * effect / n - low)
        if not self.pairs.binary or self.pairs.clustered:
            error = math.sqrt(self._variance(seen) * effect / n)
            found.append(student(confidence, self.clusters - 1) * error)
            found.append(self._unseen(confidence))
        return max(found)

    def _wider(self, confidence: float) -> float:
        """How many times further the low bound reaches than Newcombe's, where the bootstrap's is
        the wider of the two."""
        if not self.pairs.binary or self.pairs.clustered:
            return 1.0
        formula = self.difference - newcombe(self.pairs.cells, confidence)[0]
        if not formula > 0:  # every item was lost: there is nothing below
            return 1.0
        return max(1.0, (self.difference - self.bounds(confidence)[0]) / formula)

    def _unseen(self, confidence: float) -> float:
        return 0.0 if any(self._deviations) else unseen(self.clusters, confidence)

    def _variance(self, gain: float) -> float:
        """Of an item's difference, where ``gain`` is true."""
        lost, step = self._moments
        return max(0.0, 2 * lost + gain * step - gain * gain)

    @cached_property
    def _moments(self) -> tuple[float, float]:
        """Mean square of the losses over all items, and the largest step of any item."""
        steps = [b - a for a, b in zip(self.pairs.base, self.pairs.other, strict=True)]
        lost = math.fsum(each * each for each in steps if each < 0) / self.pairs.n
        return lost, max(map(abs, steps)) or 1.0

    def _expected(self, gain: float) -> tuple[float, float, float, float]:
        """Of right and wrong: the table of a suite that sees ``gain``. Where the base leaves too
        little to be gained, it is taken to be worse than it is."""
        n = self.pairs.n
        both, lost, _, _ = (cell / n for cell in self.pairs.cells)
        won = min(1.0, lost + gain)
        lost = min(lost, 1 - won)
        both = min(both, 1 - won - lost)
        return both * n, lost * n, won * n, (1 - both - lost - won) * n

    def p(self) -> float:
        """Two-sided p-value of no difference."""
        if self.pairs.binary and not self.pairs.clustered:
            _, lost, won, _ = self.pairs.cells
            return mcnemar(won, lost)
        return permutation(self.pairs.totals[0], seed=self._seed)


def _quantile(ordered: Any, share: float) -> float:
    """Between two order statistics, linearly."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))


@dataclass(frozen=True, slots=True)
class Comparison:
    """``other`` against ``base`` on the same ``n`` items in ``clusters`` independent clusters.

    ``base`` and ``other`` are sums of scores: of right and wrong, the number of right answers.
    ``won``: items on which ``other`` scores more; ``lost``: on which ``base`` does. ``low`` and
    ``high`` bound the difference of the means, ``p`` tests it; ``detectable`` is the smallest true
    difference that so many such items prove with a chance of 80 %.
    """

    n: int
    clusters: int
    base: float
    other: float
    won: int
    lost: int
    low: float
    high: float
    p: float
    detectable: float

    @property
    def difference(self) -> float:
        return (self.other - self.base) / self.n


def compare(
    pairs: Pairs,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison:
    """Compares two models item by item."""
    estimate = Estimate(pairs, resamples, seed)
    low, high = estimate.bounds(confidence)
    both = list(zip(pairs.base, pairs.other, strict=True))
    base, other = math.fsum(pairs.base), math.fsum(pairs.other)
    return Comparison(
        n=pairs.n,
        clusters=estimate.clusters,
        base=int(base) if pairs.binary else base,
        other=int(other) if pairs.binary else other,
        won=sum(b > a for a, b in both),
        lost=sum(a > b for a, b in both),
        low=low,
        high=high,
        p=estimate.p(),
        detectable=estimate.detectable(confidence),
    )


def items_needed(n: int, reach: float, gap: float, confidence: float = CONFIDENCE) -> int | None:
    """How many items in all would tell with a chance of ``POWER``, were the true difference the one
    that was seen. None: no number would.

    ``reach`` is from the difference to the bound that has to pass the threshold, with ``n`` items;
    ``gap`` from the difference to the threshold. Bounds shrink with the root of the items.
    """
    if not gap > 0:
        return None
    z = normal(confidence)
    return math.ceil(n * ((z + NormalDist().inv_cdf(POWER)) / z * reach / gap) ** 2)
