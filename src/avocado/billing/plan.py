"""Plan: what a customer may subscribe to, or buy, read strictly from TOML. Pure and frozen.

A published plan never changes: what changes is its next version, and whoever is on an older one
stays there until moved. Amounts are nano-units of the plan's currency. Volume tiers are no matter
of plans: they stand in the price sheet of an offer.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from avocado.billing.dates import Length
from avocado.errors import Refused
from avocado.terms.money import Money, MoneyError

Kind = Literal["pay-as-you-go", "prepaid", "subscription"]
LANGUAGES: Final = ("en", "de", "es", "fr", "zh")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_Count = Annotated[int, msgspec.Meta(ge=1, le=10**15)]
_Days = Annotated[int, msgspec.Meta(ge=1, le=3660)]


class Included(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``tokens`` of ``offers`` (none named: of every offer) that a period brings."""

    tokens: _Count
    offers: tuple[str, ...] = ()


class Fee(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A subscription's terms. What goes beyond ``included`` costs the price list's price.

    ``retry_days``: after so many days without money for the fee its collection is tried again, and
    after the last of them the subscription lapses.
    """

    fee: int
    period: Length = "month"
    included: tuple[Included, ...] = ()
    credit: int = 0
    """Given each period, and gone at its end."""
    retry_days: tuple[_Days, ...] = (3, 7, 14)


class Pack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``price`` of paid money becomes ``credit``, which is gone after ``days`` if they are set."""

    price: int
    credit: int
    days: _Days | None = None


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a customer may have free for so many ``days``, once ever, whatever the plan."""

    days: _Days
    tokens: int = 0
    offers: tuple[str, ...] = ()
    amount: int = 0


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of everybody on the plan; None: the server's own."""

    requests_per_minute: _Count | None = None
    tokens_per_minute: _Count | None = None


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``offers`` are those that are for this plan (their audience says ``plan:NAME``). A plan that
    is not ``listed`` is a deal: customers do not see it, and only the operator puts them on it."""

    name: str
    kind: Kind
    currency: str
    title: dict[str, str] = {}
    listed: bool = True
    offers: tuple[str, ...] = ()
    subscription: Fee | None = None
    packs: tuple[Pack, ...] = ()
    trial: Trial | None = None
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        _check(self)

    def called(self, language: str) -> str:
        """Its title in a language, or else in English, or else its name."""
        return self.title.get(language) or self.title.get("en") or self.name


def item(name: str, version: int) -> str:
    """How a fee's ledger entry and its invoice line name a plan: ``plan:pro@3``."""
    return f"plan:{name}@{version}"


def _check(plan: Plan) -> None:
    """Raises ValueError, with the key that is wrong."""
    if not _NAME.fullmatch(plan.name) or plan.name == "none":
        raise ValueError(f"name {plan.name!r}: letters, digits, '.', '_' and '-', at most 64")
    Money(0, plan.currency)
    for language, title in plan.title.items():
        if language not in LANGUAGES or not title.strip() or len(title) > 100:
            raise ValueError(f"title.{language}: a title in one of {', '.join(LANGUAGES)}")
    if (plan.kind == "subscription") != (plan.subscription is not None):
        raise ValueError('[subscription] belongs to kind = "subscription", and only there')
    if (plan.kind == "prepaid") != bool(plan.packs):
        raise ValueError('[[packs]] belong to kind = "prepaid", and only there')
    for pack in plan.packs:
        if pack.price < 1 or pack.credit < 1:
            raise ValueError("packs: price and credit must be more than nothing")
    if (trial := plan.trial) is not None and not (trial.tokens or trial.amount):
        raise ValueError("trial: give tokens, or an amount, or both")
    if trial is not None and (trial.tokens < 0 or trial.amount < 0):
        raise ValueError("trial: tokens and amount must not be negative")
    if (terms := plan.subscription) is not None:
        if terms.fee < 0 or terms.credit < 0:
            raise ValueError("subscription: fee and credit must not be negative")
        if list(terms.retry_days) != sorted(set(terms.retry_days)) or not terms.retry_days:
            raise ValueError("subscription.retry_days: ever larger numbers of days, at least one")
        named = [set(each.offers) for each in terms.included]
        if sum(map(len, named)) != len(set().union(*named)) or sum(not each for each in named) > 1:
            raise ValueError("subscription.included: name each offer in one entry only")


_AMOUNTS: Final = {"subscription": ("fee", "credit"), "packs": ("price", "credit")}


def read_plan(path: Path, currency: str) -> Plan:
    """Reads a plan's file. ``currency`` is the workspace's, for a file that names none.

    Raises:
        Refused: no TOML, an unknown key, or a value that makes no sense; the sentence names it.
    """
    try:
        return parse_plan(path.read_bytes(), currency)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from error
    except Refused as refused:
        raise Refused(*(f"{path}: {reason}" for reason in refused.reasons)) from refused


def parse_plan(data: bytes, currency: str) -> Plan:
    """Like :func:`read_plan`, from the file's bytes."""
    try:
        given = msgspec.toml.decode(data)
        given.setdefault("currency", currency)
        for table, names in (*_AMOUNTS.items(), ("trial", ("amount",))):
            rows = given.get(table, [])
            for row in rows if isinstance(rows, list) else [rows]:
                _amounts(row, names, table, given["currency"])
        return msgspec.convert(given, Plan)
    except (msgspec.DecodeError, MoneyError, ValueError) as error:
        raise Refused(str(error)) from error


def _amounts(row: Any, names: tuple[str, ...], table: str, currency: Any) -> None:
    """Money stands as text in a plan's file, so that no float comes near it."""
    for name in names:
        if isinstance(row, dict) and name in row:
            if not isinstance(row[name], str):
                raise MoneyError(f'{table}.{name}: write an amount in quotes, such as "29.00"')
            row[name] = Money.parse(row[name], str(currency)).nanos


def to_content(plan: Plan) -> dict[str, Any]:
    """As it is filed in the ledger."""
    content: dict[str, Any] = msgspec.to_builtins(plan)
    return content


def from_content(content: dict[str, Any]) -> Plan:
    return msgspec.convert(content, Plan)
