"""Doors: which of the operator's people may open which pages. One table, read by every page.

The owner opens all. Finance opens what is about money, engineers what is about models. A page that
a role may not open is 404 for it and not in its menu (``page.Pages``).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from avocado.console.roles import ENGINEER, FINANCE, OPERATOR, OWNER, Roles

DOORS: Final[Mapping[str, Roles]] = MappingProxyType(
    {
        "overview": OPERATOR,
        "statement": FINANCE,
        "costs": FINANCE,
        "customers": FINANCE,
        "invoices": FINANCE,
        "payments": FINANCE,
        "plans": FINANCE,
        "runs": ENGINEER,
        "scorecards": ENGINEER,
        "releases": ENGINEER,
        "trace": OPERATOR,
        "offers": OPERATOR,
        "sell": ENGINEER,
        "audit": OPERATOR,
        "proof": OPERATOR,
        "settings": OWNER,
    }
)
"""Area → roles. ``offers`` is looking at prices, ``sell`` changing what is sold and served."""
