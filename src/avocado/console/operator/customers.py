"""Customers: who they are, what they have and spend, and a page to look after each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from avocado.cli.book import shelf
from avocado.console import chart, links, people
from avocado.console.operator.doors import DOORS
from avocado.console.operator.money import decimal
from avocado.console.operator.overview import currency_of, today
from avocado.console.page import Nav, Pages, Values, Visit
from avocado.ledger import entry as e
from avocado.ledger.rows import COLUMNS, HoldRow
from avocado.ledger.views import Record, charge_of

if TYPE_CHECKING:
    from avocado.gateway.access import Policy
    from avocado.ledger.reader import Balance, Charge, Reader
    from avocado.ledger.rows import Customer, Key

PAGES = Pages()
MOST: Final = 50
"""Rows of a page."""
NEWEST: Final = 15
"""Requests and movements of money that a customer's page shows."""
MONEY: Final = ("Deposited", "Granted", "GrantExpired", "Billed", "Refunded", "Adjusted")


@dataclass(frozen=True)
class Listed:
    customer: Customer
    balance: Balance
    plan: str | None
    spent: int
    """Nano-units of this month, refunds taken off."""
    requests: int


@PAGES.show(
    "/operator/customers",
    roles=DOORS["customers"],
    template="operator/customers.html",
    nav=Nav("op.customers", "people", 220, "op.group_money"),
)
def customers(visit: Visit) -> Values:
    """All of them, or those whose id or name has what was typed; who spends most comes first."""
    wanted = visit.query.text("q", 100).lower()
    only = visit.query.get("state", "")
    start = visit.query.number("from", 0, 0, 10**9)
    month = today(visit).strftime("%Y-%m")
    book = visit.daybook
    spent = {
        row.tenant: row for row in book.months(by=("tenant",), since=month) if row.day == month
    }
    everybody = visit.reader.customers()
    found = [
        each
        for each in everybody
        if (not wanted or wanted in each.tenant.lower() or wanted in each.name.lower())
        and (only != "frozen" or each.frozen)
    ]
    net = {tenant: row.net for tenant, row in spent.items()}
    found.sort(key=lambda each: (-net.get(each.tenant, 0), each.tenant))
    shown = found[start : start + MOST]
    plans = policies(visit, [f"customer:{each.tenant}" for each in shown])
    subscribed = {
        each.tenant: sub.plan
        for each in shown
        if (sub := subscription(visit.reader, each.tenant)) is not None and sub.entitled
    }
    rows = []
    for each in shown:
        used = spent.get(each.tenant)
        policy = plans.get(f"customer:{each.tenant}")
        rows.append(
            Listed(
                each,
                visit.reader.balance(each.tenant),
                (policy.plan if policy else None) or subscribed.get(each.tenant),
                used.net if used else 0,
                used.requests if used else 0,
            )
        )
    return {
        "rows": rows,
        "q": wanted,
        "only": only,
        "count": len(found),
        "everybody": len(everybody),
        "start": start,
        "most": MOST,
        "month": month,
    }


def policies(visit: Visit, subjects: Sequence[str]) -> dict[str, Policy]:
    """What lies on the gateway's shelf of these subjects."""
    from avocado.gateway.access import read

    if not subjects:
        return {}
    with shelf(visit.console.workspace) as database:
        return read(database, list(subjects))


@dataclass(frozen=True)
class KeyShown:
    key: Key
    policy: Policy
    state: str


@PAGES.show(
    "/operator/customers/{tenant}", roles=DOORS["customers"], template="operator/customer.html"
)
def customer(visit: Visit) -> Values:
    """One customer. Raises UnknownCustomer: 404."""
    tenant = visit.path["tenant"]
    page = visit.reader.customer(tenant)
    now = today(visit)
    book = visit.daybook
    months = book.months(tenant)
    listed = book.entries(most=NEWEST, kinds=MONEY, tenant=tenant)
    database = visit.console.threads.database()
    subject = f"customer:{tenant}"
    policy = policies(visit, [subject]).get(subject)
    return {
        "page": page,
        "balance": visit.reader.balance(tenant),
        "plan": policy.plan if policy else None,
        "policy": policy,
        "subscription": subscription(visit.reader, tenant),
        "plans": plan_names(visit),
        "month": now.strftime("%Y-%m"),
        "months": list(reversed(months)),
        "chart": _months_chart(visit, page.currency, months),
        "keys": list(_keys(visit, tenant)),
        "movements": [
            record for each in listed if (record := visit.reader.entry(each.seq)) is not None
        ],
        "charges": newest_charges(visit.reader, tenant, NEWEST),
        "allowances": [each for each in visit.reader.allowances(tenant) if each.left],
        "members": people.of_tenant(database, tenant),
        "invited": links.waiting(database, tenant, visit.now),
        "currency": currency_of(visit),
        "decimal": decimal,
    }


def subscription(reader: Reader, tenant: str) -> Any:
    """The customer's subscription, or None."""
    import msgspec

    from avocado.billing.subscription import Subscription

    document = reader.document(f"subscription/{tenant}")
    return None if document is None else msgspec.convert(document.content, Subscription)


def plan_names(visit: Visit) -> list[str]:
    """Plans that a customer may be put on, by name."""
    from avocado.billing.plans import published

    return sorted({each.plan.name for each in published(visit.reader)})


def newest_charges(reader: Reader, tenant: str, most: int) -> list[Charge]:
    """A customer's newest settled requests, whatever its history: an index gives them."""
    sql = (
        f"SELECT {', '.join(COLUMNS[HoldRow])} FROM hold"  # noqa: S608
        " WHERE tenant = ? AND state = 'settled' ORDER BY closed_seq DESC LIMIT ?"
    )
    return [charge_of(HoldRow(*row)) for row in reader.rows(sql, (tenant, most))]


def _keys(visit: Visit, tenant: str) -> Iterator[KeyShown]:
    from avocado.cli.limits import end_of
    from avocado.gateway.access import Policy

    keys = visit.reader.keys(tenant)
    found = policies(visit, [f"key:{each.key_id}" for each in keys][:500])
    for each in keys:
        policy = found.get(f"key:{each.key_id}", Policy())
        end = end_of(each, policy)
        state = "active"
        if each.revoked is not None:
            state = "revoked"
        elif end is not None and end <= visit.now:
            state = "expired"
        yield KeyShown(each, policy, state)


def _months_chart(visit: Visit, currency: str, months: Sequence[Any]) -> Any:
    if not months:
        return None
    shown = list(months)[-12:]
    caption = chart.Caption(
        visit.t("op_customer.by_month"), visit.t("op.month"), visit.t("do.as_table")
    )
    return chart.bars(
        [visit.formats.short_month(each.day) if each.day else "" for each in shown],
        [chart.Series("", [max(0, each.net) for each in shown])],
        lambda value: visit.formats.money(int(value), currency),
        caption,
        low=True,
    )


def refundable(record: Record) -> bool:
    """Whether a movement of money can be reversed from its row."""
    return isinstance(record.entry, e.Deposited | e.Granted | e.Billed | e.Adjusted)
