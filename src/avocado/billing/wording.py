"""Wording: what invoices say, and how numbers, dates and money look, in the customer's language.

The words stand in ``wording.toml``; numbers, dates and currencies are written by Babel from
Unicode's CLDR. Whoever wants another word changes that file; no code knows a language.
"""

from __future__ import annotations

import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

from avocado.errors import Refused
from avocado.terms.money import NANO

if TYPE_CHECKING:
    from babel import Locale

LANGUAGES: Final = ("de", "en", "es", "fr", "zh")
_HOME: Final = {"de": "DE", "en": "GB", "es": "ES", "fr": "FR", "zh": "Hans_CN"}
"""The territory whose habits count where the customer's own has none in that language."""


def read_words(text: str) -> Mapping[str, Mapping[str, str]]:
    """Language → key → sentence, from the TOML of :file:`wording.toml`.

    Raises:
        ValueError: a sentence lacks a language, or one of its languages lacks a ``{place}``.
    """
    table: dict[str, dict[str, str]] = {language: {} for language in LANGUAGES}
    for key, sentences in tomllib.loads(text).items():
        if set(sentences) != set(LANGUAGES):
            raise ValueError(f"wording {key!r} must stand in each of {', '.join(LANGUAGES)}")
        places = {
            frozenset(name for _, name, _, _ in string.Formatter().parse(sentence) if name)
            for sentence in sentences.values()
        }
        if len(places) != 1:
            raise ValueError(f"wording {key!r} names other places in one language than in another")
        for language, sentence in sentences.items():
            table[language][key] = sentence
    return table


@cache
def _words() -> Mapping[str, Mapping[str, str]]:
    source = resources.files("avocado.billing").joinpath("wording.toml")
    return read_words(source.read_text(encoding="utf-8"))


@cache
def _locale(language: str, country: str) -> Locale:
    try:
        from babel import Locale
    except ImportError as error:
        raise Refused("invoices need Babel: pip install 'avocado-llm[billing]'") from error
    from babel import UnknownLocaleError

    territory = _HOME[language] if language == "zh" else country
    try:
        return Locale.parse(f"{language}_{territory}")
    except (UnknownLocaleError, ValueError):
        return Locale.parse(f"{language}_{_HOME[language]}")


@dataclass(frozen=True, slots=True)
class Wording:
    """The words and habits of ``language`` as a customer in ``country`` (ISO 3166) has them.

    Chinese is written as in the People's Republic, whatever the country: the words are simplified.
    """

    language: str
    country: str = ""

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise Refused(
                f"invoices are written in {', '.join(LANGUAGES)}, not in {self.language!r}"
            )

    @property
    def locale(self) -> Locale:
        """Babel's.

        Raises:
            Refused: Babel is not installed.
        """
        return _locale(self.language, self.country)

    def say(self, key: str, **places: str) -> str:
        """The sentence ``key`` of :file:`wording.toml` with its ``{places}`` filled."""
        sentence = _words()[self.language][key]
        return sentence.format(**places) if places else sentence

    def day(self, given: date) -> str:
        """A date in words, such as ``27. November 2026``."""
        from babel.dates import format_date

        return str(format_date(given, "long", locale=self.locale))

    def days(self, first: date, last: date) -> str:
        """A span of whole days, such as ``1. – 31. Oktober 2026``; one day is said once."""
        from babel.dates import format_interval

        if first == last:
            return self.day(first)
        return str(format_interval(first, last, "yMMMMd", locale=self.locale))

    def number(self, count: int) -> str:
        """A whole number with the locale's grouping."""
        return self.decimal(Decimal(count), 0)

    def decimal(self, value: Decimal, digits: int) -> str:
        """``value`` with grouping and ``digits`` decimals or as many more as it exactly has."""
        from babel.numbers import format_decimal

        pattern = "#,##0." + "0" * digits + "#" * (9 - digits)
        return _with_minus(
            str(format_decimal(value, pattern, locale=self.locale, group_separator=True))
        )

    def money(self, nanos: int, currency: str) -> str:
        """An exact amount with the currency's sign: its own digits, or as many as it needs."""
        from babel.numbers import format_currency, get_currency_precision

        value = Decimal(nanos) / NANO
        digits = max(get_currency_precision(currency), decimals(nanos))
        pattern = self.locale.currency_formats["standard"].pattern
        pattern = pattern.replace("0.00", "0." + "0" * digits if digits else "0")
        return _with_minus(
            str(
                format_currency(value, currency, pattern, locale=self.locale, currency_digits=False)
            )
        )

    def percent(self, rate: Decimal) -> str:
        """A rate in per cent, such as ``19 %`` for 19."""
        from babel.numbers import format_percent

        pattern = self.locale.percent_formats[None].pattern.replace("#,##0", "#,##0.###")
        return str(format_percent(rate / 100, pattern, locale=self.locale))


def decimals(nanos: int) -> int:
    """How many decimals an exact amount of nano-units needs: 0 to 9."""
    fraction = f"{abs(nanos) % NANO:09d}".rstrip("0")
    return len(fraction)


def _with_minus(text: str) -> str:
    """A true minus sign (U+2212), which is as wide as a digit."""
    return text.replace("-", "\N{MINUS SIGN}")
