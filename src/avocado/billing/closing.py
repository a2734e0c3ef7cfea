"""Closing: a customer's month becomes an invoice on record, once and for good.

What is read lies between two cuts of the journal; nothing is kept but the document. Closing again,
or in two processes at once, gives the same document: its id is the month's, and the first to file
it wins. Months are closed in order, each from where the one before ended; a month in which nothing
was used, billed or refunded makes no invoice, and what else happened in it counts in the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from avocado.billing.books import (
    Sheets,
    buyer_and_language,
    last_invoice,
    last_month,
    month_cut,
    movement,
    wallet_now,
)
from avocado.billing.invoice import Invoice, draw_up
from avocado.billing.invoices import (
    INVOICE,
    Buyer,
    DocumentLine,
    InvoiceDocument,
    Seller,
    TaxSum,
    content_of,
    month_id,
)
from avocado.billing.issuer import Issuer
from avocado.billing.months import after as month_after
from avocado.billing.months import between, day_at, days, end, later_day, month_at
from avocado.billing.months import start as month_start
from avocado.billing.period import Account, Movement, Settlement, settle
from avocado.billing.record import Do, Refusals, code_of
from avocado.billing.rounding import spread, unit_of
from avocado.billing.tax import Sale
from avocado.errors import Refused
from avocado.ledger.operation import File
from avocado.terms.money import minor_digits

if TYPE_CHECKING:
    from avocado.ledger.reader import Document, Reader
    from avocado.ledger.rows import Customer


@dataclass(frozen=True, slots=True)
class Draft:
    """All that the ledger says of a period: what is used, how it is paid, where the account stands.

    Entries with ``start`` < seq ≤ ``until``.
    """

    customer: Customer
    month: str
    start: int
    until: int
    before: Account
    drawn: Invoice
    moved: Movement
    result: Settlement
    buyer: Buyer
    language: str

    @property
    def empty(self) -> bool:
        """Nothing to put on an invoice."""
        return not (self.drawn.lines or self.drawn.others or self.result.net_minor)


class Closing:
    """Closes months by one reader. Keep it for many customers: it remembers prices and cuts."""

    def __init__(self, reader: Reader, issuer: Issuer, now: int) -> None:
        """``now`` in ns: months that are not over by then are not closed."""
        self.reader = reader
        self.issuer = issuer
        self.now = now
        self._sheets = Sheets(reader)
        self._cuts: dict[str, int] = {}

    def due(self, tenant: str, month: str) -> list[str]:
        """The months up to ``month`` that have no invoice yet, in order; none after one that has.

        Raises:
            UnknownCustomer: there is no such customer.
        """
        customer = self.reader.customer(tenant)
        last = last_month(self.reader, tenant)
        first = month_at(customer.opened) if last is None else month_after(last)
        return list(between(first, month))

    def draft(self, tenant: str, month: str) -> Draft:
        """Reads a month that follows the customer's last invoice, at one moment of the book.

        Raises:
            Refused: the account does not add up to the ledger's wallet: the book is damaged.
        """
        with self.reader.snapshot():
            return self._draft(tenant, month)

    def _draft(self, tenant: str, month: str) -> Draft:
        reader = self.reader
        customer = reader.customer(tenant)
        last = last_invoice(reader, tenant)
        start, before = (0, Account()) if last is None else (last.until_seq, account_after(last))
        until = max(month_cut(reader, month, self._cuts), start)
        moved = movement(reader, tenant, start, until)
        charges = reader.charges_between(tenant, start, until)
        since, ended = month_start(month), end(month)
        drawn = draw_up(tenant, customer.currency, charges, self._sheets, since, ended, moved)
        unit = unit_of(customer.currency)
        result = settle(before, drawn.charged, drawn.granted, moved, unit)
        self._check(tenant, until, result.after)
        buyer, language = buyer_and_language(reader, customer)
        return Draft(customer, month, start, until, before, drawn, moved, result, buyer, language)

    def _check(self, tenant: str, until: int, after: Account) -> None:
        """Holds the account against the ledger's wallet, less what came after the cut."""
        later = movement(self.reader, tenant, until, self.reader.head()[0]).wallet
        later -= sum(
            charge.charge - charge.granted for charge in self.reader.charges_between(tenant, until)
        )
        wallet = wallet_now(self.reader, tenant)
        if after.wallet + later != wallet:
            raise Refused(
                f"the account of {tenant} is {after.wallet + later} nano-units by its entries and "
                f"{wallet} in the ledger: no invoice is made of it; see avocado verify --deep"
            )

    def document(self, draft: Draft) -> InvoiceDocument:
        """The invoice, taxed.

        Raises:
            Refused: no seller is named, or the tax cannot be decided.
        """
        seller = self.issuer.named()
        sale = sale_of(seller, draft)
        taxes = decide(self.issuer, sale)
        return lay_down(draft, seller, taxes, self.issuer.due_days, day_at(self.now))


def account_after(invoice: InvoiceDocument) -> Account:
    """Where the customer stood when this invoice was cut."""
    return Account(invoice.prepaid_after, invoice.debt_after, invoice.carried_out)


