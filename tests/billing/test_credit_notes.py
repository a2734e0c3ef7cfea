"""Payments, top-ups and credit notes: money goes back once, and papers say what the ledger did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from avocado.billing import credit_notes
from avocado.billing.credit_notes import complete, issue_credit_note
from avocado.billing.invoices import credit_note_from, invoice_from, shown_number
from avocado.billing.payment import came_back, net_back
from avocado.billing.profile import change_profile
from avocado.billing.receivables import (
    open_invoices,
    pay_invoice,
    payment_id,
    payment_parts,
    receivable,
)
from avocado.billing.topups import issue_topup_invoice, quote_topup, topup_id
from avocado.errors import Refused
from avocado.ledger import operation as o
from avocado.ledger.errors import LedgerError
from avocado.ledger.reader import Document, Reader, open_reader
from avocado.terms.usage import Usage
from tests.billing.shop import Shop, table
from tests.billing.test_closing import settle_in, spend

EURO = 10**9
CENT = EURO // 100


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Shop(tmp_path / "book.db", taxes=table()) as shop:
        yield shop


def billed(shop: Shop, *cents: int) -> Document:
    """An invoice of September with a request for each of so many cents."""
    settle_in(shop)
    for each in cents:
        spend(shop, each)
    shop.go_to("2026-10-02")
    document = shop.close_month("2026-09")
    assert document is not None
    return document


def pay(shop: Shop, document: Document, cents: int | None, reference: str = "bank 1") -> int:
    """What is due afterwards."""
    return pay_invoice(shop.reader, shop.do, document, cents, reference).due_minor


# -- payments ------------------------------------------------------------------------------------


def test_a_payment_brings_net_to_the_wallet_and_tax_to_the_office(shop: Shop) -> None:
    document = billed(shop, 1000)
    assert [each.due_minor for each in open_invoices(shop.reader)] == [1190]
    assert pay(shop, document, 500) == 690
    assert pay(shop, document, 500) == 690  # the same reference again
    with pytest.raises(Refused, match=r"is a payment of 5\.00 EUR for invoice/acme/2026-09"):
        pay(shop, document, 600)
    with pytest.raises(Refused, match=r"6\.90 EUR are due"):
        pay(shop, document, 700, "bank 2")
    assert pay(shop, document, None, "bank 2") == 0
    accounts = shop.reader.accounts()
    assert accounts["taxes:EUR"] == 190 * CENT
    assert accounts["wallet:acme"] == 0
    assert list(open_invoices(shop.reader, "acme")) == []
    spend(shop, 300)
    shop.go_to("2026-11-02")
    invoice = shop.invoice("2026-10")
    assert (invoice.settled, invoice.debt_after, invoice.net_minor) == (1000 * CENT, 3 * EURO, 300)


def test_a_payment_that_bounced_is_owed_again_as_far_as_there_is_credit(shop: Shop) -> None:
    """It paid for what was used on credit, so nothing of it is in the wallet."""
    document = billed(shop, 1000)
    for deposit in ("debit-1", "debit-2"):
        pay_invoice(shop.reader, shop.do, document, None, deposit, deposit_id=deposit)
        shop.refund(deposit)
        assert receivable(shop.reader, document).due_minor == 1190
        assert shop.reader.balance("acme").wallet == -10 * EURO
        assert shop.reader.accounts()["taxes:EUR"] == 0
    pay_invoice(shop.reader, shop.do, document, None, "debit-3", deposit_id="debit-3")
    spend(shop, 9500)
    with pytest.raises(LedgerError, match=f"at most {5 * EURO} "):
        shop.refund("debit-3", 10 * EURO)
    shop.go_to("2026-11-02")
    invoice = shop.invoice("2026-10")
    assert (invoice.net_minor, invoice.settled, invoice.debt_after) == (9500, 10 * EURO, 95 * EURO)


def test_a_payment_of_tax_alone_waits_for_the_next(shop: Shop) -> None:
    document = billed(shop, 1000)
    pay(shop, document, 3)
    with pytest.raises(Refused, match="pays nothing but tax"):
        pay(shop, document, 1, "bank 2")
    assert pay(shop, document, None, "bank 3") == 0


def test_a_payment_that_went_back_is_due_again(shop: Shop) -> None:
    document = billed(shop, 1000)
    deposit = "card-1"
    pay_invoice(shop.reader, shop.do, document, None, "card", deposit_id=deposit)
    shop.deposit(20 * EURO)
    shop.refund(deposit)
    assert receivable(shop.reader, document).due_minor == 1190


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=6), st.integers(0, 300_000))
def test_parts_of_payments_add_up(paid: list[int], rate: int) -> None:
    from avocado.billing.invoices import TaxSum
    from avocado.billing.tax import tax_on
    from tests.billing.papers import invoice as paper

    tax = tax_on(10_000, rate)
    taxes = (TaxSum(rate, "S", 10_000, tax, "standard"),)
    made = replace(paper(), net_minor=10_000, taxes=taxes, gross_minor=10_000 + tax, currency="EUR")
    before = net = taxed = 0
    for coins in [*paid, 10_000 + tax - min(sum(paid), 10_000 + tax)]:
        coins = min(coins, 10_000 + tax - before)
        parts = payment_parts(made, before, coins)
        assert min(parts) >= 0
        before, net, taxed = before + coins, net + parts[0], taxed + parts[1]
    assert (net, taxed) == (10_000 * CENT, tax * CENT)


# -- top-ups -------------------------------------------------------------------------------------


def test_a_topup_has_its_invoice_once(shop: Shop) -> None:
    settle_in(shop)
    (tax,) = quote_topup(shop.reader, shop.issuer, "acme", 5000, "2026-09-03")
    assert tax.amount_minor == 950
    deposit = shop.deposit(50 * EURO, tax=950 * CENT)

    def issue() -> Document:
        now = shop.clock.now()
        return issue_topup_invoice(shop.reader, shop.do, shop.issuer, "acme", deposit, now)

    document = issue()
    shop.go_to("2026-09-09")
    assert issue() == document
    invoice = invoice_from(document)
    assert (invoice.net_minor, invoice.gross_minor, invoice.paid_minor) == (5000, 5950, 5950)
    assert (invoice.due_minor, invoice.lines[0].kind) == (0, "top-up")
    assert list(open_invoices(shop.reader)) == []
    assert topup_id("acme", "x" * 200) != topup_id("acme", "x" * 199)
    assert len(topup_id("a" * 64, "x" * 200)) < 150


@pytest.mark.parametrize(
    ("amount", "tax", "said"),
    [
        (50 * EURO, 0, "brought 50.00 and tax of 0.00 EUR, but the tax on 50.00 is 9.50"),
        (EURO + 1, 0, "no whole number of coins"),
    ],
)
def test_a_topup_whose_tax_is_not_right_has_no_invoice(
    shop: Shop, amount: int, tax: int, said: str
) -> None:
    settle_in(shop)
    deposit = shop.deposit(amount, tax=tax)
    now = shop.clock.now()
    with pytest.raises(Refused, match=said):
        issue_topup_invoice(shop.reader, shop.do, shop.issuer, "acme", deposit, now)
    with pytest.raises(Refused, match="has no deposit"):
        issue_topup_invoice(shop.reader, shop.do, shop.issuer, "acme", "none", now)


def test_a_topup_is_credited_by_paying_it_back(shop: Shop) -> None:
    settle_in(shop)
    deposit = shop.deposit(50 * EURO, tax=950 * CENT)
    now = shop.clock.now()
    document = issue_topup_invoice(shop.reader, shop.do, shop.issuer, "acme", deposit, now)
    spend(shop, 2000)
    with pytest.raises(Refused, match="cannot be paid back"):
        shop.credit(document.id)
    note = credit_note_from(shop.credit(document.id, net_minor=1000))
    assert (note.net_minor, note.gross_minor, note.invoice_number) == (1000, 1190, "AV-2026-000001")
    accounts = shop.reader.accounts()
    assert (accounts["wallet:acme"], accounts["taxes:EUR"]) == (20 * EURO, 760 * CENT)
    shop.go_to("2026-10-02")
    invoice = shop.invoice("2026-09")
    assert (invoice.deposited, invoice.prepaid_minor, invoice.net_minor) == (40 * EURO, 2000, 0)


def test_a_refund_by_a_provider_gets_its_note_once(shop: Shop) -> None:
    settle_in(shop)
    deposit = shop.deposit(50 * EURO, tax=950 * CENT)
    now = shop.clock.now()
    document = issue_topup_invoice(shop.reader, shop.do, shop.issuer, "acme", deposit, now)
    shop.do(o.Refund(id="stripe-re-1", of=deposit, amount=5 * EURO, reason="asked"))
    first = shop.credit(document.id, refund="stripe-re-1")
    assert shop.credit(document.id, refund="stripe-re-1") == first
    assert credit_note_from(first).gross_minor == 595
    with pytest.raises(Refused, match="is no refund of deposit"):
        shop.credit(document.id, refund="stripe-re-2")


def test_a_note_is_what_a_provider_paid_back_to_the_coin(shop: Shop) -> None:
    """Its share of the net may be parts of a coin: 0.03 gross are 0.0252… net."""
    settle_in(shop)
    deposit = shop.deposit(50 * EURO, tax=950 * CENT)
    now = shop.clock.now()
    document = issue_topup_invoice(shop.reader, shop.do, shop.issuer, "acme", deposit, now)
    net = taxes = 0
    for number, back in enumerate((3, 1, 500, 7, 2), 1):
        amount = back * CENT * 100 // 119
        shop.do(o.Refund(id=f"re-{number}", of=deposit, amount=amount, reason="asked"))
        note = credit_note_from(shop.credit(document.id, refund=f"re-{number}"))
        assert note.gross_minor == back
        net, taxes = net + note.net_minor, taxes + note.gross_minor - note.net_minor
    assert (net, taxes) == (3 + 1 + 420 + 6 + 2, 80 + 1)
    shop.do(o.Refund(id="re-last", of=deposit, reason="asked"))
    note = credit_note_from(shop.credit(document.id, refund="re-last"))
    assert (note.net_minor, note.gross_minor) == (5000 - net, 5950 - net - taxes)


def test_a_refund_that_was_cut_off_before_its_note_gets_it(shop: Shop) -> None:
    """Whatever is asked for next, and in whatever words; nothing goes back twice."""
    settle_in(shop)
    deposit = shop.deposit(50 * EURO, tax=950 * CENT)
    now = shop.clock.now()
    document = issue_topup_invoice(shop.reader, shop.do, shop.issuer, "acme", deposit, now)

    def dies(operation: o.AnyOperation) -> Any:
        assert not isinstance(operation, o.File), "the process dies"
        return shop.do(operation)

    for credited, asked in ((2000, 2000), (1000, None)):
        with pytest.raises(AssertionError, match="dies"):
            issue_credit_note(
                shop.reader,
                dies,
                shop.issuer,
                document.id,
                "first",
                "test",
                now=now,
                net_minor=credited,
            )
        if asked == credited:
            note = shop.credit(document.id, net_minor=asked, reason="second")
        else:
            with pytest.raises(
                Refused, match=r"/2 is on record now, for 10\.00 EUR that were paid"
            ):
                shop.credit(document.id, net_minor=asked, reason="second")
            note = list(shop.reader.documents("credit-note"))[-1]
        assert (note.content["net_minor"], note.content["reason"]) == (credited, "first")
    accounts = shop.reader.accounts()
    assert (accounts["wallet:acme"], accounts["taxes:EUR"]) == (20 * EURO, 380 * CENT)
    assert shop.credit(document.id).content["net_minor"] == 2000


def test_a_refund_whose_money_came_back_has_its_invoice(shop: Shop) -> None:
    """It is parts of coins, at the rate of its payment, whoever the customer is by now."""
    settle_in(shop)
    shop.do(
        o.Deposit(id="pay_pi_1", tenant="acme", amount=20 * EURO, currency="EUR", tax=380 * CENT)
    )
    now = shop.clock.now()
    first = issue_topup_invoice(shop.reader, shop.do, shop.issuer, "acme", "pay_pi_1", now)
    net = net_back(20 * EURO, 380 * CENT, 0, 777 * CENT)
    shop.do(o.Refund(id="ref_re_1", of="pay_pi_1", amount=net, reason="refund re_1"))
    note = credit_note_from(shop.credit(first.id, refund="ref_re_1"))
    change_profile(shop.reader, shop.do, "acme", {"country": "US"}, "test")
    back = o.Deposit(
        id="back_ref_re_1",
        tenant="acme",
        amount=net,
        currency="EUR",
        reference=came_back("pi_1"),
        tax=777 * CENT - net,
    )
    shop.do(back)
    document = issue_topup_invoice(shop.reader, shop.do, shop.issuer, "acme", back.id, now)
    invoice = invoice_from(document)
    assert (note.gross_minor, invoice.gross_minor) == (777, 777)
    assert (note.net_minor, invoice.net_minor) == (653, 653)
    assert invoice.taxes[0].rate == 190_000
    assert sum(line.nanos for line in invoice.lines) == invoice.total_nanos == 653 * CENT


# -- credit notes of usage invoices --------------------------------------------------------------


def test_an_invoice_is_credited_whole(shop: Shop) -> None:
    document = billed(shop, 700, 300)
    note_document = shop.credit(document.id, reason="the model was down")
    assert shown_number(note_document) == "AV-2026-CN-000001"
    note = credit_note_from(note_document)
    assert (note.net_minor, note.gross_minor, note.reason) == (1000, 1190, "the model was down")
    assert [charge.refunded for charge in shop.reader.charges("acme")] == [7 * EURO, 3 * EURO]
    assert shop.reader.balance("acme").wallet == 0
    assert receivable(shop.reader, document).due_minor == 0
    with pytest.raises(Refused, match=r"0\.00 EUR net are left to credit"):
        shop.credit(document.id)
    spend(shop, 100)
    shop.go_to("2026-11-02")
    invoice = shop.invoice("2026-10")
    assert [line.kind for line in invoice.lines] == ["usage"]  # the note is not credited twice
    assert (invoice.net_minor, invoice.credited, invoice.debt_after) == (100, 10 * EURO, EURO)


def test_parts_of_an_invoice_add_up_to_its_tax(shop: Shop) -> None:
    document = billed(shop, 1003)
    taxes = 0
    for part in (1, 2, 333, 334, 333):
        note = credit_note_from(shop.credit(document.id, net_minor=part))
        assert sum(tax.base_minor for tax in note.taxes) == part
        taxes += note.gross_minor - note.net_minor
    assert taxes == invoice_from(document).gross_minor - 1003
    with pytest.raises(Refused, match="left to credit"):
        shop.credit(document.id, net_minor=1)


def test_what_was_paid_and_credited_is_paid_back(shop: Shop) -> None:
    document = billed(shop, 1000)
    pay(shop, document, None)
    shop.credit(document.id, net_minor=400)
    assert receivable(shop.reader, document).due_minor == -476
    shop.refund(payment_id(document.id, "bank 1"), 4 * EURO)
    assert receivable(shop.reader, document).due_minor == 0
    accounts = shop.reader.accounts()
    assert (accounts["wallet:acme"], accounts["taxes:EUR"]) == (0, 114 * CENT)
    assert accounts["payments:EUR"] == -714 * CENT
    spend(shop, 100)
    shop.go_to("2026-11-02")
    assert shop.invoice("2026-10").net_minor == 100


def test_one_line_is_credited(shop: Shop) -> None:
    settle_in(shop)
    spend(shop, 500)
    fee = shop.bill(3 * EURO)
    shop.go_to("2026-10-02")
    invoice = shop.invoice("2026-09")
    note = credit_note_from(shop.credit("invoice/acme/2026-09", line=invoice.lines[1].id))
    assert (note.net_minor, note.lines[0].item) == (300, "plan:pro@1")
    assert [charge.refunded for charge in shop.reader.charges("acme")] == [0]
    rest = list(shop.reader.rows("SELECT amount - refunded FROM posting WHERE id = ?", (fee,)))
    assert rest[0][0] == 0
    with pytest.raises(Refused, match="has no line"):
        shop.credit("invoice/acme/2026-09", line="line-none")


def test_a_line_is_credited_up_to_itself(shop: Shop) -> None:
    """What is left of the invoice's other lines is not credited in its name."""
    settle_in(shop)
    shop.use(usage=Usage(5_000_000, 1_000_000), prompt_tokens=5_000_000, max_tokens=1_000_000)
    shop.go_to("2026-10-02")
    prompt, completion = shop.invoice("2026-09").lines
    assert (prompt.minor, completion.minor) == (100, 80)
    with pytest.raises(Refused, match=r"of line line-\w+ of AV-2026-000001 0\.80 EUR net are left"):
        shop.credit("invoice/acme/2026-09", line=completion.id, net_minor=81)
    shop.credit("invoice/acme/2026-09", line=completion.id, net_minor=30)
    rest = credit_note_from(shop.credit("invoice/acme/2026-09", line=completion.id))
    assert rest.net_minor == 50
    with pytest.raises(Refused, match=r"of line line-\w+ of AV-2026-000001 0\.00 EUR net are left"):
        shop.credit("invoice/acme/2026-09", line=completion.id)
    assert credit_note_from(shop.credit("invoice/acme/2026-09")).net_minor == 100


