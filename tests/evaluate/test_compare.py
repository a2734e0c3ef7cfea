"""The statistics against published values, against brute force, and against a simulated truth."""

from __future__ import annotations

import random
from itertools import product

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.evaluate.compare import bootstrap, compare, interval, mcnemar, newcombe, wilson

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def sides(cells: tuple[int, int, int, int]) -> tuple[list[bool], list[bool]]:
    """Base and other from Newcombe's four cells: both, base only, other only, neither."""
    both, base, other, neither = cells
    return (
        [True] * both + [True] * base + [False] * other + [False] * neither,
        [True] * both + [False] * base + [True] * other + [False] * neither,
    )


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [  # Newcombe 1998, Statist. Med. 17:857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500), st.data())
def test_wilson_holds_the_rate_and_mirrors(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    low, high = wilson(right, n)
    assert 0 <= low <= right / n + 1e-12
    assert right / n - 1e-12 <= high <= 1
    assert wilson(n - right, n) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(
    ("won", "lost", "p"),
    [(0, 0, 1.0), (5, 0, 0.0625), (1, 9, 0.021484375), (7, 7, 1.0), (59, 6, 183_163_268 / 2**65)],
)
def test_mcnemar_is_the_binomial_test(won: int, lost: int, p: float) -> None:
    assert mcnemar(won, lost) == pytest.approx(p, rel=1e-12)
    assert mcnemar(lost, won) == mcnemar(won, lost)


@given(st.integers(0, 12), st.integers(0, 12))
def test_mcnemar_counts_what_is_at_least_as_extreme(won: int, lost: int) -> None:
    n = won + lost
    outcomes = [min(sum(flips), n - sum(flips)) for flips in product((0, 1), repeat=min(n, 12))]
    if n <= 12:
        extreme = sum(few <= min(won, lost) for few in outcomes)
        assert mcnemar(won, lost) == pytest.approx(min(1.0, extreme / 2**n))


def test_mcnemar_survives_a_very_large_suite() -> None:
    assert 0 <= mcnemar(20_000, 15_000) < 1e-100


@given(pairs)
def test_newcombe_mirrors_when_the_models_change_places(results: list[tuple[bool, bool]]) -> None:
    base, other = [a for a, _ in results], [b for _, b in results]
    low, high = newcombe(base, other)
    assert newcombe(other, base) == pytest.approx((-high, -low), abs=1e-9)
    assert -1 - 1e-9 <= low <= high <= 1 + 1e-9


def test_newcombe_of_unrelated_answers_adds_the_squares() -> None:
    """Where the two models' answers are uncorrelated, phi is 0 and his method 10 is the square
    root of the sum of the squared reaches of both Wilson intervals."""
    base, other = sides((10, 10, 20, 20))
    (l1, u1), (l2, u2) = wilson(20, 60), wilson(30, 60)
    low, high = newcombe(base, other)
    assert low == pytest.approx(1 / 6 - ((1 / 2 - l2) ** 2 + (u1 - 1 / 3) ** 2) ** 0.5)
    assert high == pytest.approx(1 / 6 + ((u2 - 1 / 2) ** 2 + (1 / 3 - l1) ** 2) ** 0.5)


def test_newcombe_narrows_when_the_models_agree_more() -> None:
    def width(cells: tuple[int, int, int, int]) -> float:
        low, high = newcombe(*sides(cells))
        return high - low

    assert width((45, 5, 10, 40)) < width((30, 20, 25, 25)) < width((10, 40, 45, 5))


@given(pairs)
def test_the_bootstrap_is_a_bootstrap(results: list[tuple[bool, bool]]) -> None:
    differences = [int(b) - int(a) for a, b in results]
    low, high = bootstrap(differences, resamples=2000, seed=3)
    draws = numpy.random.default_rng(5).choice(differences, size=(2000, len(differences)))
    naive = numpy.quantile(draws.mean(axis=1), (0.025, 0.975))
    # Two Monte Carlo estimates of one quantile: a step of the mean or a few standard errors apart.
    spread = 0.2 * float(numpy.std(differences)) + 2
    assert abs(low - naive[0]) <= spread / len(differences) ** 0.5
    assert abs(high - naive[1]) <= spread / len(differences) ** 0.5
    assert min(differences) <= low <= high <= max(differences)


def test_the_bootstrap_agrees_with_the_normal_limit() -> None:
    differences = [1] * 300 + [0] * 500 + [-1] * 200
    mean, deviation = 0.1, (0.5 - 0.01) ** 0.5
    reach = 1.96 * deviation / 1000**0.5
    assert bootstrap(differences) == pytest.approx((mean - reach, mean + reach), abs=0.002)


def test_the_bootstrap_of_a_seed_is_fixed_for_good() -> None:
    found = bootstrap([1] * 12 + [0] * 20 + [-1] * 5, seed=11)
    assert found == pytest.approx((-0.0006756756756696841, 0.40540540540540543), abs=1e-12)


@given(pairs)
def test_a_comparison_counts_and_its_interval_holds_the_difference(
    results: list[tuple[bool, bool]],
) -> None:
    base, other = [a for a, _ in results], [b for _, b in results]
    result = compare(base, other, resamples=500)
    assert result.other - result.base == result.won - result.lost
    assert -1 <= result.low <= result.difference <= result.high <= 1
    assert result.low < result.high  # never certain
    turned = compare(other, base, resamples=500)
    assert (turned.won, turned.lost, turned.p) == (result.lost, result.won, result.p)
    assert compare(base, other, resamples=500) == result


def test_five_wins_of_five_do_not_prove_certainty() -> None:
    low, high = interval([False] * 5, [True] * 5)
    assert 0 < low < 0.6
    assert high == pytest.approx(1)


@pytest.mark.parametrize("rates", [(0.9, 0.01, 0.05), (0.3, 0.1, 0.3), (0.02, 0.02, 0.9)])
@pytest.mark.parametrize("n", [10, 40])
def test_the_interval_holds_the_truth_as_often_as_it_says(
    n: int, rates: tuple[float, float, float]
) -> None:
    """Simulated suites with a known difference: 95% intervals miss it at most 5% of the time,
    here with the slack of 300 simulations."""
    draw = random.Random(1)
    won, lost, both = rates
    truth, held = won - lost, 0
    for _ in range(300):
        cells = draw.choices(range(4), (both, lost, won, 1 - won - lost - both), k=n)
        base, other = [c in (0, 1) for c in cells], [c in (0, 2) for c in cells]
        low, high = interval(base, other, resamples=400)
        held += low <= truth <= high
    assert held / 300 > 0.92


def test_unpaired_results_are_refused() -> None:
    with pytest.raises(ValueError, match="do not pair"):
        compare([True], [])
    with pytest.raises(ValueError, match="do not pair"):
        compare([], [])
