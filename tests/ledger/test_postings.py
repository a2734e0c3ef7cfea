"""Fees, taxes that come with deposits, frozen customers, and what a period's money is read from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from avocado.ledger import entry as e
from avocado.ledger import operation as o

if TYPE_CHECKING:
    from tests.ledger.conftest import Desk

CEILING = 100 * 200 + 500 * 800
CHARGE = 100 * 200 + 200 * 800


def bill(id_: str = "fee", amount: int = 1000, **changes: Any) -> o.Bill:
    terms = {"tenant": "acme", "currency": "USD", "item": "plan:pro@3", "reason": "October"}
    return o.Bill(id=id_, amount=amount, **(terms | changes))


def deposit(id_: str = "top", amount: int = 1000, **changes: Any) -> o.Deposit:
    terms = {"tenant": "acme", "currency": "USD", "reference": "pi_1"}
    return o.Deposit(id=id_, amount=amount, **(terms | changes))


def accounts(desk: Desk) -> dict[str, int]:
    with desk.reader as reader:
        return {name: balance for name, balance in reader.accounts().items() if balance}


# -- fees ------------------------------------------------------------------------------------------


def test_a_fee_moves_from_the_wallet_to_the_revenue_of_its_item(desk: Desk) -> None:
    desk.setup(money=1500)
    posted = desk.do(bill())
    assert (posted.amount, posted.available, posted.replayed) == (1000, 500, False)
    assert accounts(desk) == {
        "wallet:acme": 500,
        "payments:USD": -1500,
        "revenue:plan:pro@3:USD": 1000,
    }
    assert desk.do(bill()).replayed
    assert desk.refused(bill(amount=999)).code == "idempotency_conflict"
    assert desk.refused(bill(item="plan:pro@4")).code == "idempotency_conflict"
    assert desk.broken() == []


def test_a_fee_may_use_the_credit_limit_and_not_more(desk: Desk) -> None:
    desk.setup(money=400, credit_limit=500)
    desk.do(o.Grant(id="gift", tenant="acme", amount=10_000, currency="USD"))
    refusal = desk.refused(bill())
    assert (refusal.code, refusal.fields()) == (
        "insufficient_funds",
        {"available": 900, "needed": 1000},
    )
    desk.do(bill(amount=900))
    assert desk.available() == -500 + 10_000
    assert desk.broken() == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"amount": 0}, "not_allowed"),
        ({"item": ""}, "not_allowed"),
        ({"item": "plan pro"}, "not_allowed"),
        ({"currency": "EUR"}, "currency_mismatch"),
        ({"tenant": "nobody"}, "unknown_customer"),
    ],
)
def test_fees_that_make_no_sense_are_refused(
    file_desk: Desk, changes: dict[str, Any], code: str
) -> None:
    file_desk.setup(money=10_000)
    assert file_desk.refused(bill(**changes)).code == code


def test_a_fee_can_be_refunded_in_parts(desk: Desk) -> None:
    desk.setup(money=1000)
    desk.do(bill())
    desk.do(o.Refund(id="a", of="fee", reason="half a month", amount=400))
    assert desk.do(o.Refund(id="b", of="fee", reason="all of it")).amount == 600
    assert desk.refused(o.Refund(id="c", of="fee", reason="again")).code == "nothing_to_refund"
    assert accounts(desk) == {"wallet:acme": 1000, "payments:USD": -1000}
    assert desk.broken() == []


# -- taxes and invoices that are paid --------------------------------------------------------------


def test_tax_of_a_deposit_is_owed_and_never_spent(desk: Desk) -> None:
    desk.setup()
    posted = desk.do(deposit(amount=1000, tax=190))
    assert (posted.amount, posted.available) == (1000, 1000)
    assert accounts(desk) == {"wallet:acme": 1000, "taxes:USD": 190, "payments:USD": -1190}
    assert desk.do(deposit(amount=1000, tax=190)).replayed
    assert desk.refused(deposit(amount=1000, tax=191)).code == "idempotency_conflict"
    assert desk.refused(deposit("other", tax=-1)).code == "not_allowed"
    assert desk.broken() == []


def test_the_tax_of_a_deposit_goes_back_with_it_to_the_last_unit(desk: Desk) -> None:
    desk.setup()
    desk.do(deposit(amount=1000, tax=195))
    for number in range(3):
        desk.do(o.Refund(id=f"part-{number}", of="top", reason="r", amount=333))
    assert accounts(desk)["taxes:USD"] == 195 - 195 * 999 // 1000
    desk.do(o.Refund(id="rest", of="top", reason="r"))
    assert accounts(desk) == {}
    with desk.reader as reader:
        taxes = [r.entry.tax for r in reader.postings("acme") if isinstance(r.entry, e.Refunded)]
    assert sum(taxes) == 195
    assert desk.broken() == []


def test_a_deposit_may_pay_an_invoice_on_record(desk: Desk) -> None:
    desk.setup(tenant="globex")
    desk.setup()
    invoice = "invoice/acme/2026-10"
    assert desk.refused(deposit(pays=invoice)).code == "not_allowed"
    desk.do(o.File(id=invoice, kind="invoice", tenant="acme", content={"total": 1000}))
    assert desk.refused(deposit(tenant="globex", pays=invoice)).code == "not_allowed"
    desk.do(deposit(pays=invoice, tax=190))
    assert desk.do(deposit(pays=invoice, tax=190)).replayed
    assert desk.refused(deposit(tax=190)).code == "idempotency_conflict"
    with desk.reader as reader:
        (record,) = reader.postings("acme")
    assert isinstance(record.entry, e.Deposited)
    assert (record.entry.pays, record.entry.tax) == (invoice, 190)
    assert desk.broken() == []


# -- frozen customers ------------------------------------------------------------------------------


def freeze(frozen: bool = True, reason: str = "dispute dp_1") -> o.Freeze:
    return o.Freeze(tenant="acme", frozen=frozen, reason=reason, actor="ops")


def test_a_frozen_customer_starts_nothing_and_ends_what_runs(desk: Desk) -> None:
    desk.setup(money=2 * CEILING)
    desk.hold("running")
    assert not desk.do(freeze()).replayed
    assert desk.do(freeze()).replayed
    refusal = desk.refused(desk.request("next"))
    assert (refusal.code, refusal.fields()) == (
        "account_frozen",
        {"tenant": "acme", "reason": "dispute dp_1"},
    )
    assert desk.hold("running").replayed
    desk.settle("running")
    desk.deposit(1)
    desk.do(freeze(frozen=False, reason=""))
    desk.hold("next")
    assert desk.broken() == []


def test_a_customer_stays_frozen_over_a_restart(desk: Desk) -> None:
    desk.setup(money=CEILING)
    desk.do(freeze())
    desk.reopen()
    assert desk.refused(desk.request()).code == "account_frozen"
    with desk.reader as reader:
        assert reader.customer("acme").frozen == "dispute dp_1"


def test_freezing_needs_a_reason_and_a_name(file_desk: Desk) -> None:
    file_desk.setup()
    assert file_desk.refused(freeze(reason=" ")).code == "not_allowed"
    nobody = o.Freeze(tenant="acme", frozen=True, reason="r")
    assert file_desk.refused(nobody).code == "not_allowed"


# -- what is read ----------------------------------------------------------------------------------


def test_postings_are_a_customers_money_that_is_no_request(desk: Desk) -> None:
    desk.setup(tenant="globex", money=5)
    desk.setup(money=10_000_000)
    end = desk.clock.now() + 10**9
    desk.do(o.Grant(id="gift", tenant="acme", amount=7, currency="USD", expires=end))
    desk.settle(desk.hold("r1").hold)
    fee = desk.do(bill())
    desk.do(o.Refund(id="back", of="r1", reason="r"))
    desk.do(o.Refund(id="void", of="fee", reason="r"))
    desk.do(o.Adjust(id="adj", tenant="acme", amount=1, currency="USD", reason="r", actor="a"))
    desk.clock.pass_time(2 * 10**9)
    last = desk.hold("r2")
    with desk.reader as reader:
        kinds = [type(record.entry).__name__ for record in reader.postings("acme")]
        after = [record.seq for record in reader.postings("acme", fee.seq, last.seq)]
        until = [record.seq for record in reader.postings("acme", 0, fee.seq)]
        every = [record.seq for record in reader.postings("acme")]
    assert kinds == [
        "Deposited",
        "Granted",
        "Billed",
        "Refunded",
        "Refunded",
        "Adjusted",
        "GrantExpired",
    ]
    assert until[-1] == fee.seq
    assert until + after == every


def test_charges_between_two_entries_are_neither_missed_nor_doubled(desk: Desk) -> None:
    desk.setup(money=10_000_000)
    seqs = [desk.settle(desk.hold(f"r{number}").hold).seq for number in range(5)]
    with desk.reader as reader:
        for cut in (0, seqs[0], seqs[2] - 1, seqs[2], seqs[4]):
            before = [charge.seq for charge in reader.charges_between("acme", 0, cut)]
            after = [charge.seq for charge in reader.charges_between("acme", cut)]
            assert before + after == seqs


def test_a_charge_says_what_grants_paid_of_it(desk: Desk) -> None:
    desk.setup(money=CEILING)
    desk.do(o.Grant(id="gift", tenant="acme", amount=30_000, currency="USD"))
    desk.settle(desk.hold("r1").hold)
    desk.settle(desk.hold("r2", max_tokens=200).hold)
    with desk.reader as reader:
        charges = list(reader.charges_between("acme", 0))
    assert [(charge.charge, charge.granted) for charge in charges] == [
        (CHARGE, 30_000),
        (CHARGE, 0),
    ]
