"""The customer's pages."""

from __future__ import annotations

from avocado.console.customer import keys, overview
from avocado.console.page import Pages

PAGES: tuple[Pages, ...] = (overview.PAGES, keys.PAGES)
