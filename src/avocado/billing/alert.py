"""Alert: a threshold that a customer, or the operator, wants to hear of. Pure and frozen."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import msgspec

Kind = Literal["spend", "balance"]
ADDRESS: Final = re.compile(r"[^@\s<>,;:\"()\x00-\x1f\x7f]{1,64}@[A-Za-z0-9.-]{1,190}")
"""What we send mail to: one plain address, without a name and without anything to inject."""


class Alert(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fires when the month's spend has reached ``amount`` (nano-units) or ``percent`` of the
    customer's monthly limit, or when the balance is below ``amount``.

    A spend alert fires once a calendar month (UTC), a balance alert once after each credit. Spend
    is what requests were charged, less refunds: what a spend limit counts, without plans' fees.
    It goes to a mail address, to a webhook, or to both. ``serial`` names the webhook's secret.
    """

    tenant: str
    number: int
    kind: Kind
    currency: str
    amount: Annotated[int, msgspec.Meta(ge=1)] | None = None
    percent: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = None
    email: str | None = None
    webhook: str | None = None
    language: str = "en"
    serial: str = ""
    removed: bool = False

    def __post_init__(self) -> None:
        if (self.amount is None) == (self.percent is None):
            raise ValueError("an alert has an amount or a percentage, and not both")
        if self.kind == "balance" and self.amount is None:
            raise ValueError("a balance alert needs an amount")
        if self.email is None and self.webhook is None:
            raise ValueError("say where it goes: to a mail address, a webhook, or both")
        if self.email is not None and not ADDRESS.fullmatch(self.email):
            raise ValueError(f"{self.email!r} is no mail address such as finance@example.com")

    @property
    def id(self) -> str:
        return f"alert/{self.tenant}/{self.number}"


class Position(msgspec.Struct, frozen=True):
    """How a customer stands, in nano-units: spent this ``month`` (``2026-11``), the limit of it,
    and what is available. ``credited`` is the journal entry that last brought money."""

    month: str
    spent: int
    limit: int | None
    available: int
    credited: int = 0


def threshold(alert: Alert, at: Position) -> int | None:
    """The amount that it stands for, rounded up; None while there is no limit to take a part of."""
    if alert.amount is not None:
        return alert.amount
    if at.limit is None or alert.percent is None:
        return None
    return -(-at.limit * alert.percent // 100)


def fires(alert: Alert, at: Position) -> str | None:
    """The id of the notice, the same for the whole period, or None if it does not fire."""
    level = threshold(alert, at)
    if alert.removed or level is None:
        return None
    if alert.kind == "spend":
        return f"{alert.id}/{at.month}" if at.spent >= level else None
    return f"{alert.id}/{at.credited}" if at.available < level else None