def test_a_refund_is_not_credited_twice(shop: Shop) -> None:
    document = billed(shop, 700, 300)
    request = next(iter(shop.reader.charges("acme"))).request
    shop.refund(request, 6 * EURO)  # a negative line of the next invoice
    with pytest.raises(Refused, match=r"4\.00 EUR were not refunded yet"):
        shop.credit(document.id)
    shop.credit(document.id, net_minor=400)
    with pytest.raises(Refused, match=r"0\.00 EUR were not refunded"):
        shop.credit(document.id, net_minor=1)
    spend(shop, 1000)
    shop.go_to("2026-11-02")
    invoice = shop.invoice("2026-10")
    assert [(line.kind, line.minor) for line in invoice.lines] == [
        ("usage", 1000),
        ("refund", -600),
    ]
    assert invoice.net_minor == 400
    assert invoice.debt_after == 10 * EURO + 4 * EURO - 4 * EURO


def test_what_prepaid_credit_paid_is_not_credited(shop: Shop) -> None:
    settle_in(shop)
    shop.deposit(50 * EURO, tax=950 * CENT)
    spend(shop, 500)
    shop.go_to("2026-10-02")
    shop.close_month("2026-09")
    with pytest.raises(Refused, match="avocado ledger refund REQUEST"):
        shop.credit("invoice/acme/2026-09")


