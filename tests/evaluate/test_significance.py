"""Tests against brute force, against published examples, and under a true null hypothesis."""

from __future__ import annotations

import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avocado.evaluate.significance import holm, mcnemar, permutation


@pytest.mark.parametrize(
    ("won", "lost", "p"),
    [(0, 0, 1.0), (5, 0, 0.0625), (1, 9, 0.021484375), (7, 7, 1.0), (59, 6, 183_163_268 / 2**65)],
)
def test_mcnemar_is_the_binomial_test(won: int, lost: int, p: float) -> None:
    assert mcnemar(won, lost) == pytest.approx(p, rel=1e-12)
    assert mcnemar(lost, won) == mcnemar(won, lost)


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(0, 12))
def test_mcnemar_counts_what_is_at_least_as_extreme(won: int, lost: int) -> None:
    n = won + lost
    outcomes = [min(sum(flips), n - sum(flips)) for flips in product((0, 1), repeat=min(n, 12))]
    if n <= 12:
        extreme = sum(few <= min(won, lost) for few in outcomes)
        assert mcnemar(won, lost) == pytest.approx(min(1.0, extreme / 2**n))


def test_mcnemar_survives_a_very_large_suite() -> None:
    assert 0 <= mcnemar(20_000, 15_000) < 1e-100


@settings(deadline=None)
@given(st.integers(0, 9), st.integers(0, 9))
def test_a_permutation_of_right_and_wrong_is_mcnemar(won: int, lost: int) -> None:
    """All sign flips of ±1 are the binomial distribution."""
    if won + lost <= 13:
        found = permutation([1.0] * won + [-1.0] * lost + [0.0] * 5, seed=1)
        assert found == pytest.approx(mcnemar(won, lost))


def test_random_flips_come_close_to_all_of_them() -> None:
    draw = random.Random(4)
    sums = [draw.gauss(0.25, 1) for _ in range(13)]
    assert permutation(sums, flips=4000, seed=1) == pytest.approx(
        permutation(sums, flips=2**13, seed=1), abs=0.03
    )


def test_a_permutation_is_never_certain_and_repeats() -> None:
    sums = [1.0] * 400
    assert permutation(sums, seed=1) == pytest.approx(1 / 10_001)
    assert permutation(sums, seed=1) == permutation(sums, seed=1)
    assert permutation([0.0, 0.0], seed=1) == 1.0


def test_a_true_null_is_rejected_as_often_as_the_level_says() -> None:
    draw = random.Random(7)
    rejected = sum(
        permutation([draw.gauss(0, 1) for _ in range(20)], flips=200, seed=k) <= 0.05
        for k in range(400)
    )
    assert rejected <= 32  # 20 expected; 4 in 1,000 chances of more


def test_holm_on_the_textbook_case() -> None:
    """Four p-values; 0.01 × 4, then 0.02 × 3 and 0.03 × 2, never falling."""
    assert holm([0.02, 0.01, 0.9, 0.03]) == pytest.approx((0.06, 0.04, 0.9, 0.06))


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_never_lowers_a_value_and_lies_below_bonferroni(values: list[float]) -> None:
    for value, adjusted in zip(values, holm(values), strict=True):
        assert value <= adjusted <= min(1.0, len(values) * value) + 1e-12
