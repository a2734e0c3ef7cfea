"""InvoiceDocument and CreditNoteDocument: what the ledger holds of an invoice, for good.

``closing`` makes them, ``topups`` and ``credit_notes`` too; PDF, e-invoice, console and CSV read
them. A document on record never changes: it names seller and buyer as they were that day. Its
number is not in it, because the ledger gives the number in the transaction that files it.

Amounts: ``*_nanos`` are exact, 10⁻⁹ of the currency's unit. ``*_minor`` are what is written on
paper, in the currency's smallest coin (``digits`` decimals), each split by largest remainder so
that everything adds up with no rounding row:

    Σ line.minor − granted_minor − prepaid_minor = net_minor
    Σ tax.base_minor = net_minor
    net_minor + Σ tax.amount_minor = gross_minor;  gross_minor − paid_minor = due_minor

and exactly, of a usage invoice:

    Σ line.nanos = total_nanos = granted_nanos + prepaid_nanos + on_credit_nanos
    on_credit_nanos + carried_in = net_minor in nano-units + carried_out
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

if TYPE_CHECKING:
    from avocado.ledger.reader import Document

INVOICE: Final = "invoice"
CREDIT_NOTE: Final = "credit-note"
"""Kinds of documents."""

LineKind = Literal["usage", "fee", "refund", "top-up", "credit"]
Category = Literal["S", "Z", "E", "AE", "O"]
"""UNTDID 5305 as EN 16931 uses it: standard rate, zero rate, exempt, reverse charge, outside."""


class Seller(msgspec.Struct, frozen=True):
    """Who sells. The fields are those of ``[seller]`` in avocado.toml."""

    name: str
    address: tuple[str, ...]
    postcode: str
    city: str
    country: str
    vat_id: str | None = None
    tax_number: str | None = None
    email: str | None = None
    phone: str | None = None
    iban: str | None = None
    bic: str | None = None
    invoice_series: str = "INV"
    register: str | None = None


class Buyer(msgspec.Struct, frozen=True):
    """Who bought, from the customer's profile on the day of issue."""

    tenant: str
    name: str
    contact: str = ""
    address: tuple[str, ...] = ()
    postcode: str = ""
    city: str = ""
    region: str = ""
    country: str = ""
    vat_id: str | None = None
    email: str = ""
    reference: str = ""
    """BT-10: a purchase order or Leitweg-ID."""
    e_invoice: str = "none"


class DocumentLine(msgspec.Struct, frozen=True):
    """One line. ``nanos`` is exact, ``minor`` its part of what is written on paper; both are
    negative in a refund.

    - ``usage``: ``requests`` used ``tokens`` of ``token_kind`` (prompt, cached, completion,
      reasoning) at ``price`` nano-units a million; price 0 where an allowance covered them.
    - ``fee``: ``item`` such as ``plan:pro@3``; ``text`` is its reason.
    - ``refund``: of earlier usage (offer, release, price version) or of a fee (``item``);
      ``requests`` counts refunds, ``text`` is the reason.
    - ``top-up``: prepaid credit; ``item`` is the deposit's id.
    - ``credit``: of a credit note; the rest names what is credited, ``text`` why.
    """

    id: str
    kind: LineKind
    nanos: int
    minor: int
    offer: str = ""
    release: str = ""
    price_version: str = ""
    token_kind: str = ""
    item: str = ""
    text: str = ""
    requests: int = 0
    tokens: int = 0
    price: int = 0


class TaxSum(msgspec.Struct, frozen=True):
    """Tax at one rate on ``base_minor``. ``rate`` is in millionths: 190_000 is 19 %.

    ``code`` says why, for texts in the reader's language: ``standard``, ``reverse-charge``
    (Art. 196 Directive 2006/112/EC), ``export`` (not taxable here: the customer is established
    elsewhere), ``destination`` (rate of the consumer's country, Art. 58), ``exempt`` (``note`` says
    by which rule), ``none`` (no tax is set up) or ``stripe``. ``note`` is the operator's or the
    provider's own text, shown as it is.
    """

    rate: int
    category: Category
    base_minor: int
    amount_minor: int
    code: str
    country: str = ""
    """Whose tax it is, ISO 3166."""
    name: str = "VAT"
    note: str = ""


