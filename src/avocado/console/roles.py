"""Roles: who a signed-in person is, and what each page lets in.

The operator's people see every customer; a customer's people see their own and nothing else. A page
names the set of roles that it lets in (``page.Pages``); a role that is not in it gets 404, as if
the page were not there.
"""

from __future__ import annotations

from typing import Final, Literal

Role = Literal["owner", "finance", "engineer", "admin", "member"]
Roles = frozenset[Role]

OWNER: Final[Roles] = frozenset(("owner",))
FINANCE: Final[Roles] = frozenset(("owner", "finance"))
"""Who may move money: credits, refunds, plans, invoices."""
ENGINEER: Final[Roles] = frozenset(("owner", "engineer"))
"""Who may change what is served: offers, canaries, releases."""
OPERATOR: Final[Roles] = frozenset(("owner", "finance", "engineer"))
ADMIN: Final[Roles] = frozenset(("admin",))
"""Of a customer: keys, members, payment, limits."""
CUSTOMER: Final[Roles] = frozenset(("admin", "member"))
SIGNED_IN: Final[Roles] = OPERATOR | CUSTOMER
PUBLIC: Final[Roles] = frozenset()
"""Everybody, signed in or not."""

ROLES: Final[tuple[Role, ...]] = ("owner", "finance", "engineer", "admin", "member")


def belongs(role: Role, tenant: str | None) -> bool:
    """Whether a person of ``tenant`` (None: the operator's) can have ``role``."""
    return (role in CUSTOMER) == (tenant is not None)