def sale_of(seller: Seller, draft: Draft) -> Sale:
    currency = draft.customer.currency
    return Sale(
        seller,
        draft.buyer,
        days(draft.month)[1],
        currency,
        minor_digits(currency),
        draft.result.net_minor,
        month_id(draft.customer.tenant, draft.month),
    )


def decide(issuer: Issuer, sale: Sale) -> tuple[TaxSum, ...]:
    """The taxes of a sale. Where nothing is to be paid, nothing need be known either."""
    try:
        return issuer.taxes.decide(sale)
    except Refused:
        if sale.net_minor:
            raise
        return ()


def lay_down(
    draft: Draft, seller: Seller, taxes: tuple[TaxSum, ...], due_days: int, issued: str
) -> InvoiceDocument:
    """A draft as the document that is filed. Pure."""
    result, moved, drawn = draft.result, draft.moved, draft.drawn
    currency = draft.customer.currency
    lines = document_lines(drawn)
    parts = [line.nanos for line in lines] + [-result.granted, -result.prepaid]
    coins = spread(parts, result.net_minor, unit_of(currency))
    gross = result.net_minor + sum(tax.amount_minor for tax in taxes)
    first, last = days(draft.month)
    return InvoiceDocument(
        type="usage",
        series=seller.invoice_series,
        seller=seller,
        buyer=draft.buyer,
        language=draft.language,
        currency=currency,
        digits=minor_digits(currency),
        issued=issued,
        due=later_day(issued, due_days),
        due_days=due_days,
        period_start=first,
        period_end=last,
        after_seq=draft.start,
        until_seq=draft.until,
        lines=tuple(_priced(line, coin) for line, coin in zip(lines, coins, strict=False)),
        requests=drawn.requests,
        total_nanos=result.total,
        granted_nanos=result.granted,
        prepaid_nanos=result.prepaid,
        on_credit_nanos=result.on_credit,
        granted_minor=-coins[-2],
        prepaid_minor=-coins[-1],
        carried_in=draft.before.carried,
        carried_out=result.after.carried,
        net_minor=result.net_minor,
        taxes=taxes,
        gross_minor=gross,
        due_minor=gross,
        prepaid_before=draft.before.prepaid,
        prepaid_after=result.after.prepaid,
        debt_before=draft.before.debt,
        debt_after=result.after.debt,
        deposited=moved.deposited,
        adjusted=moved.adjusted,
        settled=moved.settled,
        credited=moved.credited,
    )


def document_lines(drawn: Invoice) -> list[DocumentLine]:
    """The lines of a period, without their coins."""
    lines = [
        DocumentLine(
            id=line.id,
            kind="usage",
            nanos=line.nanos,
            minor=0,
            offer=line.offer,
            release=line.release,
            price_version=line.price_version,
            token_kind=line.kind,
            requests=line.requests,
            tokens=line.tokens,
            price=line.price,
        )
        for line in drawn.lines
    ]
    lines += [
        DocumentLine(
            id=other.id,
            kind=other.kind,
            nanos=other.nanos,
            minor=0,
            offer=other.offer,
            release=other.release,
            price_version=other.price_version,
            item=other.item,
            text=other.reason,
            requests=other.count,
        )
        for other in drawn.others
    ]
    return lines


def _priced(line: DocumentLine, coins: int) -> DocumentLine:
    return replace(line, minor=coins)


def filing(draft: Draft, invoice: InvoiceDocument, actor: str) -> File:
    """The operation that puts an invoice on record and gives it its number."""
    return File(
        id=month_id(draft.customer.tenant, draft.month),
        kind=INVOICE,
        tenant=draft.customer.tenant,
        content=content_of(invoice),
        series=invoice.series,
        actor=actor,
    )


def check_over(month: str, now: int) -> None:
    """Raises Refused for a month that is not over, UTC."""
    if end(month) > now:
        raise Refused(
            f"{month} is not over (UTC): its invoices can be closed from {month_after(month)}-01 "
            "on; until then look at one with: avocado invoice CUSTOMER"
        )


def close_period(
    reader: Reader, do: Do, issuer: Issuer, tenant: str, month: str, now: int, actor: str = ""
) -> Document | None:
    """Closes a customer's months up to ``month`` (``2026-10``) and returns its invoice: the one on
    record if it was closed before, None if nothing in it is to be invoiced.

    Raises:
        Refused: the month is not over, no seller is named, or the tax cannot be decided.
        UnknownCustomer: there is no such customer.
    """
    check_over(month, now)
    closing = Closing(reader, issuer, now)
    for each in closing.due(tenant, month):
        draft = closing.draft(tenant, each)
        if not draft.empty:
            file_once(do, filing(draft, closing.document(draft), actor))
    return reader.document(month_id(tenant, month))


def file_once(do: Do, operation: File) -> bool:
    """Files a document; False if another process did so first, perhaps on another day."""
    try:
        return not do(operation).replayed
    except Refusals as error:
        if code_of(error) == "document_conflict":
            return False
        raise
