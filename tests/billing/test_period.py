"""Random histories through the real ledger: invoices sum to it, whatever happened and when."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from avocado.billing.invoices import InvoiceDocument, credit_note_from, invoice_from
from avocado.billing.months import after, month_at
from avocado.billing.profile import change_profile
from avocado.billing.receivables import pay_invoice, receivable
from avocado.billing.rounding import unit_of
from avocado.errors import Refused
from avocado.ledger import operation as o
from avocado.ledger import proof
from avocado.ledger.errors import LedgerError
from avocado.ledger.reader import Document
from avocado.terms.usage import Usage
from tests.billing.shop import DAY, Shop, income, table, wallet

EURO = 10**9
MEMORY = Path("/dev/shm")
FOLDER = MEMORY if MEMORY.is_dir() else None
"""Durability is tested elsewhere: here commits need not wait for a disk."""


def amount_of(random: Random, most: int = 40) -> int:
    """Up to so many euros: whole cents, or not."""
    cents = random.randint(1, most * 100) * EURO // 100
    return cents if random.random() < 0.5 else cents - random.randint(1, 9_999_999)


def usage_of(random: Random) -> Usage:
    prompt, completion = random.randint(0, 5000), random.randint(0, 5000)
    cached, reasoning = random.randint(0, prompt), random.randint(0, completion)
    return Usage(prompt, completion, cached=cached, reasoning=reasoning)


WEIGHTS = {
    "use": 40,
    "leave_open": 2,
    "deposit": 4,
    "grant": 3,
    "allow": 2,
    "adjust": 3,
    "bill": 4,
    "refund": 6,
    "wait": 8,
    "set_clock": 3,
    "close": 6,
    "pay": 5,
    "credit": 6,
}


class History:
    """Plays random steps; what the ledger or billing refuse did not happen."""

    def __init__(self, shop: Shop, random: Random) -> None:
        self.shop = shop
        self.random = random
        self.ids: list[str] = []
        self.open: list[str] = []
        self.done: Counter[str] = Counter()

    def play(self, steps: int) -> None:
        for name in self.random.choices(list(WEIGHTS), list(WEIGHTS.values()), k=steps):
            with suppress(LedgerError, Refused):
                getattr(self, name)()
                self.done[name] += 1

    def use(self) -> None:
        sheet, batch = self.random.randint(0, 2), self.random.random() < 0.2
        self.ids.append(self.shop.use(sheet=sheet, usage=usage_of(self.random), batch=batch))

    def leave_open(self) -> None:
        self.open.append(self.shop.hold(sheet=self.random.randint(0, 2), lifetime=7 * DAY))

    def deposit(self) -> None:
        amount = amount_of(self.random)
        self.ids.append(self.shop.deposit(amount, tax=self.random.choice([0, amount // 5])))

    def grant(self) -> None:
        expires = self.random.choice([None, self.shop.clock.now() + 20 * DAY])
        id_ = f"gr-{next(self.shop.numbers)}"
        amount = amount_of(self.random, 5)
        operation = o.Grant(id=id_, tenant="acme", amount=amount, currency="EUR", expires=expires)
        self.shop.do(operation)
        self.ids.append(id_)

    def allow(self) -> None:
        id_ = f"al-{next(self.shop.numbers)}"
        self.shop.do(o.Allow(id=id_, tenant="acme", tokens=self.random.randint(1, 9000)))

    def adjust(self) -> None:
        id_ = f"adj-{next(self.shop.numbers)}"
        amount = amount_of(self.random, 3) * self.random.choice([1, -1])
        operation = o.Adjust(
            id=id_, tenant="acme", amount=amount, currency="EUR", reason="typo", actor="test"
        )
        self.shop.do(operation)
        self.ids.append(id_)

    def bill(self) -> None:
        self.ids.append(self.shop.bill(amount_of(self.random, 9)))

    def refund(self) -> None:
        amount = self.random.choice([None, amount_of(self.random, 2)])
        self.shop.refund(self.random.choice(self.ids or ["none"]), amount)

    def wait(self) -> None:
        self.shop.clock.pass_time(self.random.randint(1, 25) * DAY)

    def set_clock(self) -> None:
        self.shop.clock.step(self.random.randint(-40, 10) * DAY)

    def close(self) -> None:
        self.shop.close_month(after(month_at(self.shop.clock.now()), -self.random.randint(1, 2)))

    def _invoice(self) -> Document:
        documents = list(self.shop.reader.documents("invoice"))
        due = [document for document in documents if document.content["net_minor"]]
        if not due:
            raise Refused("nothing is due")
        return self.random.choice(due)

    def pay(self) -> None:
        document = self._invoice()
        due = receivable(self.shop.reader, document).due_minor
        share, reference = self.random.randint(1, 3), f"bank {next(self.shop.numbers)}"
        pay_invoice(self.shop.reader, self.shop.do, document, due // share, reference)

    def credit(self) -> None:
        document = self._invoice()
        lines = [line["id"] for line in document.content["lines"] if line["minor"] > 0]
        if lines and self.random.random() < 0.3:
            self.shop.credit(document.id, line=self.random.choice(lines))
            return
        share = self.random.randint(1, 3)
        net = invoice_from(document).net_minor // share
        self.shop.credit(document.id, net_minor=None if share == 1 else net)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0, 60 * EURO]), st.booleans())
def test_invoices_of_random_histories_sum_to_the_ledger(
    seed: int, credit_limit: int, taxed: bool
) -> None:
    play(seed, credit_limit, taxed)


def play(seed: int, credit_limit: int, taxed: bool, steps: int = 150) -> Counter[str]:
    """A history, checked. Returns what happened in it."""
    with (
        tempfile.TemporaryDirectory(dir=FOLDER) as folder,
        Shop(Path(folder, "book.db"), taxes=table() if taxed else None) as shop,
    ):
        shop.open(credit_limit=credit_limit)
        changes = {"country": "DE", "city": "Bonn"}
        change_profile(shop.reader, shop.do, "acme", changes, "test")
        history = History(shop, Random(seed))
        history.play(steps)
        for hold in history.open:
            with suppress(LedgerError):
                shop.do(o.Settle(hold=hold, usage=Usage(10, 10)))
        check(shop)
        proven = proof.prove(shop.reader, shop.clock.now(), deep=True)
        assert [each for each in proven if not each.ok] == []
        return history.done


def check(shop: Shop) -> None:
    """Closes all that can be closed, twice, and holds every invoice against the journal's legs."""
    reader = shop.reader
    shop.clock.step(400 * DAY)
    last = after(month_at(shop.clock.now()), -1)
    shop.close_month(last)
    documents = list(reader.documents("invoice"))
    head = reader.head()
    shop.close_month(last)
    assert reader.head() == head, "closing again changed the book"
    assert [document.number for document in documents] == list(range(1, len(documents) + 1))
    invoices = [invoice_from(document) for document in documents]
    start = carried = prepaid = debt = 0
    for invoice in invoices:
        assert (invoice.after_seq, invoice.carried_in) == (start, carried)
        assert (invoice.prepaid_before, invoice.debt_before) == (prepaid, debt)
        check_invoice(shop, invoice)
        start, carried = invoice.until_seq, invoice.carried_out
        prepaid, debt = invoice.prepaid_after, invoice.debt_after
    tail = income(reader, "acme", start, reader.head()[0])
    accounts = reader.accounts()
    revenue = sum(nanos for name, nanos in accounts.items() if name.startswith("revenue:"))
    credited = -income(reader, "acme", 0, reader.head()[0], notes=True)
    assert tail == 0, "something was used and not invoiced"
    assert revenue == sum(invoice.total_nanos for invoice in invoices) - credited
    check_notes(shop)


