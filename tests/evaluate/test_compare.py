"""The comparison counts, repeats, and its intervals hold a simulated truth as often as they say."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avocado.evaluate.compare import Estimate, Pairs, compare, items_needed
from avocado.evaluate.intervals import newcombe

outcomes = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def right_or_wrong(results: list[tuple[bool, bool]], clusters: int | None = None) -> Pairs:
    named = None if clusters is None else tuple(str(k % clusters) for k in range(len(results)))
    return Pairs(tuple(float(a) for a, _ in results), tuple(float(b) for _, b in results), named)


@settings(deadline=None)
@given(outcomes, st.none() | st.integers(1, 20))
def test_a_comparison_counts_and_its_interval_holds_the_difference(
    results: list[tuple[bool, bool]], clusters: int | None
) -> None:
    pairs = right_or_wrong(results, clusters)
    result = compare(pairs, resamples=300)
    assert result.other - result.base == result.won - result.lost
    assert -1 <= result.low <= result.difference <= result.high <= 1
    assert result.low < result.high  # never certain
    assert 0 < result.detectable <= 1
    turned = compare(Pairs(pairs.other, pairs.base, pairs.clusters), resamples=300)
    assert (turned.won, turned.lost, turned.p) == (result.lost, result.won, result.p)
    assert compare(pairs, resamples=300) == result


def test_right_and_wrong_are_bounded_by_newcombe_at_least() -> None:
    pairs = right_or_wrong([(True, True)] * 9 + [(False, True)] * 5 + [(False, False)] * 6)
    low, high = Estimate(pairs).bounds()
    floor, roof = newcombe((9, 0, 5, 6))
    assert low <= floor
    assert high >= roof


def test_five_wins_of_five_do_not_prove_certainty() -> None:
    low, high = Estimate(right_or_wrong([(False, True)] * 5)).bounds()
    assert 0 < low < 0.6
    assert high == pytest.approx(1)


def test_five_equal_scores_do_not_either() -> None:
    low, high = Estimate(Pairs((0.25,) * 5, (0.75,) * 5)).bounds()
    assert low < 0 < high == 1


def test_clusters_of_one_change_nothing() -> None:
    results = [(k % 3 == 0, k % 2 == 0) for k in range(40)]
    alone = compare(right_or_wrong(results))
    named = compare(right_or_wrong(results, clusters=40))
    assert (named.low, named.high, named.p) == (alone.low, alone.high, alone.p)


def test_copies_of_an_item_are_one_observation() -> None:
    """Thirty items, each asked ten times: three hundred rows that prove no more than thirty."""
    draw = random.Random(3)
    thirty = [(draw.random() < 0.5, draw.random() < 0.65) for _ in range(30)]
    once = compare(right_or_wrong(thirty))
    copied = [pair for pair in thirty for _ in range(10)]
    names = tuple(str(k // 10) for k in range(300))
    blind = compare(right_or_wrong(copied))
    base, other = zip(*[(float(a), float(b)) for a, b in copied], strict=True)
    aware = compare(Pairs(base, other, names))
    assert aware.clusters == 30
    assert aware.high - aware.low >= 0.95 * (once.high - once.low)
    assert blind.high - blind.low < 0.5 * (once.high - once.low)
    assert aware.p > 10 * blind.p


def test_one_cluster_says_nothing() -> None:
    assert Estimate(right_or_wrong([(False, True)] * 50, clusters=1)).bounds() == (-1, 1)


def _simulated(kind: str, n: int, draw: random.Random) -> tuple[Pairs, float]:
    """Pairs of a known true difference."""
    if kind == "scores":  # skewed scores in 0..1, many of them 0 or 1
        base = [min(1.0, draw.betavariate(0.5, 0.7)) for _ in range(n)]
        other = [min(1.0, 0.9 * a + 0.1 * draw.random()) for a in base]
        return Pairs(tuple(base), tuple(other)), -0.1 * 0.5 / 1.2 + 0.05
    rates = {"rare": (0.3, 0.01, 0.05), "often": (0.3, 0.1, 0.3), "never": (0.02, 0.02, 0.9)}
    won, lost, both = rates[kind.partition(" ")[0]]
    weights = (both, lost, won, 1 - won - lost - both)
    if "clusters" not in kind:
        drawn = draw.choices(range(4), weights, k=n)
        return right_or_wrong([(c in (0, 1), c in (0, 2)) for c in drawn]), won - lost
    results, names = [], []
    for cluster in range(n // 4):  # half of the items repeat what their cluster's first one said
        first = draw.choices(range(4), weights)[0]
        for _ in range(4):
            c = first if draw.random() < 0.7 else draw.choices(range(4), weights)[0]
            results.append((float(c in (0, 1)), float(c in (0, 2))))
            names.append(str(cluster))
    left, right = zip(*results, strict=True)
    return Pairs(left, right, tuple(names)), won - lost


@pytest.mark.parametrize("n", [12, 40])
@pytest.mark.parametrize(
    "kind", ["rare", "often", "never", "scores", "rare clusters", "often clusters"]
)
def test_the_interval_holds_the_truth_as_often_as_it_says(n: int, kind: str) -> None:
    """Simulated suites with a known difference: 95% intervals miss it at most 5% of the time,
    here with the slack of 300 simulations. benchmarks/gate.py counts more of them."""
    draw = random.Random(1)
    held = 0
    for _ in range(300):
        pairs, truth = _simulated(kind, n, draw)
        low, high = Estimate(pairs, resamples=400).bounds()
        held += low <= truth <= high
    assert held / 300 > 0.92


@settings(deadline=None)
@given(st.floats(-0.3, 0.3))
def test_the_p_value_of_a_threshold_is_where_the_bound_passes_it(threshold: float) -> None:
    pairs = right_or_wrong([(k % 3 == 0, k % 2 == 0) for k in range(80)])
    estimate = Estimate(pairs, resamples=500)
    p = estimate.chance_of_more(threshold)
    if p == 1:
        assert estimate.bounds(1e-9)[1] >= threshold
    elif p > 1e-5:
        assert estimate.bounds(1 - 2 * p * 1.001)[1] < threshold + 1e-9
        assert estimate.bounds(1 - 2 * p * 0.9)[1] >= threshold - 0.01


def test_four_times_the_items_detect_half_the_difference() -> None:
    results = [(k % 5 < 2, k % 5 in (0, 2, 3)) for k in range(200)]
    small, large = compare(right_or_wrong(results)), compare(right_or_wrong(results * 4))
    assert large.detectable == pytest.approx(small.detectable / 2, rel=0.15)


def test_where_nothing_is_lost_a_handful_of_wins_proves_a_gain_whatever_the_suite() -> None:
    results = [(k % 5 < 2, k % 5 < 3) for k in range(200)]
    small, large = compare(right_or_wrong(results)), compare(right_or_wrong(results * 4))
    assert large.detectable == pytest.approx(small.detectable / 4, rel=0.05)


@pytest.mark.parametrize("cells", [(9, 0, 0, 0), (0, 9, 0, 0), (0, 0, 9, 0), (0, 0, 0, 9)])
def test_a_suite_of_one_kind_of_item_detects_a_share(cells: tuple[int, int, int, int]) -> None:
    sides = ((True, True), (True, False), (False, True), (False, False))
    kinds = [pair for pair, count in zip(sides, cells, strict=True) for _ in range(count)]
    assert 0 < compare(right_or_wrong(kinds)).detectable <= 1


def test_what_a_suite_detects_does_not_depend_on_the_gain_that_it_saw() -> None:
    """Near its ceiling a gain makes discordant items of concordant ones: what is printed where
    nothing was gained has to be planned for that, too."""
    same = right_or_wrong(
        [(True, True)] * 175 + [(True, False)] * 5 + [(False, True)] * 5 + [(False, False)] * 15
    )
    better = right_or_wrong(
        [(True, True)] * 175 + [(True, False)] * 5 + [(False, True)] * 17 + [(False, False)] * 3
    )
    seen = compare(same).detectable
    assert seen == pytest.approx(compare(better).detectable, rel=0.05)
    low, high = compare(same).low, compare(same).high
    assert seen > 1.4 * (high - low) / 2 * 1.1


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
@settings(deadline=None, max_examples=50)
def test_what_is_detectable_is_a_share_and_falls_with_confidence(
    scores: list[tuple[float, float]],
) -> None:
    base, other = zip(*scores, strict=True)
    estimate = Estimate(Pairs(base, other), resamples=100)
    assert 0 < estimate.detectable(0.8) <= estimate.detectable(0.95) <= 1


def test_items_needed_are_those_at_which_the_bound_passes_with_power() -> None:
    # reach 1.96 standard errors of 0.05 at n = 100; to prove 0.07 takes 2.80 of them
    assert items_needed(100, 1.96 * 0.05, 0.07) == pytest.approx(400, abs=2)
    assert items_needed(100, 0.1, 0.0) is None


@pytest.mark.parametrize(
    ("base", "other", "clusters"), [((1.0,), (), None), ((), (), None), ((1.0,), (1.0,), ())]
)
def test_unpaired_results_are_refused(
    base: tuple[float, ...], other: tuple[float, ...], clusters: tuple[str, ...] | None
) -> None:
    with pytest.raises(ValueError, match=r"do not pair|clusters of"):
        Pairs(base, other, clusters)
