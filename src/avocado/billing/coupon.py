"""Coupon: a code that takes something off a subscription's fees, or gives credit. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Final, Literal

import msgspec

CODE: Final = re.compile(r"[A-Z0-9][A-Z0-9-]{2,39}")
MILLION: Final = 1_000_000
Kind = Literal["percent", "amount", "credit"]


class Coupon(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``value`` is millionths of a fee for ``percent``, else nano-units of ``currency``.

    It takes something off ``periods`` fees, or gives credit once (``days`` until it is gone).
    ``begins`` ≤ day of redemption ≤ ``ends``. ``most`` customers can redeem it, each once; with
    ``plans`` it serves those plans only. ``taken`` counts redemptions. The newest is spelled out
    (``last``, ``at``): its own document may still have to be filed.
    """

    code: str
    kind: Kind
    value: Annotated[int, msgspec.Meta(ge=1)]
    currency: str = ""
    periods: Annotated[int, msgspec.Meta(ge=1, le=120)] = 1
    days: Annotated[int, msgspec.Meta(ge=1, le=3660)] | None = None
    begins: date | None = None
    ends: date | None = None
    most: Annotated[int, msgspec.Meta(ge=1)] | None = None
    plans: tuple[str, ...] = ()
    taken: int = 0
    last: str = ""
    at: int = 0

    def __post_init__(self) -> None:
        if not CODE.fullmatch(self.code):
            raise ValueError(f"{self.code!r}: 3 to 40 capital letters, digits and -")
        if self.kind == "percent" and self.value > MILLION:
            raise ValueError("a coupon takes at most 100 % off")
        if self.kind != "percent" and not self.currency:
            raise ValueError("an amount needs its currency")
        if self.begins and self.ends and self.ends < self.begins:
            raise ValueError("a coupon ends on or after the day on which it begins")


class Redemption(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That ``tenant`` redeemed ``code``, as the ``place``-th customer, at ``at`` (ns)."""

    code: str
    tenant: str
    place: int
    at: int


class Discount(msgspec.Struct, frozen=True):
    """A coupon that a customer has redeemed, as far as fees go."""

    code: str
    kind: Kind
    value: int
    periods: int
    plans: tuple[str, ...] = ()

    def suits(self, plan: str) -> bool:
        return not self.plans or plan in self.plans

    def serves(self, plan: str, used: int) -> bool:
        """Whether it takes something off another fee of this plan, after ``used`` others."""
        return self.kind != "credit" and used < self.periods and self.suits(plan)


def reduced(fee: int, discounts: Sequence[Discount]) -> int:
    """The fee less every discount, one after the other, each rounded down; never below nothing."""
    for each in discounts:
        off = fee * each.value // MILLION if each.kind == "percent" else each.value
        fee = max(fee - off, 0)
    return fee


def refusal(coupon: Coupon, today: date, currency: str, plan: str | None) -> str | None:
    """Why it cannot be redeemed today by a customer on ``plan``, or None if it can."""
    if coupon.begins is not None and today < coupon.begins:
        return f"{coupon.code} can be redeemed from {coupon.begins} on"
    if coupon.ends is not None and today > coupon.ends:
        return f"{coupon.code} could be redeemed until {coupon.ends}"
    if coupon.kind != "percent" and coupon.currency != currency:
        return f"{coupon.code} is in {coupon.currency}, and this customer's book in {currency}"
    if coupon.most is not None and coupon.taken >= coupon.most:
        return f"{coupon.code} is used up: {coupon.most} customers have redeemed it"
    if coupon.plans and coupon.kind == "credit" and plan not in coupon.plans:
        return f"{coupon.code} is for the plans {', '.join(coupon.plans)}"
    if coupon.plans and plan is not None and plan not in coupon.plans:
        return f"{coupon.code} is for the plans {', '.join(coupon.plans)}, and not for {plan}"
    return None
