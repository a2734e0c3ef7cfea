"""The operator's pages. A file of pages is named here."""

from __future__ import annotations

from avocado.console.page import Pages

PAGES: tuple[Pages, ...] = ()
