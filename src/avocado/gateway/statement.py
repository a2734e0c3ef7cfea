"""What a customer may read of the book: its own usage by time, its own money, its own requests.

Every query names the tenant, so nobody reads what is another's. Blocking; runs in a thread of its
own beside the writer. Knows nothing about HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from avocado.ledger.reader import Balance, Reader
from avocado.ledger.rows import SETTLED, HoldRow, Key

NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Span:
    """Settled requests with ``since`` ≤ settled at < ``until``, in slices of ``width``; seconds."""

    since: int
    until: int
    width: int


@dataclass(frozen=True, slots=True)
class Sum:
    """One group of one slice. ``start`` in seconds; ``charge`` in nano-units, refunds taken off."""

    start: int
    key_id: str | None
    offer: str | None
    batch: bool | None
    currency: str
    requests: int
    prompt: int
    cached: int
    completion: int
    charge: int


def sums(
    reader: Reader,
    tenant: str,
    span: Span,
    group: Sequence[str] = (),
    keys: Sequence[str] = (),
    offers: Sequence[str] = (),
    batch: bool | None = None,
) -> list[Sum]:
    """Sums by slice and by ``group``, of ``key_id``, ``offer`` and ``batch``; oldest first.
    ``keys``, ``offers`` and ``batch`` keep only those."""
    where = ["tenant = ?", "state = 'settled'", "closed >= ?", "closed < ?"]
    values: list[object] = [tenant, span.since * NANO, span.until * NANO]
    for column, wanted in (("key_id", keys), ("offer", offers)):
        if wanted:
            where.append(f"{column} IN ({', '.join('?' * len(wanted))})")
            values += wanted
    if batch is not None:
        where.append("batch = ?")
        values.append(int(batch))
    shown = [name if name in group else "NULL" for name in ("key_id", "offer", "batch")]
    by = ["1", "5", *(name for name in ("key_id", "offer", "batch") if name in group)]
    sql = (
        f"SELECT closed / {span.width * NANO}, {', '.join(shown)}, currency, count(*),"  # noqa: S608
        " sum(prompt), sum(cached), sum(completion), sum(charge - refunded)"
        f" FROM hold WHERE {' AND '.join(where)} GROUP BY {', '.join(by)} ORDER BY {', '.join(by)}"
    )
    return [
        Sum(
            int(row[0]) * span.width,
            row[1],
            row[2],
            None if row[3] is None else bool(row[3]),
            row[4],
            *(int(value) for value in row[5:]),
        )
        for row in reader.rows(sql, values)
    ]


@dataclass(frozen=True, slots=True)
class Money:
    """What a customer has, and what it ever spent, refunds taken off; nano-units."""

    balance: Balance
    spent: int


def money(reader: Reader, tenant: str) -> Money:
    """Raises UnknownCustomer."""
    with reader.snapshot():
        balance = reader.balance(tenant)
        return Money(balance, _spent(reader, "tenant = ?", tenant))


@dataclass(frozen=True, slots=True)
class KeyUse:
    """A key and what was spent by it since it was made, and since some times; nano-units."""

    key: Key
    currency: str
    spent: int
    since: tuple[int, ...]


def key_use(reader: Reader, tenant: str, key_id: str, times: Sequence[int]) -> KeyUse | None:
    """``times`` in seconds. None if the customer has no such key."""
    with reader.snapshot():
        key = next((each for each in reader.keys(tenant) if each.key_id == key_id), None)
        if key is None:
            return None
        where = "tenant = ? AND key_id = ?"
        return KeyUse(
            key,
            reader.customer(tenant).currency,
            _spent(reader, where, tenant, key_id),
            tuple(
                _spent(reader, where + " AND closed >= ?", tenant, key_id, at * NANO)
                for at in times
            ),
        )


def settled(reader: Reader, tenant: str, request: str) -> HoldRow | None:
    """A request of this customer that was charged; None for any other."""
    row = reader.hold(request)
    return row if row is not None and row.tenant == tenant and row.state == SETTLED else None


def _spent(reader: Reader, where: str, *values: object) -> int:
    sql = (
        f"SELECT coalesce(sum(charge - refunded), 0) FROM hold WHERE state = 'settled' AND {where}"  # noqa: S608
    )
    return int(next(iter(reader.rows(sql, values)))[0])
