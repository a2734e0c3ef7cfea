"""The issuer of a workspace's invoices, from avocado.toml."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from avocado.errors import Refused
from avocado.workspace import Workspace

if TYPE_CHECKING:
    from avocado.billing.issuer import Issuer
    from avocado.billing.tax import Taxes


def issuer_of(workspace: Workspace) -> Issuer:
    """Seller, taxes and terms of payment. A workspace without ``[seller]`` has an issuer too: it
    refuses when an invoice needs its name.

    Raises:
        Refused: the table of rates is none, or Stripe Tax is wanted and STRIPE_API_KEY is not set.
    """
    from avocado.billing.invoices import Seller
    from avocado.billing.issuer import Issuer

    config = workspace.config
    seller = None
    if config.seller is not None:
        seller = msgspec.convert(config.seller, Seller, from_attributes=True)
    return Issuer(seller, taxes_of(workspace), config.billing.due_days)


def taxes_of(workspace: Workspace) -> Taxes:
    """What ``[tax]`` says. Raises Refused as :func:`issuer_of` does."""
    from avocado.billing.tax import NoTaxes
    from avocado.billing.tax_table import SHIPPED, read_table

    config = workspace.config
    if config.tax.kind == "none":
        return NoTaxes(config.tax.note)
    if config.tax.kind == "table":
        own = config.tax.table
        return read_table(SHIPPED if own is None else workspace.folder / own)
    from avocado.billing.stripe_tax import API, StripeTaxes

    key = os.environ.get("STRIPE_API_KEY", "")
    if not key:
        raise Refused('[tax] kind = "stripe" needs the environment variable STRIPE_API_KEY')
    base = config.payments.api_base if config.payments is not None else None
    return StripeTaxes(key, base or API)
