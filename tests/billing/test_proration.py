"""Days by the calendar, and an amount split between them without loss."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.billing.dates import day_of, period, period_at, shift, start_of
from avocado.billing.proration import split

DAYS = st.dates(date(2020, 1, 1), date(2100, 1, 1))
AMOUNTS = st.integers(0, 2**62)


@given(AMOUNTS, DAYS, st.integers(1, 400), st.integers(-5, 405))
def test_the_parts_are_the_amount_and_none_is_more_than_its_days(
    amount: int, since: date, days: int, at: int
) -> None:
    until, gone = since + timedelta(days=days), min(max(at, 0), days)
    used, rest = split(amount, since, until, since + timedelta(days=at))
    assert used + rest == amount
    assert rest * days <= amount * (days - gone) < (rest + 1) * days
    assert 0 <= used * days - amount * gone < days  # the nano-unit left over is the past's


@given(AMOUNTS, DAYS, st.integers(1, 40), st.lists(st.integers(0, 40), max_size=6))
def test_changing_to_the_same_fee_again_and_again_costs_nothing(
    amount: int, since: date, days: int, when: list[int]
) -> None:
    """Each change credits the rest of what was charged and charges the new plan's rest."""
    until, charged, paid = since + timedelta(days=days), amount, amount
    begun = since
    for at in sorted(min(day, days - 1) for day in when):
        day = since + timedelta(days=at)
        back, again = split(charged, begun, until, day)[1], split(amount, since, until, day)[1]
        paid += again - back
        begun, charged = day, again
    assert amount <= paid <= amount + len(when)  # at most a nano-unit a change, never less


def test_what_cannot_be_split_is_refused() -> None:
    day = date(2026, 1, 1)
    with pytest.raises(ValueError, match="over 0 days"):
        split(1, day, day, day)


def test_the_last_of_january_comes_back_in_march() -> None:
    anchor = date(2026, 1, 31)
    found = [period(anchor, "month", number)[0] for number in range(5)]
    assert [day.isoformat()[5:] for day in found] == ["01-31", "02-28", "03-31", "04-30", "05-31"]
    assert shift(date(2024, 2, 29), 12) == date(2025, 2, 28)
    assert shift(date(2024, 2, 29), 48) == date(2028, 2, 29)


@given(DAYS, st.sampled_from(["month", "year"]), st.integers(0, 4000))
def test_periods_follow_on_each_other_and_each_day_is_in_one(
    anchor: date, length: str, ahead: int
) -> None:
    day = anchor + timedelta(days=ahead)
    number = period_at(anchor, length, day)  # type: ignore[arg-type]
    began, ends = period(anchor, length, number)  # type: ignore[arg-type]
    assert began <= day < ends
    assert period(anchor, length, number + 1)[0] == ends  # type: ignore[arg-type]
    assert day_of(start_of(day)) == day
    assert day_of(start_of(day) - 1) == day - timedelta(days=1)
