"""Invoices speak five languages, and write numbers, dates and money as each of them does."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import get_args

import pytest

from avocado.billing import profile
from avocado.billing.wording import LANGUAGES, Wording, decimals, read_words
from avocado.errors import Refused


def test_the_languages_are_those_of_profiles() -> None:
    assert set(LANGUAGES) == set(get_args(profile.Language))


def test_a_sentence_stands_in_every_language_with_the_same_places() -> None:
    words = {f'{language} = "{{amount}} {language}"' for language in LANGUAGES}
    table = read_words("[due]\n" + "\n".join(sorted(words)))
    assert table["fr"]["due"] == "{amount} fr"
    with pytest.raises(ValueError, match="must stand in each of de, en, es, fr, zh"):
        read_words('[due]\nde = "Fällig"')
    with pytest.raises(ValueError, match="names other places in one language"):
        read_words("[due]\n" + "\n".join(sorted(words)).replace("{amount} fr", "fr"))


@pytest.mark.parametrize(
    ("language", "country", "day", "span", "amount", "rate", "money"),
    [
        ("de", "DE", "27. November 2026", "1.–31. Okt. 2026", "1.234,50", "5,5 %", "−0,05 €"),
        ("de", "AT", "27. November 2026", "1.–31. Okt. 2026", "1.234,50", "5,5 %", "−€ 0,05"),
        ("de", "CH", "27. November 2026", "1.–31. Okt. 2026", "1’234.50", "5.5%", "EUR-0.05"),
        ("en", "GB", "27 November 2026", "1–31 Oct 2026", "1,234.50", "5.5%", "−€0.05"),
        ("en", "US", "November 27, 2026", "Oct 1 – 31, 2026", "1,234.50", "5.5%", "−€0.05"),
        ("es", "ES", "27 de noviembre de 2026", None, "1.234,50", "5,5 %", "−0,05 €"),
        ("fr", "FR", "27 novembre 2026", "1–31 oct. 2026", "1 234,50", "5,5 %", "−0,05 €"),
        ("zh", "CN", "2026年11月27日", "2026年10月1日至31日", "1,234.50", "5.5%", "−€0.05"),
    ],
)
def test_numbers_and_dates_follow_language_and_country(
    language: str, country: str, day: str, span: str | None, amount: str, rate: str, money: str
) -> None:
    def plain(text: str) -> str:
        """Blanks of every width are one."""
        return "".join(" " if sign.isspace() else sign for sign in text).replace("EUR−", "EUR-")

    words = Wording(language, country)
    assert words.day(date(2026, 11, 27)) == day
    if span:
        assert plain(words.days(date(2026, 10, 1), date(2026, 10, 31))) == span
    assert plain(words.decimal(Decimal("1234.5"), 2)) == amount
    assert plain(words.percent(Decimal("5.5"))) == rate
    assert plain(words.money(-50_000_000, "EUR")) == money


def test_no_digit_of_an_amount_is_lost() -> None:
    words = Wording("en", "GB")
    assert words.decimal(Decimal("0.000000018"), 2) == "0.000000018"
    assert words.money(9_223_372_036_854_775_807, "EUR") == "€9,223,372,036.854775807"
    assert words.money(5_000_000_000, "JPY") == "JP¥5"
    assert words.money(5_000_000_001, "JPY") == "JP¥5.000000001"
    assert [decimals(nanos) for nanos in (0, 10**9, -(10**8), 1)] == [0, 0, 1, 9]


def test_a_place_that_a_language_does_not_know_falls_back_to_its_home() -> None:
    assert str(Wording("de", "JP").locale) == "de_DE"
    assert str(Wording("en", "").locale) == "en_GB"
    assert str(Wording("zh", "TW").locale) == "zh_Hans_CN"
    with pytest.raises(Refused, match="not in 'nl'"):
        Wording("nl", "NL")
