"""Invoices: the customer's own, as paper and as files."""

from __future__ import annotations

import json
from dataclasses import dataclass

from avocado.billing.invoices import (
    CREDIT_NOTE,
    INVOICE,
    CreditNoteDocument,
    InvoiceDocument,
    shown_number,
)
from avocado.billing.receivables import receivable
from avocado.billing.rounding import unit_of
from avocado.cli.invoice_view import content, document_json
from avocado.console.page import Download, NotFound, Pages, Values, Visit
from avocado.console.roles import CUSTOMER
from avocado.ledger.reader import Document, Reader

PAGES = Pages()
A_PAGE = 25


@dataclass(frozen=True)
class Listed:
    """An invoice or credit note in a list. Amounts in nano-units, a credit note's below zero.

    ``kind`` is usage, top-up or credit-note; ``state`` paid, open, late or "" (a credit note).
    """

    id: str
    number: str
    kind: str
    period: str
    issued: str
    gross: int
    open: int
    currency: str
    state: str


def listed(reader: Reader, document: Document, today: str) -> Listed:
    made = content(document)
    unit = unit_of(made.currency)
    number = shown_number(document)
    if isinstance(made, CreditNoteDocument):
        return Listed(
            document.id,
            number,
            CREDIT_NOTE,
            made.invoice_number,
            made.issued,
            -made.gross_minor * unit,
            0,
            made.currency,
            "",
        )
    due = receivable(reader, document).due_minor
    state = "paid" if due <= 0 else "late" if made.due < today else "open"
    return Listed(
        document.id,
        number,
        made.type,
        made.period_end[:7] if made.type == "usage" else "",
        made.issued,
        made.gross_minor * unit,
        max(due, 0) * unit,
        made.currency,
        state,
    )


def newest(visit: Visit, most: int, skip: int = 0) -> list[Listed]:
    """The customer's, the newest first."""
    ids = [
        str(row[0])
        for row in visit.reader.rows(
            "SELECT id FROM document WHERE tenant = ? AND kind IN (?, ?)"
            " ORDER BY filed DESC LIMIT ? OFFSET ?",
            (visit.tenant, INVOICE, CREDIT_NOTE, most, skip),
        )
    ]
    today = visit.formats.iso_day(visit.now)
    documents = [found for each in ids if (found := visit.reader.document(each)) is not None]
    return [listed(visit.reader, each, today) for each in documents]


@PAGES.show("/billing/invoices", roles=CUSTOMER, template="customer/invoices.html")
def invoices(visit: Visit) -> Values:
    page = visit.query.number("page", 1, 1, 10_000)
    found = newest(visit, A_PAGE + 1, (page - 1) * A_PAGE)
    return {"invoices": found[:A_PAGE], "page": page, "more": len(found) > A_PAGE}


@PAGES.show("/billing/documents/{form}/{id:path}", roles=CUSTOMER)
def download(visit: Visit) -> Download:
    """``form`` is pdf, xml, json or csv; the id is that of the document."""
    document = mine(visit, visit.path["id"])
    return file_of(visit.reader, document, visit.path["form"])


def mine(visit: Visit, id_: str) -> Document:
    """One of the customer's own invoices or credit notes. Raises NotFound for anything else."""
    document = visit.reader.document(id_)
    if document is None or document.tenant != visit.tenant:
        raise NotFound
    if document.kind not in (INVOICE, CREDIT_NOTE):
        raise NotFound
    return document


def file_of(reader: Reader, document: Document, form: str) -> Download:
    """A document as a file.

    Raises:
        NotFound: there is no such form.
        Refused: a package is missing, or an e-invoice needs more than is known of the buyer.
    """
    made, number = content(document), shown_number(document)
    name = number.replace("/", "-")
    if form == "pdf":
        from avocado.billing.pdf import wished_pdf

        return Download(f"{name}.pdf", "application/pdf", wished_pdf(made, number))
    if form == "xml":
        from avocado.billing.einvoice import einvoice_xml

        return Download(f"{name}.xml", "application/xml", einvoice_xml(made, number))
    if form == "json":
        value = json.dumps(document_json(reader, document), indent=2, ensure_ascii=False)
        return Download(f"{name}.json", "application/json", value.encode() + b"\n")
    if form == "csv":
        return Download(f"{name}.csv", "text/csv; charset=utf-8", _csv(made, number))
    raise NotFound


def _csv(made: InvoiceDocument | CreditNoteDocument, number: str) -> bytes:
    import csv
    import io

    from avocado.billing.accounting import COLUMNS, rows

    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS)
    writer.writeheader()
    writer.writerows(rows(made, number))
    return buffer.getvalue().encode()
