"""How a command shows an invoice or a credit note: rows for tables, values for ``--json``."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from avocado.billing.accounting import percent
from avocado.billing.invoices import (
    CreditNoteDocument,
    DocumentLine,
    InvoiceDocument,
    credit_note_from,
    invoice_from,
    shown_number,
)
from avocado.billing.layout import prepaid_key
from avocado.billing.months import day_at
from avocado.billing.receivables import Receivable, credit_notes_of, receivable
from avocado.billing.rounding import decimal, nearest, unit_of
from avocado.ledger.entry import Deposited, Refunded
from avocado.terms.money import Money

if TYPE_CHECKING:
    from avocado.ledger.reader import Document, Reader

AnyDocument = InvoiceDocument | CreditNoteDocument
COLUMNS = ["what", "of", "tokens", "per million", "exact", "amount"]


def content(document: Document) -> AnyDocument:
    """The invoice or credit note in a document."""
    if document.kind == "credit-note":
        return credit_note_from(document)
    return invoice_from(document)


def row_of(document: Document) -> dict[str, Any]:
    """A document in a list."""
    made = content(document)
    note = isinstance(made, CreditNoteDocument)
    sign = -1 if note else 1
    tax = made.gross_minor - made.net_minor
    if isinstance(made, CreditNoteDocument):
        subject = made.invoice_number
    else:
        subject = made.period_end[:7] if made.type == "usage" else f"top-up {made.lines[0].item}"
    return {
        "number": shown_number(document),
        "id": document.id,
        "kind": "credit-note" if note else "invoice",
        "customer": document.tenant,
        "for": subject,
        "issued": made.issued,
        "net": decimal(sign * made.net_minor, made.digits),
        "tax": decimal(sign * tax, made.digits),
        "gross": decimal(sign * made.gross_minor, made.digits),
        "currency": made.currency,
    }


def open_row(found: Receivable, today: str) -> dict[str, Any]:
    """An invoice and what is open of it. ``days_late`` is below zero until it is due; of one that
    is to be paid back (``open`` below zero) it means nothing."""
    invoice = found.invoice
    late = (date.fromisoformat(today) - date.fromisoformat(invoice.due)).days
    return {
        "number": shown_number(found.document),
        "id": found.document.id,
        "customer": found.document.tenant,
        "name": invoice.buyer.name,
        "due": invoice.due,
        "days_late": late,
        "gross": decimal(invoice.gross_minor, invoice.digits),
        "paid": decimal(found.paid_minor, invoice.digits),
        "credited": decimal(found.credited_minor, invoice.digits),
        "open": decimal(found.due_minor, invoice.digits),
        "currency": invoice.currency,
    }


def document_json(reader: Reader, document: Document) -> dict[str, Any]:
    """All of a document, with its number and what is open of it."""
    value = {
        "number": shown_number(document),
        "id": document.id,
        "kind": document.kind,
        "filed_seq": document.seq,
        **document.content,
    }
    if document.kind == "invoice":
        now = receivable(reader, document)
        value |= {
            "paid_now_minor": now.paid_minor,
            "credited_minor": now.credited_minor,
            "open_minor": now.due_minor,
            "events": [msgspec.to_builtins(each) for each in events_of(reader, now)],
        }
    return value


class Event(msgspec.Struct, frozen=True):
    """What happened to an invoice since it was issued."""

    day: str
    kind: Literal["paid", "paid back", "credited"]
    amount: str
    """With tax, in units of the invoice's currency."""
    what: str
    """The payment's reference, or a reason."""
    id: str
    """The deposit's, which ``avocado ledger refund`` pays back; or a credit note's number."""


