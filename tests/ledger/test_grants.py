"""Granted money: spent first, soonest expiry first, and gone when its time is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avocado.ledger import operation as o
from avocado.terms.usage import Usage

if TYPE_CHECKING:
    from tests.ledger.conftest import Desk

SECOND = 10**9
CEILING = 100 * 200 + 500 * 800
CHARGE = 100 * 200 + 200 * 800


def grant(desk: Desk, id_: str, amount: int, seconds: int | None = None, priority: int = 0) -> None:
    expires = None if seconds is None else desk.clock.now() + seconds * SECOND
    desk.do(
        o.Grant(
            id=id_,
            tenant="acme",
            amount=amount,
            currency="USD",
            expires=expires,
            priority=priority,
        )
    )


def left(desk: Desk) -> dict[str, int]:
    with desk.reader as reader:
        accounts = reader.accounts()
    return {
        name: balance
        for name, balance in accounts.items()
        if name.startswith("grant:") or name == "wallet:acme"
    }


def test_grants_are_spent_before_paid_money_soonest_expiry_first(desk: Desk) -> None:
    desk.setup(money=CEILING)
    grant(desk, "forever", 100_000)
    grant(desk, "later", 100_000, seconds=200)
    grant(desk, "soon", 100_000, seconds=100)
    grant(desk, "first", 50_000, priority=-1)
    grant(desk, "last", 50_000, seconds=50, priority=1)
    desk.hold("r1")
    assert left(desk) == {
        "grant:first": 0,
        "grant:soon": 0,
        "grant:later": 0,
        "grant:forever": 0,
        "grant:last": 0,
        "wallet:acme": CEILING - 20_000,
    }
    desk.settle("r1")  # 180,000: first, soon, and a little of later
    assert left(desk) == {
        "grant:first": 0,
        "grant:soon": 0,
        "grant:later": 70_000,
        "grant:forever": 100_000,
        "grant:last": 50_000,
        "wallet:acme": CEILING,
    }
    assert desk.broken() == []


def test_a_grant_that_is_over_is_not_spent_and_goes_back(desk: Desk) -> None:
    desk.setup(money=CEILING - 1)
    grant(desk, "soon", 10_000, seconds=10)
    assert desk.available() == CEILING - 1 + 10_000
    desk.clock.pass_time(10 * SECOND)
    assert desk.refused(desk.request()).code == "insufficient_funds"
    desk.deposit(1)
    desk.hold()
    assert left(desk)["grant:soon"] == 0
    with desk.reader as reader:
        assert reader.accounts()["grants:USD"] == 0
    assert desk.broken() == []


def test_what_comes_back_to_a_grant_that_is_over_ends_too(desk: Desk) -> None:
    desk.setup(money=CEILING)
    grant(desk, "soon", CEILING, seconds=10)
    desk.hold("r1")
    desk.clock.pass_time(11 * SECOND)
    settled = desk.settle("r1")
    assert settled.available == CEILING
    assert left(desk)["grant:soon"] in (CEILING - CHARGE, 0)  # the writer may look after it itself
    desk.hold("r2")
    assert left(desk) == {"grant:soon": 0, "wallet:acme": 0}
    assert desk.broken() == []


def test_overdue_grants_end_by_themselves(desk: Desk) -> None:
    desk.setup()
    grant(desk, "soon", 5, seconds=10)
    desk.clock.pass_time(100 * SECOND)
    desk.deposit(1)  # wakes the writer, which looks after grants once a minute
    desk.deposit(1)
    assert left(desk) == {"grant:soon": 0, "wallet:acme": 2}
    assert desk.broken() == []


def test_a_grant_needs_a_future(desk: Desk) -> None:
    desk.setup()
    over = o.Grant(id="g", tenant="acme", amount=1, currency="USD", expires=desk.clock.now())
    assert desk.refused(over).code == "not_allowed"


def test_a_grant_can_be_taken_back_as_far_as_it_is_unspent(desk: Desk) -> None:
    desk.setup()
    grant(desk, "gift", CEILING)
    desk.settle(desk.hold("r1").hold)
    too_much = o.Refund(id="x", of="gift", reason="mistake", amount=CEILING)
    assert desk.refused(too_much).fields() == {"of": "gift", "left": CEILING - CHARGE}
    assert desk.do(o.Refund(id="x", of="gift", reason="mistake")).amount == CEILING - CHARGE
    assert desk.available() == 0
    assert desk.broken() == []


def test_a_refund_goes_back_to_where_the_money_came_from(desk: Desk) -> None:
    desk.setup(money=CEILING)
    grant(desk, "gift", 100_000)
    desk.hold("r1")
    desk.do(o.Settle(hold="r1", usage=Usage(100, 200)))  # 100,000 granted and 80,000 paid
    desk.do(o.Refund(id="a", of="r1", reason="slow", amount=30_000))
    assert left(desk) == {"grant:gift": 0, "wallet:acme": CEILING - 50_000}
    desk.do(o.Refund(id="b", of="r1", reason="wrong", amount=60_000))
    assert left(desk) == {"grant:gift": 10_000, "wallet:acme": CEILING}
    rest = desk.do(o.Refund(id="c", of="r1", reason="all of it"))
    assert rest.amount == 90_000
    assert left(desk) == {"grant:gift": 100_000, "wallet:acme": CEILING}
    assert desk.refused(o.Refund(id="d", of="r1", reason="again")).code == "nothing_to_refund"
    assert desk.broken() == []
