"""Stripe's objects, as JSON, read into what they mean to us. Pure: no network, no library.

Sources: Stripe's API reference (PaymentIntent, Checkout Session, Refund, Dispute, PaymentMethod,
Event) and its page on currencies, read 2026-11. An object without our metadata is not ours: an
account may take money for other things too.
"""

from __future__ import annotations

from typing import Any, Final

from avocado.billing.payment import (
    Card,
    CardRemoved,
    CardSaved,
    DisputeClosed,
    DisputeOpened,
    Event,
    Happening,
    Order,
    PaymentFailed,
    PaymentSucceeded,
    RefundFailed,
    RefundMade,
    Unrelated,
)
from avocado.errors import Refused
from avocado.terms.money import NANO, Money, MoneyError

TENANT, NET, TAX = "avocado_tenant", "avocado_net", "avocado_tax"
ATTEMPT, QUOTE = "avocado_attempt", "avocado_quote"
REFUND: Final = "avocado_refund"
"""Keys of the metadata that our objects carry."""

KINDS: Final = (
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.closed",
    "payment_method.attached",
    "payment_method.updated",
    "payment_method.automatically_updated",
    "payment_method.detached",
)
"""The events that a webhook endpoint should be sent."""

# Digits of amounts in Stripe's API, where they are not two (docs.stripe.com/currencies).
_DIGITS: Final = {
    **dict.fromkeys("BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF".split(), 0),
    **dict.fromkeys("BHD JOD KWD OMR TND".split(), 3),
}
# Amounts must be multiples of this: no fraction of ISK and UGX though they are written with two
# digits, and three-digit currencies end in 0 for the sake of card networks (same page).
_STEP: Final = {
    **dict.fromkeys("ISK UGX".split(), 100),
    **dict.fromkeys("BHD JOD KWD OMR TND".split(), 10),
}
MOST: Final = 99_999_999
"""The largest amount of one payment: eight digits."""


