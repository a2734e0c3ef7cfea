"""Invoices of prepaid credit: taxed and paid when it is bought, one for each deposit.

A checkout asks ``quote_topup`` what to charge on top; the payment becomes ``Deposit(amount, tax)``
in the ledger, and ``issue_topup_invoice`` makes its invoice, once.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from avocado.billing.books import buyer_and_language, posting
from avocado.billing.closing import file_once
from avocado.billing.invoices import (
    INVOICE,
    DocumentLine,
    InvoiceDocument,
    TaxSum,
    content_of,
    invoice_from,
)
from avocado.billing.issuer import Issuer
from avocado.billing.months import day_at
from avocado.billing.payment import CRUMBS, came_back
from avocado.billing.payment import deposit_id as paid_as
from avocado.billing.record import Do
from avocado.billing.rounding import decimal, nearest, unit_of
from avocado.billing.tax import Sale
from avocado.errors import Refused
from avocado.ledger.entry import Deposited
from avocado.ledger.operation import File
from avocado.terms.money import minor_digits

if TYPE_CHECKING:
    from avocado.ledger.reader import Document, Reader, Record

_LONG: Final = 80


def topup_id(tenant: str, deposit_id: str) -> str:
    """The document id of a deposit's invoice. A long deposit id is shortened to a hash."""
    if len(deposit_id) > _LONG:
        deposit_id = sha256(deposit_id.encode()).hexdigest()[:32]
    return f"invoice/{tenant}/topup/{deposit_id}"


def quote_topup(
    reader: Reader, issuer: Issuer, tenant: str, net_minor: int, day: str
) -> tuple[TaxSum, ...]:
    """The taxes on ``net_minor`` coins of prepaid credit bought on ``day`` (ISO).

    Raises:
        Refused: no seller is named, or the tax cannot be decided.
        UnknownCustomer: there is no such customer.
    """
    customer = reader.customer(tenant)
    buyer, _ = buyer_and_language(reader, customer)
    digits = minor_digits(customer.currency)
    sale = Sale(issuer.named(), buyer, day, customer.currency, digits, net_minor, f"topup/{tenant}")
    return issuer.taxes.decide(sale)


def issue_topup_invoice(
    reader: Reader,
    do: Do,
    issuer: Issuer,
    tenant: str,
    deposit_id: str,
    now: int,
    taxes: tuple[TaxSum, ...] | None = None,
    actor: str = "",
) -> Document:
    """The invoice of a deposit: the one on record, or a new one of the day ``now`` (ns).

    ``taxes`` are those of the quote that was paid; left out, they are decided for the day of the
    deposit, and have to come to the tax that came with it.

    Raises:
        Refused: there is no such deposit of this customer, it pays an invoice, it is no whole
            number of coins, its tax is not that of ``taxes``, or no seller is named.
    """
    id_ = topup_id(tenant, deposit_id)
    if (found := reader.document(id_)) is not None:
        return found
    record, entry = _deposit(reader, tenant, deposit_id)
    net, tax = _coins(entry)
    if taxes is None:
        taxes = _of_payment(reader, entry, net, tax)
    if taxes is None:
        taxes = quote_topup(reader, issuer, tenant, net, day_at(record.at))
    quoted = sum(each.base_minor for each in taxes), sum(each.amount_minor for each in taxes)
    if quoted != (net, tax):
        digits = minor_digits(entry.currency)
        shown = [decimal(coins, digits) for coins in (net, tax, *quoted)]
        raise Refused(
            f"deposit {deposit_id} brought {shown[0]} and tax of {shown[1]} {entry.currency}, but "
            f"the tax on {shown[2]} is {shown[3]}: its invoice would not be what was paid. If it "
            f"was entered without its tax, take it back (avocado ledger refund {deposit_id}) and "
            f"enter it so: avocado invoices topup {tenant} --gross AMOUNT --reference TEXT"
        )
    invoice = _lay_down(reader, issuer, record, entry, taxes, day_at(now))
    file_once(
        do,
        File(
            id=id_,
            kind=INVOICE,
            tenant=tenant,
            content=content_of(invoice),
            series=invoice.series,
            actor=actor,
        ),
    )
    found = reader.document(id_)
    assert found is not None
    return found


def _deposit(reader: Reader, tenant: str, deposit_id: str) -> tuple[Record, Deposited]:
    record = posting(reader, deposit_id)
    if record is None or not isinstance(record.entry, Deposited) or record.entry.tenant != tenant:
        raise Refused(f"{tenant} has no deposit {deposit_id!r}")
    if record.entry.pays:
        raise Refused(f"deposit {deposit_id} pays {record.entry.pays}: it buys no credit")
    return record, record.entry


def _coins(entry: Deposited) -> tuple[int, int]:
    """(net, tax) of a deposit. Raises Refused for parts of a coin, which nobody can pay. Of a
    refund whose money came back only the sum is whole (``payment.net_back``)."""
    unit = unit_of(entry.currency)
    gross, rest = nearest(entry.amount + entry.tax, unit)
    net = nearest(entry.amount, unit)[0]
    parts = entry.amount % unit or entry.tax % unit
    crumbs = CRUMBS if entry.reference.endswith(came_back("")) else 0
    if abs(rest) > crumbs or (parts and not crumbs):
        raise Refused(f"deposit {entry.id} is no whole number of coins: it has no invoice")
    return net, gross - net


def _of_payment(reader: Reader, entry: Deposited, net: int, tax: int) -> tuple[TaxSum, ...] | None:
    """The tax of a refund whose money came back: as its payment was taxed. None for any other
    deposit, and where there were several rates."""
    payment = entry.reference.removesuffix(came_back(""))
    if payment == entry.reference:
        return None
    document = reader.document(topup_id(entry.tenant, paid_as(payment)))
    taxes = () if document is None else invoice_from(document).taxes
    if len(taxes) != 1:
        return None
    return (replace(taxes[0], base_minor=net, amount_minor=tax),)


def _lay_down(
    reader: Reader,
    issuer: Issuer,
    record: Record,
    entry: Deposited,
    taxes: tuple[TaxSum, ...],
    issued: str,
) -> InvoiceDocument:
    seller = issuer.named()
    buyer, language = buyer_and_language(reader, reader.customer(entry.tenant))
    net, tax = _coins(entry)
    nanos = net * unit_of(entry.currency)
    line = DocumentLine("topup", "top-up", nanos, net, item=entry.id, text=entry.reference)
    return InvoiceDocument(
        type="top-up",
        series=seller.invoice_series,
        seller=seller,
        buyer=buyer,
        language=language,
        currency=entry.currency,
        digits=minor_digits(entry.currency),
        issued=issued,
        due=issued,
        due_days=0,
        period_start=day_at(record.at),
        period_end=day_at(record.at),
        after_seq=record.seq - 1,
        until_seq=record.seq,
        lines=(line,),
        total_nanos=nanos,
        net_minor=net,
        taxes=taxes,
        gross_minor=net + tax,
        paid_minor=net + tax,
        due_minor=0,
        reference=entry.reference,
    )
