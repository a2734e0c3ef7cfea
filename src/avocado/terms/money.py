"""Money: integer nano-units of a currency. The only place that turns decimals into integers.

A nano-unit is 10⁻⁹ of the currency's major unit, so int64 reaches about nine billion dollars.
No float touches money: text is parsed digit by digit, and arithmetic across currencies is an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NANO = 1_000_000_000
"""Nano-units in one major unit (one dollar, one euro)."""

MAX_NANOS = 2**63 - 1
"""The largest amount that a database column (int64) holds."""

_DECIMAL = re.compile(r"(\d{1,10})(?:\.(\d{1,9}))?", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)

# ISO 4217 minor-unit digits that differ from 2 (source: ISO 4217 table A.1, read 2026-11).
_DIGITS = {
    **dict.fromkeys(
        ("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF").split(), 0
    ),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
    **dict.fromkeys("CLF UYW".split(), 4),
}


def minor_digits(currency: str) -> int:
    """Decimals of a currency's smallest coin: 2 for EUR, 0 for JPY, 3 for KWD."""
    return _DIGITS.get(currency, 2)


class MoneyError(ValueError):
    """An amount or a currency that cannot be what its writer meant."""


@dataclass(frozen=True, slots=True)
class Money:
    """An exact amount: ``nanos`` (10⁻⁹ units, may be negative) of an ISO 4217 ``currency``."""

    nanos: int
    currency: str = "USD"

    def __post_init__(self) -> None:
        if type(self.nanos) is not int:
            raise MoneyError(
                f"money is a whole number of nano-units, not {type(self.nanos).__name__}"
            )
        if not _CURRENCY.fullmatch(self.currency):
            raise MoneyError(
                f"a currency is three capital letters such as USD, not {self.currency!r}"
            )
        if abs(self.nanos) > MAX_NANOS:
            raise MoneyError("an amount beyond 9,223,372,036 units cannot be stored")

    @classmethod
    def parse(cls, text: str, currency: str = "USD") -> Money:
        """Reads a plain non-negative decimal such as ``12`` or ``0.20``.

        Raises:
            MoneyError: for anything else: a sign, an exponent, NaN, a comma, over nine decimals.
        """
        match = _DECIMAL.fullmatch(text.strip())
        if match is None:
            raise MoneyError(
                f"{text!r} is not an amount: write plain digits with at most nine decimals, "
                "such as 0.20"
            )
        whole, fraction = match.group(1), match.group(2) or ""
        return cls(int(whole) * NANO + int(fraction.ljust(9, "0")), currency)

    def _same(self, other: Money) -> None:
        if self.currency != other.currency:
            raise MoneyError(f"{self.currency} and {other.currency} do not mix")

    def __add__(self, other: Money) -> Money:
        self._same(other)
        return Money(self.nanos + other.nanos, self.currency)

    def __sub__(self, other: Money) -> Money:
        self._same(other)
        return Money(self.nanos - other.nanos, self.currency)

    def __neg__(self) -> Money:
        return Money(-self.nanos, self.currency)

    def __lt__(self, other: Money) -> bool:
        self._same(other)
        return self.nanos < other.nanos

    def __le__(self, other: Money) -> bool:
        self._same(other)
        return self.nanos <= other.nanos

    def __gt__(self, other: Money) -> bool:
        return other < self

    def __ge__(self, other: Money) -> bool:
        return other <= self

    def decimal(self) -> str:
        """The exact amount in major units, with the currency's own digits or more: ``0.000018``."""
        whole, fraction = divmod(abs(self.nanos), NANO)
        digits = minor_digits(self.currency)
        shown = f"{fraction:09d}"
        kept = shown[:digits] + shown[digits:].rstrip("0")
        sign = "-" if self.nanos < 0 else ""
        return f"{sign}{whole}.{kept}" if kept else f"{sign}{whole}"

    def __str__(self) -> str:
        return f"{self.decimal()} {self.currency}"


def ceil_div(numerator: int, denominator: int) -> int:
    """⌈numerator / denominator⌉ in integers; the product's one rounding goes up."""
    return -(-numerator // denominator)
