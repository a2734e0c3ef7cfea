"""Accounts and legs: double entry in its smallest form. Pure; knows no store and no clock.

A transfer is a tuple of legs ``(account, delta)`` in one currency that sum to zero. Account names:

- ``wallet:<tenant>``             paid money to spend; may reach minus the credit limit
- ``grant:<grant id>``            given money, one account a grant
- ``held:<tenant>``               reserved by open holds
- ``revenue:<release>:<currency>``  what was charged for a release, or for a plan's item
- ``taxes:<currency>``            tax that came with deposits and is owed to a tax office
- ``payments:<currency>``, ``grants:<currency>``, ``writeoffs:<currency>``   where money comes from:
  deposits, grants, and adjustments by hand; these go negative as customers get credit

posted = wallet + grants + held; available = posted − held.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Leg: TypeAlias = tuple[str, int]
Legs: TypeAlias = tuple[Leg, ...]
Parts: TypeAlias = tuple[Leg, ...]
"""Where a hold took its money: (account, nano-units > 0), in the order in which it is spent."""


def wallet(tenant: str) -> str:
    return f"wallet:{tenant}"


def held(tenant: str) -> str:
    return f"held:{tenant}"


def grant(grant_id: str) -> str:
    return f"grant:{grant_id}"


def revenue(release: str, currency: str) -> str:
    return f"revenue:{release}:{currency}"


def payments(currency: str) -> str:
    return f"payments:{currency}"


def taxes(currency: str) -> str:
    return f"taxes:{currency}"


def grants(currency: str) -> str:
    return f"grants:{currency}"


def writeoffs(currency: str) -> str:
    return f"writeoffs:{currency}"


def balanced(legs: Sequence[Leg]) -> bool:
    """Whether the legs sum to zero and each moves something."""
    return sum(delta for _, delta in legs) == 0 and all(delta for _, delta in legs)


def move(source: str, target: str, amount: int) -> Legs:
    """``amount`` from one account to another; nothing when it is zero."""
    return ((source, -amount), (target, amount)) if amount else ()


def deposit(tenant: str, currency: str, amount: int, tax: int) -> Legs:
    """A payment of amount + tax arrives: the amount is the customer's, the tax is owed on."""
    if not tax:
        return move(payments(currency), wallet(tenant), amount)
    return ((payments(currency), -amount - tax), (wallet(tenant), amount), (taxes(currency), tax))


def place(tenant: str, parts: Parts) -> Legs:
    """The parts of a hold leave their accounts and are held."""
    total = sum(amount for _, amount in parts)
    if not total:
        return ()
    return (*((name, -amount) for name, amount in parts), (held(tenant), total))


def consumed(parts: Parts, charge: int) -> Parts:
    """How much of each part a charge eats, first part first."""
    eaten = []
    for name, amount in parts:
        take = min(amount, charge)
        charge -= take
        if take:
            eaten.append((name, take))
    return tuple(eaten)


def settle(tenant: str, parts: Parts, charge: int, income: str) -> Legs:
    """The charge becomes revenue, eaten from the first parts first; the rest goes back."""
    total = sum(amount for _, amount in parts)
    if not total:
        return ()
    legs: list[Leg] = [(held(tenant), -total)]
    if charge:
        legs.append((income, charge))
    for name, amount in parts:
        take = min(amount, charge)
        charge -= take
        if amount > take:
            legs.append((name, amount - take))
    return tuple(legs)


def unwind(eaten: Parts, before: int, amount: int) -> Parts:
    """Which accounts get ``amount`` back, last eaten first, when ``before`` went back already."""
    back = []
    for name, part in reversed(eaten):
        skip = min(part, before)
        before -= skip
        give = min(part - skip, amount)
        amount -= give
        if give:
            back.append((name, give))
    return tuple(back)
