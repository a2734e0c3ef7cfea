"""Intervals against published values and against their own definitions."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avocado.evaluate.intervals import newcombe, resampled, student, unseen, wilson

cells = st.tuples(*[st.integers(0, 40)] * 4).filter(any)


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


@settings(deadline=None)
@given(st.integers(1, 500), st.data())
def test_wilson_holds_the_rate_and_mirrors(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    low, high = wilson(right, n)
    assert 0 <= low <= right / n + 1e-12
    assert right / n - 1e-12 <= high <= 1
    assert wilson(n - right, n) == pytest.approx((1 - high, 1 - low))


@settings(deadline=None)
@given(cells)
def test_newcombe_mirrors_when_the_models_change_places(four: tuple[int, int, int, int]) -> None:
    both, base, other, neither = four
    low, high = newcombe(four)
    assert newcombe((both, other, base, neither)) == pytest.approx((-high, -low), abs=1e-9)
    assert -1 - 1e-9 <= low <= high <= 1 + 1e-9


def test_newcombe_of_unrelated_answers_adds_the_squares() -> None:
    """Where the two models' answers are uncorrelated, phi is 0 and his method 10 is the square
    root of the sum of the squared reaches of both Wilson intervals."""
    (l1, u1), (l2, u2) = wilson(20, 60), wilson(30, 60)
    low, high = newcombe((10, 10, 20, 20))
    assert low == pytest.approx(1 / 6 - ((1 / 2 - l2) ** 2 + (u1 - 1 / 3) ** 2) ** 0.5)
    assert high == pytest.approx(1 / 6 + ((u2 - 1 / 2) ** 2 + (1 / 3 - l1) ** 2) ** 0.5)


def test_newcombe_narrows_when_the_models_agree_more() -> None:
    def width(four: tuple[int, int, int, int]) -> float:
        low, high = newcombe(four)
        return high - low

    assert width((45, 5, 10, 40)) < width((30, 20, 25, 25)) < width((10, 40, 45, 5))


@pytest.mark.parametrize(
    ("confidence", "degrees", "t"),
    [  # Student's t, table in Fisher and Yates 1963
        (0.95, 1, 12.706),
        (0.95, 2, 4.303),
        (0.95, 5, 2.571),
        (0.99, 10, 3.169),
        (0.90, 30, 1.697),
        (0.95, 120, 1.980),
    ],
)
def test_students_t_is_that_of_the_tables(confidence: float, degrees: int, t: float) -> None:
    assert student(confidence, degrees) == pytest.approx(t, abs=6e-4)


def test_students_t_comes_down_to_the_normal() -> None:
    found = [student(0.95, degrees) for degrees in (1, 2, 3, 10, 100, 999, 1000, 10**6)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(1.959964, abs=1e-6)


def test_what_was_not_seen_may_be_three_in_n() -> None:
    assert unseen(100) == pytest.approx(0.0362, abs=1e-4)  # Clopper-Pearson of 0 of 100
    assert unseen(1) == pytest.approx(0.975)


def _bounds(differences: list[float], **options: int) -> tuple[float, float]:
    means = resampled(differences, [1] * len(differences), **options)
    return float(means[int(0.025 * len(means))]), float(means[int(0.975 * len(means))])


@settings(deadline=None)
@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=60))
def test_the_bootstrap_is_a_bootstrap(differences: list[float]) -> None:
    low, high = _bounds(differences, resamples=2000, seed=3)
    draws = numpy.random.default_rng(5).choice(differences, size=(2000, len(differences)))
    naive = numpy.quantile(draws.mean(axis=1), (0.025, 0.975))
    # Two Monte Carlo estimates of one quantile: a step of the mean or a few standard errors apart.
    spread = 0.2 * float(numpy.std(differences)) + 2
    assert abs(low - naive[0]) <= spread / len(differences) ** 0.5
    assert abs(high - naive[1]) <= spread / len(differences) ** 0.5


def test_the_bootstrap_agrees_with_the_normal_limit() -> None:
    differences = [1.0] * 300 + [0.0] * 500 + [-1.0] * 200
    reach = 1.96 * (0.5 - 0.01) ** 0.5 / 1000**0.5
    assert _bounds(differences) == pytest.approx((0.1 - reach, 0.1 + reach), abs=0.002)


def test_counting_alike_clusters_and_drawing_each_agree() -> None:
    """Few distinct clusters are one multinomial draw, many are drawn one by one."""
    draw = numpy.random.default_rng(2)
    sums = draw.integers(-3, 4, size=300).astype(float)
    counted = resampled(list(sums), [3] * 300)
    each = resampled(list(sums + draw.normal(0, 1e-9, 300)), [3] * 300)  # all distinct
    for share in (0.01, 0.025, 0.5, 0.975, 0.99):
        place = int(share * 10_000)
        assert counted[place] == pytest.approx(each[place], abs=0.004)


def test_a_large_cluster_weighs_by_its_items() -> None:
    means = resampled([4.0, 0.0], [4, 1], resamples=4000)
    assert set(numpy.round(means, 6)) == {0.0, 0.8, 1.0}


def test_the_bootstrap_of_a_seed_is_fixed_for_good() -> None:
    means = resampled([1] * 12 + [0] * 20 + [-1] * 5, [1] * 37, seed=11)
    assert float(numpy.quantile(means, 0.975)) == pytest.approx(0.40540540540540543, abs=1e-12)
