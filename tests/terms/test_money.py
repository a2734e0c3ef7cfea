"""Money: exact in, exact out, and no mixing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.terms.money import MAX_NANOS, NANO, Money, MoneyError, ceil_div

AMOUNTS = st.integers(-MAX_NANOS, MAX_NANOS)
CURRENCIES = st.sampled_from(["USD", "EUR", "JPY", "KWD", "CLF"])


@given(st.integers(0, MAX_NANOS), CURRENCIES)
def test_printed_money_reads_back_as_itself(nanos: int, currency: str) -> None:
    money = Money(nanos, currency)
    assert Money.parse(money.decimal(), currency) == money


@pytest.mark.parametrize(
    ("nanos", "currency", "text"),
    [
        (0, "USD", "0.00 USD"),
        (18_000, "USD", "0.000018 USD"),
        (-5 * NANO, "EUR", "-5.00 EUR"),
        (5 * NANO, "JPY", "5 JPY"),
        (NANO // 2, "JPY", "0.5 JPY"),
        (NANO, "KWD", "1.000 KWD"),
        (1, "USD", "0.000000001 USD"),
    ],
)
def test_money_prints_its_currencys_digits(nanos: int, currency: str, text: str) -> None:
    assert str(Money(nanos, currency)) == text


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "1e3", "NaN", "inf", "1,000", "1.", ".5", "0.0000000001", "١", "1 2", "0x1"],
)
def test_what_is_no_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(MoneyError):
        Money.parse(text)


@given(AMOUNTS, AMOUNTS)
def test_addition_is_exact_or_refused(left: int, right: int) -> None:
    if abs(left + right) > MAX_NANOS:
        with pytest.raises(MoneyError):
            Money(left) + Money(right)
    else:
        assert (Money(left) + Money(right)).nanos == left + right
    assert (Money(left) < Money(right)) == (left < right)
    assert (Money(left) >= Money(right)) == (left >= right)


def test_currencies_do_not_mix() -> None:
    with pytest.raises(MoneyError):
        Money(1, "USD") + Money(1, "EUR")
    with pytest.raises(MoneyError):
        _ = Money(1, "USD") < Money(1, "EUR")
    assert Money(1, "USD") != Money(1, "EUR")


@pytest.mark.parametrize("nanos", [1.0, True, "1", None, MAX_NANOS + 1])
def test_only_int64_integers_are_money(nanos: object) -> None:
    with pytest.raises(MoneyError):
        Money(nanos)  # type: ignore[arg-type]


@pytest.mark.parametrize("currency", ["usd", "US", "USDT", "U$D", ""])
def test_only_three_capitals_are_a_currency(currency: str) -> None:
    with pytest.raises(MoneyError):
        Money(0, currency)


@given(st.integers(0, 10**30), st.integers(1, 10**12))
def test_division_rounds_up_by_less_than_one(numerator: int, denominator: int) -> None:
    up = ceil_div(numerator, denominator)
    assert up * denominator >= numerator > (up - 1) * denominator
