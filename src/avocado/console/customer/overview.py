"""What a customer sees first: what is left, what was spent, what to do next."""

from __future__ import annotations

from avocado.console.page import Nav, Pages, Values, Visit
from avocado.console.roles import CUSTOMER

PAGES = Pages()


@PAGES.show(
    "/overview",
    roles=CUSTOMER,
    template="customer/overview.html",
    nav=Nav("nav.overview", "home", 10),
)
def overview(visit: Visit) -> Values:
    return {"balance": visit.reader.balance(visit.tenant)}
