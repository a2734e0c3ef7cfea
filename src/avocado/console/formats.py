"""Formats: money, counts and times as a person's language writes them. Babel knows how."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from avocado.console.words import Language
from avocado.terms.money import NANO, Money

_LOCALES: Final[dict[Language, str]] = {"en": "en_US", "de": "de_DE"}


@dataclass(frozen=True)
class Formats:
    """Filters of every template, under their own names: ``{{ nanos|money(currency) }}``."""

    language: Language
    now: int
    """ns since 1970, for :meth:`ago`."""

    @property
    def locale(self) -> str:
        return _LOCALES[self.language]

    def money(self, nanos: int, currency: str) -> str:
        """To the currency's minor unit; an amount that would read 0.00 keeps two digits that are
        not zero, because one request costs less than a cent."""
        from babel.numbers import format_currency, get_currency_precision

        places = get_currency_precision(currency)
        amount = Decimal(nanos) / NANO
        if amount and abs(amount) < Decimal(1).scaleb(-places):
            places = min(9, 1 - amount.adjusted())
        shown = amount.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
        pattern = f"¤#,##0.{'0' * places}" if places else "¤#,##0"
        if self.language == "de":
            pattern = pattern[1:] + " ¤"
        return str(
            format_currency(shown, currency, pattern, locale=self.locale, currency_digits=False)
        )

    def exact(self, nanos: int, currency: str) -> str:
        """Every digit that the ledger has, for a title or a column of proof."""
        return str(Money(nanos, currency))

    def number(self, value: float) -> str:
        from babel.numbers import format_decimal

        return str(format_decimal(value, locale=self.locale))

    def fixed(self, value: float, places: int = 2) -> str:
        """With so many digits after the point."""
        from babel.numbers import format_decimal

        pattern = "#,##0." + "0" * places if places else "#,##0"
        return str(format_decimal(value, pattern, locale=self.locale))

    def compact(self, value: float) -> str:
        """``12.4K``, ``3.1M``: for cards and axes."""
        from babel.numbers import format_compact_decimal

        digits = 1 if abs(value) >= 1000 else 0
        return str(format_compact_decimal(value, fraction_digits=digits, locale=self.locale))

    def percent(self, share: float, places: int = 1) -> str:
        from babel.numbers import format_percent

        pattern = "#,##0" + ("." + "0" * places if places else "") + "%"
        if self.language == "de":
            pattern = pattern[:-1] + "\u00a0%"
        return str(format_percent(share, pattern, locale=self.locale))

    def day(self, at: int) -> str:
        """A date, UTC; ``at`` in ns."""
        from babel.dates import format_date

        return str(format_date(_when(at).date(), "medium", locale=self.locale))

    def iso_day(self, at: int) -> str:
        """``2026-11-03``, UTC; ``at`` in ns."""
        return _when(at).date().isoformat()

    def date(self, day: str) -> str:
        """``2026-11-03`` as the language writes it."""
        from babel.dates import format_date

        return str(format_date(datetime.fromisoformat(day), "medium", locale=self.locale))

    def time(self, at: int) -> str:
        """A date and time, UTC, of 24 hours in every language; ``at`` in ns."""
        from babel.dates import format_skeleton, format_time

        day = format_skeleton("yMMMd", _when(at), locale=self.locale)
        return f"{day}, {format_time(_when(at), 'HH:mm:ss', locale=self.locale)}\u00a0UTC"

    def short_day(self, day: str) -> str:
        """``2026-11-03`` as ``Nov 3``, for an axis."""
        from babel.dates import format_skeleton

        return str(format_skeleton("MMMd", datetime.fromisoformat(day), locale=self.locale))

    def month(self, month: str) -> str:
        """``2026-11`` as ``November 2026``."""
        from babel.dates import format_skeleton

        return str(
            format_skeleton("yMMMM", datetime.fromisoformat(f"{month}-01"), locale=self.locale)
        )

    def short_month(self, month: str) -> str:
        """``2026-11`` as ``Nov 2026``, for an axis."""
        from babel.dates import format_skeleton

        day = datetime.fromisoformat(f"{month}-01")
        return str(format_skeleton("yMMM", day, locale=self.locale))

    def ago(self, at: int) -> str:
        """``3 hours ago``; ``at`` in ns."""
        from babel.dates import format_timedelta

        seconds = (at - self.now) // NANO
        text = format_timedelta(
            seconds, granularity="second", add_direction=True, locale=self.locale
        )
        return str(text)

    def bytes(self, value: int) -> str:
        """``1.4 GB``, in powers of ten."""
        size, units = float(value), ("B", "kB", "MB", "GB", "TB")
        place = 0
        while size >= 1000 and place < len(units) - 1:
            size, place = size / 1000, place + 1
        return f"{self.fixed(size, 1 if place else 0)}\u00a0{units[place]}"

    def duration(self, seconds: float) -> str:
        """``1 h 05 min``, ``12.3 s``, ``340 ms``: the units are the same in both languages."""
        if seconds < 1:
            return f"{self.fixed(seconds * 1000, 0)}\u00a0ms"
        if seconds < 60:
            return f"{self.fixed(seconds, 1)}\u00a0s"
        minutes, rest = divmod(int(seconds), 60)
        if minutes < 60:
            return f"{minutes}\u00a0min {rest:02d}\u00a0s"
        hours, minutes = divmod(minutes, 60)
        return f"{hours}\u00a0h {minutes:02d}\u00a0min"


FILTERS: Final = tuple(
    "money exact number fixed compact percent day date time short_day month ago bytes"
    " duration".split()
)
"""Methods of :class:`Formats` that templates have as filters."""


def _when(at: int) -> datetime:
    return datetime.fromtimestamp(at / NANO, UTC)
