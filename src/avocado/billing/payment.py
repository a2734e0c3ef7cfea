"""Payment: money on its way between a customer's card and the ledger, as frozen values.

What a provider tells (``PaymentSucceeded`` …) is read from its events by its adapter; what we keep
(``Account``, ``Attempt``, ``Return``, ``Dispute``) is filed as documents of the ledger. Amounts are
nano-units. Of a card we keep brand, last four digits, expiry and the provider's name for it: its
number never reaches us. Pure; knows no provider and no store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import msgspec

from avocado.billing.invoices import TaxSum


class Card(msgspec.Struct, frozen=True):
    """A saved way to pay. ``method`` is the provider's id; ``brand`` is ``visa``, or the kind of
    what is no card (``sepa_debit``); month and year of expiry are 0 where there is none;
    ``created`` is Unix seconds."""

    method: str
    brand: str
    last4: str
    month: int = 0
    year: int = 0
    created: int = 0

    def __str__(self) -> str:
        until = f", until {self.month:02d}/{self.year}" if self.year else ""
        return f"{self.brand} •••• {self.last4}{until}"


@dataclass(frozen=True, slots=True)
class Order:
    """What a customer pays for: ``net`` becomes credit, ``tax`` is owed to a tax office.

    ``attempt`` numbers an automatic top-up; 0 is one that the customer asked for. ``quote`` names
    the document that says how the tax was decided.
    """

    tenant: str
    net: int
    tax: int
    currency: str
    attempt: int = 0
    quote: str = ""

    @property
    def gross(self) -> int:
        return self.net + self.tax


# -- what a provider tells -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PaymentSucceeded:
    """``received`` came in by ``payment``. ``order`` is what was agreed when it began; None where
    the provider's record of it cannot be read. ``payer`` is the provider's id of who paid."""

    payment: str
    payer: str
    currency: str
    received: int
    order: Order | None


@dataclass(frozen=True, slots=True)
class PaymentFailed:
    """An automatic top-up was not paid. ``needs_customer``: only the customer can make it work."""

    payment: str
    order: Order
    code: str
    reason: str
    needs_customer: bool


@dataclass(frozen=True, slots=True)
class RefundMade:
    """``amount`` (tax included) of ``payment`` goes back to the card. ``ours`` is the id under
    which we asked for it; empty if somebody did it in the provider's own pages."""

    refund: str
    payment: str
    currency: str
    amount: int
    ours: str = ""


@dataclass(frozen=True, slots=True)
class RefundFailed:
    """A refund came back: the bank did not take it, and the money is with us again."""

    refund: str
    payment: str
    currency: str
    amount: int
    reason: str
    ours: str = ""


@dataclass(frozen=True, slots=True)
class DisputeOpened:
    """The card's owner contests ``payment``. An ``inquiry`` only asks: no money was taken back."""

    dispute: str
    payment: str
    currency: str
    amount: int
    reason: str
    inquiry: bool = False


@dataclass(frozen=True, slots=True)
class DisputeClosed:
    """``withdrawn``: an inquiry that ended, or a dispute that was prevented."""

    dispute: str
    payment: str
    currency: str
    amount: int
    reason: str
    outcome: Literal["won", "lost", "withdrawn"]


@dataclass(frozen=True, slots=True)
class CardSaved:
    payer: str
    card: Card


@dataclass(frozen=True, slots=True)
class CardRemoved:
    payer: str
    method: str


@dataclass(frozen=True, slots=True)
class Unrelated:
    """Something that moves no money of ours; ``why`` is for the log."""

    why: str


Happening: TypeAlias = (
    PaymentSucceeded
    | PaymentFailed
    | RefundMade
    | RefundFailed
    | DisputeOpened
    | DisputeClosed
    | CardSaved
    | CardRemoved
    | Unrelated
)


@dataclass(frozen=True, slots=True)
class Event:
    """A provider's event: ``id`` and ``kind`` are its own, ``created`` is Unix seconds."""

    id: str
    kind: str
    created: int
    what: Happening


# -- what we keep ----------------------------------------------------------------------------------


class AutoTopUp(msgspec.Struct, frozen=True):
    """Below ``threshold`` the saved card is charged ``net`` (plus tax). ``most`` bounds the net sum
    of a calendar month, UTC. Failures count from attempt ``armed`` on; ``off`` says why it stopped.
    """

    threshold: int
    net: int
    most: int
    armed: int = 0
    off: str = ""


class Account(msgspec.Struct, frozen=True):
    """``payment/<tenant>``: who a customer is at the provider, and the card that it saved there.

    ``key`` was drawn once and makes the provider's customer once, whoever asks for it how often.
    ``gone`` are the newest ways to pay that were removed: old news of them changes nothing.
    """

    provider: str
    key: str
    payer: str = ""
    card: Card | None = None
    auto: AutoTopUp | None = None
    gone: tuple[str, ...] = ()


class Payer(msgspec.Struct, frozen=True):
    """``payer/<provider's id>``: the document's tenant is whose customer that is."""

    provider: str