def events_of(reader: Reader, found: Receivable) -> list[Event]:
    """Payments of an invoice, what of them went back, and its credit notes, in order."""
    invoice, document = found.invoice, found.document
    events: list[tuple[int, Event]] = []
    kind: Literal["paid", "paid back"]
    paid: set[str] = set()
    for record in reader.postings(document.tenant, document.seq):
        entry = record.entry
        if isinstance(entry, Deposited) and entry.pays == document.id:
            paid.add(entry.id)
            kind, what, id_ = "paid", entry.reference, entry.id
        elif isinstance(entry, Refunded) and entry.of in paid:
            kind, what, id_ = "paid back", entry.reason, entry.of
        else:
            continue
        coins = nearest(entry.amount + entry.tax, unit_of(invoice.currency))[0]
        amount = decimal(coins, invoice.digits)  # what the bank moved
        events.append((record.seq, Event(day_at(record.at), kind, amount, what, id_)))
    for note, made in credit_notes_of(reader, document.id):
        amount = decimal(made.gross_minor, made.digits)
        event = Event(made.issued, "credited", amount, made.reason, shown_number(note))
        events.append((note.seq, event))
    return [event for _, event in sorted(events, key=lambda each: each[0])]


def document_lines(
    reader: Reader, document: Document
) -> tuple[list[str], list[str], list[list[str]], list[str]]:
    """(lines above, columns, rows, lines below) for people."""
    made = content(document)
    number = shown_number(document)
    if isinstance(made, CreditNoteDocument):
        head = [f"{number}, {made.issued}: credits {made.invoice_number} of {made.invoice_issued}"]
        head.append(f"{made.buyer.name} ({document.tenant}): {made.reason}")
        return head, COLUMNS, [_row(line, made) for line in made.lines], _sums(made)
    what = "usage" if made.type == "usage" else "prepaid credit"
    head = [
        f"{number}, {made.issued}: {what}, {made.period_start} to {made.period_end}",
        f"{made.buyer.name} ({document.tenant}), in {made.currency}",
    ]
    now = receivable(reader, document)
    foot = _sums(made)
    foot += [
        f"{each.kind} {each.day}: {each.amount}, {each.what} ({each.id})"
        for each in events_of(reader, now)
    ]
    if now.due_minor > 0:
        foot.append(f"open: {decimal(now.due_minor, made.digits)}, due {made.due}")
    elif now.due_minor:
        foot.append(
            f"to be paid back: {decimal(-now.due_minor, made.digits)} (then: avocado invoices "
            f"pay-back {number} --reference TEXT)"
        )
    elif made.gross_minor:
        foot.append("paid")
    return head, COLUMNS, [_row(line, made) for line in made.lines], foot


def _row(line: DocumentLine, made: AnyDocument) -> list[str]:
    name = line.offer or line.item or "credit"
    detail = line.token_kind if line.kind == "usage" else line.text
    kind = "" if line.kind == "usage" else f"{line.kind} "
    return [
        f"{kind}{name}".strip(),
        detail,
        f"{line.tokens:,}" if line.tokens else "",
        Money(line.price, made.currency).decimal() if line.tokens else "",
        Money(line.nanos, made.currency).decimal(),
        decimal(line.minor, made.digits),
    ]


def _sums(made: AnyDocument) -> list[str]:
    def coins(value: int) -> str:
        return decimal(value, made.digits)

    lines = []
    if isinstance(made, InvoiceDocument) and made.type == "usage":
        total = Money(made.total_nanos, made.currency).decimal()
        lines.append(f"together {total}")
        if made.granted_nanos:
            what = "used" if made.granted_nanos > 0 else "given back"
            lines.append(f"granted credit {what}: {coins(-made.granted_minor)}")
        if made.prepaid_nanos:
            what = {
                "less-prepaid": "used (taxed when bought)",
                "back-to-prepaid": "given back",
                "prepaid-taken": "paid back, and corrections by hand",
            }[prepaid_key(made)]
            lines.append(f"prepaid credit {what}: {coins(-made.prepaid_minor)}")
        if made.carried_in or made.carried_out:
            before = Money(made.carried_in, made.currency).decimal()
            left = Money(made.carried_out, made.currency).decimal()
            lines.append(f"rounding: {before} carried in, {left} carried to the next invoice")
    lines.append(f"net: {coins(made.net_minor)}")
    for tax in made.taxes:
        rate = f"{tax.name} {percent(tax)} %" if tax.rate else f"{tax.name} ({tax.code})"
        lines.append(f"{rate} on {coins(tax.base_minor)}: {coins(tax.amount_minor)}")
    lines.append(f"gross: {coins(made.gross_minor)}")
    return lines
