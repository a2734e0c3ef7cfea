"""Repayments: money that goes back to a customer because an invoice was paid and then credited.

The bank's transfer is a person's to make; here it is put on record, as refunds of the payments, so
that the credit leaves the wallet and its tax the account of taxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from avocado.billing.books import posting
from avocado.billing.invoices import shown_number
from avocado.billing.payment import CRUMBS, net_back
from avocado.billing.receivables import Receivable, receivable
from avocado.billing.record import Do, Refusals, code_of
from avocado.billing.rounding import decimal, unit_of
from avocado.errors import Refused
from avocado.ledger import entry as e
from avocado.ledger.operation import Refund

if TYPE_CHECKING:
    from avocado.ledger.reader import Document, Reader


@dataclass(frozen=True, slots=True)
class _Paid:
    """A payment of an invoice, in nano-units; ``returned`` of its net went back before."""

    id: str
    net: int
    tax: int
    returned: int


def pay_back(
    reader: Reader, do: Do, document: Document, gross_minor: int | None, reference: str
) -> Receivable:
    """Records that ``gross_minor`` coins, tax included, went back of what an invoice was paid too
    much; all of that if left out. The newest payment goes back first.

    The same ``reference`` for the same invoice again changes nothing, and makes up what an
    interrupted one left if the amount is named.

    Raises:
        Refused: no reference is given, the customer has paid no more than it owes, or the credit
            was used since.
    """
    if not reference.strip():
        raise Refused("a repayment needs a reference that names it, such as the bank's line")
    now, number = receivable(reader, document), shown_number(document)
    unit = unit_of(now.invoice.currency)
    paid = list(_payments(reader, document))
    done = sum(_went(reader, _id(document, reference, each.id)) for each in paid)
    if done and gross_minor is None:
        return now
    surplus = max(-now.due_minor, 0)
    coins = surplus if gross_minor is None else gross_minor
    owed = coins * unit - done
    if coins <= 0 or owed > surplus * unit + CRUMBS:
        over = decimal(surplus, now.invoice.digits)
        raise Refused(
            f"of {number} {over} {now.invoice.currency} are to be paid back: at most that"
        )
    for each in reversed(paid):
        back = net_back(each.net, each.tax, each.returned, owed)
        if owed <= CRUMBS:
            break
        if back <= 0:
            continue
        id_ = _id(document, reference, each.id)
        if _went(reader, id_):
            continue
        try:
            do(Refund(id=id_, of=each.id, reason=reference, amount=back))
        except Refusals as error:
            if code_of(error) != "nothing_to_refund":
                raise
            raise Refused(
                f"what was paid for {number} was used since, up to the customer's credit limit: it "
                f"can be paid back when later invoices are paid ({error})"
            ) from error
        owed -= _went(reader, id_)
    return receivable(reader, document)


def _id(document: Document, reference: str, deposit: str) -> str:
    key = f"{document.id} {reference} {deposit}"
    return f"back_{sha256(key.encode()).hexdigest()[:24]}"


def _went(reader: Reader, id_: str) -> int:
    """What a refund gave back, tax included; 0 if there is none."""
    record = posting(reader, id_)
    if record is None or not isinstance(record.entry, e.Refunded):
        return 0
    return record.entry.amount + record.entry.tax


def _payments(reader: Reader, document: Document) -> Iterator[_Paid]:
    for record in reader.postings(document.tenant, document.seq):
        entry = record.entry
        if isinstance(entry, e.Deposited) and entry.pays == document.id:
            sql = "SELECT refunded FROM posting WHERE id = ?"
            returned = int(next(iter(reader.rows(sql, (entry.id,))))[0])
            yield _Paid(entry.id, entry.amount, entry.tax, returned)
