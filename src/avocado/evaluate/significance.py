"""Tests: p-values of a paired difference, and what several of them mean together. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

PERMUTATIONS: Final = 10_000
"""Random sign flips; below the 2^n of all of them for any suite that decides something."""


def mcnemar(won: int, lost: int) -> float:
    """Two-sided exact p-value that wins and losses are equally likely: McNemar's test (1947,
    Psychometrika 12:153) on the binomial distribution of the discordant pairs."""
    n, few = won + lost, min(won, lost)
    ways = tail = 1
    for k in range(1, few + 1):
        ways = ways * (n - k + 1) // k
        tail += ways
    return min(1.0, float(2 * tail / 2**n))


def permutation(sums: Sequence[float], *, flips: int = PERMUTATIONS, seed: int) -> float:
    """Two-sided p-value that base and other may change places, cluster by cluster: the paired
    permutation test (Fisher 1935, The Design of Experiments, §21; for system comparisons see
    Yeh 2000, COLING). ``sums`` are the differences, summed over each cluster.

    All 2^n sign flips where these are few enough, else ``flips`` random ones and the observed one
    (Phipson and Smyth 2010: a p-value of zero would be a lie).
    """
    import numpy

    values = numpy.asarray([each for each in sums if each], dtype=float)
    if not len(values):
        return 1.0
    seen = abs(values.sum()) * (1 - 1e-12)
    if 2 ** len(values) <= flips:
        bits = numpy.arange(2 ** len(values))[:, None] >> numpy.arange(len(values)) & 1
        return float((abs((1 - 2 * bits) @ values) >= seen).mean())
    random = numpy.random.RandomState(seed)
    extreme, step = 0, max(1, 2_000_000 // len(values))
    for start in range(0, flips, step):
        rows = min(step, flips - start)
        signs = 1 - 2 * random.randint(2, size=(rows, len(values)), dtype=numpy.int8)
        extreme += int((abs(signs @ values) >= seen).sum())
    return (extreme + 1) / (flips + 1)


def holm(values: Sequence[float]) -> tuple[float, ...]:
    """p-values adjusted for their number, in the same order: what is at most α is rejected with
    at most α chance of any false rejection among them (S. Holm 1979, Scand. J. Statist. 6:65)."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    adjusted = [0.0] * len(values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = largest
    return tuple(adjusted)
