"""Period arithmetic: what moved a customer's money between two cuts of the journal. Pure.

The wallet of the ledger is one number; an invoice needs to know what in it was prepaid (and taxed
when it was bought) and what was used on credit (and is taxed when invoiced):

    wallet = prepaid − debt, prepaid ≥ 0

Used from the wallet in a period, net of refunds: C. Prepaid before, with top-ups and corrections of
the period: R. Then D = max(0, C − R) was used on credit, and max(0, R − C) is prepaid afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from avocado.billing.rounding import nearest
from avocado.ledger import entry as e
from avocado.ledger.reader import Record
from avocado.ledger.transfer import Legs

CREDITS: Final = "credit-note/"
"""What a credit note does in the ledger has an id that begins so: the note itself credits it, so it
is in no invoice's lines."""

MOST_REASONS: Final = 200
"""More different refunds than this are summed without their reasons."""


@dataclass(frozen=True, slots=True)
class Sold:
    """What a refund gives back: usage of a release, a fee, or neither (money that came in)."""

    offer: str = ""
    release: str = ""
    price_version: str = ""
    item: str = ""
    pays: bool = False
    """A deposit that paid an invoice."""


@dataclass(frozen=True, slots=True)
class Sum:
    """One line of fees or refunds: ``count`` postings of ``nanos`` altogether, never negative."""

    sold: Sold
    reason: str
    count: int
    nanos: int


@dataclass(slots=True)
class Movement:
    """What moved a wallet besides requests, in nano-units.

    ``refunded_grants`` is the part of ``refunded`` that went back to granted credit.
    """

    billed: int = 0
    refunded: int = 0
    refunded_grants: int = 0
    deposited: int = 0
    adjusted: int = 0
    settled: int = 0
    credited: int = 0
    fees: tuple[Sum, ...] = ()
    refunds: tuple[Sum, ...] = ()
    _fees: dict[tuple[Sold, str], list[int]] = field(default_factory=dict)
    _refunds: dict[tuple[Sold, str], list[int]] = field(default_factory=dict)

    @property
    def wallet(self) -> int:
        """By how much all of it changed the wallet."""
        came = self.deposited + self.adjusted + self.settled + self.credited
        return came - self.billed + self.refunded - self.refunded_grants


def fold(records: Iterable[Record], sold: Callable[[str], Sold]) -> Movement:
    """Adds up the postings of a period. ``sold`` says what an earlier posting or request was."""
    moved = Movement()
    for record in records:
        _add(moved, record.entry, sold)
    moved.fees = _sums(moved._fees)
    moved.refunds = _sums(moved._refunds)
    return moved


def _add(moved: Movement, entry: Any, sold: Callable[[str], Sold]) -> None:
    if isinstance(entry, e.Deposited):
        if entry.pays:
            moved.settled += entry.amount
        else:
            moved.deposited += entry.amount
    elif isinstance(entry, e.Billed):
        moved.billed += entry.amount
        _count(moved._fees, Sold(item=entry.item), entry.reason, entry.amount)
    elif isinstance(entry, e.Adjusted):
        if entry.id.startswith(CREDITS):
            moved.credited += entry.amount
        else:
            moved.adjusted += entry.amount
    elif isinstance(entry, e.Refunded):
        _add_refund(moved, entry, sold)


def _add_refund(moved: Movement, entry: e.Refunded, sold: Callable[[str], Sold]) -> None:
    wallet = _leg(entry.legs, "wallet:")
    income = -_leg(entry.legs, "revenue:")
    if income and entry.id.startswith(CREDITS):
        moved.credited += wallet
    elif income:
        moved.refunded += income
        moved.refunded_grants += income - wallet
        _count(moved._refunds, sold(entry.of), entry.reason, income)
    elif _leg(entry.legs, "payments:"):
        if sold(entry.of).pays:
            moved.settled += wallet
        else:
            moved.deposited += wallet
    elif entry.of.startswith(CREDITS):
        moved.credited += wallet
    else:
        moved.adjusted += wallet  # of a grant that was taken back this is nothing


def _leg(legs: Legs, account: str) -> int:
    return sum(delta for name, delta in legs if name.startswith(account))


def _count(sums: dict[tuple[Sold, str], list[int]], sold: Sold, reason: str, nanos: int) -> None:
    counted = sums.setdefault((sold, reason), [0, 0])
    counted[0] += 1
    counted[1] += nanos


def _sums(found: dict[tuple[Sold, str], list[int]]) -> tuple[Sum, ...]:
    if len(found) > MOST_REASONS:
        merged: dict[tuple[Sold, str], list[int]] = {}
        for (sold, _), (count, nanos) in found.items():
            both = merged.setdefault((sold, ""), [0, 0])
            both[0] += count
            both[1] += nanos
        found = merged
    return tuple(Sum(sold, reason, *counted) for (sold, reason), counted in found.items())


@dataclass(frozen=True, slots=True)
class Account:
    """Where a customer stands at a cut, in nano-units: see the top. ``carried`` was used on credit
    and not invoiced yet, because it is less than a coin (or invoiced beyond use, if negative)."""

    prepaid: int = 0
    debt: int = 0
    carried: int = 0

    @property
    def wallet(self) -> int:
        return self.prepaid - self.debt


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a period's use was paid, nano-units; ``net_minor`` coins of it are invoiced now."""

    total: int
    granted: int
    prepaid: int
    on_credit: int
    net_minor: int
    after: Account


def settle(before: Account, charged: int, granted: int, moved: Movement, unit: int) -> Settlement:
    """Closes a period whose requests were charged ``charged``, ``granted`` of it granted credit."""
    total = charged + moved.billed - moved.refunded
    free = granted - moved.refunded_grants
    used = total - free
    ready = before.prepaid + moved.deposited + moved.adjusted
    on_credit = max(0, used - ready)
    debt = before.debt + on_credit - moved.settled - moved.credited
    net, carried = nearest(on_credit + before.carried, unit)
    after = Account(max(0, ready - used), debt, carried)
    return Settlement(total, free, used - on_credit, on_credit, net, after)
