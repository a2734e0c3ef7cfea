"""Reads a book: balances, usage, charges, customers, keys, the journal. Never writes.

Works beside a writer in another process (SQLite: a read-only connection; PostgreSQL: a read-only
session). SQL only through ``rows(sql, values)``, with ``?`` for values; the stores translate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avocado.ledger import chain
from avocado.ledger import entry as e
from avocado.ledger.errors import UnknownCustomer
from avocado.ledger.rows import COLUMNS, TABLES, Customer, HoldRow, Key, Price, R
from avocado.terms.usage import Usage


@dataclass(frozen=True, slots=True)
class Balance:
    """In nano-units. ``available`` is what can be spent without credit."""

    tenant: str
    currency: str
    wallet: int
    granted: int
    held: int
    credit_limit: int

    @property
    def available(self) -> int:
        return self.wallet + self.granted

    @property
    def posted(self) -> int:
        return self.wallet + self.granted + self.held


@dataclass(frozen=True, slots=True)
class Charge:
    """One settled request. ``at`` is when it was settled, ns; ``seq`` its journal entry."""

    seq: int
    at: int
    request: str
    tenant: str
    key_id: str | None
    offer: str
    release: str
    price_version: str
    currency: str
    usage: Usage
    charge: int
    refunded: int
    finish: str
    batch: bool
    volume: int
    """The customer's tokens of that month when the request began: what its price tier rests on."""


@dataclass(frozen=True, slots=True)
class UsageLine:
    """Settled requests of one day (UTC, ``2026-11-24``), customer, key and release, summed."""

    day: str
    tenant: str
    key_id: str | None
    offer: str
    release: str
    currency: str
    requests: int
    prompt: int
    cached: int
    completion: int
    reasoning: int
    charge: int


@dataclass(frozen=True, slots=True)
class Record:
    """One journal entry as it is stored."""

    seq: int
    at: int
    entry: e.AnyEntry


_DAY = 86_400_000_000_000


