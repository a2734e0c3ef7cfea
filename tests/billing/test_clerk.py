"""The clerk: order of its work, other rooms' chores, and that one customer's trouble is its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from avocado.billing import alerts, outbox
from avocado.billing import subscriptions as subs
from avocado.billing.alert import Alert
from avocado.billing.clerk import Done, Tools, work
from avocado.billing.outbox import Message
from avocado.errors import Refused
from avocado.ledger import operation as o
from avocado.ledger.errors import LedgerUnavailable
from avocado.terms.money import NANO
from tests.billing.subscribers import Book
from tests.ledger.conftest import Server


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path / "book.db", day=date(2026, 1, 31), money=1000)
    yield book
    assert book.broken() == []
    book.close()


def open_customer(book: Book, tenant: str, units: int = 100) -> None:
    book.do(o.OpenCustomer(tenant=tenant, name=tenant))
    book.do(o.Deposit(id=f"d-{tenant}", tenant=tenant, amount=units * NANO, currency="USD"))
    subs.start(book.reader, book.do, tenant, "basic", book.now)


def test_an_empty_book_leaves_nothing_to_do(book: Book) -> None:
    assert book.clerk() == ()
    assert work(book.reader, book.do, book.now) == ()


def test_one_customers_trouble_stops_nobody_else(book: Book) -> None:
    for tenant in ("ann", "bob", "cid"):
        open_customer(book, tenant)
    book.go(date(2026, 2, 28))

    def do(operation: o.AnyOperation) -> o.AnyResult:
        if getattr(operation, "tenant", "") == "bob":
            raise LedgerUnavailable("the disk is full")
        return book.do(operation)

    done = work(book.reader, do, book.now)
    assert [(each.what, each.tenant) for each in done] == [
        ("renewed", "ann"),
        ("failed", "bob"),
        ("renewed", "cid"),
    ]
    assert "the disk is full" in done[1].detail
    assert [each.tenant for each in book.clerk()] == ["bob"]


def test_a_fault_of_ours_with_one_customer_stops_nobody_else(book: Book) -> None:
    for tenant, units in (("ann", 10), ("bob", 100)):
        open_customer(book, tenant, units)
    book.go(date(2026, 2, 28))

    def collect(_tenant: str, _nanos: int) -> object:
        raise AssertionError("what never happens")

    done = work(book.reader, book.do, book.now, Tools(collect=collect))
    assert [(each.what, each.tenant) for each in done] == [("failed", "ann"), ("renewed", "bob")]
    assert done[0].detail == "subscription: AssertionError: what never happens"


def test_a_frozen_customer_is_billed_for_no_new_period_until_it_is_free(book: Book) -> None:
    open_customer(book, "ann")
    book.do(o.Freeze(tenant="ann", frozen=True, reason="dispute", actor="ada"))
    book.go(date(2026, 3, 5))
    assert book.clerk() == ()
    before = book.reader.balance("ann").wallet
    book.do(o.Freeze(tenant="ann", frozen=False, reason="won", actor="ada"))
    assert [each.what for each in book.clerk()] == ["renewed"]
    assert book.reader.balance("ann").wallet < before


def test_chores_of_other_rooms_are_done_in_their_order_and_may_fail(book: Book) -> None:
    open_customer(book, "ann")
    book.go(date(2026, 2, 28))
    order: list[str] = []

    def top_up() -> list[Done]:
        order.append("top-ups")
        raise Refused("the provider is away")

    def close() -> list[Done]:
        order.append("invoices")
        return [Done("invoiced", "ann", "invoice/ann/2026-01")]

    def entitle(people: Any) -> list[Done]:
        order.append(f"entitle {len(people)}")
        return []

    def send(_message: Message) -> None:
        order.append("send")

    alerts.add(book.reader, book.do, Alert("acme", 0, "balance", "USD", 10**18, email="a@b.c"))
    tools = Tools("Us", send, entitle, chores=(("top-ups", top_up), ("invoices", close)))
    done = work(book.reader, book.do, book.now, tools)
    assert order == ["top-ups", "invoices", "entitle 1", "send"]
    assert [each.what for each in done] == ["renewed", "failed", "invoiced", "written", "sent"]
    assert done[1].detail == "top-ups: the provider is away"


def test_what_was_claimed_can_be_ticked_off_later(book: Book) -> None:
    """Its three parts, with the ledger given back between them."""
    message = Message("x/mail", "mail", "a@b.c", "text")
    assert outbox.put(book.reader, book.do, "acme", [message, message]) == 1
    claimed = outbox.claim_due(book.reader, book.do, book.now)
    assert outbox.claim_due(book.reader, book.do, book.now) == []
    sent = outbox.send_all(lambda _message: None, claimed)
    outbox.tick_off(book.reader, book.do, sent, book.now)
    assert outbox.load(book.reader, "acme").value.done == {"x/mail": book.now}
    assert outbox.put(book.reader, book.do, "acme", [message]) == 0


@pytest.mark.slow
def test_the_same_on_postgresql() -> None:
    """Documents are read one at a time there too, and two readers see each other's revisions."""
    pytest.importorskip("pgserver", reason="PostgreSQL tests need pgserver and psycopg")
    pytest.importorskip("psycopg")
    server = Server()
    try:
        book = Book(server.database(), day=date(2026, 1, 31), money=40)
        alert = Alert("acme", 0, "balance", "USD", 25 * NANO, email="a@b.c")
        alerts.add(book.reader, book.do, alert)
        subs.start(book.reader, book.do, "acme", "basic", book.now)
        sent: list[Message] = []
        for day in (date(2026, 2, 28), date(2026, 3, 31), date(2026, 4, 30), date(2026, 5, 31)):
            book.go(day)
            book.clerk(send=sent.append)
        assert [each.reason[:10] for each in book.fees()] == [
            "2026-01-31",
            "2026-02-28",
            "2026-03-31",
            "2026-04-30",
        ]
        assert book.sub.state == "past due"
        assert [each.id for each in sent] == [f"alert/acme/1/{alert_seq(book)}/mail"]
        assert book.broken() == []
        book.close()
    finally:
        server.stop()


def alert_seq(book: Book) -> int:
    return next(r.seq for r in book.reader.postings("acme"))
