"""State: the rows that a batch sees, and ``apply``, the one place where an entry changes them.

The writer gives a State a source, from which it reads rows that it does not know yet; the proof
starts with an empty one and applies the whole journal. Both run this code, so a replayed book
equals the stored one or one of them is wrong. Knows no store. Money is checked twice: here
(``Overdrawn``) and by the CHECK constraints of the schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Protocol

from avocado.ledger import entry as e
from avocado.ledger import transfer
from avocado.ledger.rows import (
    OPEN,
    SETTLED,
    TABLES,
    VOIDED,
    Account,
    Customer,
    GrantRow,
    HoldRow,
    Key,
    Posting,
    Price,
    Promise,
    R,
    Row,
    Spent,
)
from avocado.ledger.transfer import Legs
from avocado.terms.money import MAX_NANOS
from avocado.terms.price import PriceSheet

TOTAL: Final = "total"


class Overdrawn(Exception):
    """``account`` would pass its ``floor`` or int64: it holds ``balance`` and ``delta`` comes."""

    def __init__(self, account: str, balance: int, delta: int, floor: int | None) -> None:
        super().__init__(f"{account} would be {balance + delta}")
        self.account = account
        self.balance = balance
        self.delta = delta
        self.floor = floor


def month_of(at: int) -> str:
    """The calendar month, UTC, of a time in ns: ``2026-11``."""
    when = datetime.fromtimestamp(at // 1_000_000_000, UTC)
    return f"{when.year:04d}-{when.month:02d}"


def month_start(at: int) -> int:
    """The first nanosecond, UTC, of the month of ``at``."""
    when = datetime.fromtimestamp(at // 1_000_000_000, UTC)
    return int(datetime(when.year, when.month, 1, tzinfo=UTC).timestamp()) * 1_000_000_000


def volume_name(tenant: str, price_version: str, at: int) -> str:
    """The counter of the tokens that a tiered price counts."""
    return f"volume:{tenant}/{price_version}/{month_of(at)}"


@lru_cache(maxsize=4096)
def sheet_of(terms: str) -> PriceSheet:
    """The price sheet behind a stored row's JSON."""
    return PriceSheet(**json.loads(terms))


def spent_names(tenant: str, key_id: str | None, period: str) -> list[str]:
    """The counters that a request of this customer and key, opened in ``period``, may count in."""
    names = [f"customer:{tenant}/{period}", f"customer:{tenant}/{TOTAL}"]
    if key_id is not None:
        names += [f"key:{key_id}/{period}", f"key:{key_id}/{TOTAL}"]
    return names


class Source(Protocol):
    """Where a State reads rows that it does not know, inside the batch's transaction."""

    def fetch(self, kind: type[Row], column: str, values: Sequence[str]) -> Iterable[Row]:
        """The rows whose ``column`` is one of ``values``; of grants by tenant, only open ones."""

    def measure(self, column: str, value: str, since: int) -> int:
        """What the holds with ``column`` = ``value``, opened at ``since`` (ns) or later, count for
        against a spend limit: charges less refunds, and the amounts of open ones."""