class Reader:
    """Look-ups in a book. Use one per thread; ``close`` it, or use it in a ``with``."""

    def __init__(
        self, rows: chain.Rows, close: Callable[[], None] = lambda: None, begin: str = "BEGIN"
    ) -> None:
        self.rows = rows
        self.close = close
        self._begin = begin

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything read inside sees the book as of one moment, while it is being written to."""
        for _ in self.rows(self._begin, ()):
            pass
        try:
            yield
        finally:
            for _ in self.rows("COMMIT", ()):
                pass

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _of(self, kind: type[R], where: str, *values: object) -> Iterator[R]:
        sql = f"SELECT {', '.join(COLUMNS[kind])} FROM {TABLES[kind]} {where}"  # noqa: S608
        for row in self.rows(sql, values):
            yield kind(*row)

    # -- customers, keys, prices -----------------------------------------------------------------

    def customers(self) -> list[Customer]:
        return list(self._of(Customer, "ORDER BY seq"))

    def customer(self, tenant: str) -> Customer:
        """Raises UnknownCustomer."""
        for row in self._of(Customer, "WHERE tenant = ?", tenant):
            return row
        raise UnknownCustomer(tenant)

    def keys(self, tenant: str | None = None) -> list[Key]:
        """Keys in the order in which they were added, of one customer or of all."""
        if tenant is None:
            return list(self._of(Key, "ORDER BY seq"))
        return list(self._of(Key, "WHERE tenant = ? ORDER BY seq", tenant))

    def key_by_digest(self, digest: str) -> Key | None:
        return next(self._of(Key, "WHERE digest = ?", digest), None)

    def prices(self) -> list[Price]:
        return list(self._of(Price, "ORDER BY seq"))

    # -- money -----------------------------------------------------------------------------------

    def balance(self, tenant: str) -> Balance:
        """What a customer has: a few look-ups by key, whatever its history.

        Raises:
            UnknownCustomer: no such customer.
        """
        customer = self.customer(tenant)
        sql = "SELECT name, balance FROM account WHERE name = ? OR name = ?"
        found: dict[str, int] = dict(self.rows(sql, (f"wallet:{tenant}", f"held:{tenant}")))
        sql = (
            "SELECT coalesce(sum(balance), 0) FROM account WHERE name IN"
            " (SELECT 'grant:' || id FROM grant_lot WHERE tenant = ? AND closed = 0)"
        )
        granted = int(next(iter(self.rows(sql, (tenant,))))[0])
        return Balance(
            tenant,
            customer.currency,
            int(found[f"wallet:{tenant}"]),
            granted,
            int(found[f"held:{tenant}"]),
            customer.credit_limit,
        )

    def accounts(self) -> dict[str, int]:
        """Every account's balance in nano-units, by name."""
        return {name: int(balance) for name, balance in self.rows(_ACCOUNTS, ())}

    def hold(self, request: str) -> HoldRow | None:
        """A request's hold or charge, by request id."""
        return next(self._of(HoldRow, "WHERE id = ?", request), None)

    def open_holds(self) -> list[HoldRow]:
        return list(self._of(HoldRow, "WHERE state = 'open' ORDER BY seq"))

    def charges(self, tenant: str, since: int = 0, until: int = 2**63 - 1) -> Iterator[Charge]:
        """Settled requests of a customer with ``since`` ≤ settled at < ``until`` (ns), in order."""
        where = (
            "WHERE tenant = ? AND state = 'settled' AND closed >= ? AND closed < ?"
            " ORDER BY closed_seq"
        )
        for row in self._of(HoldRow, where, tenant, since, until):
            yield _charge(row)

    def usage(
        self, tenant: str | None = None, since: int = 0, until: int = 2**63 - 1
    ) -> list[UsageLine]:
        """Usage by day, customer, key and release, of one customer or of all, oldest day first."""
        where, values = "state = 'settled' AND closed >= ? AND closed < ?", [since, until]
        only = " AND tenant = ?" if tenant is not None else ""
        sql = (
            f"SELECT closed / {_DAY}, tenant, key_id, offer, release, currency, count(*),"  # noqa: S608
            " sum(prompt), sum(cached), sum(completion), sum(reasoning), sum(charge - refunded)"
            f" FROM hold WHERE {where}{only}"
            " GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6"
        )
        values_: list[object] = [*values, *([tenant] if tenant is not None else [])]
        return [_usage_line(row) for row in self.rows(sql, values_)]

    # -- the journal -----------------------------------------------------------------------------

    def journal(self, after: int = 0, tenant: str | None = None) -> Iterator[Record]:
        """Entries later than sequence ``after``, in order; of one customer or of all."""
        sql = "SELECT seq, at, body FROM journal WHERE seq > ?"
        values: list[object] = [after]
        if tenant is not None:
            sql += " AND tenant = ?"
            values.append(tenant)
        for seq, at, body in self.rows(sql + " ORDER BY seq", values):
            yield Record(int(seq), int(at), e.decode(bytes(body)))

    def entry(self, seq: int) -> Record | None:
        return next(iter(self.journal(seq - 1)), None) if seq > 0 else None

    def head(self) -> tuple[int, str]:
        """(sequence, hash in hex) of the newest entry: what to write down outside the machine."""
        seq, digest = chain.head(self.rows)
        return seq, digest.hex()


_ACCOUNTS = "SELECT name, balance FROM account ORDER BY name"


def _charge(row: HoldRow) -> Charge:
    return Charge(
        seq=row.closed_seq or 0,
        at=row.closed or 0,
        request=row.id,
        tenant=row.tenant,
        key_id=row.key_id,
        offer=row.offer,
        release=row.release,
        price_version=row.price_version,
        currency=row.currency,
        usage=row.usage(),
        charge=row.charge,
        refunded=row.refunded,
        finish=row.finish or "",
        batch=bool(row.batch),
        volume=row.volume,
    )


def _usage_line(row: Any) -> UsageLine:
    from datetime import UTC, datetime

    day = datetime.fromtimestamp(int(row[0]) * 86_400, UTC).date().isoformat()
    numbers = [int(value) for value in row[6:]]
    return UsageLine(day, row[1], row[2], row[3], row[4], row[5], *numbers)


def open_reader(target: Path | str) -> Reader:
    """A reader of the book at ``target``: a file, or a ``postgresql://`` address.

    Raises:
        LedgerUnavailable: there is no such book.
    """
    if str(target).startswith(("postgresql://", "postgres://")):
        from avocado.ledger import postgres

        return Reader(*postgres.reading(str(target)), postgres.READ)
    from avocado.ledger.sqlite import reading

    return Reader(*reading(Path(target)))
