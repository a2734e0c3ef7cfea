"""The contract of a book, whatever store it lives in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from avocado.ledger import operation as o
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage

if TYPE_CHECKING:
    from tests.ledger.conftest import Desk

CEILING = 100 * 200 + 500 * 800
CHARGE = 100 * 200 + 200 * 800


def test_a_request_is_held_charged_and_the_rest_given_back(desk: Desk) -> None:
    desk.setup(money=1_000_000)
    held = desk.hold("r1")
    assert (held.amount, held.available) == (CEILING, 1_000_000 - CEILING)
    settled = desk.settle("r1")
    assert (settled.charge, settled.available) == (CHARGE, 1_000_000 - CHARGE)
    assert sum(line.nanos for line in settled.lines) == CHARGE
    with desk.reader as reader:
        balance = reader.balance("acme")
        assert (balance.wallet, balance.held, balance.posted) == (
            1_000_000 - CHARGE,
            0,
            1_000_000 - CHARGE,
        )
        assert reader.accounts()["revenue:release-1:USD"] == CHARGE
        assert reader.accounts()["payments:USD"] == -1_000_000
        assert sum(reader.accounts().values()) == 0
    assert desk.broken() == []


def test_a_void_gives_everything_back(desk: Desk) -> None:
    desk.setup(money=CEILING)
    desk.hold("r1")
    assert desk.available() == 0
    assert desk.do(o.Void(hold="r1", reason="engine failed")).available == CEILING
    assert desk.broken() == []


def test_what_is_held_cannot_be_spent_twice(desk: Desk) -> None:
    desk.setup(money=CEILING + CEILING - 1)
    desk.hold("r1")
    refusal = desk.refused(desk.request("r2"))
    assert refusal.code == "insufficient_funds"
    assert refusal.fields() == {"available": CEILING - 1, "needed": CEILING}
    desk.settle("r1", 1, 1)
    desk.hold("r2")


def test_the_same_operation_again_changes_nothing(desk: Desk) -> None:
    desk.setup()
    deposit = o.Deposit(id="d", tenant="acme", amount=10**6, currency="USD", reference="bank 7")
    hold = desk.request("r1")
    settle = o.Settle(hold="r1", usage=Usage(100, 200))
    first = [desk.do(deposit), desk.do(hold)]
    again = [desk.do(deposit), desk.do(hold)]
    first.append(desk.do(settle))
    again.append(desk.do(settle))
    assert [result.seq for result in first] == [result.seq for result in again]
    assert not any(result.replayed for result in first)
    assert all(result.replayed for result in again)
    assert desk.available() == 10**6 - CHARGE
    assert desk.broken() == []


@pytest.mark.parametrize(
    "other",
    [
        o.Deposit(id="d", tenant="acme", amount=2, currency="USD"),
        o.Deposit(id="d", tenant="acme", amount=1, currency="USD", reference="other"),
        o.Grant(id="d", tenant="acme", amount=1, currency="USD"),
        o.Adjust(id="d", tenant="acme", amount=1, currency="USD", reason="r", actor="a"),
        o.Refund(id="d", of="d", reason="r"),
    ],
)
def test_an_id_with_another_content_is_a_conflict(desk: Desk, other: o.AnyOperation) -> None:
    desk.setup()
    desk.do(o.Deposit(id="d", tenant="acme", amount=1, currency="USD"))
    assert desk.refused(other).code == "idempotency_conflict"


def test_a_hold_id_with_another_content_is_a_conflict(desk: Desk) -> None:
    desk.setup(money=10**7)
    desk.hold("r1")
    assert desk.refused(desk.request("r1", max_tokens=1)).code == "idempotency_conflict"


def test_a_closed_hold_stays_closed(desk: Desk) -> None:
    desk.setup(money=10**7)
    desk.hold("r1")
    desk.settle("r1")
    assert desk.refused(o.Settle(hold="r1", usage=Usage(100, 201))).code == "hold_not_open"
    assert desk.refused(o.Void(hold="r1", reason="late")).code == "hold_not_open"
    assert desk.refused(desk.request("r1")).code == "hold_not_open"
    assert desk.refused(o.Void(hold="nothing", reason="late")).code == "hold_not_open"


def test_unknown_names_are_refused(desk: Desk) -> None:
    desk.setup(money=10**7)
    desk.setup(money=10**7, tenant="other")
    assert desk.refused(desk.request(tenant="nobody")).code == "unknown_customer"
    assert desk.refused(desk.request(key_id="key-other")).code == "unknown_key"
    assert desk.refused(desk.request(price_version="0" * 16)).code == "unknown_price"
    desk.do(o.RevokeKey(key_id="key-acme"))
    assert desk.refused(desk.request()).code == "key_revoked"
    assert desk.refused(o.RevokeKey(key_id="nothing")).code == "unknown_key"


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 0},
        {"n": 10**9, "max_tokens": 10**9},
        {"prompt_tokens": -1},
        {"max_tokens": -1},
        {"max_tokens": 2**53},
        {"lifetime": 0},
        {"id_": "line\nbreak"},
        {"id_": "x" * 201},
        {"id_": "\ud800"},
        {"offer": "nul\0"},
    ],
)
def test_impossible_holds_are_refused(desk: Desk, changes: dict[str, object]) -> None:
    desk.setup(money=10**7)
    assert desk.refused(desk.request(**changes)).code == "not_allowed"  # type: ignore[arg-type]


@pytest.mark.parametrize("amount", [0, -1, 2**63])
def test_impossible_deposits_are_refused(desk: Desk, amount: int) -> None:
    desk.setup()
    deposit = o.Deposit(id="d", tenant="acme", amount=amount, currency="USD")
    assert desk.refused(deposit).code == "not_allowed"


def test_money_beyond_int64_is_refused(desk: Desk) -> None:
    desk.setup(money=2**63 - 1)
    deposit = o.Deposit(id="d", tenant="acme", amount=1, currency="USD")
    assert desk.refused(deposit).code == "not_allowed"
    assert desk.broken() == []


def test_currencies_do_not_mix(desk: Desk) -> None:
    desk.setup(money=10**7)
    euros = PriceSheet(1, 1, "EUR")
    desk.do(o.PublishPrice(terms=euros.terms()))
    deposit = o.Deposit(id="d", tenant="acme", amount=1, currency="EUR")
    assert desk.refused(deposit).code == "currency_mismatch"
    assert desk.refused(desk.request(price_version=euros.version)).code == "currency_mismatch"


def test_an_open_offer_takes_the_same_path_at_price_zero(desk: Desk) -> None:
    desk.setup()
    free = PriceSheet(0, 0)
    desk.do(o.PublishPrice(terms=free.terms()))
    assert desk.hold("r1", price_version=free.version).amount == 0
    assert desk.settle("r1").charge == 0
    with desk.reader as reader:
        assert [charge.usage for charge in reader.charges("acme")] == [Usage(100, 200)]
    assert desk.broken() == []


def test_usage_beyond_the_hold_is_flagged_and_the_hold_kept(desk: Desk) -> None:
    desk.setup(money=10**7)
    desk.hold("r1")
    for usage in (Usage(101, 1), Usage(100, 501)):
        refusal = desk.refused(o.Settle(hold="r1", usage=usage))
        assert refusal.code == "usage_beyond_hold"
    desk.ledger.progress("r1", Usage(10, 10**6))
    with desk.reader as reader:
        kinds = [type(record.entry).__name__ for record in reader.journal()]
        assert kinds.count("UsageFlagged") == 2
        row = reader.hold("r1")
        assert row is not None
        assert (row.state, row.progress) == ("open", None)
    assert desk.settle("r1", 100, 500).charge == CEILING
    assert desk.broken() == []


def test_a_credit_limit_is_how_far_below_zero_a_customer_may_go(desk: Desk) -> None:
    desk.setup(credit_limit=CEILING)
    held = desk.hold("r1")
    assert held.available == -CEILING
    assert desk.refused(desk.request()).fields() == {"available": 0, "needed": CEILING}
    desk.settle("r1")
    lower = o.SetCreditLimit(tenant="acme", credit_limit=CHARGE - 1)
    assert desk.refused(lower).code == "insufficient_funds"
    desk.do(o.SetCreditLimit(tenant="acme", credit_limit=CHARGE))
    assert desk.refused(desk.request(max_tokens=1)).code == "insufficient_funds"
    desk.do(o.SetCreditLimit(tenant="acme", credit_limit=10**6))
    desk.hold("r2")
    assert desk.broken() == []


def test_the_first_refusal_does_not_spoil_the_batch(desk: Desk) -> None:
    desk.setup(money=CEILING)
    futures = [
        desk.ledger.submit(operation)
        for operation in (
            desk.request("r1"),
            desk.request("r2"),
            desk.request(tenant="nobody"),
            o.Settle(hold="r1", usage=Usage(1, 1)),
            o.Deposit(id="d", tenant="acme", amount=5, currency="USD"),
        )
    ]
    codes = [getattr(future.exception(), "code", None) for future in futures]
    assert codes == [None, "insufficient_funds", "unknown_customer", None, None]
    assert desk.available() == CEILING - 1000 + 5
    assert desk.broken() == []


def test_everything_is_there_after_a_restart(desk: Desk) -> None:
    desk.setup(money=10**7)
    desk.hold("r1")
    desk.settle("r1")
    with desk.reader as reader:
        before = reader.accounts(), reader.head(), list(reader.charges("acme"))
    desk.reopen()
    with desk.reader as reader:
        assert (reader.accounts(), reader.head(), list(reader.charges("acme"))) == before
    assert desk.settle("r1").replayed


def test_usage_is_summed_by_day_key_and_release(desk: Desk) -> None:
    desk.setup(money=10**8)
    desk.clock.step(-desk.clock.now() % (86_400 * 10**9))
    for release in ("release-1", "release-2", "release-1"):
        desk.settle(desk.hold(release=release).hold)
    desk.clock.pass_time(86_400 * 10**9)
    desk.settle(desk.hold().hold, 10, 10)
    with desk.reader as reader:
        lines = reader.usage("acme")
        assert [(line.release, line.requests, line.charge) for line in lines] == [
            ("release-1", 2, 2 * CHARGE),
            ("release-2", 1, CHARGE),
            ("release-1", 1, 10_000),
        ]
        assert lines[0].day < lines[2].day
        assert lines == reader.usage()
        day = lines[2].day
        assert [line.day for line in reader.usage("acme", since=desk.clock.now() - 10**9)] == [day]


def test_customers_keys_and_prices_are_read_back(desk: Desk) -> None:
    desk.setup()
    desk.setup(tenant="globex")
    with desk.reader as reader:
        assert [customer.tenant for customer in reader.customers()] == ["acme", "globex"]
        both = reader.keys()
        assert [key.key_id for key in both] == ["key-acme", "key-globex"]
        (key,) = reader.keys("globex")
        assert reader.key_by_digest(key.digest) == key
        assert reader.key_by_digest("unknown") is None
        assert [price.version for price in reader.prices()] == [desk.sheet.version]
    desk.do(o.RevokeKey(key_id="key-globex"))
    with desk.reader as reader:
        revoked = reader.key_by_digest(key.digest)
        assert revoked is not None
        assert revoked.revoked == desk.clock.now()
    taken = o.AddKey(key_id="new", tenant="acme", name="k", digest=key.digest, created=1)
    assert desk.refused(taken).code == "idempotency_conflict"


def test_the_journal_is_read_by_customer_and_from_anywhere(desk: Desk) -> None:
    desk.setup(money=10**7)
    desk.setup(money=10**7, tenant="globex")
    desk.settle(desk.hold(tenant="globex").hold)
    with desk.reader as reader:
        everything = list(reader.journal())
        assert [record.seq for record in everything] == list(range(1, len(everything) + 1))
        assert list(reader.journal(after=4)) == everything[4:]
        own = list(reader.journal(tenant="globex"))
        assert [record for record in everything if record in own] == own
        assert reader.entry(3) == everything[2]
        assert reader.entry(0) is None
        assert reader.head()[0] == len(everything)