class Quote(msgspec.Struct, frozen=True):
    """``top-up-quote/<tenant>/<name>``: what a top-up costs, as it was told before it was paid. A
    copy, ``top-up-taxes/<deposit>``, is what its invoice goes by."""

    net: int
    tax: int
    currency: str
    taxes: tuple[TaxSum, ...]


class Attempt(msgspec.Struct, frozen=True):
    """``auto-topup/<tenant>/<n>``: the n-th time that a balance fell below its threshold."""

    number: int
    net: int
    tax: int
    currency: str
    payer: str
    method: str
    quote: str = ""
    state: Literal["asked", "paid", "failed", "unknown"] = "asked"
    payment: str = ""
    code: str = ""
    reason: str = ""


class Return(msgspec.Struct, frozen=True):
    """``refund/<id>``: a refund that the operator asked for. ``net`` leaves the wallet, ``gross``
    goes to the card. ``asked`` → ``done`` | ``failed``: a crash in between is taken up there."""

    payment: str
    deposit: str
    net: int
    gross: int
    currency: str
    reason: str
    forced: bool = False
    state: Literal["asked", "done", "failed"] = "asked"
    refund: str = ""
    why: str = ""


class Dispute(msgspec.Struct, frozen=True):
    """``dispute/<provider's id>``. ``freezes``: the customer stays frozen on its account; ``loss``
    is what was lost and had been used already, so that the wallet could not give it back."""

    payment: str
    amount: int
    currency: str
    reason: str
    inquiry: bool
    state: Literal["open", "won", "lost", "withdrawn"] = "open"
    freezes: bool = False
    loss: int = 0


class Problem(msgspec.Struct, frozen=True):
    """``payment-problem/<payment>``: money came in that could not be credited to anybody."""

    payment: str
    payer: str
    tenant: str
    received: int
    currency: str
    why: str
    state: Literal["open", "settled"] = "open"
    note: str = ""


class Synced(msgspec.Struct, frozen=True):
    """``payments-synced``: the provider's events until ``until`` (ns) have been looked at."""

    until: int


Kept: TypeAlias = Account | Attempt | Return | Dispute | Problem | Quote
"""What is filed as documents."""


# -- names -----------------------------------------------------------------------------------------


def deposit_id(payment: str) -> str:
    """The id of the one deposit that a payment can make."""
    return f"pay_{payment}"


def account_id(tenant: str) -> str:
    return f"payment/{tenant}"


def quote_id(tenant: str, name: str) -> str:
    return f"top-up-quote/{tenant}/{name}"


def taxes_id(deposit: str) -> str:
    return f"top-up-taxes/{deposit}"


def payer_id(payer: str) -> str:
    """The document that says whose the provider's customer is."""
    return f"payer/{payer}"


def attempt_id(tenant: str, number: int) -> str:
    return f"auto-topup/{tenant}/{number}"


def problem_id(payment: str) -> str:
    return f"payment-problem/{payment}"


def dispute_id(dispute: str) -> str:
    return f"dispute/{dispute}"


def return_id(name: str) -> str:
    return f"refund/{name}"


def refund_posting(name: str) -> str:
    """The ledger's id of a refund: ours, or the provider's where somebody made it there."""
    return f"ref_{name}"


def part_posting(posting: str, number: int) -> str:
    """The ledger's id of a refund's n-th part: one for each deposit that it takes from."""
    return posting if number == 1 else f"{posting}_{number}"


def give_back(posting: str) -> str:
    """The id of the deposit that undoes a refund whose money came back to us."""
    return f"back_{posting}"


def came_back(payment: str) -> str:
    """How such a deposit names its payment."""
    return f"{payment} came back"


def cover_posting(posting: str, number: int) -> str:
    """The id of an adjustment by which we bear what a refund could not take from the wallet."""
    return f"cover_{posting}_{number}"


def restore_posting(posting: str) -> str:
    """The id of an adjustment that gives a wallet below zero its debt back after a refund."""
    return f"debt_{posting}"


def uncover_posting(posting: str) -> str:
    """The id of an adjustment that takes our bearing back, once a refund's money came back."""
    return f"uncover_{posting}"


CRUMBS: Final = 1_000
"""Nano-units that parts of a payment may be off by, together: far less than a coin."""


def net_back(net: int, tax: int, returned: int, gross: int) -> int:
    """What leaves the wallet when ``gross`` goes back of a payment of ``net`` + ``tax``, of whose
    net ``returned`` went back before. At most what is left.

    The ledger takes ⌊tax × returned ÷ net⌋ of the tax along, so the two sums are exactly what went
    back to the card, but for a nano-unit where no whole number fits; the last part takes that.
    """
    if net <= 0 or gross <= 0 or returned >= net:
        return 0
    whole = net + tax
    target = returned + tax * returned // net + gross
    if target >= whole - CRUMBS:
        return net - returned
    upper = -(-target * net // whole)
    fits = upper if upper + tax * upper // net <= target else upper - 1
    return max(fits - returned, 0)
