"""Invoices: what was billed and what is open, closing a month, payments and credit notes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from avocado.billing.invoices import CREDIT_NOTE, INVOICE, invoice_from
from avocado.billing.months import after, is_month, month_at
from avocado.billing.receivables import Receivable, credit_notes_of, pay_invoice, receivable
from avocado.cli.invoice_view import content
from avocado.console.operator.acting import ask_first, reason_of, record
from avocado.console.operator.doors import DOORS
from avocado.console.page import Download, Nav, NotFound, Pages, Redirect, Reply, Values, Visit
from avocado.errors import Refused
from avocado.ledger.rows import COLUMNS, DocumentRow
from avocado.ledger.views import document_of
from avocado.terms.money import NANO, Money, MoneyError, minor_digits

if TYPE_CHECKING:
    from avocado.billing.invoices import CreditNoteDocument, InvoiceDocument
    from avocado.console.console import Console
    from avocado.ledger.reader import Document, Reader

PAGES = Pages()
MOST: Final = 40
FAR: Final = 2**63 - 1


def newest(
    reader: Reader, kind: str, before: int = FAR, most: int = MOST, tenant: str | None = None
) -> list[tuple[int, Document]]:
    """(sequence of the first filing, document) of a kind, newest first, filed before ``before``."""
    only = " AND tenant = ?" if tenant is not None else ""
    sql = (
        f"SELECT {', '.join(COLUMNS[DocumentRow])} FROM document"  # noqa: S608
        f" WHERE kind = ? AND filed < ?{only} ORDER BY filed DESC LIMIT ?"
    )
    values = [kind, before, *([tenant] if tenant is not None else []), most]
    rows = [DocumentRow(*row) for row in reader.rows(sql, values)]
    return [(row.filed, document_of(row)) for row in rows]


@dataclass(frozen=True)
class Shown:
    """An invoice for the list."""

    found: Receivable
    number: str

    @property
    def state(self) -> str:
        if self.found.due_minor <= 0:
            return "credited" if self.found.credited_minor and not self.found.paid_minor else "paid"
        return "open"


@PAGES.show(
    "/operator/invoices",
    roles=DOORS["invoices"],
    template="operator/invoices.html",
    nav=Nav("op.invoices", "invoice", 230, "op.group_money"),
)
def invoices(visit: Visit) -> Values:
    from avocado.billing.invoices import shown_number

    before = visit.query.number("before", FAR, 0, FAR)
    tenant = visit.query.text("customer", 64) or None
    documents = newest(visit.reader, INVOICE, before, MOST + 1, tenant)
    shown = documents[:MOST]
    last = after(month_at(visit.now), -1)
    return {
        "invoices": [
            Shown(receivable(visit.reader, document), shown_number(document))
            for _, document in shown
        ],
        "older": shown[-1][0] if len(documents) > MOST else 0,
        "customer": tenant or "",
        "last_month": last,
        "seller": visit.console.workspace.config.seller,
        "automatic": visit.console.workspace.config.billing.close == "automatic",
        "run": run_of(visit.console),
        "first_page": before == FAR,
        "coins": coins,
    }


def _document(visit: Visit) -> Document:
    """The invoice or credit note that was asked for. Raises NotFound."""
    found = visit.reader.document(visit.query.text("id", 200) or visit.form.text("id", 200))
    if found is None or found.kind not in (INVOICE, CREDIT_NOTE):
        raise NotFound
    return found


@PAGES.show("/operator/invoice", roles=DOORS["invoices"], template="operator/invoice.html")
def invoice(visit: Visit) -> Values:
    from avocado.billing.invoices import shown_number

    document = _document(visit)
    note = document.kind == CREDIT_NOTE
    found = None if note else receivable(visit.reader, document)
    return {
        "document": document,
        "content": content(document),
        "number": shown_number(document),
        "note": note,
        "found": found,
        "notes": []
        if note
        else [
            (each, content, shown_number(each))
            for each, content in credit_notes_of(visit.reader, document.id)
        ],
        "coins": coins,
    }


def coins(minor: int, content: InvoiceDocument | CreditNoteDocument) -> int:
    """An amount of a document's smallest coins, in nano-units."""
    return minor * NANO // int(10**content.digits)


@PAGES.show("/operator/invoice/pdf", roles=DOORS["invoices"])
def invoice_pdf(visit: Visit) -> Reply:
    from avocado.billing.invoices import shown_number
    from avocado.billing.pdf import wished_pdf

    document = _document(visit)
    number = shown_number(document)
    body = wished_pdf(content(document), number)
    return Download(f"{number}.pdf", "application/pdf", body, True)


# -- what can be done with one --------------------------------------------------------------------


def _url(document: str) -> str:
    from urllib.parse import quote

    return f"/operator/invoice?id={quote(document, safe='/')}"


def _minor(visit: Visit, name: str, currency: str) -> int | None:
    """A typed amount in the currency's smallest coins; None where nothing was typed.

    Raises:
        Refused: it is none, or finer than a coin.
    """
    text = visit.form.text(name, 40).replace(",", ".")
    if not text:
        return None
    try:
        nanos = Money.parse(text, currency).nanos
    except MoneyError as error:
        raise Refused(str(error)) from error
    unit: int = NANO // 10 ** minor_digits(currency)
    found, rest = divmod(nanos, unit)
    if rest or not found:
        raise Refused(visit.t("op_invoice.no_coins", amount=text))
    return found