class State:
    """Rows by table and key. A key that was looked up and does not exist maps to None.

    ``touched`` remembers each changed row's guard before the batch (None: the row is new): the
    balance of an account, the state of a hold, 0 elsewhere. The store writes those rows and checks
    the guards.
    """

    def __init__(self, seq: int = 0, head: bytes = e.GENESIS, source: Source | None = None) -> None:
        self.source = source
        self.seq = seq
        self.head = head
        self.rows: dict[type[Row], dict[str, Any]] = {kind: {} for kind in TABLES}
        self.touched: dict[type[Row], dict[str, int | str | None]] = {kind: {} for kind in TABLES}
        self.lots: dict[str, dict[str, GrantRow]] = {}
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

    def lots_of(self, tenant: str) -> dict[str, GrantRow]:
        """The customer's grants in whose accounts something is left."""
        self.prefetch_lots([tenant])
        return self.lots[tenant]

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
                self._lot(row)

    def note(self, hold: HoldRow, progress: str) -> None:
        """Sets a hold's progress, which is not journalled."""
        self._edit(hold, OPEN).progress = progress

    def committed(self) -> None:
        """Forgets what is now committed, and the holds that are closed: memory stays flat."""
        holds = self.rows[HoldRow]
        for key in (*self.touched[HoldRow], *self.visited):
            row = holds.get(key)
            if row is None or row.state != OPEN:
                holds.pop(key, None)
        for changed in self.touched.values():
            changed.clear()
        for kind in (Posting, Promise):
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
        _APPLY[type(entry)](self, entry, seq, at)

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
                floor = 0 if name.startswith("grant:") else None
                row = self._add(Account(name, currency, 0, floor))
            elif name not in touched:
                touched[name] = row.balance
            row.balance += delta
            if name.startswith("grant:"):
                self._shut(name.removeprefix("grant:"), row.balance)

    def _shut(self, grant_id: str, balance: int) -> None:
        lot = self.get(GrantRow, grant_id)
        if lot is not None and lot.closed != (balance == 0):
            self._edit(lot).closed = int(balance == 0)
            self._lot(lot)

    def _lot(self, lot: GrantRow) -> None:
        lots = self.lots_of(lot.tenant)
        if lot.closed:
            lots.pop(lot.id, None)
        else:
            lots[lot.id] = lot

    def _add(self, row: R) -> R:
        kind = type(row)
        key = getattr(row, kind.__struct_fields__[0])
        self.rows[kind][key] = row
        self.touched[kind][key] = None
        return row

    def _edit(self, row: R, guard: int | str = 0) -> R:
        kind = type(row)
        self.touched[kind].setdefault(getattr(row, kind.__struct_fields__[0]), guard)
        return row

    def _need(self, kind: type[R], key: str) -> R:
        row = self.get(kind, key)
        if row is None:
            raise KeyError(f"{TABLES[kind]} {key!r} is not in the book")
        return row

    # -- spend counters --------------------------------------------------------------------------

    def _count(self, hold: HoldRow, delta: int, create: bool) -> None:
        """Adds to the counters of each limited subject; only a new hold may start one."""
        customer = self._need(Customer, hold.tenant)
        self._bump(f"customer:{hold.tenant}", customer, hold, delta, create)
        if hold.key_id is not None:
            key = self._need(Key, hold.key_id)
            self._bump(f"key:{hold.key_id}", key, hold, delta, create)

    def _bump(
        self, subject: str, who: Customer | Key, hold: HoldRow, delta: int, create: bool
    ) -> None:
        if who.month_limit is None and who.total_limit is None:
            return
        for name, limit in (
            (f"{subject}/{month_of(hold.opened)}", who.month_limit),
            (f"{subject}/{TOTAL}", who.total_limit),
        ):
            if limit is None:
                continue
            row = self.get(Spent, name)
            if row is not None:
                self._edit(row).amount += delta
            elif create:
                self._add(Spent(name, delta))

    def _use_volume(self, hold: HoldRow, tokens: int) -> None:
        """Counts tokens towards the tiers of the price, in the month in which the request began."""
        if not self.sheet(hold.price_version).tiers:
            return
        name = volume_name(hold.tenant, hold.price_version, hold.opened)
        row = self.get(Spent, name)
        if row is None:
            self._add(Spent(name, tokens))
        else:
            self._edit(row).amount += tokens

    def sheet(self, version: str) -> PriceSheet:
        """The published price sheet of that version. Raises KeyError."""
        return sheet_of(self._need(Price, version).terms)

    def _start_counter(self, name: str, amount: int) -> None:
        row = self.get(Spent, name)
        if row is None:
            self._add(Spent(name, amount))
        else:
            self._edit(row).amount = amount

    # -- one method an entry ---------------------------------------------------------------------

    def _opened(self, entry: e.CustomerOpened, seq: int, at: int) -> None:
        self._add(
            Customer(
                entry.tenant, entry.name, entry.currency, entry.credit_limit, None, None, at, seq
            )
        )
        self._add(Account(transfer.wallet(entry.tenant), entry.currency, 0, -entry.credit_limit))
        self._add(Account(transfer.held(entry.tenant), entry.currency, 0, 0))

    def _credit_limit(self, entry: e.CreditLimitSet, seq: int, at: int) -> None:
        self._edit(self._need(Customer, entry.tenant)).credit_limit = entry.credit_limit
        account = self._need(Account, transfer.wallet(entry.tenant))
        self._edit(account, account.balance).floor = -entry.credit_limit

    def _spend_limit(self, entry: e.SpendLimitSet, seq: int, at: int) -> None:
        who: Customer | Key
        if entry.key_id is None:
            who, subject = self._need(Customer, entry.tenant), f"customer:{entry.tenant}"
        else:
            who, subject = self._need(Key, entry.key_id), f"key:{entry.key_id}"
        self._edit(who)
        who.month_limit, who.total_limit = entry.month, entry.total
        if entry.month is not None:
            self._start_counter(f"{subject}/{entry.period}", entry.spent_month)
        if entry.total is not None:
            self._start_counter(f"{subject}/{TOTAL}", entry.spent_total)

    def _key_added(self, entry: e.KeyAdded, seq: int, at: int) -> None:
        self._add(
            Key(
                entry.key_id,
                entry.tenant,
                entry.name,
                entry.digest,
                entry.created,
                entry.expires,
                None,
                None,
                None,
                seq,
            )
        )

    def _key_revoked(self, entry: e.KeyRevoked, seq: int, at: int) -> None:
        self._edit(self._need(Key, entry.key_id)).revoked = at

    def _price(self, entry: e.PricePublished, seq: int, at: int) -> None:
        self._add(Price(entry.version, json.dumps(entry.terms, sort_keys=True), at, seq))

    def _posting(
        self,
        entry: e.Deposited | e.Granted | e.Refunded | e.Adjusted,
        content: str,
        seq: int,
    ) -> None:
        kind = type(entry).__name__
        self._add(
            Posting(entry.id, kind, entry.tenant, entry.currency, entry.amount, 0, content, seq)
        )

    def _deposited(self, entry: e.Deposited, seq: int, at: int) -> None:
        self._posting(entry, entry.reference, seq)

    def _granted(self, entry: e.Granted, seq: int, at: int) -> None:
        self._posting(entry, f"{entry.priority} {entry.expires} {entry.reason}", seq)
        lot = self._add(
            GrantRow(entry.id, entry.tenant, entry.amount, entry.priority, entry.expires, 0, seq)
        )
        self._lot(lot)

    def _nothing(self, entry: e.AnyEntry, seq: int, at: int) -> None:
        """The legs were all of it."""

    def _adjusted(self, entry: e.Adjusted, seq: int, at: int) -> None:
        self._posting(entry, f"{entry.actor}: {entry.reason}", seq)

    def _refunded(self, entry: e.Refunded, seq: int, at: int) -> None:
        self._posting(entry, f"{entry.of} {entry.reason}", seq)
        hold = self.get(HoldRow, entry.of)
        if hold is not None:
            self._edit(hold, hold.state).refunded += entry.amount
            self._count(hold, -entry.amount, create=False)
        else:
            self._edit(self._need(Posting, entry.of)).refunded += entry.amount

    def _placed(self, entry: e.HoldPlaced, seq: int, at: int) -> None:
        sources = [(name, -delta) for name, delta in entry.legs if delta < 0]
        plain = not sources or (
            len(sources) == 1 and sources[0][0] == transfer.wallet(entry.tenant)
        )
        hold = HoldRow(
            entry.id,
            entry.tenant,
            entry.key_id,
            entry.offer,
            entry.release,
            entry.price_version,
            entry.currency,
            entry.prompt_tokens,
            entry.max_tokens,
            entry.n,
            int(entry.batch),
            entry.lifetime,
            entry.epoch,
            entry.idempotency_key,
            entry.fingerprint,
            entry.amount,
            "" if plain else json.dumps(sources, separators=(",", ":")),
            at,
            seq,
            entry.volume,
        )
        self._add(hold)
        if entry.idempotency_key is not None:
            self._promise(entry.tenant, entry.idempotency_key, entry.fingerprint or "", entry.id)
        self._count(hold, entry.amount, create=True)

    def _promise(self, tenant: str, key: str, fingerprint: str, hold: str) -> None:
        name = f"{tenant}/{key}"
        row = self.get(Promise, name)
        if row is None:
            self._add(Promise(name, fingerprint, hold))
        else:
            self._edit(row).hold = hold

    def _close(self, hold_id: str, state: str, seq: int, at: int) -> HoldRow:
        hold = self._edit(self._need(HoldRow, hold_id), OPEN)
        hold.state = state
        hold.closed = at
        hold.closed_seq = seq
        hold.progress = None
        return hold

    def _settled(self, entry: e.HoldSettled, seq: int, at: int) -> None:
        hold = self._close(entry.id, SETTLED, seq, at)
        usage = entry.usage
        hold.prompt, hold.completion = usage.prompt, usage.completion
        hold.cached, hold.reasoning = usage.cached, usage.reasoning
        hold.charge = entry.charge
        hold.finish = entry.finish
        self._use_volume(hold, usage.total)
        self._count(hold, entry.charge - hold.amount, create=False)

    def _voided(self, entry: e.HoldVoided, seq: int, at: int) -> None:
        hold = self._close(entry.id, VOIDED, seq, at)
        hold.finish = entry.reason
        self._count(hold, -hold.amount, create=False)


_APPLY: Final[dict[type[e.Entry], Callable[[State, Any, int, int], None]]] = {
    e.CustomerOpened: State._opened,
    e.CreditLimitSet: State._credit_limit,
    e.SpendLimitSet: State._spend_limit,
    e.KeyAdded: State._key_added,
    e.KeyRevoked: State._key_revoked,
    e.PricePublished: State._price,
    e.Deposited: State._deposited,
    e.Granted: State._granted,
    e.GrantExpired: State._nothing,
    e.HoldPlaced: State._placed,
    e.HoldSettled: State._settled,
    e.HoldVoided: State._voided,
    e.UsageFlagged: State._nothing,
    e.Refunded: State._refunded,
    e.Adjusted: State._adjusted,
}
