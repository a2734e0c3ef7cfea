"""Issuer: the seller, its taxes and its terms of payment, as every invoice needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from avocado.billing.countries import checked_country
from avocado.errors import Refused

if TYPE_CHECKING:
    from avocado.billing.invoices import Seller
    from avocado.billing.tax import Taxes


@dataclass(frozen=True, slots=True)
class Issuer:
    """``cli.issuer.issuer_of(workspace)`` makes it from ``[seller]``, ``[tax]`` and ``[billing]``.

    ``seller`` is None where avocado.toml names none: invoices can be previewed then, not issued.
    """

    seller: Seller | None
    taxes: Taxes
    due_days: int = 14

    def named(self) -> Seller:
        """The seller.

        Raises:
            Refused: avocado.toml names none, and an invoice has to; or its country is none, and
                taxes hang on it.
        """
        if self.seller is None:
            raise Refused(
                "an invoice has to name who sells: write [seller] with name, address, postcode, "
                "city and country into avocado.toml"
            )
        checked_country(self.seller.country)
        return self.seller

    @property
    def credit_series(self) -> str:
        """The series of credit notes, which have numbers of their own."""
        return f"{self.named().invoice_series}-CN"