def test_an_interrupted_credit_note_is_made_up(shop: Shop) -> None:
    document = billed(shop, 200, 300, 400)
    done = 0

    def dies(operation: o.AnyOperation) -> Any:
        nonlocal done
        done += isinstance(operation, o.Refund)
        if done == 2:
            raise KeyboardInterrupt
        return shop.ledger.do_now(operation)

    shop.do = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        shop.credit(document.id, net_minor=800)
    shop.do = shop.ledger.do_now  # type: ignore[method-assign]
    assert shop.reader.balance("acme").wallet == -5 * EURO
    note = shop.credit(document.id, net_minor=100)  # makes up the first one's 800 too
    assert shop.reader.balance("acme").wallet == 0
    content = credit_note_from(note)
    assert complete(shop.reader, shop.do, note, content, "test") == 0
    assert shop.reader.balance("acme").wallet == 0


def test_two_who_make_up_a_note_at_once_give_back_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them does all of it just after the other has looked what was done."""
    document = billed(shop, 200, 300, 400)

    def dies(operation: o.AnyOperation) -> Any:
        assert not isinstance(operation, o.Refund), "the process dies"
        return shop.do(operation)

    now = shop.clock.now()
    with pytest.raises(AssertionError, match="dies"):
        issue_credit_note(
            shop.reader, dies, shop.issuer, document.id, "no", "test", now=now, net_minor=400
        )
    (note,) = list(shop.reader.documents("credit-note"))
    look = credit_notes._done

    def done(reader: Reader, document: Document) -> tuple[set[str], int]:
        found = look(reader, document)
        monkeypatch.setattr(credit_notes, "_done", look)
        with open_reader(shop.target) as other:
            assert complete(other, shop.do, note, credit_note_from(note), "other") == 0
        return found

    monkeypatch.setattr(credit_notes, "_done", done)
    assert complete(shop.reader, shop.do, note, credit_note_from(note), "test") == 0
    assert shop.reader.balance("acme").wallet == -5 * EURO


def test_the_clerk_makes_up_a_note_that_was_cut_off(shop: Shop) -> None:
    document = billed(shop, 200, 300, 400)
    deposit = shop.deposit(10 * EURO, tax=190 * CENT)
    now = shop.clock.now()
    topup = issue_topup_invoice(shop.reader, shop.do, shop.issuer, "acme", deposit, now)
    shop.credit(topup.id, net_minor=100)  # owes nothing: its refund came first

    def dies(operation: o.AnyOperation) -> Any:
        assert not isinstance(operation, o.Refund), "the process dies"
        return shop.do(operation)

    with pytest.raises(AssertionError, match="dies"):
        issue_credit_note(
            shop.reader, dies, shop.issuer, document.id, "no", "test", now=now, net_minor=400
        )
    for due in (1, 0):
        assert len(list(credit_notes.finish(shop.reader, shop.do, 0, "clerk"))) == due
        assert shop.reader.balance("acme").wallet == 4 * EURO
    assert list(credit_notes.finish(shop.reader, shop.do, now + 1, "clerk")) == []


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"net_minor": 0}, "left to credit"),
        ({"net_minor": -5}, "left to credit"),
        ({"net_minor": 10_000}, "left to credit"),
        ({"reason": " "}, "needs a reason"),
    ],
)
def test_what_cannot_be_credited_is_refused(shop: Shop, how: dict[str, Any], said: str) -> None:
    document = billed(shop, 100)
    with pytest.raises(Refused, match=said):
        shop.credit(document.id, **how)
    with pytest.raises(Refused, match="there is no invoice"):
        shop.credit("invoice/acme/2026-08")
    assert list(shop.reader.documents("credit-note")) == []
