"""Alerts on record, and how a customer stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from avocado.billing.alert import Alert, Position
from avocado.billing.record import ATTEMPTS, Do, busy, file, read
from avocado.errors import Refused
from avocado.ledger.entry import Adjusted, Deposited, Granted
from avocado.ledger.periods import month_of, month_start
from avocado.ledger.reader import Reader


def add(reader: Reader, do: Do, alert: Alert, actor: str = "") -> Alert:
    """Puts an alert on record under the customer's next number.

    Raises:
        UnknownCustomer: there is no such customer.
    """
    reader.customer(alert.tenant)
    for _ in range(ATTEMPTS):
        taken = [each.number for each in every(reader, alert.tenant)]
        made = msgspec.structs.replace(alert, number=max(taken, default=0) + 1)
        if file(do, made.id, "alert", made.tenant, made, 1, actor):
            return made
    raise busy(f"the alerts of {alert.tenant}")


def remove(reader: Reader, do: Do, tenant: str, number: int, actor: str = "") -> Alert:
    """Takes an alert away.

    Raises:
        Refused: there is none of that number.
    """
    for _ in range(ATTEMPTS):
        stored = read(reader, f"alert/{tenant}/{number}", Alert)
        if stored is None or stored.value.removed:
            raise Refused(f"{tenant} has no alert {number}: avocado alerts list {tenant}")
        gone = msgspec.structs.replace(stored.value, removed=True)
        if file(do, gone.id, "alert", tenant, gone, stored.revision + 1, actor):
            return gone
    raise busy(f"the alerts of {tenant}")


def every(reader: Reader, tenant: str | None = None) -> Iterator[Alert]:
    """Of a customer or of all, also those that were removed."""
    for document in list(reader.documents("alert", tenant)):
        yield msgspec.convert(document.content, Alert)


def active(reader: Reader, tenant: str | None = None) -> list[Alert]:
    """Those that can fire."""
    return [each for each in every(reader, tenant) if not each.removed]


Spent = Callable[[str, int], int]
"""What a customer's requests were charged in the month of a time (ns), less refunds, nano-units."""


def position(
    reader: Reader, tenant: str, now: int, these: Sequence[Alert], spent: Spent | None = None
) -> Position:
    """How a customer stands at ``now`` (ns), as far as ``these`` alerts ask. ``spent`` knows the
    month's spend faster than by adding up its requests."""
    available = reader.balance(tenant).available
    spend = any(each.kind == "spend" for each in these)
    low = any(each.kind == "balance" and available < (each.amount or 0) for each in these)
    return Position(
        month_of(now),
        (spent or _summed(reader))(tenant, now) if spend else 0,
        reader.customer(tenant).month_limit,
        available,
        _credited(reader, tenant) if low else 0,
    )


def _summed(reader: Reader) -> Spent:
    return lambda tenant, now: sum(
        line.charge for line in reader.usage(tenant, month_start(now), now + 1)
    )


def _credited(reader: Reader, tenant: str) -> int:
    """The journal entry that last brought money."""
    brought = (
        each.seq
        for each in reader.postings(tenant)
        if isinstance(entry := each.entry, Deposited | Granted | Adjusted) and entry.amount > 0
    )
    return max(brought, default=0)
