"""The customer's pages."""

from __future__ import annotations

from avocado.console.customer import keys, members, overview, playground, snippets, usage
from avocado.console.page import Pages

PAGES: tuple[Pages, ...] = (
    overview.PAGES,
    keys.PAGES,
    snippets.PAGES,
    playground.PAGES,
    usage.PAGES,
    members.PAGES,
)
