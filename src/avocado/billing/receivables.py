"""Receivables: what is paid of an invoice, and which invoices are open.

A payment is a deposit that names the invoice (``Deposit.pays``). What it brings is split into net
and tax in the invoice's own proportion, so that the wallet gets the net and the rest is the tax
office's. Credit notes lower what is due.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from avocado.billing.books import posting
from avocado.billing.invoices import (
    INVOICE,
    CreditNoteDocument,
    InvoiceDocument,
    credit_note_from,
    invoice_from,
    shown_number,
)
from avocado.billing.record import Do
from avocado.billing.rounding import decimal, nearest, unit_of
from avocado.billing.tax import split_gross
from avocado.errors import Refused
from avocado.ledger import entry as e
from avocado.ledger.operation import Deposit
from avocado.terms.money import minor_digits

if TYPE_CHECKING:
    from avocado.ledger.reader import Document, Reader


@dataclass(frozen=True, slots=True)
class Receivable:
    """An invoice and what is open of it, in coins. ``due_minor`` below zero is the customer's."""

    document: Document
    invoice: InvoiceDocument
    paid_minor: int
    credited_minor: int

    @property
    def due_minor(self) -> int:
        return self.invoice.gross_minor - self.paid_minor - self.credited_minor


def credit_notes_of(
    reader: Reader, invoice_id: str
) -> Iterator[tuple[Document, CreditNoteDocument]]:
    """The credit notes of an invoice, in order: a look-up each."""
    number = 1
    while (found := reader.document(f"credit-note/{invoice_id}/{number}")) is not None:
        yield found, credit_note_from(found)
        number += 1


def receivable(reader: Reader, document: Document) -> Receivable:
    """What is open of an invoice on record."""
    invoice = invoice_from(document)
    credited = sum(note.gross_minor for _, note in credit_notes_of(reader, document.id))
    paid = _payments(reader, document.tenant, document.seq).get(document.id, 0)
    coins = nearest(paid, unit_of(invoice.currency))[0]
    return Receivable(document, invoice, invoice.paid_minor + coins, credited)


def _payments(reader: Reader, tenant: str, start: int) -> dict[str, int]:
    """Nano-units, tax included, that came in by invoice id, less what went back, since an entry."""
    paid: dict[str, int] = {}
    pays: dict[str, str] = {}
    for record in reader.postings(tenant, start):
        entry = record.entry
        if isinstance(entry, e.Deposited) and entry.pays:
            pays[entry.id] = entry.pays
            paid[entry.pays] = paid.get(entry.pays, 0) + entry.amount + entry.tax
        elif isinstance(entry, e.Refunded) and entry.of in pays:
            paid[pays[entry.of]] -= entry.amount + entry.tax
    return paid


def open_invoices(reader: Reader, tenant: str | None = None) -> Iterator[Receivable]:
    """Invoices of one customer, or of all, that are not settled, in order of issue.

    A customer's payments are read once, from its first invoice on.
    """
    known: dict[str, dict[str, int]] = {}
    for document in reader.documents(INVOICE, tenant):
        invoice = invoice_from(document)
        if not invoice.due_minor:
            continue
        if document.tenant not in known:
            known[document.tenant] = _payments(reader, document.tenant, document.seq)
        coins = nearest(known[document.tenant].get(document.id, 0), unit_of(invoice.currency))[0]
        notes = credit_notes_of(reader, document.id)
        credited = sum(note.gross_minor for _, note in notes)
        found = Receivable(document, invoice, invoice.paid_minor + coins, credited)
        if found.due_minor:
            yield found


def payment_id(invoice_id: str, reference: str) -> str:
    """The deposit's id: the same reference for the same invoice is the same payment."""
    return f"payment/{sha256(f'{invoice_id} {reference}'.encode()).hexdigest()[:32]}"


def pay_invoice(
    reader: Reader,
    do: Do,
    document: Document,
    gross_minor: int | None,
    reference: str,
    deposit_id: str | None = None,
) -> Receivable:
    """Records that ``gross_minor`` coins (all that is due if left out) were paid for an invoice.

    The same ``reference`` (such as the bank's) or ``deposit_id`` again changes nothing.

    Raises:
        Refused: no reference is given, nothing is due, more was paid than is due (what is beyond
            buys credit, and is a deposit of its own), or the reference was used for another amount.
    """
    if not reference.strip():
        raise Refused("a payment needs a reference that names it, such as the bank's line")
    id_ = deposit_id or payment_id(document.id, reference)
    known = posting(reader, id_)
    if known is not None:
        _check_same(known.entry, document, gross_minor, reference)
        return receivable(reader, document)
    now = receivable(reader, document)
    coins = now.due_minor if gross_minor is None else gross_minor
    if not 0 < coins <= now.due_minor:
        due = decimal(now.due_minor, now.invoice.digits)
        number = shown_number(document)
        raise Refused(f"of {number} {due} {now.invoice.currency} are due: pay at most that")
    net, tax = payment_parts(now.invoice, now.paid_minor, coins)
    if not net:
        raise Refused(
            f"that pays nothing but tax of {shown_number(document)}: record it with the next "
            "payment"
        )
    do(
        Deposit(
            id=id_,
            tenant=document.tenant,
            amount=net,
            currency=now.invoice.currency,
            reference=reference,
            tax=tax,
            pays=document.id,
        )
    )
    return receivable(reader, document)


def _check_same(entry: object, document: Document, coins: int | None, reference: str) -> None:
    """Raises Refused where a payment that is on record is not the one that was told of now."""
    assert isinstance(entry, e.Deposited)
    before = (entry.amount + entry.tax) // unit_of(entry.currency)
    if entry.pays != document.id or coins not in (None, before):
        shown = decimal(before, minor_digits(entry.currency))
        raise Refused(
            f"{reference!r} is a payment of {shown} {entry.currency} for {entry.pays} already: "
            "give another payment another reference"
        )


def payment_parts(invoice: InvoiceDocument, paid_minor: int, coins: int) -> tuple[int, int]:
    """(net, tax) in nano-units of a payment of ``coins`` after ``paid_minor`` were paid: parts of
    all payments add up to the invoice's own net and tax, however it is paid."""
    unit = unit_of(invoice.currency)
    before, after = (split_gross(paid, invoice.taxes) for paid in (paid_minor, paid_minor + coins))
    return (after[0] - before[0]) * unit, (after[1] - before[1]) * unit
