"""What a customer sees first: what is left, what was spent, what to do next."""

from __future__ import annotations

from dataclasses import dataclass

from avocado.billing.profile import profile_of
from avocado.console.customer.figures import day_after, days_back, spend_chart, this_month, total
from avocado.console.customer.keyring import INTERNAL
from avocado.console.page import Nav, Pages, Values, Visit
from avocado.console.roles import CUSTOMER

PAGES = Pages()
DAYS = 30


@dataclass(frozen=True)
class Step:
    """``key`` names its words: ``overview.<key>`` and ``overview.<key>_text``."""

    key: str
    url: str
    done: bool


@PAGES.show(
    "/overview",
    roles=CUSTOMER,
    template="customer/overview.html",
    nav=Nav("nav.overview", "home", 10),
)
def overview(visit: Visit) -> Values:
    days = days_back(visit, DAYS)
    rows = visit.daybook.usage(visit.tenant, days[0], day_after(days[-1]), by=("day", "offer"))
    return {
        **figures(visit),
        "chart": spend_chart(visit, rows, days, visit.reader.customer(visit.tenant).currency),
        "used": bool(rows),
        "steps": steps(visit),
        "last_days": total(rows),
    }


@PAGES.live("/overview/live", roles=CUSTOMER, template="customer/overview_figures.html", every=3)
def live(visit: Visit) -> Values:
    return figures(visit)


def figures(visit: Visit) -> Values:
    """The numbers on top, which keep themselves current."""
    month = this_month(visit)  # first: it takes up what is new, outside of any snapshot
    customer = visit.reader.customer(visit.tenant)
    return {
        "customer": customer,
        "balance": visit.reader.balance(visit.tenant),
        "month": month,
        "included": [each for each in visit.reader.allowances(visit.tenant) if each.left],
    }


def steps(visit: Visit) -> list[Step]:
    """What a new customer has to do, and what of it is done."""
    reader, tenant = visit.reader, visit.tenant
    keys = [each for each in reader.keys(tenant) if each.name != INTERNAL]
    asked = bool(visit.daybook.months(tenant))
    balance = reader.balance(tenant)
    money = balance.available + balance.credit_limit > 0 or any(
        each.left for each in reader.allowances(tenant)
    )
    profile = profile_of(reader, tenant)
    return [
        Step("money", "/billing", money),
        Step("key", "/keys/new", bool(keys)),
        Step("ask", "/snippets", asked),
        Step("profile", "/billing/profile", bool(profile.address)),
    ]
