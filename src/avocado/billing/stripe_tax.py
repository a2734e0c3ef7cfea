"""Stripe Tax: Stripe decides where a sale is taxed and at which rate. One HTTP request a document.

https://docs.stripe.com/api/tax/calculations, version 2024-09-30.acacia. Tested against a server of
our own that answers as that page documents; it was never run against Stripe itself. The
calculation is not turned into a Stripe tax transaction: Stripe's own reports do not know of it.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from avocado.billing.invoices import Buyer, Category, TaxSum
from avocado.billing.tax import MILLION, Sale
from avocado.billing.vat_id import EU
from avocado.errors import Refused

API: Final = "https://api.stripe.com"
VERSION: Final = "2024-09-30.acacia"
SOFTWARE: Final = "txcd_10103001"
"""Software as a service, business use (https://docs.stripe.com/tax/tax-codes)."""

_TAX_IDS: Final = {
    **dict.fromkeys(EU, "eu_vat"),
    **{"GB": "gb_vat", "CH": "ch_vat", "NO": "no_vat", "AU": "au_abn", "NZ": "nz_gst"},
    **{"IN": "in_gst", "SG": "sg_gst", "ZA": "za_vat", "US": "us_ein"},
}
_CATEGORIES: Final[dict[str, Category]] = {
    "standard_rated": "S",
    "reduced_rated": "S",
    "portion_standard_rated": "S",
    "portion_reduced_rated": "S",
    "proportionally_rated": "S",
    "taxable_basis_reduced": "S",
    "reverse_charge": "AE",
    "zero_rated": "Z",
    "product_exempt": "E",
    "product_exempt_holiday": "E",
    "portion_product_exempt": "E",
    "customer_exempt": "E",
    "not_collecting": "O",
    "not_subject_to_tax": "O",
    "not_supported": "O",
}
_NAMES: Final = {"vat": "VAT", "gst": "GST", "hst": "HST", "sales_tax": "Sales tax", "jct": "JCT"}


class _Rate(msgspec.Struct):
    country: str | None = None
    percentage_decimal: str = "0"
    tax_type: str | None = None


class _Part(msgspec.Struct):
    amount: int
    taxable_amount: int
    taxability_reason: str
    inclusive: bool = False
    tax_rate_details: _Rate | None = None

    @property
    def rate(self) -> _Rate:
        return self.tax_rate_details or _Rate()


class _Calculation(msgspec.Struct):
    amount_total: int
    tax_amount_exclusive: int
    tax_breakdown: tuple[_Part, ...] = ()
    id: str | None = None


class _Busy(Exception):
    """Stripe is away or has too much to do."""


@dataclass(frozen=True, slots=True)
class StripeTaxes:
    """See :class:`avocado.billing.tax.Taxes`. ``key`` is the secret API key."""

    key: str = field(repr=False)
    api_base: str = API
    tax_code: str = SOFTWARE
    timeout: float = 20.0
    pauses: tuple[float, ...] = (0.5, 2.0)
    """Seconds to wait before it is asked again, when it is busy or away."""

    def decide(self, sale: Sale) -> tuple[TaxSum, ...]:
        """Asks Stripe. A sale of nothing is not asked about."""
        country = sale.buyer.country
        if not sale.net_minor:
            return (TaxSum(0, "O", 0, 0, "stripe", country),)
        if not country:
            raise Refused(
                f"customer {sale.buyer.tenant} has no country, and Stripe needs it: "
                f"avocado profile set {sale.buyer.tenant} --country DE"
            )
        return _sums(sale, self._ask(question(sale, self.tax_code)))

    def _ask(self, fields: dict[str, str]) -> _Calculation:
        """Asks up to three times: a calculation changes nothing at Stripe."""
        for pause in (*self.pauses, None):
            try:
                return self._ask_once(fields)
            except _Busy as busy:
                if pause is None:
                    raise Refused(f"Stripe Tax did not answer: {busy}; try again") from busy
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _ask_once(self, fields: dict[str, str]) -> _Calculation:
        from urllib.error import HTTPError, URLError
        from urllib.request import Request, urlopen

        request = Request(  # noqa: S310 - the address is the operator's
            f"{self.api_base.rstrip('/')}/v1/tax/calculations",
            data=urlencode(fields).encode(),
            headers={"Authorization": f"Bearer {self.key}", "Stripe-Version": VERSION},
        )
        try:
            with urlopen(request, timeout=self.timeout) as answer:  # noqa: S310
                return msgspec.json.decode(answer.read(), type=_Calculation)
        except HTTPError as error:
            told = _message(error.read())
            if error.code == 429 or error.code >= 500:
                raise _Busy(f"{error.code}, {told}") from error
            raise Refused(f"Stripe Tax refused ({error.code}): {told}") from error
        except (URLError, TimeoutError, OSError) as error:
            raise _Busy(str(error)) from error
        except msgspec.DecodeError as error:
            raise Refused(f"Stripe Tax answered what is no calculation: {error}") from error


def question(sale: Sale, tax_code: str = SOFTWARE) -> dict[str, str]:
    """The form that Stripe is sent."""
    fields = {
        "currency": sale.currency.lower(),
        "line_items[0][amount]": str(sale.net_minor),
        "line_items[0][reference]": sale.reference[:500] or "invoice",
        "line_items[0][tax_behavior]": "exclusive",
        "line_items[0][tax_code]": tax_code,
        "customer_details[address_source]": "billing",
        **_address(sale.buyer),
    }
    kind = _TAX_IDS.get(sale.buyer.country)
    if sale.buyer.vat_id and kind:
        fields["customer_details[tax_ids][0][type]"] = kind
        fields["customer_details[tax_ids][0][value]"] = sale.buyer.vat_id
    return fields


def _address(buyer: Buyer) -> dict[str, str]:
    lines = dict(zip(("line1", "line2"), buyer.address, strict=False))
    place = {"postal_code": buyer.postcode, "city": buyer.city, "state": buyer.region}
    given = {"country": buyer.country, **place, **lines}
    return {f"customer_details[address][{key}]": text for key, text in given.items() if text}


def _sums(sale: Sale, made: _Calculation) -> tuple[TaxSum, ...]:
    """Stripe's parts as ours. Several taxes on the same base (a state's, a city's) become one."""
    parts = made.tax_breakdown
    if made.amount_total != sale.net_minor + made.tax_amount_exclusive or (
        sum(part.amount for part in parts) != made.tax_amount_exclusive
        or any(part.inclusive for part in parts)
    ):
        raise Refused(f"Stripe's calculation {made.id} does not add up to the sale: not used")
    note = f"Stripe Tax {made.id}" if made.id else "Stripe Tax"
    if sum(part.taxable_amount for part in parts) == sale.net_minor:
        return tuple(_sum(part, part.taxable_amount, note, sale) for part in parts)
    taxed = [part for part in parts if part.amount]
    if not taxed:
        reason = parts[0] if parts else _Part(0, 0, "not_subject_to_tax")
        return (_sum(reason, sale.net_minor, note, sale),)
    if any(part.taxable_amount != sale.net_minor for part in taxed):
        raise Refused(f"Stripe's calculation {made.id} taxes parts of the sale: not supported")
    rate = sum(_millionths(part) for part in taxed)
    first = _sum(taxed[0], sale.net_minor, note, sale)
    return (msgspec.structs.replace(first, rate=rate, amount_minor=made.tax_amount_exclusive),)


def _sum(part: _Part, base: int, note: str, sale: Sale) -> TaxSum:
    rate = part.rate
    category = _CATEGORIES.get(part.taxability_reason, "S" if part.amount else "O")
    code = "reverse-charge" if category == "AE" else "stripe"
    country = rate.country or sale.buyer.country
    name = _NAMES.get(rate.tax_type or "", "Tax" if rate.tax_type else "VAT")
    return TaxSum(_millionths(part), category, base, part.amount, code, country, name, note)


def _millionths(part: _Part) -> int:
    return int(Decimal(part.rate.percentage_decimal or "0") * (MILLION // 100))


def _message(body: bytes) -> str:
    """What Stripe says of an error."""
    try:
        told: Any = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return "no reason given"
    return str(told)
