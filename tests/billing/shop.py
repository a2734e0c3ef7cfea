"""A shop with an open ledger on a manual clock: histories to invoice, and what the journal says."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from avocado.billing.closing import close_period
from avocado.billing.credit_notes import issue_credit_note
from avocado.billing.invoices import InvoiceDocument, Seller, invoice_from
from avocado.billing.issuer import Issuer
from avocado.billing.tax import NoTaxes, Taxes
from avocado.billing.tax_table import read_table
from avocado.ledger import entry as e
from avocado.ledger import operation as o
from avocado.ledger.clock import ManualClock
from avocado.ledger.ledger import open_ledger
from avocado.ledger.reader import Document, Reader, open_reader
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage

DAY = 86_400 * 10**9
SELLER = Seller(
    "Avocado GmbH",
    ("Hafenstr. 1",),
    "20457",
    "Hamburg",
    "DE",
    vat_id="DE136695976",
    iban="DE89370400440532013000",
    invoice_series="AV-2026",
)
SHEETS = (
    PriceSheet(200_000_000, 800_000_000, currency="EUR", cached=50_000_000),
    PriceSheet(333, 1_000_001, currency="EUR", reasoning=999, batch=500_000),
    PriceSheet(900_000_000_007, 3_300_000_000_001, currency="EUR", tiers=((2_000, 900_000),)),
)


def moment(day: str) -> int:
    """The first nanosecond of a day, UTC."""
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 10**9


class Shop:
    """One seller. Amounts are nano-units of EUR."""

    def __init__(self, target: Path | str, begins: str = "2026-09-03", taxes: Taxes | None = None):
        self.target = target
        self.clock = ManualClock(moment(begins))
        self.ledger = open_ledger(target, self.clock)
        self.issuer = Issuer(SELLER, taxes or NoTaxes(), 14)
        self.numbers = itertools.count(1)
        self.reader = open_reader(target)
        for sheet in SHEETS:
            self.do(o.PublishPrice(terms=sheet.terms()))

    def do(self, operation: o.AnyOperation) -> Any:
        return self.ledger.do_now(operation)

    def open(self, tenant: str = "acme", credit_limit: int = 0) -> None:
        self.do(
            o.OpenCustomer(
                tenant=tenant, name=f"{tenant} Ltd", currency="EUR", credit_limit=credit_limit
            )
        )

    def hold(self, tenant: str = "acme", sheet: int = 0, **changes: Any) -> str:
        id_ = f"req-{next(self.numbers)}"
        terms: dict[str, Any] = {
            "offer": "avocado-1",
            "release": f"release-{sheet}",
            "price_version": SHEETS[sheet].version,
            "prompt_tokens": 5_000,
            "max_tokens": 5_000,
        }
        self.do(o.Hold(id=id_, tenant=tenant, **(terms | changes)))
        return id_

    def use(
        self, tenant: str = "acme", sheet: int = 0, usage: Usage | None = None, **changes: Any
    ) -> str:
        """A request of one customer; returns its id."""
        id_ = self.hold(tenant, sheet, **changes)
        self.do(o.Settle(hold=id_, usage=usage or Usage(1000, 500)))
        return id_

    def deposit(self, amount: int, tenant: str = "acme", tax: int = 0) -> str:
        id_ = f"dep-{next(self.numbers)}"
        self.do(o.Deposit(id=id_, tenant=tenant, amount=amount, currency="EUR", tax=tax))
        return id_

    def bill(self, amount: int, tenant: str = "acme", item: str = "plan:pro@1") -> str:
        id_ = f"fee-{next(self.numbers)}"
        self.do(o.Bill(id=id_, tenant=tenant, amount=amount, currency="EUR", item=item))
        return id_

    def refund(self, of: str, amount: int | None = None) -> None:
        id_ = f"ref-{next(self.numbers)}"
        self.do(o.Refund(id=id_, of=of, amount=amount, reason="it was wrong"))

    def go_to(self, day: str) -> None:
        """Sets the clock, forward or back."""
        self.clock.step(moment(day) - self.clock.now())

    def close_month(self, month: str, tenant: str = "acme") -> Document | None:
        now = self.clock.now()
        return close_period(self.reader, self.do, self.issuer, tenant, month, now, "test")

    def invoice(self, month: str, tenant: str = "acme") -> InvoiceDocument:
        """The invoice of a month, which there must be."""
        document = self.close_month(month, tenant)
        assert document is not None
        return invoice_from(document)

    def credit(self, invoice: str, **how: Any) -> Document:
        now = self.clock.now()
        how = {"reason": "a mistake", "actor": "test"} | how
        return issue_credit_note(self.reader, self.do, self.issuer, invoice, now=now, **how)

    def close(self) -> None:
        self.reader.close()
        self.ledger.close()

    def __enter__(self) -> Shop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def table() -> Taxes:
    return read_table()


# -- what the journal says, by its legs alone ----------------------------------------------------


def income(reader: Reader, tenant: str, start: int, until: int, notes: bool = False) -> int:
    """What moved to revenue in (start, until], without what credit notes took back, or that."""
    total = 0
    for record in reader.journal(start, tenant):
        if record.seq > until:
            break
        entry = record.entry
        of_note = isinstance(entry, e.Refunded) and entry.id.startswith("credit-note/")
        if of_note == notes:
            legs = getattr(entry, "legs", ())
            total += sum(delta for name, delta in legs if name.startswith("revenue:"))
    return total


def wallet(reader: Reader, tenant: str, until: int) -> int:
    """The wallet at ``until``, with what holds open then had taken out of it."""
    name, total = f"wallet:{tenant}", 0
    held: dict[str, int] = {}
    for record in reader.journal(0, tenant):
        if record.seq > until:
            break
        entry = record.entry
        delta = sum(delta for account, delta in getattr(entry, "legs", ()) if account == name)
        total += delta
        if isinstance(entry, e.HoldPlaced):
            held[entry.id] = -delta
        elif isinstance(entry, e.HoldSettled | e.HoldVoided):
            held.pop(entry.id)
    return total + sum(held.values())
