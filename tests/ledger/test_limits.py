"""Spend limits, reversals by hand, tiers and times of prices."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from avocado.ledger import operation as o
from avocado.terms.price import PriceSheet

if TYPE_CHECKING:
    from tests.ledger.conftest import Desk

CEILING = 100 * 200 + 500 * 800
CHARGE = 100 * 200 + 200 * 800
DAY = 86_400 * 10**9


def test_a_key_spends_up_to_its_total_limit(desk: Desk) -> None:
    desk.setup(money=10**9)
    desk.settle(desk.hold("before").hold)
    desk.hold("open")
    limit = CHARGE + 2 * CEILING
    desk.do(o.SetSpendLimit(tenant="acme", key_id="key-acme", total=limit))
    desk.hold("r1")
    refusal = desk.refused(desk.request("r2"))
    assert refusal.code == "spend_limit_reached"
    assert refusal.fields() == {
        "scope": "key",
        "period": "total",
        "limit": limit,
        "spent": limit,
        "needed": CEILING,
    }
    desk.hold("without a key", key_id=None)
    desk.settle("r1")
    desk.do(o.Void(hold="open", reason="gone"))
    desk.hold("r2")
    assert desk.broken() == []


def test_a_monthly_limit_begins_afresh_each_month(desk: Desk) -> None:
    desk.setup(money=10**9)
    middle = int(datetime(2026, 11, 29, tzinfo=UTC).timestamp()) * 10**9
    desk.clock.step(middle - desk.clock.now())
    desk.do(o.SetSpendLimit(tenant="acme", month=CEILING))
    desk.hold("november")
    assert desk.refused(desk.request()).fields()["period"] == "month"
    desk.clock.step(3 * DAY)
    desk.hold("december")
    desk.settle("november")
    assert desk.refused(desk.request()).fields()["spent"] == CEILING
    desk.clock.step(-3 * DAY)
    assert desk.refused(desk.request()).fields()["spent"] == CHARGE
    assert desk.broken() == []


def test_a_limit_that_is_taken_away_and_set_again_counts_what_was_spent(desk: Desk) -> None:
    desk.setup(money=10**9)
    desk.do(o.SetSpendLimit(tenant="acme", month=CEILING, total=10 * CEILING))
    desk.settle(desk.hold("r1").hold)
    desk.do(o.SetSpendLimit(tenant="acme"))
    for number in range(5):
        desk.settle(desk.hold(f"free {number}").hold)
    desk.do(o.Refund(id="back", of="free 0", reason="slow", amount=1000))
    desk.do(o.SetSpendLimit(tenant="acme", month=6 * CHARGE + CEILING - 1001))
    assert desk.refused(desk.request()).fields()["spent"] == 6 * CHARGE - 1000
    desk.do(o.Refund(id="more", of="free 1", reason="slow", amount=1))
    desk.hold("fits")
    assert desk.broken() == []


def test_limits_hold_for_many_at_once(desk: Desk) -> None:
    desk.setup(money=10**12)
    desk.do(o.SetSpendLimit(tenant="acme", total=7 * CEILING + 1))
    futures = [desk.ledger.submit(desk.request(f"r{number}")) for number in range(200)]
    codes = [getattr(future.exception(), "code", "held") for future in futures]
    assert codes.count("held") == 7
    assert codes.count("spend_limit_reached") == 193
    assert desk.broken() == []


@pytest.mark.parametrize("amount", [-500, 500])
def test_an_adjustment_needs_a_reason_and_can_be_reversed(desk: Desk, amount: int) -> None:
    desk.setup(money=1000)
    terms = {"tenant": "acme", "amount": amount, "currency": "USD"}
    nameless = o.Adjust(id="a", reason="", actor="op", **terms)  # type: ignore[arg-type]
    assert desk.refused(nameless).code == "not_allowed"
    desk.do(o.Adjust(id="a", reason="goodwill", actor="op", **terms))  # type: ignore[arg-type]
    assert desk.available() == 1000 + amount
    with desk.reader as reader:
        assert reader.accounts()["writeoffs:USD"] == -amount
    desk.do(o.Refund(id="b", of="a", reason="mistake"))
    assert desk.available() == 1000
    assert desk.refused(o.Refund(id="c", of="b", reason="no")).code == "nothing_to_refund"
    assert desk.broken() == []


def test_an_adjustment_cannot_overdraw(desk: Desk) -> None:
    desk.setup(money=10)
    terms = {"tenant": "acme", "amount": -11, "currency": "USD", "reason": "r", "actor": "op"}
    refusal = desk.refused(o.Adjust(id="a", **terms))  # type: ignore[arg-type]
    assert refusal.fields() == {"available": 10, "needed": 11}


def test_a_deposit_is_paid_back_as_far_as_it_is_there(desk: Desk) -> None:
    desk.setup(credit_limit=10**6)
    desk.do(o.Deposit(id="d", tenant="acme", amount=CEILING, currency="USD"))
    desk.hold("r1")
    refusal = desk.refused(o.Refund(id="x", of="d", reason="leaves"))
    assert refusal.fields() == {"of": "d", "left": 0}
    desk.settle("r1")
    assert desk.do(o.Refund(id="x", of="d", reason="leaves", amount=1)).amount == 1
    assert desk.do(o.Refund(id="y", of="d", reason="leaves")).amount == CEILING - CHARGE - 1
    assert desk.available() == 0
    assert desk.broken() == []


def test_tiers_count_the_tokens_of_the_month_and_are_pinned_at_the_hold(desk: Desk) -> None:
    desk.setup(money=10**9)
    tiered = PriceSheet(200_000_000, 800_000_000, tiers=((300, 500_000), (600, 0)))
    desk.do(o.PublishPrice(terms=tiered.terms()))

    def hold() -> str:
        return desk.hold(price_version=tiered.version).hold

    early = hold()
    assert desk.settle(hold()).charge == CHARGE  # 300 tokens
    assert desk.settle(hold()).charge == CHARGE // 2
    assert desk.hold("third", price_version=tiered.version).amount == 0
    assert desk.settle(early).charge == CHARGE
    desk.clock.pass_time(40 * DAY)
    assert desk.settle(hold()).charge == CHARGE
    assert desk.broken() == []


def test_batch_requests_pay_the_batch_price(desk: Desk) -> None:
    desk.setup(money=10**9)
    sheet = PriceSheet(200_000_000, 800_000_000, batch=500_000)
    desk.do(o.PublishPrice(terms=sheet.terms()))
    held = desk.hold("r1", price_version=sheet.version, batch=True)
    assert held.amount == CEILING // 2
    settled = desk.settle("r1")
    assert settled.charge == CHARGE // 2
    assert sum(line.nanos for line in settled.lines) == settled.charge
    assert desk.hold("r2", price_version=sheet.version).amount == CEILING
    assert desk.broken() == []


def test_a_price_out_of_force_starts_nothing_and_ends_what_it_started(desk: Desk) -> None:
    desk.setup(money=10**9)
    now = desk.clock.now()
    sheet = PriceSheet(1, 1, effective_from=now + 1, effective_until=now + 10)
    desk.do(o.PublishPrice(terms=sheet.terms()))
    assert desk.refused(desk.request(price_version=sheet.version)).code == "price_not_in_force"
    desk.clock.pass_time(5)
    desk.hold("r1", price_version=sheet.version)
    desk.clock.pass_time(5)
    assert desk.refused(desk.request(price_version=sheet.version)).code == "price_not_in_force"
    desk.settle("r1")


def test_terms_that_are_no_price_are_refused(desk: Desk) -> None:
    for terms in ({}, {"prompt": -1, "completion": 1}, {"prompt": 1, "completion": 1, "x": 1}):
        assert desk.refused(o.PublishPrice(terms=terms)).code == "not_allowed"
