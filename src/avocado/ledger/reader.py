"""Reads a book: balances, usage, charges, customers, keys, the journal. Never writes.

Works beside a writer in another process (SQLite: a read-only connection; PostgreSQL: a read-only
session). SQL only through ``rows(sql, values)``, with ``?`` for values; the stores translate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from avocado.ledger import chain
from avocado.ledger import entry as e
from avocado.ledger.errors import UnknownCustomer
from avocado.ledger.rows import (
    COLUMNS,
    TABLES,
    AllowanceRow,
    Customer,
    DocumentRow,
    HoldRow,
    Key,
    Price,
    R,
)
from avocado.ledger.views import Allowance as Allowance
from avocado.ledger.views import Balance as Balance
from avocado.ledger.views import Charge as Charge
from avocado.ledger.views import Document as Document
from avocado.ledger.views import Record as Record
from avocado.ledger.views import UsageLine as UsageLine
from avocado.ledger.views import allowance_of, charge_of, document_in, document_of, usage_line

_DAY = 86_400_000_000_000
FOREVER: Final = 2**63 - 1
"""Later than any sequence and any time (ns)."""


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
            yield charge_of(row)

    def charges_between(self, tenant: str, after: int, until: int = FOREVER) -> Iterator[Charge]:
        """Settled requests of a customer whose settlement is journal entry ``after`` < seq ≤
        ``until``, in order: a period that no clock can cut wrong."""
        where = (
            "WHERE tenant = ? AND state = 'settled' AND closed_seq > ? AND closed_seq <= ?"
            " ORDER BY closed_seq"
        )
        for row in self._of(HoldRow, where, tenant, after, until):
            yield charge_of(row)

    def postings(self, tenant: str, after: int = 0, until: int = FOREVER) -> Iterator[Record]:
        """Journal entries that moved a customer's money and are no holds, ``after`` < seq ≤
        ``until``: Deposited, Granted, GrantExpired, Billed, Refunded, Adjusted."""
        sql = (
            "SELECT j.seq, j.at, j.body FROM movement m JOIN journal j ON j.seq = m.seq"
            " WHERE m.tenant = ? AND m.seq > ? AND m.seq <= ? ORDER BY m.seq"
        )
        for seq, at, body in self.rows(sql, (tenant, after, until)):
            yield Record(int(seq), int(at), e.decode(bytes(body)))

    def allowances(self, tenant: str) -> list[Allowance]:
        """All allowances of a customer, used up and expired ones too, in the order given."""
        return [
            allowance_of(row)
            for row in self._of(AllowanceRow, "WHERE tenant = ? ORDER BY seq", tenant)
        ]

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
        return [usage_line(row) for row in self.rows(sql, values_)]

    # -- documents -------------------------------------------------------------------------------

    def document(self, id_: str) -> Document | None:
        """The newest revision."""
        return next((document_of(row) for row in self._of(DocumentRow, "WHERE id = ?", id_)), None)

    def documents(self, kind: str, tenant: str | None = None) -> Iterator[Document]:
        """The newest revisions of a kind, of one customer or of all, in order of first filing.

        One at a time: while it runs, this reader sees the book as of its beginning.
        """
        where, values = "WHERE kind = ?", [kind]
        if tenant is not None:
            where, values = "WHERE tenant = ? AND kind = ?", [tenant, kind]
        for row in self._of(DocumentRow, f"{where} ORDER BY filed", *values):
            yield document_of(row)

    def document_history(self, id_: str) -> list[Document]:
        """Every revision of a document, oldest first."""
        sql = (
            "SELECT j.seq, j.at, j.body FROM filing f JOIN journal j ON j.seq = f.seq"
            " WHERE f.document = ? ORDER BY f.revision"
        )
        return [
            document_in(Record(int(seq), int(at), e.decode(bytes(body))))
            for seq, at, body in self.rows(sql, (id_,))
        ]

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
