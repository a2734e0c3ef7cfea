"""The audit of allowances: which tokens every request must have reserved and used, from the journal
alone. It chooses the lots itself and compares; it shares no code with ``allowances``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from avocado.ledger import entry as e
from avocado.ledger.transfer import Parts

Fail: TypeAlias = Callable[[int, int | None, str], None]
"""(number of the invariant, sequence, what is wrong)."""


@dataclass(slots=True)
class _Lot:
    entry: e.AllowanceGiven
    seq: int
    free: int
    expires: int | None
    reserved: int = 0
    used: int = 0
    expired: int = 0
    ended: bool = False

    def over(self, at: int) -> bool:
        return self.ended or (self.expires is not None and self.expires <= at)

    def state(self) -> tuple[int, int, int, int, int]:
        return self.entry.tokens, self.free, self.reserved, self.used, self.expired


@dataclass
class Lots:
    """Every lot's tokens, as the journal has them so far."""

    fail: Fail
    lots: dict[str, _Lot] = field(default_factory=dict)
    free: dict[str, dict[str, _Lot]] = field(default_factory=dict)
    """By tenant and id, those of which something is free."""

    def given(self, seq: int, entry: e.AllowanceGiven) -> None:
        if entry.id in self.lots or entry.tokens < 1:
            self.fail(2, seq, f"allowance {entry.id} is given twice, or of nothing")
        lot = _Lot(entry, seq, entry.tokens, entry.expires)
        self.lots[entry.id] = lot
        self.free.setdefault(entry.tenant, {})[entry.id] = lot

    def placed(self, seq: int, at: int, entry: e.HoldPlaced, priced: bool) -> None:
        """``priced``: without an allowance the request would have to hold money."""
        if not entry.lots and entry.tenant not in self.free:
            return
        due = tuple(self._choose(at, entry)) if priced else ()
        if entry.lots != due:
            self.fail(9, seq, f"the hold reserves tokens {entry.lots} where {due} are due")
        for name, tokens in entry.lots:
            self._move(seq, entry.tenant, name, free=-tokens, reserved=tokens)

    def _choose(self, at: int, entry: e.HoldPlaced) -> Iterator[tuple[str, int]]:
        left = entry.prompt_tokens + entry.n * entry.max_tokens
        order = sorted(
            self.free.get(entry.tenant, {}).values(),
            key=lambda lot: (
                lot.entry.priority,
                lot.expires is None,
                lot.expires or 0,
                lot.seq,
            ),
        )
        for lot in order:
            good = not lot.entry.offers or entry.offer in lot.entry.offers
            if left and good and not lot.over(at):
                take = min(left, lot.free)
                left -= take
                yield lot.entry.id, take

    def ended(self, seq: int, placed: e.HoldPlaced, used: int, covered: int) -> None:
        """A request that used ``used`` tokens ends; 0 if it was voided."""
        due = min(sum(tokens for _, tokens in placed.lots), used)
        if covered != due:
            self.fail(9, seq, f"{covered} tokens are covered where {due} are due")
        for name, take, back in _split(placed.lots, covered):
            self._move(seq, placed.tenant, name, free=back, reserved=-take - back, used=take)

    def expired(self, seq: int, at: int, entry: e.AllowanceExpired) -> None:
        lot = self.lots.get(entry.id)
        if lot is None or lot.free != entry.tokens:
            self.fail(2, seq, f"{entry.tokens} tokens of allowance {entry.id} expire, not its rest")
        elif not entry.ended and not lot.over(at):
            self.fail(2, seq, f"allowance {entry.id} expires before its time")
        self._move(seq, entry.tenant, entry.id, free=-entry.tokens, expired=entry.tokens)
        if entry.ended and lot is not None:
            lot.ended, lot.expires = True, at

    def _move(
        self,
        seq: int,
        tenant: str,
        name: str,
        free: int = 0,
        reserved: int = 0,
        used: int = 0,
        expired: int = 0,
    ) -> None:
        lot = self.lots.get(name)
        if lot is None or lot.entry.tenant != tenant:
            self.fail(6, seq, f"{tenant} has no allowance {name}")
            return
        lot.free += free
        lot.reserved += reserved
        lot.used += used
        lot.expired += expired
        tokens, *parts = lot.state()
        if min(parts) < 0 or sum(parts) != tokens:
            self.fail(6, seq, f"allowance {name} of {tokens} tokens falls into {parts}")
        mine = self.free.setdefault(tenant, {})
        if lot.free:
            mine[name] = lot
        else:
            mine.pop(name, None)

    def compare(self, rows: Iterator[tuple[str, int, int, int, int, int]]) -> None:
        """Against the table: (id, tokens, free, reserved, used, expired) of each lot."""
        left = dict(self.lots)
        for name, *numbers in rows:
            lot = left.pop(name, None)
            if lot is None or lot.state() != tuple(numbers):
                said = lot.state() if lot else None
                self.fail(7, lot.seq if lot else None, f"{name} is {numbers}, replayed {said}")
        for name, lot in left.items():
            self.fail(7, lot.seq, f"allowance {name} is missing")


def _split(lots: Parts, covered: int) -> Iterator[tuple[str, int, int]]:
    """(lot, tokens used of it, tokens given back), the first lot first."""
    for name, tokens in lots:
        take = min(tokens, covered)
        covered -= take
        yield name, take, tokens - take
