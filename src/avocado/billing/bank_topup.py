"""Prepaid credit that was paid by bank transfer, or any way that no provider tells us of: a person
saw the money and enters it. The deposit brings its tax, and gets its invoice at once.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING

from avocado.billing.books import posting
from avocado.billing.issuer import Issuer
from avocado.billing.months import day_at
from avocado.billing.record import Do
from avocado.billing.rounding import decimal, unit_of
from avocado.billing.topups import issue_topup_invoice, quote_topup
from avocado.errors import Refused
from avocado.ledger.entry import Deposited
from avocado.ledger.operation import Deposit
from avocado.terms.money import minor_digits

if TYPE_CHECKING:
    from avocado.ledger.reader import Document, Reader


def record_topup(
    reader: Reader,
    do: Do,
    issuer: Issuer,
    tenant: str,
    net_minor: int,
    reference: str,
    now: int,
    actor: str = "",
) -> Document:
    """A deposit of ``net_minor`` coins with their tax, and its invoice. The same ``reference`` (the
    bank's) of the same customer again changes nothing.

    Raises:
        Refused: nothing is bought, no reference is given, the reference was used for another
            amount, no seller is named, or the tax cannot be decided.
        UnknownCustomer: there is no such customer.
    """
    currency = reader.customer(tenant).currency
    if net_minor <= 0:
        raise Refused("a top-up is above zero")
    if not reference.strip():
        raise Refused("a top-up needs a reference that names the payment, such as the bank's line")
    id_ = deposit_of(tenant, reference)
    known = posting(reader, id_)
    if known is not None:
        assert isinstance(known.entry, Deposited)
        before = known.entry.amount // unit_of(currency)
        if before != net_minor:
            shown = decimal(before, minor_digits(currency))
            raise Refused(
                f"{reference!r} is a top-up of {tenant} of {shown} {currency} net already: give "
                "another payment another reference"
            )
        return issue_topup_invoice(reader, do, issuer, tenant, id_, now, actor=actor)
    taxes = quote_topup(reader, issuer, tenant, net_minor, day_at(now))
    unit, tax = unit_of(currency), sum(each.amount_minor for each in taxes)
    do(
        Deposit(
            id=id_,
            tenant=tenant,
            amount=net_minor * unit,
            currency=currency,
            reference=reference,
            tax=tax * unit,
        )
    )
    return issue_topup_invoice(reader, do, issuer, tenant, id_, now, taxes, actor)


def deposit_of(tenant: str, reference: str) -> str:
    """The deposit's id: the same reference of the same customer is the same payment."""
    return f"bank_{sha256(f'{tenant} {reference}'.encode()).hexdigest()[:24]}"


def net_of_gross(reader: Reader, issuer: Issuer, tenant: str, gross_minor: int, day: str) -> int:
    """The net that comes to ``gross_minor`` coins with the taxes of ``day`` (ISO).

    Raises:
        Refused: as :func:`quote_topup`; or no net does: at 19 % nothing comes to 1.00 + 0.20.
    """
    currency = reader.customer(tenant).currency
    if gross_minor <= 0:
        raise Refused("a top-up is above zero")

    def gross(net: int) -> int:
        taxes = quote_topup(reader, issuer, tenant, net, day)
        return net + sum(each.amount_minor for each in taxes)

    try:
        return net_of(gross, gross_minor)
    except Gap as gap:
        digits = minor_digits(currency)
        around = " or ".join(
            f"{decimal(total, digits)} ({decimal(net, digits)} net)" for net, total in gap.around
        )
        raise Refused(
            f"no net amount comes to {decimal(gross_minor, digits)} {currency} with its tax, "
            f"because both are whole coins: enter {around}"
        ) from None


class Gap(Exception):
    """No net comes to a gross; ``around`` are the (net, gross) below and above."""

    def __init__(self, *around: tuple[int, int]) -> None:
        self.around = around


def net_of(gross: Callable[[int], int], wanted: int) -> int:
    """The net whose ``gross`` is ``wanted``, in coins; ``gross`` grows with the net. It is asked a
    few times only, because asking may cost money.

    Raises:
        Gap: there is none.
    """
    net = wanted * wanted // max(gross(wanted), 1)
    total = gross(net)
    while total > wanted:
        net, total = net - 1, gross(net - 1)
    while total < wanted:
        above = gross(net + 1)
        if above > wanted:
            raise Gap((net, total), (net + 1, above))
        net, total = net + 1, above
    return net
