"""Closing a month: once, in order, by sequence; what is refused, and by which words."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from avocado.billing.books import cut, find_document
from avocado.billing.closing_run import close_all
from avocado.billing.invoices import invoice_from, shown_number
from avocado.billing.issuer import Issuer
from avocado.billing.profile import change_profile
from avocado.billing.tax import NoTaxes
from avocado.errors import Refused
from avocado.ledger.errors import UnknownCustomer
from avocado.ledger.reader import open_reader
from avocado.terms.usage import Usage
from tests.billing.shop import SELLER, Shop, income, moment, table

EURO = 10**9
CHARGE = 1000 * 200 + 500 * 800  # nano-units, of the request that ``shop.use`` makes


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Shop(tmp_path / "book.db", taxes=table()) as shop:
        yield shop


def settle_in(shop: Shop, tenant: str = "acme", **changes: Any) -> None:
    """A customer in Bonn that may owe 100 euros."""
    shop.open(tenant, credit_limit=100 * EURO)
    profile = {"country": "DE", "company": "Acme GmbH", "language": "de"} | changes
    change_profile(shop.reader, shop.do, tenant, profile, "test")


def spend(shop: Shop, cents: int, tenant: str = "acme") -> str:
    """A request that costs so many cents."""
    usage = Usage(0, cents * 12_500)
    return shop.use(tenant, usage=usage, prompt_tokens=0, max_tokens=usage.completion)


def test_use_on_credit_is_invoiced_with_tax(shop: Shop) -> None:
    settle_in(shop)
    spend(shop, 1234)
    shop.bill(5 * EURO)
    shop.go_to("2026-10-02")
    document = shop.close_month("2026-09")
    assert document is not None
    assert shown_number(document) == "AV-2026-000001"
    invoice = invoice_from(document)
    assert invoice.net_minor == 1734
    assert [(tax.rate, tax.amount_minor) for tax in invoice.taxes] == [(190_000, 329)]
    assert (invoice.gross_minor, invoice.due_minor) == (2063, 2063)
    assert [line.kind for line in invoice.lines] == ["usage", "fee"]
    assert (invoice.issued, invoice.due) == ("2026-10-02", "2026-10-16")
    assert (invoice.period_start, invoice.period_end) == ("2026-09-01", "2026-09-30")
    assert (invoice.buyer.name, invoice.language, invoice.seller) == ("Acme GmbH", "de", SELLER)


def test_prepaid_credit_was_taxed_when_it_was_bought(shop: Shop) -> None:
    settle_in(shop)
    shop.deposit(10 * EURO, tax=19 * EURO // 10)
    spend(shop, 600)
    shop.go_to("2026-10-02")
    invoice = shop.invoice("2026-09")
    assert (invoice.net_minor, invoice.gross_minor) == (0, 0)
    assert (invoice.prepaid_nanos, invoice.prepaid_minor) == (6 * EURO, 600)
    assert invoice.prepaid_after == 4 * EURO
    spend(shop, 700)
    shop.go_to("2026-11-02")
    invoice = shop.invoice("2026-10")
    assert (invoice.prepaid_minor, invoice.net_minor, invoice.debt_after) == (400, 300, 3 * EURO)


def test_closing_again_gives_the_same_document(shop: Shop) -> None:
    settle_in(shop)
    spend(shop, 100)
    shop.go_to("2026-10-02")
    first = shop.close_month("2026-09")
    shop.go_to("2026-10-09")
    change_profile(shop.reader, shop.do, "acme", {"company": "Renamed AG"}, "test")
    spend(shop, 100)
    head = shop.reader.head()
    assert shop.close_month("2026-09") == first
    assert shop.reader.head() == head


def test_what_is_less_than_a_cent_is_carried(shop: Shop) -> None:
    settle_in(shop)
    months = ("2026-09", "2026-10", "2026-11", "2026-12")
    nets = []
    for month, day in zip(months, ("10-02", "11-02", "12-02"), strict=False):
        shop.use()  # 0.06 cents
        for _ in range(6):
            shop.use()
        shop.go_to(f"2026-{day}")
        invoice = shop.invoice(month)
        nets.append(invoice.net_minor)
        assert invoice.carried_in + invoice.on_credit_nanos == (
            invoice.net_minor * EURO // 100 + invoice.carried_out
        )
    assert nets == [0, 1, 0]  # 0.42, 0.84, 1.26 cents so far
    assert invoice.carried_out == 3 * 7 * CHARGE - EURO // 100


def test_a_refund_after_closing_is_a_negative_line_of_the_next(shop: Shop) -> None:
    settle_in(shop)
    request = spend(shop, 500)
    shop.go_to("2026-10-02")
    assert shop.invoice("2026-09").net_minor == 500
    shop.refund(request, 2 * EURO)
    spend(shop, 900)
    shop.go_to("2026-11-02")
    invoice = shop.invoice("2026-10")
    assert [(line.kind, line.minor) for line in invoice.lines] == [("usage", 900), ("refund", -200)]
    assert invoice.lines[1].release == "release-0"
    assert invoice.lines[1].text == "it was wrong"
    assert invoice.net_minor == 700


def test_months_are_closed_in_order_and_empty_ones_make_none(shop: Shop) -> None:
    settle_in(shop)
    spend(shop, 100)
    shop.go_to("2026-10-15")
    shop.deposit(EURO)
    shop.go_to("2026-12-15")
    spend(shop, 300)
    shop.go_to("2027-01-02")
    assert shop.close_month("2026-12") is not None
    documents = list(shop.reader.documents("invoice"))
    assert [document.id.rpartition("/")[2] for document in documents] == ["2026-09", "2026-12"]
    last = invoice_from(documents[1])
    assert (last.deposited, last.prepaid_minor, last.net_minor) == (EURO, 100, 200)
    assert last.after_seq == invoice_from(documents[0]).until_seq


def test_a_clock_that_goes_back_makes_nothing_twice(shop: Shop) -> None:
    settle_in(shop)
    spend(shop, 100)
    shop.go_to("2026-11-03")
    spend(shop, 200)
    assert shop.close_month("2026-10") is None  # nothing was used in it
    shop.go_to("2026-12-02")
    assert shop.invoice("2026-11").net_minor == 200
    shop.go_to("2026-10-05")  # the clock is wrong now: September is over, November lies ahead
    spend(shop, 400)
    before = list(shop.reader.documents("invoice"))
    assert shop.close_month("2026-09") == before[0]
    assert list(shop.reader.documents("invoice")) == before
    shop.go_to("2027-01-02")
    invoice = shop.invoice("2026-12")
    assert (invoice.net_minor, invoice.total_nanos) == (400, 4 * EURO)


def test_a_cut_lies_before_the_first_entry_of_the_next_month(shop: Shop) -> None:
    settle_in(shop)
    for number in range(1, 29):
        shop.go_to(f"2026-10-{number:02d}")
        spend(shop, 1)
    ats = dict(shop.reader.rows("SELECT seq, at FROM journal", ()))
    for day in ("2026-01-01", "2026-10-01", "2026-10-07", "2026-10-28", "2027-01-01"):
        expected = max((seq for seq, at in ats.items() if at < moment(day)), default=0)
        assert cut(shop.reader, moment(day)) == expected


def test_a_month_that_is_not_over_is_refused(shop: Shop) -> None:
    settle_in(shop)
    with pytest.raises(Refused, match=r"2026-09 is not over .* from 2026-10-01 on"):
        shop.close_month("2026-09")
    with pytest.raises(Refused, match="not over"):
        list(close_all(shop.reader, shop.do, shop.issuer, "2026-09", shop.clock.now()))


def test_what_cannot_be_invoiced_is_refused(shop: Shop) -> None:
    with pytest.raises(UnknownCustomer):
        shop.close_month("2026-08", "nobody")
    shop.open(credit_limit=EURO)
    spend(shop, 50)
    shop.go_to("2026-10-02")
    with pytest.raises(Refused, match=r"acme has no country.*avocado profile set acme"):
        shop.close_month("2026-09")
    shop.issuer = Issuer(None, NoTaxes())
    with pytest.raises(Refused, match=r"write \[seller\] with name, address"):
        shop.close_month("2026-09")
    assert list(shop.reader.documents("invoice")) == []


def test_an_account_that_is_not_the_wallet_makes_no_invoice(tmp_path: Path) -> None:
    import apsw

    with Shop(tmp_path / "book.db") as shop:
        shop.open(credit_limit=EURO)
        spend(shop, 50)
        shop.go_to("2026-10-02")
        with closing(apsw.Connection(str(tmp_path / "book.db"))) as other:
            other.execute("UPDATE account SET balance = balance - 1 WHERE name = 'wallet:acme'")
        with pytest.raises(Refused, match="avocado verify --deep"):
            shop.close_month("2026-09")


def test_two_processes_close_the_same_documents(shop: Shop) -> None:
    """Each has a reader of its own; numbers have no gap and nothing is made twice."""
    for number in range(12):
        settle_in(shop, f"t{number}")
        spend(shop, 10 * number, f"t{number}")
    settle_in(shop, "idle")
    shop.open("nowhere", credit_limit=EURO)  # no country: refused alone
    spend(shop, 10, "nowhere")
    shop.go_to("2026-10-20")
    for number in range(6):
        spend(shop, 5, f"t{number}")
    shop.go_to("2026-11-02")
    outcomes: list[Any] = []

    def run() -> None:
        with open_reader(shop.target) as reader:
            now = shop.clock.now()
            outcomes.extend(close_all(reader, shop.do, shop.issuer, "2026-10", now, "test"))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    documents = list(shop.reader.documents("invoice"))
    assert len(documents) == 11 + 6  # t0 used nothing in September
    assert sorted(document.number or 0 for document in documents) == list(range(1, 18))
    assert sum(each.new for each in outcomes if each.document) == 17
    assert {each.tenant for each in outcomes if each.refused} == {"nowhere"}
    head = shop.reader.head()
    again = list(close_all(shop.reader, shop.do, shop.issuer, "2026-10", shop.clock.now()))
    assert [each.tenant for each in again] == ["nowhere"]
    assert shop.reader.head() == head
    for number in range(1, 12):
        check_whole(shop, f"t{number}")


def check_whole(shop: Shop, tenant: str) -> None:
    invoices = [invoice_from(each) for each in shop.reader.documents("invoice", tenant)]
    total = income(shop.reader, tenant, 0, shop.reader.head()[0])
    assert sum(invoice.total_nanos for invoice in invoices) == total


@pytest.mark.slow
def test_invoices_on_postgresql() -> None:
    """The same questions to the other store."""
    pytest.importorskip("pgserver", reason="PostgreSQL tests need pgserver and psycopg")
    pytest.importorskip("psycopg")
    from tests.ledger.conftest import Server

    server = Server()
    try:
        with Shop(server.database("invoices"), taxes=table()) as shop:
            settle_in(shop)
            shop.deposit(EURO)
            request = spend(shop, 500)
            shop.hold()
            shop.go_to("2026-10-02")
            outcomes = list(
                close_all(shop.reader, shop.do, shop.issuer, "2026-09", moment("2026-10-02"))
            )
            assert [each.document for each in outcomes] == ["invoice/acme/2026-09"]
            document = find_document(shop.reader, "AV-2026-000001")
            assert invoice_from(document).net_minor == 400
            shop.credit(document.id, net_minor=100)
            shop.refund(request, EURO)
            shop.go_to("2026-11-02")
            assert shop.invoice("2026-10").net_minor == 0
    finally:
        server.stop()


def test_a_number_that_is_none_is_refused(shop: Shop) -> None:
    for text in (
        "AV-2026-000009",
        "nothing",
        "AV-2026-",
        "-1",
        "x-99999999999999999999",
        "profile/acme",
    ):
        with pytest.raises(Refused, match="there is no invoice"):
            find_document(shop.reader, text)