def unit(currency: str) -> int:
    """Nano-units of Stripe's minor unit of a currency."""
    return int(NANO // 10 ** _DIGITS.get(currency, 2))


def step(currency: str) -> int:
    """Nano-units of the smallest difference between two amounts that Stripe takes."""
    return unit(currency) * _STEP.get(currency, 1)


def to_minor(nanos: int, currency: str) -> int:
    """An amount as Stripe wants it.

    Raises:
        Refused: it is no multiple of the smallest step, or not above zero, or too large.
    """
    shown = Money(nanos, currency)
    if nanos <= 0:
        raise Refused(f"{shown} cannot be paid: the amount must be above zero")
    if nanos % step(currency):
        raise Refused(
            f"{shown} cannot be paid by card: use a multiple of {Money(step(currency), currency)}"
        )
    if nanos // unit(currency) > MOST:
        most = Money(MOST * unit(currency), currency)
        raise Refused(f"{shown} is more than one payment can be: at most {most}")
    return nanos // unit(currency)


def from_minor(amount: int, currency: str) -> int:
    """Nano-units of an amount that Stripe tells."""
    return amount * unit(currency)


def metadata_of(order: Order) -> dict[str, str]:
    """What is written on every object of an order, to be read from its events."""
    attempt = {ATTEMPT: str(order.attempt)} if order.attempt else {}
    return {
        TENANT: order.tenant,
        NET: Money(order.net, order.currency).decimal(),
        TAX: Money(order.tax, order.currency).decimal(),
        QUOTE: order.quote,
        **attempt,
    }


def order_of(metadata: dict[str, Any] | None, currency: str) -> Order | None:
    """The inverse; None where somebody has changed it so that it can't be read."""
    found = metadata or {}
    try:
        net = Money.parse(str(found[NET]), currency).nanos
        tax = Money.parse(str(found[TAX]), currency).nanos
        attempt, quote = int(found.get(ATTEMPT, 0)), str(found.get(QUOTE, ""))
        return Order(str(found[TENANT]), net, tax, currency, attempt, quote)
    except (KeyError, MoneyError, ValueError):
        return None


def is_ours(found: dict[str, Any]) -> bool:
    return TENANT in (found.get("metadata") or {})


def card_of(method: dict[str, Any]) -> Card:
    """Brand, last four digits and expiry of a PaymentMethod; nothing else of it is kept."""
    kind = str(method.get("type") or "card")
    details = method.get(kind) or {}
    brand = str(details.get("brand") or kind) if kind == "card" else kind
    return Card(
        method=str(method["id"]),
        brand=brand[:40],
        last4=str(details.get("last4") or "")[:4],
        month=int(details.get("exp_month") or 0),
        year=int(details.get("exp_year") or 0),
        created=int(method.get("created") or 0),
    )


def succeeded(intent: dict[str, Any]) -> PaymentSucceeded:
    """A PaymentIntent in the state ``succeeded``."""
    currency = str(intent["currency"]).upper()
    received = intent.get("amount_received")
    amount = int(intent["amount"] if received is None else received)
    return PaymentSucceeded(
        payment=str(intent["id"]),
        payer=_id(intent.get("customer")),
        currency=currency,
        received=from_minor(amount, currency),
        order=order_of(intent.get("metadata"), currency),
    )


def paid_checkout(session: dict[str, Any]) -> PaymentSucceeded | None:
    """A Checkout Session whose money is there; None while it is not."""
    if session.get("payment_status") != "paid" or not session.get("payment_intent"):
        return None
    currency = str(session["currency"]).upper()
    return PaymentSucceeded(
        payment=_id(session["payment_intent"]),
        payer=_id(session.get("customer")),
        currency=currency,
        received=from_minor(int(session["amount_total"]), currency),
        order=order_of(session.get("metadata"), currency),
    )


def refund_of(refund: dict[str, Any]) -> RefundMade | RefundFailed | Unrelated:
    if not refund.get("payment_intent"):
        return Unrelated("a refund of no payment intent")
    currency = str(refund["currency"]).upper()
    known: dict[str, Any] = {
        "refund": str(refund["id"]),
        "payment": _id(refund["payment_intent"]),
        "currency": currency,
        "amount": from_minor(int(refund["amount"]), currency),
        "ours": str((refund.get("metadata") or {}).get(REFUND, "")),
    }
    if refund.get("status") in ("failed", "canceled"):
        return RefundFailed(reason=str(refund.get("failure_reason") or "canceled"), **known)
    return RefundMade(**known)


def dispute_of(dispute: dict[str, Any]) -> Happening:
    if not dispute.get("payment_intent"):
        return Unrelated("a dispute of no payment intent")
    currency, status = str(dispute["currency"]).upper(), str(dispute["status"])
    known: dict[str, Any] = {
        "dispute": str(dispute["id"]),
        "payment": _id(dispute["payment_intent"]),
        "currency": currency,
        "amount": from_minor(int(dispute["amount"]), currency),
        "reason": str(dispute.get("reason") or ""),
    }
    if status in ("won", "lost"):
        return DisputeClosed(outcome="won" if status == "won" else "lost", **known)
    if status in ("warning_closed", "prevented", "charge_refunded"):
        return DisputeClosed(outcome="withdrawn", **known)
    return DisputeOpened(inquiry=status.startswith("warning"), **known)


def failed_payment(intent: dict[str, Any]) -> Happening:
    """Only automatic top-ups matter: at a Checkout page the customer sees it and tries again."""
    error = intent.get("last_payment_error") or {}
    order = order_of(intent.get("metadata"), str(intent["currency"]).upper())
    if order is None or not order.attempt:
        return Unrelated("a payment that failed while its customer was there")
    code = str(error.get("decline_code") or error.get("code") or "declined")
    return PaymentFailed(
        payment=str(intent["id"]),
        order=order,
        code=code,
        reason=str(error.get("message") or "the card was declined"),
        needs_customer=needs_customer(code),
    )


def needs_customer(code: str) -> bool:
    """Whether trying the same card again is of no use (docs.stripe.com/declines/codes)."""
    return code in (
        "authentication_required",
        "authentication_not_handled",
        "payment_intent_authentication_failure",
        "expired_card",
        "incorrect_number",
        "invalid_account",
        "lost_card",
        "stolen_card",
        "pickup_card",
        "restricted_card",
        "revocation_of_authorization",
        "revocation_of_all_authorizations",
        "stop_payment_order",
    )


def read(event: dict[str, Any]) -> Event:
    """What an event means.

    Raises:
        Refused: it is shaped as no event of Stripe's is.
    """
    try:
        kind, found = str(event["type"]), event["data"]["object"]
        what = _happening(kind, found, event["data"].get("previous_attributes") or {})
        return Event(str(event["id"]), kind, int(event["created"]), what)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refused(f"this is no event of Stripe's: {error!r}") from error


def _happening(kind: str, found: dict[str, Any], before: dict[str, Any]) -> Happening:
    if kind.startswith("checkout.session.") and kind in KINDS:
        if not is_ours(found):
            return Unrelated("a checkout that is not ours")
        return paid_checkout(found) or Unrelated("a checkout that is not paid yet")
    if kind == "payment_intent.succeeded":
        return succeeded(found) if is_ours(found) else Unrelated("a payment that is not ours")
    if kind == "payment_intent.payment_failed":
        return failed_payment(found)
    if kind.startswith("refund."):
        return refund_of(found)
    if kind.startswith("charge.dispute.") and kind in KINDS:
        return dispute_of(found)
    if kind == "payment_method.detached":
        return CardRemoved(_id(before.get("customer")), str(found["id"]))
    if kind.startswith("payment_method.") and kind in KINDS:
        payer = _id(found.get("customer"))
        return CardSaved(payer, card_of(found)) if payer else Unrelated("a card of nobody")
    return Unrelated(f"events of the kind {kind} do not matter here")


def _id(value: Any) -> str:
    """An id, where Stripe gives an id or the whole object."""
    if isinstance(value, dict):
        return str(value["id"])
    return str(value or "")
