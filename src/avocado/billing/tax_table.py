"""Fixed rates by country and day, and the rules for services sold electronically from the EU.

Directive 2006/112/EC (https://eur-lex.europa.eu/eli/dir/2006/112/oj), as far as tokens need it:

- a business in another member state, with a VAT id: no tax here, the customer owes it (Art. 44 and
  196)
- a consumer in another member state: that state's rate (Art. 58)
- somebody outside the EU: not taxable here (Art. 44, 59)
- the seller's own country: its standard rate

A seller outside the EU taxes customers of its own country, if the table has its rate, and nobody
else.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final

import msgspec

from avocado.billing.invoices import Category, TaxSum
from avocado.billing.tax import MILLION, Sale, tax_on
from avocado.billing.vat_id import EU
from avocado.errors import Refused

SHIPPED: Final = Path(__file__).with_name("tax_rates.toml")
_PARTS: Final = {"MC": "FR"}
"""Monaco counts as France (Art. 7)."""


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``percent`` holds in ``country`` from the day ``since`` until the next row of the country, or
    until the day ``until``."""

    country: str
    since: str
    percent: str
    until: str | None = None


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table as it is written."""

    rates: tuple[Row, ...]
    checked: str = ""
    source: str = ""
    destination: bool = True


@dataclass(frozen=True, slots=True)
class TaxTable:
    """Rates in millionths by country: (since, until, rate), in order of time."""

    rates: dict[str, tuple[tuple[str, str, int], ...]]
    destination: bool = True

    def rate(self, country: str, day: str) -> int | None:
        """The rate in force on a day (ISO); None if the table does not say."""
        found = None
        for since, until, rate in self.rates.get(country, ()):
            if since <= day <= until:
                found = rate
        return found

    def decide(self, sale: Sale) -> tuple[TaxSum, ...]:
        """See :class:`avocado.billing.tax.Taxes`."""
        seller = _PARTS.get(sale.seller.country, sale.seller.country)
        buyer = _PARTS.get(sale.buyer.country, sale.buyer.country)
        if not buyer:
            raise Refused(
                f"customer {sale.buyer.tenant} has no country, and without it nobody knows its "
                f"tax: avocado profile set {sale.buyer.tenant} --country DE"
            )
        if buyer == seller:
            if seller not in EU and seller not in self.rates:
                return (_untaxed(sale, "O", "none", seller),)
            return (self._taxed(sale, seller, "standard"),)
        if seller in EU and buyer in EU:
            if sale.buyer.vat_id:
                return (_untaxed(sale, "AE", "reverse-charge", buyer),)
            if self.destination:
                return (self._taxed(sale, buyer, "destination"),)
            return (self._taxed(sale, seller, "standard"),)
        return (_untaxed(sale, "O", "export", buyer),)

    def _taxed(self, sale: Sale, country: str, code: str) -> TaxSum:
        rate = self.rate(country, sale.day)
        if rate is None:
            raise Refused(
                f"the tax table has no rate of {country} on {sale.day}: add one to a table of "
                "your own and name it in avocado.toml, under [tax] table"
            )
        category: Category = "S" if rate else "Z"
        tax = tax_on(sale.net_minor, rate)
        return TaxSum(rate, category, sale.net_minor, tax, code, country)


def _untaxed(sale: Sale, category: Category, code: str, country: str) -> TaxSum:
    return TaxSum(0, category, sale.net_minor, 0, code, country)


def read_table(path: Path = SHIPPED) -> TaxTable:
    """Reads a table of rates.

    Raises:
        Refused: no TOML, an unknown key, a day or a rate that is none; the sentence names it.
    """
    try:
        given = msgspec.toml.decode(path.read_bytes(), type=File)
    except OSError as error:
        raise Refused(f"the tax table {path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise Refused(f"{path}: {error}") from error
    rates: dict[str, list[tuple[str, str, int]]] = {}
    for row in given.rates:
        where = f"{path}: the rate of {row.country} since {row.since}"
        until = row.until or "9999-12-31"
        if len(row.country) != 2 or not row.country.isupper():
            raise Refused(f"{where}: a country is two capital letters")
        if not (_is_day(row.since) and _is_day(until) and row.since <= until):
            raise Refused(f"{where}: since and until are days such as 2026-01-01, in order")
        rates.setdefault(row.country, []).append((row.since, until, _millionths(row, where)))
    ordered = {country: tuple(sorted(rows)) for country, rows in rates.items()}
    return TaxTable(ordered, given.destination)


def _is_day(text: str) -> bool:
    from datetime import date

    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _millionths(row: Row, where: str) -> int:
    try:
        rate = Decimal(row.percent) * (MILLION // 100)
    except InvalidOperation:
        rate = Decimal(-1)
    if not (rate.is_finite() and 0 <= rate <= MILLION and rate == rate.to_integral_value()):
        raise Refused(f'{where}: {row.percent!r} is no percentage such as "19" or "25.5"')
    return int(rate)
