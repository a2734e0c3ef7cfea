"""A workspace to look at: a real release under three names, six weeks of two customers' usage, a
plan, an alert, closed invoices. Made by the product's own operations, under a clock that is turned
back; nothing is written past the ledger."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

from avocado.billing.alert import Alert
from avocado.billing.alerts import add
from avocado.billing.closing_run import close_all
from avocado.billing.months import after, month_at
from avocado.billing.plan import parse_plan
from avocado.billing.plans import publish
from avocado.billing.profile import change_profile
from avocado.billing.subscriptions import start
from avocado.billing.topups import issue_topup_invoice
from avocado.cli.book import reading, writing
from avocado.cli.issuer import issuer_of
from avocado.cli.keeping import keep_signed
from avocado.cli.lineups import place_offer
from avocado.data.chat import ChatTemplate
from avocado.gateway.keys import mint
from avocado.ledger import operation as o
from avocado.ledger.clock import ManualClock
from avocado.ledger.ledger import Ledger, open_ledger
from avocado.release.signature import signing_key
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage
from avocado.workspace import Workspace
from tests.cli.serving import SEEDLING
from tests.console.conftest import DAY, NANO, SELLER

DAYS = 45
PLANS = (
    b'name="starter"\nkind="pay-as-you-go"\n[title]\nen="Pay as you go"\nde="Nach Verbrauch"\n',
    b'name="pro"\nkind="subscription"\n[title]\nen="Pro"\nde="Pro"\n[subscription]\nfee="49.00"\n'
    b"[[subscription.included]]\ntokens=50000000\n[trial]\ndays=14\ntokens=1000000\n",
    b'name="team"\nkind="subscription"\n[title]\nen="Team"\nde="Team"\n[subscription]\nfee="199"\n'
    b"[[subscription.included]]\ntokens=250000000\n",
)
MODELS = (
    ("avocado-1", PriceSheet(200_000_000, 800_000_000, currency="EUR"), 6),
    ("avocado-1-pro", PriceSheet(1_500_000_000, 6_000_000_000, currency="EUR"), 3),
    ("avocado-mini", PriceSheet(50_000_000, 100_000_000, currency="EUR"), 1),
)


def make_demo(folder: Path, more: str = "") -> Workspace:
    """The same data for the same day."""
    Workspace.create(folder, "Avocado Labs")
    tax = '[tax]\nkind = "table"\n'
    text = f'name = "Avocado Labs"\ncurrency = "EUR"\n{SELLER}\n{tax}{more}'
    (folder / "avocado.toml").write_text(text)
    workspace = Workspace.open(folder)
    release = _release(workspace)
    clock = ManualClock(time.time_ns() - DAYS * DAY)
    with open_ledger(workspace.ledger, clock) as ledger:
        _history(workspace, ledger, clock, release)
    for name, price, _ in MODELS:
        workspace.store.point("offer", name, place_offer(workspace, name, release, price).id)
    _business(workspace)
    return workspace


def _release(workspace: Workspace) -> str:
    with workspace.store.stage() as staging:
        shutil.copytree(SEEDLING, staging.folder, dirs_exist_ok=True)
        template = ChatTemplate.load(SEEDLING).sha256
        facts = {"name": "avocado-1", "template_sha256": template, "gate": {"purpose": "sale"}}
        private, _ = signing_key(workspace.state)
        return keep_signed(workspace, staging, facts, {}, private, None).id


def _history(workspace: Workspace, ledger: Ledger, clock: ManualClock, release: str) -> None:
    chance, number = random.Random(7), 0
    for _, price, _ in MODELS:
        ledger.do_now(o.PublishPrice(terms=price.terms()))
    keys = {tenant: _customer(workspace, ledger, clock, tenant) for tenant in ("acme", "globex")}
    for day in range(DAYS):
        for tenant, mine in keys.items():
            for _ in range(chance.randint(3, 14) + (6 if day % 7 < 5 else 0)):
                number += 1
                name, price, _ = chance.choices(MODELS, [each[2] for each in MODELS])[0]
                usage = Usage(chance.randint(20_000, 400_000), chance.randint(5_000, 90_000))
                hold = o.Hold(
                    id=f"req{number:06d}",
                    tenant=tenant,
                    offer=name,
                    release=release,
                    price_version=price.version,
                    prompt_tokens=usage.prompt,
                    max_tokens=100_000,
                    key_id=chance.choices(mine, [6, 2, 1])[0],
                )
                ledger.do_now(hold)
                ledger.do_now(o.Settle(hold=hold.id, usage=usage))
        clock.pass_time(DAY)


def _customer(workspace: Workspace, ledger: Ledger, clock: ManualClock, tenant: str) -> list[str]:
    """Opens a customer with money and three keys; their ids."""
    name = {"acme": "Acme Robotics", "globex": "Globex SE"}[tenant]
    ledger.do_now(o.OpenCustomer(tenant=tenant, name=name, currency="EUR"))
    ledger.do_now(o.Deposit(id=f"dep_{tenant}", tenant=tenant, amount=500 * NANO, currency="EUR"))
    ledger.do_now(o.SetSpendLimit(tenant=tenant, month=200 * NANO))
    found = []
    for each in ("production", "staging", "laptop"):
        key = mint(workspace.pepper())
        found.append(key.id)
        ledger.do_now(
            o.AddKey(
                key_id=key.id, tenant=tenant, name=each, digest=key.digest, created=clock.now()
            )
        )
    return found


def _business(workspace: Workspace) -> None:
    """Plans, a subscription, a profile, an alert, the month before as invoices, a top-up's."""
    now = time.time_ns()
    with writing(workspace) as do, reading(workspace) as reader:
        for text in PLANS:
            publish(reader, do, parse_plan(text, "EUR"))
        start(reader, do, "acme", "pro", now)
        address = {
            "company": "Acme Robotics GmbH",
            "address": ("Lindenallee 12",),
            "postcode": "80331",
            "city": "München",
            "country": "DE",
            "email": "ap@acme.example",
            "language": "de",
        }
        change_profile(reader, do, "acme", address, "demo")
        add(reader, do, Alert("acme", 0, "spend", "EUR", percent=80, email="cfo@acme.example"))
        issuer = issuer_of(workspace)
        list(close_all(reader, do, issuer, after(month_at(now), -1), now))
        do(o.Deposit(id="pay_1", tenant="acme", amount=100 * NANO, tax=19 * NANO, currency="EUR"))
        issue_topup_invoice(reader, do, issuer, "acme", "pay_1", now)