@PAGES.act("/operator/invoice/pay", roles=DOORS["invoices"], again=invoice)
def pay(visit: Visit) -> Reply:
    """Puts on record that an invoice was paid, whole or in part, by a transfer."""
    document = _document(visit)
    if document.kind != INVOICE:
        raise NotFound
    reference = visit.form.text("reference", 200)
    if not reference:
        raise Refused(visit.t("op_invoice.reference_missing"))
    paid = _minor(visit, "amount", invoice_from(document).currency)
    with visit.writing() as do:
        pay_invoice(visit.reader, do, document, paid, reference)
        record(
            visit, do, "invoice paid", document.id, tenant=document.tenant, reason=reference,
            coins=paid or 0,
        )  # fmt: skip
    return Redirect(_url(document.id), visit.t("op_invoice.paid_done"))


@PAGES.act("/operator/invoice/credit-note", roles=DOORS["invoices"], again=invoice)
def credit_note(visit: Visit) -> Reply:
    """Credits an invoice, whole, by an amount, or one line of it."""
    from avocado.billing.credit_notes import issue_credit_note
    from avocado.billing.invoices import shown_number
    from avocado.cli.issuer import issuer_of

    document = _document(visit)
    if document.kind != INVOICE:
        raise NotFound
    invoiced = invoice_from(document)
    net = _minor(visit, "amount", invoiced.currency)
    line = visit.form.text("line", 100) or None
    asked = ask_first(
        visit,
        visit.t("op_invoice.note_title"),
        visit.t("op_invoice.note_text", number=shown_number(document), name=invoiced.buyer.name),
        _url(document.id),
    )
    if asked is not None:
        return asked
    reason = reason_of(visit)
    with visit.writing() as do:
        made = issue_credit_note(
            visit.reader,
            do,
            issuer_of(visit.console.workspace),
            document.id,
            reason,
            visit.who.email,
            time.time_ns(),
            net,
            line,
        )
        record(
            visit, do, "credit note", made.id, tenant=document.tenant, reason=reason,
            entries=[made.seq],
        )  # fmt: skip
    return Redirect(_url(made.id), visit.t("op_invoice.note_done", number=shown_number(made)))


# -- closing a month ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A closing run: how far it is, or how it ended."""

    month: str
    who: str
    running: bool = True
    made: int = 0
    refused: tuple[tuple[str, str], ...] = ()
    error: str = ""


@dataclass
class Desk:
    lock: threading.Lock = field(default_factory=threading.Lock)
    run: Run | None = None


_DESKS: dict[Path, Desk] = {}
_GUARD = threading.Lock()


def _desk(console: Console) -> Desk:
    with _GUARD:
        return _DESKS.setdefault(console.workspace.folder, Desk())


def run_of(console: Console) -> Run | None:
    return _desk(console).run


@PAGES.live(
    "/operator/invoices/run", roles=DOORS["invoices"], template="operator/invoices_run.html",
    every=1.0,
)  # fmt: skip
def run_live(visit: Visit) -> Values:
    return {"run": run_of(visit.console)}


@PAGES.act("/operator/invoices/close", roles=DOORS["invoices"], again=invoices)
def close(visit: Visit) -> Reply:
    """Closes a month for every customer; what was closed before stays as it is."""
    from avocado.billing.closing import check_over
    from avocado.cli.issuer import issuer_of

    month = visit.form.text("month", 7)
    if not is_month(month) or not re.fullmatch(r"\d{4}-\d{2}", month):
        raise Refused(visit.t("op_invoice.bad_month"))
    check_over(month, time.time_ns())
    issuer_of(visit.console.workspace).named()
    text = visit.t("op_invoice.close_text", month=visit.formats.month(month))
    title = visit.t("op_invoice.close_title")
    asked = ask_first(visit, title, text, "/operator/invoices", danger=False)
    if asked is not None:
        return asked
    desk = _desk(visit.console)
    with desk.lock:
        if desk.run is not None and desk.run.running:
            return Redirect("/operator/invoices", visit.t("op_invoice.runs_already"), "plain")
        desk.run = Run(month, visit.who.email)
    with visit.writing() as do:
        record(visit, do, "close month", month, reason=reason_of(visit))
    arguments = (visit.console, desk, month, visit.who.email)
    thread = threading.Thread(target=_close, args=arguments, name="closing", daemon=True)
    thread.start()
    thread.join(2.0)  # a small shop's is done before the page is shown
    return Redirect("/operator/invoices", visit.t("op_invoice.close_done"))


def _close(console: Console, desk: Desk, month: str, who: str) -> None:
    from avocado.billing.closing_run import close_all
    from avocado.cli.issuer import issuer_of
    from avocado.ledger.errors import LedgerError
    from avocado.ledger.reader import open_reader

    workspace = console.workspace
    assert desk.run is not None
    try:
        with console.writing() as do, open_reader(workspace.ledger) as reader:
            for each in close_all(reader, do, issuer_of(workspace), month, time.time_ns(), who):
                if each.refused:
                    desk.run = replace(
                        desk.run, refused=(*desk.run.refused, (each.tenant, each.refused))
                    )
                else:
                    desk.run = replace(desk.run, made=desk.run.made + each.new)
    except (Refused, LedgerError) as error:
        reasons: Sequence[str] = error.reasons if isinstance(error, Refused) else (str(error),)
        desk.run = replace(desk.run, error="; ".join(reasons))
    except Exception as error:
        desk.run = replace(desk.run, error=repr(error))
        raise
    finally:
        desk.run = replace(desk.run, running=False)
