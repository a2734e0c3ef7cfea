"""PriceSheet: the ceiling bounds the charge, the lines add up, and nothing is rounded twice."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.terms.money import MoneyError
from avocado.terms.price import KINDS, MILLION, PriceSheet
from avocado.terms.usage import Usage

PRICES = st.integers(0, 10**13)
SHARES = st.integers(0, MILLION)
VOLUMES = st.integers(0, 10**10)
COVERED = st.integers(0, 3 * 10**6)


@st.composite
def sheets(draw: st.DrawFn) -> PriceSheet:
    prompt, completion = draw(PRICES), draw(PRICES)
    volumes = sorted(draw(st.sets(st.integers(1, 10**10), max_size=3)))
    return PriceSheet(
        prompt,
        completion,
        cached=draw(st.none() | st.integers(0, prompt)),
        reasoning=draw(st.none() | st.integers(0, completion)),
        batch=draw(st.none() | SHARES),
        tiers=tuple((volume, draw(SHARES)) for volume in volumes),
    )


@st.composite
def usages(draw: st.DrawFn, most: int = 10**6) -> Usage:
    prompt, completion = draw(st.integers(0, most)), draw(st.integers(0, most))
    return Usage(prompt, completion, draw(st.integers(0, prompt)), draw(st.integers(0, completion)))


@given(sheets(), usages(), st.integers(0, 1000), st.integers(1, 8), st.booleans(), VOLUMES, COVERED)
def test_no_charge_is_above_its_ceiling(
    sheet: PriceSheet, usage: Usage, spare: int, n: int, batch: bool, volume: int, covered: int
) -> None:
    most = -(-usage.completion // n) + spare
    ceiling = sheet.ceiling(usage.prompt + spare, most, n, batch, volume, covered)
    assert sheet.charge(usage, batch, volume, covered) <= ceiling


@given(sheets(), st.data(), st.integers(0, 40), st.integers(0, 40), st.integers(0, 100))
def test_a_ceiling_with_covered_tokens_is_reached_and_never_passed(
    sheet: PriceSheet, data: st.DataObject, prompt: int, most: int, covered: int
) -> None:
    """Small counts, so that every order of prompt, completion and covered tokens comes up."""
    ceiling = sheet.ceiling(prompt, most, covered=covered)
    assert sheet.charge(Usage(prompt, most), covered=covered) == ceiling
    usage = Usage(data.draw(st.integers(0, prompt)), data.draw(st.integers(0, most)))
    usage = Usage(
        usage.prompt,
        usage.completion,
        data.draw(st.integers(0, usage.prompt)),
        data.draw(st.integers(0, usage.completion)),
    )
    assert sheet.charge(usage, covered=covered) <= ceiling


@given(sheets(), usages(), st.booleans(), VOLUMES, COVERED)
def test_the_lines_sum_to_the_charge(
    sheet: PriceSheet, usage: Usage, batch: bool, volume: int, covered: int
) -> None:
    lines = sheet.lines(usage, batch, volume, covered)
    assert sum(line.nanos for line in lines) == sheet.charge(usage, batch, volume, covered).nanos
    assert sum(line.tokens for line in lines) == usage.total
    for line in lines:
        assert abs(line.nanos - Fraction(line.tokens * line.price, MILLION)) < 1


@given(sheets(), usages(), st.booleans(), VOLUMES, COVERED)
def test_covered_tokens_are_lines_of_price_zero(
    sheet: PriceSheet, usage: Usage, batch: bool, volume: int, covered: int
) -> None:
    plain = {line.kind: line for line in sheet.lines(usage, batch, volume)}
    left = covered
    for kind in KINDS:
        lines = [line for line in sheet.lines(usage, batch, volume, covered) if line.kind == kind]
        tokens = plain[kind].tokens if kind in plain else 0
        free = min(left, tokens)
        left -= free
        expected = [(free, 0)] if free else []
        if tokens > free:
            expected.append((tokens - free, sheet.price_of(kind, batch, volume)))
        assert [(line.tokens, line.price) for line in lines] == expected


@given(sheets(), usages(), st.booleans(), VOLUMES, COVERED, COVERED)
def test_more_covered_tokens_never_cost_more(
    sheet: PriceSheet, usage: Usage, batch: bool, volume: int, one: int, more: int
) -> None:
    less = sheet.charge(usage, batch, volume, one + more)
    assert less <= sheet.charge(usage, batch, volume, one)
    assert sheet.charge(usage, batch, volume, usage.total).nanos == 0


@given(sheets(), usages(), st.booleans(), VOLUMES, COVERED)
def test_the_charge_is_the_exact_sum_rounded_up_once(
    sheet: PriceSheet, usage: Usage, batch: bool, volume: int, covered: int
) -> None:
    counts = {
        "prompt": usage.prompt - usage.cached,
        "cached": usage.cached,
        "completion": usage.completion - usage.reasoning,
        "reasoning": usage.reasoning,
    }
    left, exact = covered, Fraction(0)
    for kind, tokens in counts.items():
        free = min(tokens, left)
        left -= free
        exact += Fraction((tokens - free) * sheet.price_of(kind, batch, volume), MILLION)
    assert sheet.charge(usage, batch, volume, covered).nanos == ceil(exact)


@given(sheets(), usages(), usages(), st.booleans(), VOLUMES)
def test_more_tokens_never_cost_less(
    sheet: PriceSheet, usage: Usage, more: Usage, batch: bool, volume: int
) -> None:
    larger = Usage(
        usage.prompt + more.prompt,
        usage.completion + more.completion,
        usage.cached + more.cached,
        usage.reasoning + more.reasoning,
    )
    assert sheet.charge(usage, batch, volume) <= sheet.charge(larger, batch, volume)


@given(usages(), st.booleans(), VOLUMES)
def test_zero_is_free(usage: Usage, batch: bool, volume: int) -> None:
    free = PriceSheet(0, 0, batch=MILLION, tiers=((1, MILLION),))
    assert free.charge(usage, batch, volume).nanos == 0
    assert free.ceiling(10**9, 10**9, 1, batch, volume).nanos == 0


@given(sheets())
def test_terms_read_back_as_the_same_version(sheet: PriceSheet) -> None:
    again = PriceSheet(**sheet.terms())
    assert again == sheet
    assert again.version == sheet.version


@given(sheets(), st.booleans())
def test_multipliers_act_on_the_list_price(sheet: PriceSheet, batch: bool) -> None:
    for kind in ("prompt", "cached", "completion", "reasoning"):
        rate = sheet.batch if batch and sheet.batch is not None else MILLION
        exact = Fraction(sheet.list_price(kind) * rate, MILLION)
        assert sheet.price_of(kind, batch) == ceil(exact)
        for above, share in sheet.tiers:
            reached = exact * Fraction(share, MILLION)
            assert sheet.price_of(kind, batch, above) == ceil(reached)


def test_a_tier_begins_at_its_volume() -> None:
    sheet = PriceSheet(1_000_000, 2_000_000, tiers=((100, 500_000), (200, 0)))
    prices = [sheet.price_of("completion", volume=volume) for volume in (0, 99, 100, 199, 200)]
    assert prices == [2_000_000, 2_000_000, 1_000_000, 1_000_000, 0]


def test_sheets_of_the_first_release_keep_their_version() -> None:
    assert PriceSheet(200_000_000, 800_000_000).version == "fa42bf24df1f1883"
    assert PriceSheet(200_000_000, 800_000_000, cached=50_000_000).version == "adc93d25bfe3fd53"


def test_a_sheet_is_in_force_between_its_times() -> None:
    sheet = PriceSheet(1, 1, effective_from=10, effective_until=20)
    assert [sheet.in_force(at) for at in (9, 10, 19, 20)] == [False, True, True, False]
    assert PriceSheet(1, 1).in_force(0)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": -1},
        {"completion": 1.5},
        {"cached": 11},
        {"reasoning": 21},
        {"batch": MILLION + 1},
        {"batch": -1},
        {"tiers": ((0, 1),)},
        {"tiers": ((2, 1), (2, 1))},
        {"tiers": ((1, MILLION + 1),)},
        {"tiers": ((1,),)},
        {"effective_from": 5, "effective_until": 5},
        {"effective_from": 0.5},
        {"currency": "usd"},
    ],
)
def test_impossible_sheets_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MoneyError):
        PriceSheet(**({"prompt": 10, "completion": 20} | changes))


def test_a_ceiling_needs_real_counts() -> None:
    with pytest.raises(ValueError, match="zero or more"):
        PriceSheet(1, 1).ceiling(-1, 1)
    with pytest.raises(ValueError, match="zero or more"):
        PriceSheet(1, 1).ceiling(1, 1, covered=-1)
    with pytest.raises(ValueError, match="zero or more"):
        PriceSheet(1, 1).charge(Usage(1, 1), covered=-1)
