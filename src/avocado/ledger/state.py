"""State: the rows that a batch sees, and ``apply``, the one place where an entry changes them.

The writer gives a State a source, from which it reads rows that it does not know yet; the proof
starts with an empty one and applies the whole journal. Both run this code, so a replayed book
equals the stored one or one of them is wrong. Knows no store. Money is checked twice: here
(``Overdrawn``) and by the CHECK constraints of the schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from avocado.ledger import entry as e
from avocado.ledger.projection import APPLY
from avocado.ledger.rows import (
    OPEN,
    TABLES,
    Account,
    AllowanceRow,
    DocumentRow,
    Filing,
    GrantRow,
    HoldRow,
    Key,
    Movement,
    Posting,
    Promise,
    R,
    Row,
)
from avocado.ledger.transfer import Legs
from avocado.terms.money import MAX_NANOS


class Overdrawn(Exception):
    """``account`` would pass its ``floor`` or int64: it holds ``balance`` and ``delta`` comes."""

    def __init__(self, account: str, balance: int, delta: int, floor: int | None) -> None:
        super().__init__(f"{account} would be {balance + delta}")
        self.account = account
        self.balance = balance
        self.delta = delta
        self.floor = floor


class Source(Protocol):
    """Where a State reads rows that it does not know, inside the batch's transaction."""

    def fetch(self, kind: type[Row], column: str, values: Sequence[str]) -> Iterable[Row]:
        """The rows whose ``column`` is one of ``values``; of grants and allowances by tenant, only
        open ones."""

    def measure(self, column: str, value: str, since: int) -> int:
        """What the holds with ``column`` = ``value``, opened at ``since`` (ns) or later, count for
        against a spend limit: charges less refunds, and the amounts of open ones."""


