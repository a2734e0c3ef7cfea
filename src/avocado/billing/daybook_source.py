"""What the daybook takes from the ledger: requests summed by day, other money, other entries.

Two ways to the same sums. ``whole`` reads the table of holds once. ``since`` reads the journal from
a sequence on: what was settled there, and what was refunded there of whatever was settled before.
All of it inside one snapshot of the reader, so that table and journal are of one moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from avocado.ledger import entry as e
from avocado.ledger.reader import Reader
from avocado.ledger.rows import COLUMNS, HoldRow

DAY: Final = 86_400_000_000_000
"""Nanoseconds."""


class UsageRow(NamedTuple):
    """Sums of one key of the daybook; ``keys`` is all of the key: tenant, day, key, offer, release,
    price version, batch, currency."""

    keys: tuple[Any, ...]
    sums: tuple[int, ...]

    @property
    def tenant(self) -> str:
        return str(self.keys[0])

    @property
    def day(self) -> int:
        return int(self.keys[1])

    @property
    def offer(self) -> str:
        return str(self.keys[3])

    @property
    def release(self) -> str:
        return str(self.keys[4])

    @property
    def currency(self) -> str:
        return str(self.keys[7])


class MoneyRow(NamedTuple):
    """Money that is no request: days since 1970, …, nano-units."""

    day: int
    tenant: str
    kind: str
    item: str
    currency: str
    entries: int
    amount: int
    refunded: int


_KEYS: Final = (
    f"h.tenant, h.closed / {DAY}, coalesce(h.key_id, ''), h.offer, h.release, h.price_version,"
    " h.batch, h.currency"
)
_COUNTS: Final = (
    "count(*), sum(h.prompt), sum(h.cached), sum(h.completion), sum(h.reasoning),"
    f" {'sum(h.covered)' if 'covered' in COLUMNS[HoldRow] else '0'}, sum(h.charge)"
)
_GROUP: Final = "GROUP BY 1, 2, 3, 4, 5, 6, 7, 8"


def seal_at(reader: Reader, seq: int) -> str | None:
    """The hash, in hex, of a journal entry; None if there is no such entry."""
    for (digest,) in reader.rows("SELECT hash FROM journal WHERE seq = ?", (seq,)):
        return bytes(digest).hex()
    return None


def whole(reader: Reader, until: int) -> Iterator[UsageRow]:
    """Everything settled up to journal entry ``until``, which is the reader's newest."""
    sql = (
        f"SELECT {_KEYS}, {_COUNTS}, sum(h.refunded) FROM hold h"  # noqa: S608
        f" WHERE h.state = 'settled' AND h.closed_seq <= ? {_GROUP}"
    )
    yield from _rows(reader.rows(sql, (until,)))


def since(reader: Reader, after: int, until: int) -> Iterator[UsageRow]:
    """What was settled and refunded at ``after`` < seq ≤ ``until``."""
    sql = (
        f"SELECT {_KEYS}, {_COUNTS}, 0 FROM journal j JOIN hold h ON h.id = j.id"  # noqa: S608
        f" WHERE j.seq > ? AND j.seq <= ? AND j.kind = 'HoldSettled' {_GROUP}"
    )
    yield from _rows(reader.rows(sql, (after, until)))
    for entry in _refunds(reader, after, until):
        sql = f"SELECT {_KEYS} FROM hold h WHERE h.id = ? AND h.closed IS NOT NULL"  # noqa: S608
        for keys in list(reader.rows(sql, (entry.of,))):
            yield UsageRow((keys[0], int(keys[1]), *keys[2:]), (0,) * 7 + (entry.amount,))


def _refunds(reader: Reader, after: int, until: int) -> list[e.Refunded]:
    sql = "SELECT body FROM journal WHERE seq > ? AND seq <= ? AND kind = 'Refunded'"
    found = [e.decode(bytes(body)) for (body,) in list(reader.rows(sql, (after, until)))]
    return [entry for entry in found if isinstance(entry, e.Refunded)]


def _rows(found: Any) -> Iterator[UsageRow]:
    for row in found:
        tenant, day, *keys = row[:8]
        yield UsageRow((tenant, int(day), *keys), tuple(int(value) for value in row[8:]))


_MONEY: Final = ("Deposited", "Billed", "Granted", "Adjusted")
_ALL_MONEY: Final = "SELECT j.at, j.body FROM posting p JOIN journal j ON j.seq = p.seq"
_NEW_MONEY: Final = (
    "SELECT at, body FROM journal WHERE seq > ? AND seq <= ?"
    " AND kind IN ('Deposited', 'Billed', 'Granted', 'Adjusted', 'Refunded') ORDER BY seq"
)


def money(reader: Reader, after: int, until: int) -> Iterator[MoneyRow]:
    """Postings of ``after`` < seq ≤ ``until`` that are no requests, and refunds of such; a refund
    stands at the day of what it reverses. ``after`` 0 reads the table of postings."""
    found = reader.rows(_NEW_MONEY, (after, until)) if after else reader.rows(_ALL_MONEY, ())
    for at, body in list(found):
        entry = e.decode(bytes(body))
        if isinstance(entry, e.Refunded):
            first = _posting(reader, entry.of)
            if first is not None:
                yield _money_row(*first, entries=0, amount=0, refunded=entry.amount)
        elif type(entry).__name__ in _MONEY:
            yield _money_row(int(at), entry, entries=1, amount=entry.amount, refunded=0)  # type: ignore[union-attr]


def _posting(reader: Reader, of: str) -> tuple[int, e.AnyEntry] | None:
    """When and as what a posting was written; None for a request."""
    sql = "SELECT j.at, j.body FROM posting p JOIN journal j ON j.seq = p.seq WHERE p.id = ?"
    for at, body in list(reader.rows(sql, (of,))):
        return int(at), e.decode(bytes(body))
    return None


def _money_row(at: int, entry: Any, *, entries: int, amount: int, refunded: int) -> MoneyRow:
    return MoneyRow(
        at // DAY,
        entry.tenant,
        type(entry).__name__,
        getattr(entry, "item", ""),
        entry.currency,
        entries,
        amount,
        refunded,
    )


_ENTRIES: Final = (
    "SELECT seq, at, kind, id, tenant FROM journal WHERE seq > ? AND seq <= ?"
    " AND kind NOT IN ('HoldPlaced', 'HoldSettled', 'HoldVoided')"
)


def entries(reader: Reader, after: int, until: int) -> Iterator[tuple[Any, ...]]:
    """(sequence, time, kind, id, customer) of ``after`` < seq ≤ ``until`` that is no request."""
    yield from reader.rows(_ENTRIES, (after, until))
