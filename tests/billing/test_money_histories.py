"""Everything at once, in random order, through the real ledger: plans, included tokens, coupons,
proration, holds over the end of a month, credit limits, freezes, notes, payments, clocks.

Invoices have to sum to the ledger all the same, and no money may be made or lost.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avocado.billing import coupons, subscriptions
from avocado.billing.clerk import Tools, work
from avocado.billing.coupon import Coupon
from avocado.billing.plan import parse_plan
from avocado.billing.plans import publish
from avocado.billing.profile import change_profile
from avocado.errors import Refused
from avocado.ledger import operation as o
from avocado.ledger import proof
from avocado.ledger.errors import LedgerError
from avocado.terms.usage import Usage
from tests.billing.shop import DAY, Shop, table
from tests.billing.subscribers import BASIC, PACKS, PRO, YEAR
from tests.billing.test_period import EURO, FOLDER, WEIGHTS, History, amount_of, check, usage_of

PLANS = ("basic", "pro", "year", "packs")
MORE = {
    "start": 4,
    "change": 6,
    "cancel": 2,
    "pack": 2,
    "redeem": 2,
    "clerk": 10,
    "end_open": 3,
    "limit": 3,
    "freeze": 2,
    "fix": 3,
}


class Life(History):
    """A history with a subscription in it."""

    def __init__(self, shop: Shop, random: Random) -> None:
        super().__init__(shop, random)
        for text in (BASIC, PRO, YEAR, PACKS):
            publish(shop.reader, shop.do, parse_plan(text.encode(), "EUR"))
        for coupon in (
            Coupon("HALF", "percent", 500_000, periods=3),
            Coupon("THIRD", "percent", 333_333, periods=9),
            Coupon("FIVE", "amount", 5 * EURO + 1, "EUR"),
            Coupon("GIFT", "credit", 2 * EURO + 7, "EUR", days=20),
        ):
            coupons.create(shop.reader, shop.do, coupon)

    def play(self, steps: int) -> None:
        weights = WEIGHTS | MORE
        for name in self.random.choices(list(weights), list(weights.values()), k=steps):
            with suppress(LedgerError, Refused):
                getattr(self, name)()
                self.done[name] += 1

    def start(self) -> None:
        trial = self.random.random() < 0.2
        plan, now = self.random.choice(PLANS), self.shop.clock.now()
        subscriptions.start(self.shop.reader, self.shop.do, "acme", plan, now, trial=trial)

    def change(self) -> None:
        at_once = self.random.random() < 0.7
        plan, now = self.random.choice(PLANS), self.shop.clock.now()
        subscriptions.change(self.shop.reader, self.shop.do, "acme", plan, now, at_once=at_once)

    def cancel(self) -> None:
        at_once, now = self.random.random() < 0.7, self.shop.clock.now()
        subscriptions.cancel(self.shop.reader, self.shop.do, "acme", now, at_once=at_once)

    def pack(self) -> None:
        name, now = f"buy-{next(self.shop.numbers)}", self.shop.clock.now()
        number = self.random.randint(1, 2)
        subscriptions.buy_pack(self.shop.reader, self.shop.do, "acme", number, name, now)

    def redeem(self) -> None:
        code = self.random.choice(["HALF", "THIRD", "FIVE", "GIFT"])
        coupons.redeem(self.shop.reader, self.shop.do, code, "acme", self.shop.clock.now())

    def clerk(self) -> None:
        done = work(self.shop.reader, self.shop.do, self.shop.clock.now(), Tools())
        assert [each for each in done if each.what == "failed"] == []

    def end_open(self) -> None:
        hold = self.open.pop(self.random.randrange(len(self.open))) if self.open else "none"
        if self.random.random() < 0.3:
            self.shop.do(o.Void(hold=hold, reason="cancelled"))
        else:
            self.shop.do(o.Settle(hold=hold, usage=usage_of(self.random)))
            self.ids.append(hold)

    def limit(self) -> None:
        limit = self.random.choice([0, 10, 60, 500]) * EURO
        self.shop.do(o.SetCreditLimit(tenant="acme", credit_limit=limit))

    def freeze(self) -> None:
        frozen = self.random.random() < 0.3
        self.shop.do(o.Freeze(tenant="acme", frozen=frozen, reason="look", actor="test"))

    def fix(self) -> None:
        """A clerk takes back something that billing itself did."""
        entries: list[Any] = [record.entry for record in self.shop.reader.postings("acme")]
        of = self.random.choice([each.id for each in entries] or ["none"])
        amount = self.random.choice([None, amount_of(self.random, 3)])
        self.shop.refund(of, amount)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0, 60 * EURO]), st.booleans())
def test_invoices_of_whole_lives_sum_to_the_ledger(
    seed: int, credit_limit: int, taxed: bool
) -> None:
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        live(Path(folder, "book.db"), seed, credit_limit, taxed)


@pytest.mark.slow
def test_whole_lives_on_postgresql() -> None:
    pytest.importorskip("pgserver", reason="PostgreSQL tests need pgserver and psycopg")
    pytest.importorskip("psycopg")
    from tests.ledger.conftest import Server

    server = Server()
    try:
        for seed in range(3):
            live(server.database(f"life{seed}"), seed, 60 * EURO, True, 120)
    finally:
        server.stop()


def live(
    target: Path | str, seed: int, credit_limit: int, taxed: bool, steps: int = 150
) -> Counter[str]:
    """A life, checked. Returns what happened in it."""
    with Shop(target, taxes=table() if taxed else None) as shop:
        shop.open(credit_limit=credit_limit)
        change_profile(shop.reader, shop.do, "acme", {"country": "DE", "city": "Bonn"}, "test")
        life = Life(shop, Random(seed))
        life.deposit()
        life.play(steps)
        for hold in life.open:
            with suppress(LedgerError):
                shop.do(o.Settle(hold=hold, usage=Usage(10, 10)))
        shop.clock.pass_time(DAY)
        check(shop)
        accounts = shop.reader.accounts()
        assert sum(accounts.values()) == 0
        proven = proof.prove(shop.reader, shop.clock.now(), deep=True)
        assert [each for each in proven if not each.ok] == []
        return life.done
