"""The audit: walks the journal once and notes the first break of each rule. No store, no State.

It shares no code with the decisions that it checks: sums, order, charges, limits, tokens and
revisions are computed here from the entries alone. ``proof`` compares the outcome with the tables.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from avocado.ledger import entry as e
from avocado.ledger import transfer
from avocado.ledger.allowance_audit import Lots
from avocado.ledger.document_audit import Documents
from avocado.ledger.periods import volume_name
from avocado.ledger.reader import Reader
from avocado.ledger.rows import PROMISED
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage


@dataclass(slots=True)
class OpenHold:
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
class Audit:
    """Walks the journal with nothing but plain dicts, and notes the first break of each rule."""

    reader: Reader
    bad: dict[int, tuple[int | None, str]] = field(default_factory=dict)
    balances: dict[str, int] = field(default_factory=dict)
    floors: dict[str, int] = field(default_factory=dict)
    currency: dict[str, str] = field(default_factory=dict)
    open: dict[str, OpenHold] = field(default_factory=dict)
    sheets: dict[str, PriceSheet] = field(default_factory=dict)
    promises: dict[tuple[str, str], _Promise] = field(default_factory=dict)
    reversed: dict[str, int] = field(default_factory=dict)
    volumes: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    frozen: set[str] = field(default_factory=set)
    lots: Lots = field(init=False)
    documents: Documents = field(init=False)
    charged: int = 0
    legs: int = 0
    last_at: int = 0

    def __post_init__(self) -> None:
        self.lots = Lots(self.fail)
        self.documents = Documents(self.fail)

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
        else:
            self._other(seq, at, entry)
        if isinstance(entry, e.Deposited | e.Granted | e.Billed | e.Adjusted):
            self.reversed[entry.id] = abs(entry.amount)
        legs = getattr(entry, "legs", ())
        if legs:
            self._legs(seq, entry, legs)

    def _other(self, seq: int, at: int, entry: e.AnyEntry) -> None:
        if isinstance(entry, e.CustomerFrozen):
            (self.frozen.add if entry.frozen else self.frozen.discard)(entry.tenant)
        elif isinstance(entry, e.AllowanceGiven):
            self.lots.given(seq, entry)
        elif isinstance(entry, e.AllowanceExpired):
            self.lots.expired(seq, at, entry)
        elif isinstance(entry, e.DocumentFiled):
            self.documents.filed(seq, entry)
        elif isinstance(entry, e.Deposited | e.Billed):
            self._paid(seq, entry)

    def _paid(self, seq: int, entry: e.Deposited | e.Billed) -> None:
        """What was paid went where the entry says, and nowhere else."""
        tax = transfer.taxes(entry.currency)
        if isinstance(entry, e.Deposited):
            due = {transfer.wallet(entry.tenant): entry.amount}
            due[transfer.payments(entry.currency)] = -entry.amount - entry.tax
            if entry.tax:
                due[tax] = entry.tax
                self.floors[tax] = 0
        else:
            due = {transfer.wallet(entry.tenant): -entry.amount}
            due[transfer.revenue(entry.item, entry.currency)] = entry.amount
        if dict(entry.legs) != due:
            self.fail(1, seq, f"the legs of {entry.id} are not what it says")

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
        self.open[entry.id] = OpenHold(entry, seq, at)
        if entry.idempotency_key is not None:
            name, mark = (entry.tenant, entry.idempotency_key), entry.fingerprint or ""
            before = self.promises.get(name)
            if before is not None and not before.frees(mark, at):
                self.fail(3, seq, f"key {entry.idempotency_key!r} stands for two requests")
            self.promises[name] = _Promise(entry.id, mark)
        taken = sum(-delta for _, delta in entry.legs if delta < 0)
        if taken != entry.amount:
            self.fail(5, seq, f"{taken} were taken for a hold of {entry.amount}")
        if entry.tenant in self.frozen:
            self.fail(10, seq, f"request {entry.id} began while {entry.tenant} was frozen")
        sheet = self.sheets.get(entry.price_version)
        if sheet is not None:
            self.lots.placed(seq, at, entry, priced=ceiling(sheet, entry, covered=0) > 0)
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
            self.lots.ended(seq, placed, 0, 0)
            return
        self.lots.ended(seq, placed, entry.usage.total, entry.covered)
        self.charged += 1
        if not 0 <= entry.charge <= placed.amount:
            self.fail(5, seq, f"{entry.charge} charged of {placed.amount} held")
        self._charge(seq, hold, entry)

    def _charge(self, seq: int, hold: OpenHold, entry: e.HoldSettled) -> None:
        placed = hold.entry
        income = transfer.revenue(placed.release, placed.currency)
        earned = sum(delta for name, delta in entry.legs if name == income)
        if earned != entry.charge:
            self.fail(9, seq, f"{earned} became revenue of a charge of {entry.charge}")
        sheet = self.sheets.get(placed.price_version)
        if sheet is not None and sheet.tiers:
            name = self._volume(placed, hold.at)
            self.volumes[name] = self.volumes.get(name, 0) + entry.usage.total
        if sheet is None:
            return
        due = charge(sheet, placed, entry.usage, entry.covered)
        if due != entry.charge:
            self.fail(9, seq, f"{entry.charge} charged where usage times price is {due}")

    def _refunded(self, seq: int, entry: e.Refunded) -> None:
        if entry.tax != -dict(entry.legs).get(transfer.taxes(entry.currency), 0):
            self.fail(1, seq, f"the tax that refund {entry.id} gives back is not in its legs")
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


def ceiling(sheet: PriceSheet, placed: e.HoldPlaced, covered: int | None = None) -> int:
    """What a hold must amount to, when the tokens that it reserves are covered."""
    if covered is None:
        covered = sum(tokens for _, tokens in placed.lots)
    return sheet.ceiling(
        placed.prompt_tokens, placed.max_tokens, placed.n, placed.batch, placed.volume, covered
    ).nanos


def charge(sheet: PriceSheet, placed: e.HoldPlaced, usage: Usage, covered: int) -> int:
    """What a settlement must charge."""
    return sheet.charge(usage, placed.batch, placed.volume, covered).nanos
