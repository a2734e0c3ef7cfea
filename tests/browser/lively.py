"""A lively shop: customers, keys, plans, coupons, weeks of use, invoices, a dispute, alerts.

All of it goes through the real ledger and the real billing, on a clock that runs from some weeks
ago until now, so that what the console shows is what it would show. The models are given: ``fill``
is told under which names which releases are sold.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from avocado.billing import alerts, coupons, plans, subscriptions
from avocado.billing.alert import Alert
from avocado.billing.closing_run import close_all
from avocado.billing.costs import Rate, price_engine, price_training
from avocado.billing.coupon import Coupon
from avocado.billing.payment import Account, Card, Dispute
from avocado.billing.plan import parse_plan
from avocado.billing.profile import change_profile
from avocado.billing.receivables import open_invoices, pay_invoice
from avocado.billing.topups import issue_topup_invoice, quote_topup
from avocado.billing.upkeep import advance
from avocado.cli.issuer import issuer_of
from avocado.demo.server import free_ports
from avocado.gateway.keys import mint
from avocado.ledger import operation as o
from avocado.ledger.clock import ManualClock
from avocado.ledger.ledger import Ledger, open_ledger
from avocado.ledger.reader import Reader, open_reader
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage
from avocado.workspace import Workspace

NANO: Final = 10**9
DAY: Final = 86_400 * NANO
PRICE: Final = PriceSheet(
    200_000_000, 800_000_000, currency="EUR", cached=50_000_000, batch=500_000
)
MINI: Final = PriceSheet(50_000_000, 200_000_000, currency="EUR")
CONFIG: Final = """name = "{name}"
currency = "EUR"

[serve]
port = {api}

[console]
port = {console}

[seller]
name = "Avocado Labs GmbH"
address = ["Torstraße 1"]
postcode = "10119"
city = "Berlin"
country = "DE"
vat_id = "DE136695976"
email = "billing@avocado.example"
iban = "DE89370400440532013000"
invoice_series = "AV-2026"