class State:
    """Rows by table and key. A key that was looked up and does not exist maps to None.

    ``touched`` remembers each changed row's guard before the batch (None: the row is new): the
    balance of an account, the free tokens of an allowance, the state of a hold, 0 elsewhere. The
    store writes those rows and checks the guards.
    """

    def __init__(self, seq: int = 0, head: bytes = e.GENESIS, source: Source | None = None) -> None:
        self.source = source
        self.seq = seq
        self.head = head
        self.rows: dict[type[Row], dict[str, Any]] = {kind: {} for kind in TABLES}
        self.touched: dict[type[Row], dict[str, int | str | None]] = {kind: {} for kind in TABLES}
        self.lots: dict[str, dict[str, GrantRow]] = {}
        self.allowances: dict[str, dict[str, AllowanceRow]] = {}
        self.visited: list[str] = []
        self.written: list[tuple[int, int, str, str, str, bytes, bytes]] = []

    def get(self, kind: type[R], key: str) -> R | None:
        """The row of that key, read from the source if need be; None if there is none."""
        try:
            row: R | None = self.rows[kind][key]
        except KeyError:
            self.prefetch(kind, [key])
            row = self.rows[kind][key]
        return row

    def prefetch(self, kind: type[Row], keys: Iterable[str]) -> None:
        """Reads many rows of a table at once: one round trip where a store has round trips."""
        rows = self.rows[kind]
        missing = [key for key in dict.fromkeys(keys) if key not in rows]
        if not missing:
            return
        for key in missing:
            rows[key] = None
        if kind is HoldRow:
            self.visited += missing
        if self.source is not None:
            for row in self.source.fetch(kind, kind.__struct_fields__[0], missing):
                self._learn(row)

    def prefetch_lots(self, tenants: Iterable[str]) -> None:
        """Reads the open grants of many customers at once."""
        missing = [tenant for tenant in dict.fromkeys(tenants) if tenant not in self.lots]
        if not missing:
            return
        for tenant in missing:
            self.lots[tenant] = {}
        if self.source is not None:
            for row in self.source.fetch(GrantRow, "tenant", missing):
                self._learn(row)

    def prefetch_allowances(self, tenants: Iterable[str]) -> None:
        """Reads the open allowances of many customers at once."""
        missing = [tenant for tenant in dict.fromkeys(tenants) if tenant not in self.allowances]
        if not missing:
            return
        for tenant in missing:
            self.allowances[tenant] = {}
        if self.source is not None:
            for row in self.source.fetch(AllowanceRow, "tenant", missing):
                self._learn(row)

    def allowances_of(self, tenant: str) -> dict[str, AllowanceRow]:
        """The customer's allowances of which something is free."""
        if tenant not in self.allowances:
            self.prefetch_allowances([tenant])
        return self.allowances[tenant]

    def lots_of(self, tenant: str) -> dict[str, GrantRow]:
        """The customer's grants in whose accounts something is left."""
        lots = self.lots.get(tenant)
        if lots is None:
            self.prefetch_lots([tenant])
            lots = self.lots[tenant]
        return lots

    def key_by_digest(self, digest: str) -> Key | None:
        for row in self.rows[Key].values():
            if row is not None and row.digest == digest:
                return row  # type: ignore[no-any-return]
        if self.source is not None:
            for found in self.source.fetch(Key, "digest", [digest]):
                assert isinstance(found, Key)
                return found
        return None

    def measure(self, subject: str, since: int) -> int:
        """See :meth:`Source.measure`; ``subject`` is ``customer:<tenant>`` or ``key:<id>``."""
        scope, _, value = subject.partition(":")
        column = "tenant" if scope == "customer" else "key_id"
        return self.source.measure(column, value, since) if self.source is not None else 0

    def _learn(self, row: Row) -> None:
        kind = type(row)
        self.rows[kind].setdefault(getattr(row, kind.__struct_fields__[0]), None)
        if self.rows[kind][getattr(row, kind.__struct_fields__[0])] is None:
            self.rows[kind][getattr(row, kind.__struct_fields__[0])] = row
            if isinstance(row, GrantRow):
                self.file_lot(row)
            elif isinstance(row, AllowanceRow):
                self.file_allowance(row)

    def note(self, hold: HoldRow, progress: str) -> None:
        """Sets a hold's progress, which is not journalled."""
        self.edit(hold, OPEN).progress = progress

    def committed(self) -> None:
        """Forgets what is now committed, and the holds that are closed: memory stays flat."""
        holds = self.rows[HoldRow]
        for key in (*self.touched[HoldRow], *self.visited):
            row = holds.get(key)
            if row is None or row.state != OPEN:
                holds.pop(key, None)
        for changed in self.touched.values():
            changed.clear()
        for kind in (Posting, Movement, Promise, DocumentRow, Filing):
            self.rows[kind].clear()
        self.visited.clear()
        self.written.clear()

    def size(self) -> int:
        return sum(len(rows) for rows in self.rows.values())

    # -- entries ---------------------------------------------------------------------------------

    def post(self, entry: e.AnyEntry, at: int) -> int:
        """Appends an entry to the journal and applies it. Returns its sequence."""
        legs: Legs = getattr(entry, "legs", ())
        self._check(legs)
        seq = self.seq + 1
        body = e.encode(entry)
        digest = e.seal(self.head, seq, at, body)
        self.apply(entry, seq, at)
        self.written.append((seq, at, *e.labels(entry), body, digest))
        self.seq = seq
        self.head = digest
        return seq

    def apply(self, entry: e.AnyEntry, seq: int, at: int) -> None:
        """Makes the entry's change. ``seq`` and ``at`` are the journal's."""
        legs: Legs = getattr(entry, "legs", ())
        if legs:
            self._move(legs, entry.currency)  # type: ignore[union-attr]
        APPLY[type(entry)](self, entry, seq, at)

    def _check(self, legs: Legs) -> None:
        for name, delta in legs:
            row = self.get(Account, name)
            balance, floor = (row.balance, row.floor) if row else (0, None)
            after = balance + delta
            if not -MAX_NANOS <= after <= MAX_NANOS or (floor is not None and after < floor):
                raise Overdrawn(name, balance, delta, floor)

    def _move(self, legs: Legs, currency: str) -> None:
        touched = self.touched[Account]
        for name, delta in legs:
            row = self.get(Account, name)
            if row is None:
                floor = 0 if name.startswith(("grant:", "taxes:")) else None
                row = self.add(Account(name, currency, 0, floor))
            elif name not in touched:
                touched[name] = row.balance
            row.balance += delta
            if name.startswith("grant:"):
                self._shut(name.removeprefix("grant:"), row.balance)

    def _shut(self, grant_id: str, balance: int) -> None:
        lot = self.get(GrantRow, grant_id)
        if lot is not None and lot.closed != (balance == 0):
            self.edit(lot).closed = int(balance == 0)
            self.file_lot(lot)

    def file_lot(self, lot: GrantRow) -> None:
        """Keeps the list of the customer's open grants."""
        lots = self.lots_of(lot.tenant)
        if lot.closed:
            lots.pop(lot.id, None)
        else:
            lots[lot.id] = lot

    def file_allowance(self, lot: AllowanceRow) -> None:
        """Keeps the list of the customer's open allowances."""
        lots = self.allowances_of(lot.tenant)
        if lot.closed:
            lots.pop(lot.id, None)
        else:
            lots[lot.id] = lot

    def add(self, row: R) -> R:
        """A new row."""
        kind = type(row)
        key = getattr(row, kind.__struct_fields__[0])
        self.rows[kind][key] = row
        self.touched[kind][key] = None
        return row

    def edit(self, row: R, guard: int | str = 0) -> R:
        """A row that is about to change; ``guard`` is what the store must still find."""
        kind = type(row)
        self.touched[kind].setdefault(getattr(row, kind.__struct_fields__[0]), guard)
        return row

    def need(self, kind: type[R], key: str) -> R:
        """The row of that key. Raises KeyError."""
        row = self.get(kind, key)
        if row is None:
            raise KeyError(f"{TABLES[kind]} {key!r} is not in the book")
        return row
