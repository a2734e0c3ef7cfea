"""The proof: checks the ten invariants of money over a stored book, and names the first bad entry.

Pure over a reader: it reads the journal once, rebuilds what it needs in memory and compares it with
the tables. It shares ``State.apply`` with the writer only where the tables are compared with the
replay (7); sums, order, charges and limits are computed here, from the entries alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from avocado.ledger import chain, transfer
from avocado.ledger import entry as e
from avocado.ledger.errors import LedgerCorrupt, LedgerError
from avocado.ledger.periods import volume_name
from avocado.ledger.reader import Reader
from avocado.ledger.rows import COLUMNS, PROMISED, SETTLED, TABLES, VOIDED, HoldRow, Row
from avocado.ledger.state import State
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage

NAMES: Final = {
    1: "every transaction sums to zero, in integers",
    2: "entries are append-only; a correction is a reversal",
    3: "an idempotency key stands for one request a day",
    4: "what was acknowledged is stored",
    5: "each hold ends once, and costs at most what was held",
    6: "no balance is below its limit, at any entry",
    7: "the stored tables equal the replayed journal",
    8: "the journal is gapless and its hash chain is whole",
    9: "each charge is usage times the pinned price",
    10: "each request ends charged, voided or refused",
}
SLACK: Final = 3_600_000_000_000 * 2
"""A hold may outlive its deadline by this much wall time (ns): clocks step by an hour."""


@dataclass(frozen=True, slots=True)
class Check:
    """One invariant: what was checked (counted), whether it holds, and the first bad sequence."""

    number: int
    name: str
    checked: str
    ok: bool
    seq: int | None = None
    detail: str = ""


@dataclass(slots=True)
class _Hold:
    """What the proof remembers of an open hold."""

    entry: e.HoldPlaced
    seq: int
    at: int


@dataclass(slots=True)
class _Promise:
    """The request that an idempotency key stands for; ``ended`` (ns) when it was closed."""

    request: str
    fingerprint: str
    ended: int | None = None
    voided: bool = False

    def frees(self, fingerprint: str, at: int) -> bool:
        """Whether another request may take the key at ``at``."""
        if self.ended is None:
            return False
        again = self.voided and self.fingerprint == fingerprint
        return again or self.ended + PROMISED <= at


@dataclass
class _Audit:
    """Walks the journal with nothing but plain dicts, and notes the first break of each rule."""

    reader: Reader
    bad: dict[int, tuple[int | None, str]] = field(default_factory=dict)
    balances: dict[str, int] = field(default_factory=dict)
    floors: dict[str, int] = field(default_factory=dict)
    currency: dict[str, str] = field(default_factory=dict)
    open: dict[str, _Hold] = field(default_factory=dict)
    sheets: dict[str, PriceSheet] = field(default_factory=dict)
    promises: dict[tuple[str, str], _Promise] = field(default_factory=dict)
    reversed: dict[str, int] = field(default_factory=dict)
    volumes: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    charged: int = 0
    legs: int = 0
    last_at: int = 0

    def fail(self, number: int, seq: int | None, detail: str) -> None:
        self.bad.setdefault(number, (seq, detail))

    def entry(self, seq: int, at: int, entry: e.AnyEntry) -> None:
        self.counts[type(entry).__name__] = self.counts.get(type(entry).__name__, 0) + 1
        self.last_at = max(self.last_at, at)
        if isinstance(entry, e.CustomerOpened):
            self.floors[transfer.wallet(entry.tenant)] = -entry.credit_limit
            self.floors[transfer.held(entry.tenant)] = 0
            self.currency[entry.tenant] = entry.currency
        elif isinstance(entry, e.CreditLimitSet):
            self.floors[transfer.wallet(entry.tenant)] = -entry.credit_limit
        elif isinstance(entry, e.PricePublished):
            self._price(seq, entry)
        elif isinstance(entry, e.HoldPlaced):
            self._placed(seq, at, entry)
        elif isinstance(entry, e.HoldSettled | e.HoldVoided):
            self._ended(seq, at, entry)
        elif isinstance(entry, e.Refunded):
            self._refunded(seq, entry)
        elif isinstance(entry, e.Granted):
            self.floors[transfer.grant(entry.id)] = 0
        if isinstance(entry, e.Deposited | e.Granted | e.Billed | e.Adjusted):
            self.reversed[entry.id] = abs(entry.amount)
        legs = getattr(entry, "legs", ())
        if legs:
            self._legs(seq, entry, legs)

    def _legs(self, seq: int, entry: Any, legs: transfer.Legs) -> None:
        self.legs += len(legs)
        if not transfer.balanced(legs):
            self.fail(1, seq, f"the legs sum to {sum(delta for _, delta in legs)}")
        if self.currency.get(entry.tenant) != entry.currency:
            self.fail(1, seq, f"{entry.currency} in a book of {self.currency.get(entry.tenant)}")
        for name, delta in legs:
            balance = self.balances.get(name, 0) + delta
            self.balances[name] = balance
            floor = self.floors.get(name)
            if floor is not None and balance < floor:
                self.fail(6, seq, f"{name} is {balance}, below {floor}")

    def _price(self, seq: int, entry: e.PricePublished) -> None:
        sheet = PriceSheet(**entry.terms)
        if sheet.version != entry.version:
            self.fail(9, seq, f"price {entry.version} hashes to {sheet.version}")
        self.sheets[entry.version] = sheet

    def _placed(self, seq: int, at: int, entry: e.HoldPlaced) -> None:
        if entry.id in self.open:
            self.fail(5, seq, f"request {entry.id} is held twice")
        self.open[entry.id] = _Hold(entry, seq, at)
        if entry.idempotency_key is not None:
            name, mark = (entry.tenant, entry.idempotency_key), entry.fingerprint or ""
            before = self.promises.get(name)
            if before is not None and not before.frees(mark, at):
                self.fail(3, seq, f"key {entry.idempotency_key!r} stands for two requests")
            self.promises[name] = _Promise(entry.id, mark)
        taken = sum(-delta for _, delta in entry.legs if delta < 0)
        if taken != entry.amount:
            self.fail(5, seq, f"{taken} were taken for a hold of {entry.amount}")
        sheet = self.sheets.get(entry.price_version)
        if sheet is None:
            self.fail(9, seq, f"price {entry.price_version} was not published")
        elif sheet.tiers and entry.volume != self.volumes.get(self._volume(entry, at), 0):
            self.fail(9, seq, f"{entry.volume} tokens picked the tier, not those of the month")
        elif entry.amount != ceiling(sheet, entry):
            self.fail(9, seq, f"the hold is {entry.amount}, the ceiling {ceiling(sheet, entry)}")

    @staticmethod
    def _volume(placed: e.HoldPlaced, at: int) -> str:
        return volume_name(placed.tenant, placed.price_version, at)

    def _ended(self, seq: int, at: int, entry: e.HoldSettled | e.HoldVoided) -> None:
        hold = self.open.pop(entry.id, None)
        if hold is None:
            self.fail(5, seq, f"hold {entry.id} was not open")
            return
        placed = hold.entry
        if placed.tenant != entry.tenant:
            self.fail(5, seq, f"hold {entry.id} belongs to {placed.tenant}")
        freed = -sum(delta for name, delta in entry.legs if name == transfer.held(entry.tenant))
        if freed != placed.amount:
            self.fail(5, seq, f"{freed} were released of a hold of {placed.amount}")
        voided = isinstance(entry, e.HoldVoided)
        promise = self.promises.get((placed.tenant, placed.idempotency_key or ""))
        if promise is not None and promise.request == placed.id:
            promise.ended, promise.voided = at, voided
        if isinstance(entry, e.HoldVoided):
            return
        self.charged += 1
        if not 0 <= entry.charge <= placed.amount:
            self.fail(5, seq, f"{entry.charge} charged of {placed.amount} held")
        self._charge(seq, hold, entry)

    def _charge(self, seq: int, hold: _Hold, entry: e.HoldSettled) -> None:
        placed = hold.entry
        income = transfer.revenue(placed.release, placed.currency)
        earned = sum(delta for name, delta in entry.legs if name == income)
        if earned != entry.charge:
            self.fail(9, seq, f"{earned} became revenue of a charge of {entry.charge}")
        sheet = self.sheets.get(placed.price_version)
        if sheet is not None and sheet.tiers:
            name = self._volume(placed, hold.at)
            self.volumes[name] = self.volumes.get(name, 0) + entry.usage.total
        if sheet is not None and charge(sheet, placed, entry.usage) != entry.charge:
            due = charge(sheet, placed, entry.usage)
            self.fail(9, seq, f"{entry.charge} charged where usage times price is {due}")

    def _refunded(self, seq: int, entry: e.Refunded) -> None:
        whole = self.reversed.get(entry.of)
        left = (self._charged(entry.of) if whole is None else whole) - entry.amount
        self.reversed[entry.of] = left
        if left < 0 or entry.amount <= 0:
            self.fail(2, seq, f"{entry.amount} of {entry.of} are reversed, {-left} too many")

    def _charged(self, request: str) -> int:
        """What the journal says that a request cost; the table only says where to look."""
        row = self.reader.hold(request)
        record = self.reader.entry(row.closed_seq) if row and row.closed_seq else None
        if record is None or not isinstance(record.entry, e.HoldSettled):
            return 0
        return record.entry.charge if record.entry.id == request else 0


def ceiling(sheet: PriceSheet, placed: e.HoldPlaced) -> int:
    """What a hold must amount to."""
    return sheet.ceiling(
        placed.prompt_tokens, placed.max_tokens, placed.n, placed.batch, placed.volume
    ).nanos


def charge(sheet: PriceSheet, placed: e.HoldPlaced, usage: Usage) -> int:
    """What a settlement must charge."""
    return sheet.charge(usage, placed.batch, placed.volume).nanos


def prove(reader: Reader, now: int, deep: bool = False) -> list[Check]:
    """Checks all ten invariants at wall time ``now`` (ns); see :data:`NAMES` for their order.

    ``deep`` also replays the whole journal into empty tables and compares every row of every table
    (memory grows with the number of requests); without it the accounts and open holds are compared.
    """
    with reader.snapshot():
        return _prove(reader, now, deep)


def _prove(reader: Reader, now: int, deep: bool) -> list[Check]:
    audit = _Audit(reader)
    replay = State() if deep else None
    entries = 0
    try:
        for seq, at, entry in chain.walk(reader.rows):
            entries = seq
            try:
                audit.entry(seq, at, entry)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                audit.fail(9, seq, f"the entry makes no sense: {error}")
            if replay is not None:
                _apply(replay, audit, seq, at, entry)
        chain.ends_well(reader.rows, entries, *chain.head(reader.rows))
    except LedgerCorrupt as damage:
        for number in (8, 4, 2):
            audit.fail(number, damage.seq, damage.detail)
    _compare_tables(reader, audit)
    if replay is not None:
        _compare_rows(reader, replay, audit)
    _deadlines(audit, now)
    return _report(audit, entries, deep)


def _apply(replay: State, audit: _Audit, seq: int, at: int, entry: e.AnyEntry) -> None:
    try:
        replay.apply(entry, seq, at)
    except (KeyError, LedgerError) as error:
        audit.fail(7, seq, f"the entry cannot be replayed: {error}")


def _compare_tables(reader: Reader, audit: _Audit) -> None:
    stored = reader.accounts()
    for name in sorted(stored.keys() | audit.balances.keys()):
        if stored.get(name, 0) != audit.balances.get(name, 0):
            audit.fail(
                7,
                None,
                f"{name} is stored as {stored.get(name)}, replayed as "
                f"{audit.balances.get(name, 0)}",
            )
    held: dict[str, int] = {}
    for hold in audit.open.values():
        name = transfer.held(hold.entry.tenant)
        held[name] = held.get(name, 0) + hold.entry.amount
    for name, balance in audit.balances.items():
        if name.startswith("held:") and balance != held.get(name, 0):
            audit.fail(5, None, f"{name} is {balance}, its open holds sum to {held.get(name, 0)}")
    open_rows = {row.id: row.seq for row in reader.open_holds()}
    for request in sorted(open_rows.keys() ^ audit.open.keys()):
        seq = audit.open[request].seq if request in audit.open else open_rows[request]
        audit.fail(10, seq, f"request {request} is open in one of journal and table only")
    ended: dict[str, int] = dict(reader.rows("SELECT state, count(*) FROM hold GROUP BY state", ()))
    for state, kind in ((SETTLED, "HoldSettled"), (VOIDED, "HoldVoided")):
        if ended.get(state, 0) != audit.counts.get(kind, 0):
            audit.fail(
                10,
                None,
                f"{ended.get(state, 0)} holds are {state}, the journal says "
                f"{audit.counts.get(kind, 0)}",
            )
    promised = sum(1 for _ in reader.rows("SELECT name FROM promise", ()))
    if promised != len(audit.promises):
        audit.fail(3, None, f"{promised} keys are stored, the journal names {len(audit.promises)}")


def _compare_rows(reader: Reader, replay: State, audit: _Audit) -> None:
    """Every row of every table against the replayed one; progress is not journalled."""
    for kind, table in TABLES.items():
        rows = dict(replay.rows[kind])
        for stored in _stored(reader, kind):
            key = getattr(stored, kind.__struct_fields__[0])
            expected = rows.pop(key, None)
            if isinstance(stored, HoldRow):
                stored.progress = None
            if stored != expected:
                seq = getattr(stored, "closed_seq", None) or getattr(stored, "seq", None)
                audit.fail(7, seq, f"{table} {key!r} differs from its replay")
        for key, row in rows.items():
            if row is not None:
                audit.fail(7, getattr(row, "seq", None), f"{table} {key!r} is missing")


def _stored(reader: Reader, kind: type[Row]) -> Iterator[Row]:
    sql = f"SELECT {', '.join(COLUMNS[kind])} FROM {TABLES[kind]}"  # noqa: S608
    for row in reader.rows(sql, ()):
        yield kind(*row)


def _deadlines(audit: _Audit, now: int) -> None:
    """A hold of a living process ends by its deadline, one of a dead process at the next start."""
    for hold in audit.open.values():
        if now - hold.at - hold.entry.lifetime > SLACK:
            audit.fail(5, hold.seq, f"hold {hold.entry.id} outlived its deadline")


def _report(audit: _Audit, entries: int, deep: bool) -> list[Check]:
    counts = audit.counts
    holds = counts.get("HoldPlaced", 0)
    reversals = counts.get("Refunded", 0) + counts.get("GrantExpired", 0)
    compared = "every row of every table" if deep else "accounts, open holds and counts of ends"
    checked: dict[int, str] = {
        1: f"{audit.legs} legs in {entries} entries",
        2: f"{reversals} reversals and expiries in {entries} entries",
        3: f"{len(audit.promises)} keys",
        4: f"{entries} entries up to the head",
        5: f"{holds} holds",
        6: f"{len(audit.floors)} limited accounts after each of {entries} entries",
        7: f"{len(audit.balances)} accounts; {compared}",
        8: f"{entries} hashes",
        9: f"{holds} holds and {audit.charged} charges recomputed",
        10: f"{holds} requests, {len(audit.open)} of them open",
    }
    return [
        Check(
            number,
            name,
            checked[number],
            number not in audit.bad,
            *(audit.bad.get(number, (None, ""))),
        )
        for number, name in NAMES.items()
    ]