def check_invoice(shop: Shop, invoice: InvoiceDocument) -> None:
    unit = unit_of("EUR")
    start, until = invoice.after_seq, invoice.until_seq
    assert invoice.total_nanos == income(shop.reader, "acme", start, until)
    assert sum(line.nanos for line in invoice.lines) == invoice.total_nanos
    paid = invoice.granted_nanos + invoice.prepaid_nanos + invoice.on_credit_nanos
    assert paid == invoice.total_nanos
    assert invoice.prepaid_after - invoice.debt_after == wallet(shop.reader, "acme", until)
    assert invoice.prepaid_after >= 0 <= invoice.on_credit_nanos
    exact = invoice.on_credit_nanos + invoice.carried_in
    assert exact == invoice.net_minor * unit + invoice.carried_out
    assert -unit <= 2 * invoice.carried_out < unit
    lines = sum(line.minor for line in invoice.lines)
    assert lines - invoice.granted_minor - invoice.prepaid_minor == invoice.net_minor >= 0
    assert all(abs(line.minor * unit - line.nanos) < unit for line in invoice.lines)
    assert len({line.id for line in invoice.lines}) == len(invoice.lines)


def check_notes(shop: Shop) -> None:
    """Each note gave back exactly what it says, and no invoice was credited beyond its net."""
    moved = 0
    for record in shop.reader.postings("acme"):
        entry: Any = record.entry
        if entry.id.startswith("credit-note/"):
            moved += sum(delta for name, delta in entry.legs if name == "wallet:acme")
    notes = [credit_note_from(document) for document in shop.reader.documents("credit-note")]
    assert moved == sum(note.net_minor for note in notes) * unit_of("EUR")
    by_invoice: dict[str, int] = {}
    for note in notes:
        by_invoice[note.invoice] = by_invoice.get(note.invoice, 0) + note.net_minor
    for invoice_id, credited in by_invoice.items():
        document = shop.reader.document(invoice_id)
        assert document is not None
        assert 0 < credited <= invoice_from(document).net_minor