class InvoiceDocument(msgspec.Struct, frozen=True, kw_only=True):
    """``invoice/<tenant>/<YYYY-MM>``, or ``invoice/<tenant>/topup/<deposit>`` for prepaid credit.

    Dates are ISO texts, UTC. ``period_end`` is the last day. It covers the journal entries with
    ``after_seq`` < seq ≤ ``until_seq``; a top-up covers its deposit alone.

    The account in nano-units: ``prepaid_after`` = ``prepaid_before`` + ``deposited`` + ``adjusted``
    − ``prepaid_nanos``; ``debt_after`` = ``debt_before`` + ``on_credit_nanos`` − ``settled`` −
    ``credited``; wallet = prepaid − debt. ``prepaid_nanos`` is negative where refunds or
    corrections gave more back than was used.
    """

    type: Literal["usage", "top-up"]
    series: str
    seller: Seller
    buyer: Buyer
    language: str
    currency: str
    digits: int
    issued: str
    due: str
    due_days: int
    period_start: str
    period_end: str
    after_seq: int
    until_seq: int

    lines: tuple[DocumentLine, ...]
    requests: int = 0
    total_nanos: int
    granted_nanos: int = 0
    prepaid_nanos: int = 0
    on_credit_nanos: int = 0
    granted_minor: int = 0
    prepaid_minor: int = 0
    carried_in: int = 0
    carried_out: int = 0

    net_minor: int
    taxes: tuple[TaxSum, ...] = ()
    gross_minor: int
    paid_minor: int = 0
    """Paid when it was issued: all of a top-up. Later payments are deposits that name it."""
    due_minor: int

    prepaid_before: int = 0
    prepaid_after: int = 0
    debt_before: int = 0
    debt_after: int = 0
    deposited: int = 0
    """Top-ups less those that were paid back, without tax."""
    adjusted: int = 0
    settled: int = 0
    """What payments of invoices brought, without tax."""
    credited: int = 0
    """What credit notes gave back."""

    reference: str = ""
    """How a top-up was paid."""
    notes: tuple[str, ...] = ()


class CreditNoteDocument(msgspec.Struct, frozen=True, kw_only=True):
    """``credit-note/<invoice id>/<n>``: takes ``net_minor`` and its tax off an invoice.

    All amounts are positive, as EN 16931 wants of type 381. Σ line.minor = net_minor;
    net_minor + Σ tax.amount_minor = gross_minor.
    """

    series: str
    invoice: str
    """The document id of the invoice."""
    invoice_number: str
    invoice_issued: str
    seller: Seller
    buyer: Buyer
    language: str
    currency: str
    digits: int
    issued: str
    reason: str
    lines: tuple[DocumentLine, ...]
    net_minor: int
    taxes: tuple[TaxSum, ...]
    gross_minor: int
    refund: str = ""
    """Of a top-up: the id of the ledger's refund of the deposit."""
    notes: tuple[str, ...] = ()


def month_id(tenant: str, month: str) -> str:
    """The document id of a customer's invoice for a month such as ``2026-10``."""
    return f"invoice/{tenant}/{month}"


def invoice_from(document: Document) -> InvoiceDocument:
    """The invoice in a document of kind ``invoice``."""
    return msgspec.convert(document.content, InvoiceDocument)


def credit_note_from(document: Document) -> CreditNoteDocument:
    """The credit note in a document of kind ``credit-note``."""
    return msgspec.convert(document.content, CreditNoteDocument)


def content_of(value: InvoiceDocument | CreditNoteDocument) -> dict[str, Any]:
    """As it is filed."""
    content: dict[str, Any] = msgspec.to_builtins(value)
    return content


def shown_number(document: Document) -> str:
    """How the number stands on paper: ``AV-2026-000123``."""
    return numbered(document.series or "", document.number or 0)


def numbered(series: str, number: int) -> str:
    return f"{series}-{number:06d}"