[tax]
kind = "table"
"""
PRO: Final = b"""name = "pro"
kind = "subscription"
title = { en = "Pro", de = "Pro" }
[subscription]
fee = "29.00"
credit = "5.00"
included = [{ tokens = 2000000 }]
[trial]
days = 14
tokens = 100000
"""
TEAM: Final = b"""name = "team"
kind = "subscription"
title = { en = "Team", de = "Team" }
[subscription]
fee = "199.00"
included = [{ tokens = 20000000 }]
"""
FREE: Final = b'name = "payg"\nkind = "pay-as-you-go"\ntitle = { en = "Pay as you go" }\n'


@dataclass(frozen=True)
class Buyer:
    """A customer: how busy it is, relative to others, and what it paid and may owe (EUR)."""

    tenant: str
    name: str
    city: str
    country: str
    busy: int
    credit: int
    owes: int = 0
    plan: str | None = None


BUYERS: Final = (
    Buyer("acme", "Acme GmbH", "Hamburg", "DE", 34, 400, plan="pro"),
    Buyer("globex", "Globex SE", "München", "DE", 21, 500, plan="team"),
    Buyer("initech", "Initech SARL", "Lyon", "FR", 13, 20, owes=500),
    Buyer("umbrella", "Umbrella Research B.V.", "Utrecht", "NL", 8, 60),
    Buyer("hooli", "Hooli S.L.", "Valencia", "ES", 5, 40),
    Buyer("stark", "Stark Übersetzungen & Töchter", "Graz", "AT", 2, 15),
)


def make_workspace(folder: Path, name: str = "Avocado Labs") -> Workspace:
    """An empty workspace that sells from Berlin, on ports that are free."""
    Workspace.create(folder, name)
    return configure(folder, name)


def configure(folder: Path, name: str) -> Workspace:
    api, console = free_ports(2)
    (folder / "avocado.toml").write_text(CONFIG.format(name=name, api=api, console=console))
    return Workspace.open(folder)


def month_start(now: int, back: int = 0) -> int:
    """The first nanosecond of the month, ``back`` months before that of ``now``."""
    at = datetime.fromtimestamp(now / NANO, UTC)
    count = at.year * 12 + at.month - 1 - back
    return int(datetime(count // 12, count % 12 + 1, 1, tzinfo=UTC).timestamp()) * NANO


class Shop:
    """The book, open for writing, and its clock."""

    def __init__(self, workspace: Workspace, begins: int) -> None:
        self.workspace = workspace
        self.clock = ManualClock(begins)
        self.ledger: Ledger = open_ledger(Path(str(workspace.ledger)), self.clock)
        self.reader: Reader = open_reader(workspace.ledger)
        self.issuer = issuer_of(workspace)
        self.draw = random.Random(11)
        self.keys: dict[str, list[str]] = {}
        self.requests = 0

    def do(self, operation: o.AnyOperation) -> Any:
        return self.ledger.do_now(operation)

    def close(self) -> None:
        self.reader.close()
        self.ledger.close()

    def go_to(self, moment: int) -> None:
        self.clock.pass_time(max(0, moment - self.clock.now()))

    def open(self, buyer: Buyer) -> None:
        tenant = buyer.tenant
        limit = buyer.owes * NANO
        self.do(o.OpenCustomer(tenant=tenant, name=buyer.name, currency="EUR", credit_limit=limit))
        profile = {
            "company": buyer.name, "address": ("Hauptstraße 5",), "postcode": "20095",
            "city": buyer.city, "country": buyer.country, "email": f"billing@{tenant}.example",
            "language": "de" if buyer.country in ("DE", "AT") else "en",
        }  # fmt: skip
        change_profile(self.reader, self.do, tenant, profile, "seed")
        self.pay(buyer.tenant, buyer.credit)
        for name in ("production", "staging", "nightly batch"):
            key = mint(self.workspace.pepper())
            self.do(
                o.AddKey(
                    key_id=key.id,
                    tenant=tenant,
                    name=name,
                    digest=key.digest,
                    created=self.clock.now(),
                )
            )
            self.keys.setdefault(tenant, []).append(key.id)

    def pay(self, tenant: str, euros: int) -> None:
        """A top-up by card, with tax and its invoice."""
        now = self.clock.now()
        id_ = f"pi_{now // 10**6:x}{tenant}"
        day = datetime.fromtimestamp(now / NANO, UTC).date().isoformat()
        taxes = quote_topup(self.reader, self.issuer, tenant, euros * 100, day)
        tax = sum(each.amount_minor for each in taxes) * NANO // 100
        self.do(
            o.Deposit(
                id=id_, tenant=tenant, amount=euros * NANO, currency="EUR", tax=tax,
                reference="card •••• 4242",
            )
        )  # fmt: skip
        issue_topup_invoice(self.reader, self.do, self.issuer, tenant, id_, now, actor="seed")

    def use(self, sold: Mapping[str, tuple[str, PriceSheet]], tenant: str, many: int) -> None:
        """Requests of one customer, all at once."""
        waiting = []
        for _ in range(many):
            self.requests += 1
            name = self.draw.choices(list(sold), [3, *(1 for _ in range(len(sold) - 1))])[0]
            release, price = sold[name]
            prompt = self.draw.randrange(9_000, 240_000)
            completion = self.draw.randrange(900, 60_000)
            id_ = f"{self.clock.now() // 10**6:012x}{self.draw.randbytes(10).hex()}"
            hold = o.Hold(
                id=id_,
                tenant=tenant,
                key_id=self.draw.choices(self.keys[tenant], [6, 3, 1])[0],
                offer=name,
                release=release,
                price_version=price.version,
                prompt_tokens=prompt,
                max_tokens=60_000,
                batch=self.requests % 17 == 0,
            )
            cached = prompt // 3 if self.requests % 3 == 0 else 0
            waiting.append((self.ledger.submit(hold), id_, Usage(prompt, completion, cached)))
        closing = []
        for future, id_, usage in waiting:
            future.result()
            closing.append(self.ledger.submit(o.Settle(hold=id_, usage=usage)))
        for done in closing:
            done.result()

    def close_month(self, month: int) -> None:
        """Closes the month that begins at ``month``."""
        name = datetime.fromtimestamp(month / NANO, UTC).strftime("%Y-%m")
        list(close_all(self.reader, self.do, self.issuer, name, self.clock.now(), "seed"))


def fill(
    workspace: Workspace, sold: Mapping[str, tuple[str, PriceSheet]], days: int, requests: int
) -> None:
    """Some weeks of business, until now. ``requests`` in all, more on working days."""
    now = time.time_ns()
    shop = Shop(workspace, now - days * DAY)
    try:
        open_up(shop, {price.version: price for _, price in sold.values()})
        closed = month_start(shop.clock.now())
        for day in range(days):
            at = now - (days - day) * DAY
            shop.go_to(at)
            if month_start(at) != closed:
                shop.close_month(closed)
                closed = month_start(at)
            for each in BUYERS:
                if each.plan:
                    advance(shop.reader, shop.do, each.tenant, shop.clock.now())
                _a_day(shop, sold, each, day, days, requests)
        shop.go_to(now - 3600 * NANO)
        aftermath(shop)
    finally:
        shop.close()


def _a_day(
    shop: Shop,
    sold: Mapping[str, tuple[str, PriceSheet]],
    buyer: Buyer,
    day: int,
    days: int,
    requests: int,
) -> None:
    weekday = datetime.fromtimestamp(shop.clock.now() / NANO, UTC).weekday()
    growth = 0.5 + day / days
    share = buyer.busy / sum(each.busy for each in BUYERS)
    many = requests / days * share * growth * (0.35 if weekday > 4 else 1.25)
    shop.use(sold, buyer.tenant, int(many * shop.draw.uniform(0.7, 1.3) + 0.5))
    if shop.reader.balance(buyer.tenant).available < 8 * NANO:
        shop.pay(buyer.tenant, max(10, buyer.credit // 2))
    shop.clock.pass_time(600 * NANO)


def open_up(shop: Shop, prices: Mapping[str, PriceSheet]) -> None:
    """Prices, plans, coupons, customers, costs."""
    for price in prices.values():
        shop.do(o.PublishPrice(terms=price.terms()))
    reader, do, now = shop.reader, shop.do, shop.clock.now()
    for text in (PRO, TEAM, FREE):
        plans.publish(reader, do, parse_plan(text, "EUR"), "seed")
    for coupon in (
        Coupon("WELCOME10", "percent", 100_000, periods=3),
        Coupon("LAUNCH25", "credit", 25 * NANO, "EUR", days=90, most=50),
    ):
        coupons.create(reader, do, coupon, "seed")
    for each in BUYERS:
        shop.open(each)
        if each.plan:
            subscriptions.start(reader, do, each.tenant, each.plan, now, actor="seed")
    since = datetime.fromtimestamp(now / NANO, UTC).strftime("%Y-%m-01")
    price_engine(reader, do, "gpu-1", Rate(since, 60_000_000), "EUR", None, "seed")
    price_training(reader, do, Rate(since, 2 * NANO), "EUR", 12, "seed")


def aftermath(shop: Shop) -> None:
    """What happens beside requests: refunds, gifts, a paid invoice, a dispute, alerts, a freeze."""
    reader, do = shop.reader, shop.do
    paid = [each for each in reader.charges("acme") if each.charge]
    do(o.Refund(id="rf-1", of=paid[-1].request, reason="answered in the wrong language"))
    do(
        o.Grant(
            id="gr-1", tenant="globex", amount=50 * NANO, currency="EUR",
            reason="outage of 3 November",
        )
    )  # fmt: skip
    coupons.redeem(reader, do, "LAUNCH25", "hooli", shop.clock.now())
    for index, owed in enumerate(list(open_invoices(reader))):
        if index % 2 == 0:
            pay_invoice(reader, do, owed.document, None, f"transfer {index + 1}")
    for number, alert in enumerate(
        (
            {"kind": "balance", "amount": 20 * NANO},
            {"kind": "spend", "amount": 250 * NANO},
        ),
        1,
    ):
        made = Alert("acme", number, currency="EUR", email="ops@acme.example", **alert)  # type: ignore[arg-type]
        alerts.add(reader, do, made, "seed")
    do(o.SetSpendLimit(tenant="acme", month=500 * NANO))
    do(o.SetSpendLimit(tenant="acme", key_id=shop.keys["acme"][1], month=100 * NANO, total=None))
    do(o.RevokeKey(key_id=shop.keys["acme"][2]))
    dispute = Dispute("pi_1Stark", 1785 * NANO // 100, "EUR", "fraudulent", False, freezes=True)
    _file(do, "dispute/dp_1Stark", "dispute", "stark", dispute)
    do(o.Freeze(tenant="stark", frozen=True, reason="dispute dp_1Stark", actor="payments"))
    card = Card("pm_1", "visa", "4242", 8, 2029)
    _file(do, "payment/acme", "payment", "acme", Account("stripe", "k1", "cus_1", card))


def _file(do: Any, id_: str, kind: str, tenant: str, value: Any) -> None:
    do(o.File(id=id_, kind=kind, tenant=tenant, content=msgspec.to_builtins(value), actor="seed"))
