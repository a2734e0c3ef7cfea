"""Taxes: what is added to a sale, and why. The decision is behind one small interface.

``NoTaxes`` adds nothing; ``tax_table`` knows fixed rates by country and the EU's rules;
``stripe_tax`` asks Stripe. None of them is tax advice: what applies is the seller's to know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from avocado.billing.invoices import Buyer, Seller, TaxSum

MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Sale:
    """What is taxed: ``net_minor`` (smallest coins of ``currency``) on ``day`` (ISO, UTC), the last
    day of the period or the day of the payment. ``reference`` is the document's id."""

    seller: Seller
    buyer: Buyer
    day: str
    currency: str
    digits: int
    net_minor: int
    reference: str = ""


class Taxes(Protocol):
    """Who decides."""

    def decide(self, sale: Sale) -> tuple[TaxSum, ...]:
        """Sums by rate whose bases add up to the sale's net.

        Raises:
            Refused: what the decision needs is missing, such as the buyer's country, or the
                provider did not answer.
        """


def tax_on(base_minor: int, rate: int) -> int:
    """``rate`` millionths of an amount, rounded half up (away from zero), in smallest coins."""
    share, rest = divmod(abs(base_minor) * rate, MILLION)
    share += 2 * rest >= MILLION
    return share if base_minor >= 0 else -share


@dataclass(frozen=True, slots=True)
class NoTaxes:
    """Nothing is added. ``note`` says why, such as ``§ 19 UStG``: then it is an exemption."""

    note: str | None = None

    def decide(self, sale: Sale) -> tuple[TaxSum, ...]:
        category, code = ("E", "exempt") if self.note else ("O", "none")
        country = sale.seller.country
        return (TaxSum(0, category, sale.net_minor, 0, code, country, note=self.note or ""),)  # type: ignore[arg-type]


def split_gross(gross_minor: int, taxes: tuple[TaxSum, ...]) -> tuple[int, int]:
    """(net, tax) of a payment of ``gross_minor``, in the proportion of a document's ``taxes``.

    Half up; the parts add up to what was paid.
    """
    net = sum(each.base_minor for each in taxes)
    tax = sum(each.amount_minor for each in taxes)
    if net + tax <= 0:
        return gross_minor, 0
    share, rest = divmod(gross_minor * tax, net + tax)
    share += 2 * rest >= net + tax
    return gross_minor - share, share
