"""Rows for accountants: invoices and credit notes as a table, a row a line. Pure.

``amount`` adds up to each document's net, prepaid and granted credit being negative rows of their
own; credit notes are negative. What belongs to a document as a whole (net, tax, gross) stands in
its first row alone, so that columns of amounts can be summed.

A table is RFC 4180 with decimal points, as programs read it; or, with ``comma``, as a spreadsheet
opens it where people write 1,50: decimal commas, semicolons between cells, and UTF-8's mark (BOM)
in front, without which Excel takes UTF-8 for the system's code page.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import IO, Final

from avocado.billing.invoices import (
    CreditNoteDocument,
    DocumentLine,
    InvoiceDocument,
    TaxSum,
)
from avocado.billing.rounding import decimal
from avocado.terms.money import Money

COLUMNS: Final = (
    *("number", "document", "credits", "issued", "due", "period_start", "period_end"),
    *("customer", "name", "country", "vat_id", "currency"),
    *("line", "kind", "offer", "tokens_of", "item", "text", "requests", "tokens"),
    *("price_per_million", "exact_amount", "amount"),
    *("net", "tax_category", "tax_percent", "tax", "gross", "paid_at_issue", "due_amount"),
)
_DECIMALS: Final = (
    *("price_per_million", "exact_amount", "amount", "net", "tax_percent", "tax", "gross"),
    *("paid_at_issue", "due_amount"),
)
BOM: Final = "\ufeff"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula at the start of a cell."""

AnyDocument = InvoiceDocument | CreditNoteDocument


def rows(document: AnyDocument, number: str) -> Iterator[dict[str, str]]:
    """A document's rows by column; amounts are plain decimals."""
    head = _head(document, number)
    sums = _sums(document)
    for line, exact, coins in _lines(document):
        row = dict.fromkeys(COLUMNS, "") | head | _line(line, document)
        row["exact_amount"] = Money(exact, document.currency).decimal()
        row["amount"] = decimal(coins, document.digits)
        yield row | sums
        sums = {}


def _lines(document: AnyDocument) -> Iterator[tuple[DocumentLine, int, int]]:
    if isinstance(document, CreditNoteDocument):
        for line in document.lines:
            yield line, -line.nanos, -line.minor
        return
    for line in document.lines:
        yield line, line.nanos, line.minor
    paid = (
        ("granted", document.granted_nanos, document.granted_minor),
        ("prepaid", document.prepaid_nanos, document.prepaid_minor),
    )
    for name, nanos, coins in paid:
        if nanos or coins:
            yield (
                DocumentLine(name, "credit", nanos, coins, text=f"{name} credit used"),
                -nanos,
                -coins,
            )


def _head(document: AnyDocument, number: str) -> dict[str, str]:
    buyer = document.buyer
    head = {
        "number": number,
        "document": "credit-note",
        "issued": document.issued,
        "customer": buyer.tenant,
        "name": safe(buyer.name),
        "country": buyer.country,
        "vat_id": safe(buyer.vat_id or ""),
        "currency": document.currency,
    }
    if isinstance(document, CreditNoteDocument):
        return head | {"credits": document.invoice_number}
    return head | {
        "document": "invoice" if document.type == "usage" else "top-up",
        "due": document.due,
        "period_start": document.period_start,
        "period_end": document.period_end,
    }


def _line(line: DocumentLine, document: AnyDocument) -> dict[str, str]:
    price = Money(line.price, document.currency).decimal() if line.tokens else ""
    return {
        "line": line.id,
        "kind": line.id if line.id in ("granted", "prepaid") else line.kind,
        "offer": safe(line.offer),
        "tokens_of": line.token_kind,
        "item": safe(line.item),
        "text": safe(line.text),
        "requests": str(line.requests or ""),
        "tokens": str(line.tokens or ""),
        "price_per_million": price,
    }


def _sums(document: AnyDocument) -> dict[str, str]:
    note = isinstance(document, CreditNoteDocument)
    sign = -1 if note else 1
    tax = sum(each.amount_minor for each in document.taxes)
    amounts = {"net": document.net_minor, "tax": tax, "gross": document.gross_minor}
    if isinstance(document, InvoiceDocument):
        amounts |= {"paid_at_issue": document.paid_minor, "due_amount": document.due_minor}
    return {
        **{name: decimal(sign * coins, document.digits) for name, coins in amounts.items()},
        "tax_category": " ".join(each.category for each in document.taxes),
        "tax_percent": " ".join(percent(each) for each in document.taxes),
    }


def percent(tax: TaxSum) -> str:
    """A rate as people write it: ``19`` or ``25.5``."""
    whole, rest = divmod(tax.rate, 10_000)
    return f"{whole}.{rest:04d}".rstrip("0").rstrip(".") if rest else str(whole)


def safe(text: str) -> str:
    """A customer's text, so that no spreadsheet runs it as a formula (OWASP, CSV injection)."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def write_csv(documents: Iterable[tuple[AnyDocument, str]]) -> str:
    """A table of documents with their numbers, with a head, as RFC 4180."""
    out = io.StringIO()
    write_table(out, documents)
    return out.getvalue()


def write_table(
    file: IO[str], documents: Iterable[tuple[AnyDocument, str]], comma: bool = False
) -> int:
    """Writes a table of documents with their numbers, with a head; returns how many there were."""
    if comma:
        file.write(BOM)
    writer = csv.DictWriter(file, COLUMNS, delimiter=";" if comma else ",")
    writer.writeheader()
    count = 0
    for document, number in documents:
        count += 1
        for row in rows(document, number):
            if comma:
                row |= {name: row[name].replace(".", ",") for name in _DECIMALS}
            writer.writerow(row)
    return count
