"""The customer's pages."""

from __future__ import annotations

from avocado.console.customer import (
    billing,
    invoices,
    keys,
    limits,
    members,
    overview,
    paying,
    playground,
    profile,
    snippets,
    usage,
)
from avocado.console.page import Pages

PAGES: tuple[Pages, ...] = (
    overview.PAGES,
    keys.PAGES,
    snippets.PAGES,
    playground.PAGES,
    usage.PAGES,
    billing.PAGES,
    invoices.PAGES,
    profile.PAGES,
    paying.PAGES,
    limits.PAGES,
    members.PAGES,
)
