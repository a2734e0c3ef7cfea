"""What invoices read of the ledger: price sheets, cuts of the journal, what a posting was.

A period is cut by the journal's sequence. The clock decides only where a month's cut falls: before
the first entry of the next month. Were the clock ever set back there are several such places; any
of them is good, because the next period begins where this one ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from avocado.billing.invoices import CREDIT_NOTE, INVOICE, Buyer, InvoiceDocument, month_id
from avocado.billing.months import end
from avocado.billing.period import Movement, Sold, fold
from avocado.billing.profile import Profile, profile_of
from avocado.errors import Refused
from avocado.ledger import entry as e
from avocado.terms.price import PriceSheet

if TYPE_CHECKING:
    from avocado.ledger.reader import Document, Reader, Record
    from avocado.ledger.rows import Customer


class Sheets(dict[str, PriceSheet]):
    """Price sheets by version, read when they are first asked for."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self._reader = reader

    def __missing__(self, version: str) -> PriceSheet:
        for (terms,) in self._reader.rows("SELECT terms FROM price WHERE version = ?", (version,)):
            self[version] = PriceSheet(**json.loads(terms))
            return self[version]
        raise KeyError(version)


def cut(reader: Reader, before: int) -> int:
    """The sequence of a last entry before the time ``before`` (ns): all later than it if the clock
    never went back. 0 if even the first entry is later. A few look-ups by key."""
    low, high = 0, reader.head()[0] + 1  # low is before the time (0 always), high is not
    while high - low > 1:
        middle = (low + high) // 2
        if _at(reader, middle) < before:
            low = middle
        else:
            high = middle
    return low


def _at(reader: Reader, seq: int) -> int:
    return int(next(iter(reader.rows("SELECT at FROM journal WHERE seq = ?", (seq,))))[0])


def posting(reader: Reader, id_: str) -> Record | None:
    """The journal entry of a deposit, grant, fee or adjustment, by its id."""
    for (seq,) in reader.rows("SELECT seq FROM posting WHERE id = ?", (id_,)):
        return reader.entry(int(seq))
    return None


def sold_of(reader: Reader) -> Callable[[str], Sold]:
    """Says what a refund's ``of`` was."""

    def find(of: str) -> Sold:
        hold = reader.hold(of)
        if hold is not None:
            return Sold(hold.offer, hold.release, hold.price_version)
        found = posting(reader, of)
        if found is not None and isinstance(found.entry, e.Billed):
            return Sold(item=found.entry.item)
        paid = found is not None and isinstance(found.entry, e.Deposited) and found.entry.pays
        return Sold(pays=bool(paid))

    return find


def movement(reader: Reader, tenant: str, start: int, until: int) -> Movement:
    """What moved a customer's wallet besides requests, ``start`` < seq ≤ ``until``."""
    return fold(reader.postings(tenant, start, until), sold_of(reader))


def wallet_now(reader: Reader, tenant: str) -> int:
    """A customer's wallet, with what open holds have taken out of it, in nano-units."""
    balance = reader.balance(tenant)
    if not balance.held:
        return balance.wallet
    mine = [hold for hold in reader.open_holds() if hold.tenant == tenant]
    wallet = f"wallet:{tenant}"
    parts = [part for hold in mine for part in hold.sources()]
    return balance.wallet + sum(amount for name, amount in parts if name == wallet)


def last_month(reader: Reader, tenant: str) -> str | None:
    """The month of the monthly invoice that was filed last, whatever the clock says now."""
    sql = (
        "SELECT id FROM document WHERE tenant = ? AND kind = ? AND id NOT LIKE ?"
        " ORDER BY filed DESC LIMIT 1"
    )
    for (id_,) in reader.rows(sql, (tenant, INVOICE, f"invoice/{tenant}/topup/%")):
        return str(id_).rpartition("/")[2]
    return None


def last_invoice(reader: Reader, tenant: str) -> InvoiceDocument | None:
    """A customer's last monthly invoice."""
    month = last_month(reader, tenant)
    found = None if month is None else reader.document(month_id(tenant, month))
    return None if found is None else msgspec.convert(found.content, InvoiceDocument)


def month_cut(reader: Reader, month: str, cuts: dict[str, int]) -> int:
    """:func:`cut` at the end of a month; ``cuts`` remembers it while many invoices are closed."""
    if month not in cuts:
        cuts[month] = cut(reader, end(month))
    return cuts[month]


def buyer_of(customer: Customer, profile: Profile) -> Buyer:
    """The buyer as an invoice of today names it."""
    fields = {name: getattr(profile, name) for name in _SHARED}
    return Buyer(tenant=customer.tenant, name=profile.company or customer.name, **fields)


_SHARED = tuple(set(Buyer.__struct_fields__) & set(Profile.__struct_fields__))


def buyer_and_language(reader: Reader, customer: Customer) -> tuple[Buyer, str]:
    profile = profile_of(reader, customer.tenant)
    return buyer_of(customer, profile), profile.language


def read_invoice(reader: Reader, id_: str) -> tuple[Document, InvoiceDocument] | None:
    """An invoice on record, by document id."""
    found = reader.document(id_)
    if found is None or found.kind != INVOICE:
        return None
    return found, msgspec.convert(found.content, InvoiceDocument)


def find_document(reader: Reader, text: str) -> Document:
    """An invoice or credit note, by document id or by number (``AV-2026-000123``).

    Raises:
        Refused: there is none.
    """
    found = reader.document(text)
    series, _, number = text.rpartition("-")
    if found is None and number.isascii() and number.isdigit() and len(number) < 16:
        sql = "SELECT id FROM document WHERE series = ? AND number = ?"
        for (id_,) in reader.rows(sql, (series, int(number))):
            found = reader.document(str(id_))
    if found is None or found.kind not in (INVOICE, CREDIT_NOTE):
        raise Refused(f"there is no invoice {text!r}: see avocado invoices list")
    return found
