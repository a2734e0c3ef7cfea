"""Stripe, by its official library: the adapter behind :class:`provider.Provider`.

One ``StripeClient`` per provider and no global state. Every request that moves money carries an
idempotency key of ours. Stripe forgets keys after a day (docs.stripe.com/api/idempotent_requests),
so nobody asks again later than that without looking first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from avocado.billing import stripe_events as s
from avocado.billing.payment import (
    Card,
    Event,
    Order,
    PaymentSucceeded,
    RefundFailed,
    RefundMade,
    Unrelated,
)
from avocado.billing.provider import (
    BadSignature,
    Checkout,
    Declined,
    ProviderAway,
    ProviderRefused,
)
from avocado.errors import Refused

if TYPE_CHECKING:
    import stripe

TOLERANCE: Final = 300
"""Seconds between a webhook's signature and now. Stripe signs every delivery afresh, a retry after
a day too, so only a replayed body is older."""
CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 30.0
RETRIES: Final = 2


class StripeProvider:
    """Implements :class:`provider.Provider`."""

    def __init__(self, key: str, secret: str | None, api_base: str | None = None) -> None:
        try:
            import stripe
        except ModuleNotFoundError as error:
            raise Refused(
                "payments need Stripe's library: pip install 'avocado-llm[billing]'"
            ) from error
        self.live = key.startswith(("sk_live_", "rk_live_"))
        self.name = "stripe" if self.live else "stripe-test"
        self.listens = secret is not None
        self._secret = secret
        self._client = stripe.StripeClient(
            key,
            base_addresses={"api": api_base} if api_base else {},
            http_client=stripe.RequestsClient(timeout=(CONNECT_SECONDS, READ_SECONDS)),
            max_network_retries=RETRIES,
        )

    def check_amount(self, nanos: int, currency: str) -> None:
        s.to_minor(nanos, currency)

    def smallest(self, currency: str) -> int:
        return s.step(currency)

    # -- customers and what they pay ---------------------------------------------------------------

    def create_payer(self, tenant: str, name: str, email: str | None, key: str) -> str:
        # The same parameters whoever asks, or Stripe refuses the key; the address comes after.
        params: dict[str, Any] = {"name": name, "metadata": {s.TENANT: tenant}}
        with _asking():
            made = self._client.v1.customers.create(params, {"idempotency_key": key})  # type: ignore[arg-type]
            if email:
                self._client.v1.customers.update(made.id, {"email": email})
        return str(made.id)

    def open_checkout(
        self, payer: str, order: Order, success_url: str, cancel_url: str
    ) -> Checkout:
        metadata, items = s.metadata_of(order), [_item("Credit", order.net, order.currency)]
        if order.tax:
            items.append(_item("Tax", order.tax, order.currency))
        s.to_minor(order.gross, order.currency)
        params: dict[str, Any] = {
            "mode": "payment",
            "customer": payer,
            "client_reference_id": order.tenant,
            "line_items": items,
            # A price in the customer's own currency would come in as another amount than agreed.
            "adaptive_pricing": {"enabled": False},
            "payment_intent_data": {"setup_future_usage": "off_session", "metadata": metadata},
            "metadata": metadata,
            "success_url": success_url,
            "cancel_url": cancel_url,
        }
        with _asking():
            made = self._client.v1.checkout.sessions.create(params)  # type: ignore[arg-type]
        return Checkout(str(made.id), str(made.url))

    def find_checkout(self, checkout: str) -> PaymentSucceeded | None:
        with _asking():
            found = _or_none(lambda: self._client.v1.checkout.sessions.retrieve(checkout))
        if found is None or not s.is_ours(found):
            return None
        return s.paid_checkout(found)

    def find_payment(self, payment: str) -> PaymentSucceeded | None:
        with _asking():
            found = _or_none(lambda: self._client.v1.payment_intents.retrieve(payment))
        if found is None or found.get("status") != "succeeded" or not s.is_ours(found):
            return None
        return s.succeeded(found)

    def charge_saved(self, payer: str, method: str, order: Order, key: str) -> PaymentSucceeded:
        params: dict[str, Any] = {
            "amount": s.to_minor(order.gross, order.currency),
            "currency": order.currency.lower(),
            "customer": payer,
            "payment_method": method,
            # Nothing that would send the customer to another site: nobody is there to follow.
            # (payment_method_types is refused since 2026-09-30.endive.)
            "allowed_payment_method_types": [self._kind(method)],
            "confirm": True,
            "off_session": True,
            "metadata": s.metadata_of(order),
        }
        with _asking():
            made = self._client.v1.payment_intents.create(params, {"idempotency_key": key})  # type: ignore[arg-type]
        intent = made.to_dict()
        if intent["status"] == "succeeded":
            return s.succeeded(intent)
        if intent["status"] == "processing":
            raise ProviderAway(f"the payment {intent['id']} is under way; its event will tell")
        raise Declined(
            "authentication_required",
            "the bank wants the card's owner to confirm the payment",
            needs_customer=True,
            payment=str(intent["id"]),
        )

    def _kind(self, method: str) -> str:
        with _asking():
            found = _or_none(lambda: self._client.v1.payment_methods.retrieve(method))
        if found is None:
            raise Declined("no_card", "the saved card is no longer there", needs_customer=True)
        return str(found.get("type") or "card")

    def find_card(self, payer: str, method: str) -> Card | None:
        with _asking():
            found = _or_none(lambda: self._client.v1.payment_methods.retrieve(method))
        if found is None or found.get("customer") != payer:
            return None
        return s.card_of(found)

    def portal_link(self, payer: str, return_url: str) -> str:
        with _asking():
            made = self._client.v1.billing_portal.sessions.create(
                {"customer": payer, "return_url": return_url}
            )
        return str(made.url)

    # -- money that goes back ----------------------------------------------------------------------

    def refund(self, payment: str, gross: int, currency: str, ours: str) -> RefundMade:
        params: dict[str, Any] = {
            "payment_intent": payment,
            "amount": s.to_minor(gross, currency),
            "metadata": {s.REFUND: ours},
        }
        key = {"idempotency_key": f"refund-{payment}-{ours}"}
        with _asking():
            made = self._client.v1.refunds.create(params, key)  # type: ignore[arg-type]
        what = s.refund_of(made.to_dict())
        if isinstance(what, RefundFailed):
            raise ProviderRefused(f"the refund failed at Stripe: {what.reason}")
        if isinstance(what, Unrelated):
            raise ProviderAway(f"Stripe answered a refund with {what.why}")
        return what

    def find_refund(self, payment: str, ours: str) -> RefundMade | RefundFailed | None:
        with _asking():
            page = self._client.v1.refunds.list({"payment_intent": payment, "limit": 100})
            for refund in page.auto_paging_iter():
                what = s.refund_of(refund.to_dict())
                if not isinstance(what, Unrelated) and what.ours == ours:
                    return what
        return None

    # -- events ------------------------------------------------------------------------------------

    def read_event(self, body: bytes, signature: str | None) -> Event:
        import stripe

        if self._secret is None:
            raise BadSignature("webhooks are refused: STRIPE_WEBHOOK_SECRET is not set")
        try:
            event = self._client.construct_event(body, signature, self._secret, TOLERANCE)
        except stripe.SignatureVerificationError as error:
            raise BadSignature(f"not signed by Stripe: {error.user_message}") from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise BadSignature(f"no event of Stripe's: {type(error).__name__}") from error
        return self._read(event.to_dict())

    def _read(self, told: dict[str, Any]) -> Event:
        if bool(told.get("livemode")) != self.live:
            which = "real" if self.live else "test"
            raise BadSignature(f"the key is for {which} money, and this event is not")
        return s.read(told)

    def read_trusted(self, body: bytes) -> Event:
        try:
            event = self._client.construct_event_without_verification(body)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise Refused(f"no event of Stripe's: {error}") from error
        return self._read(event.to_dict())

    def recent(self, since: int) -> Iterator[Event]:
        found: list[dict[str, Any]] = []
        with _asking():
            for kind in s.KINDS:
                page = self._client.v1.events.list(
                    {"type": kind, "created": {"gte": since}, "limit": 100}
                )
                found += [event.to_dict() for event in page.auto_paging_iter()]
        for event in sorted(found, key=lambda event: (event["created"], event["id"])):
            yield s.read(event)


def _item(name: str, nanos: int, currency: str) -> dict[str, Any]:
    price = {
        "currency": currency.lower(),
        "unit_amount": s.to_minor(nanos, currency),
        "product_data": {"name": name},
    }
    return {"price_data": price, "quantity": 1}


def _or_none(ask: Any) -> dict[str, Any] | None:
    """What was asked for, or None where Stripe has no such thing."""
    import stripe

    try:
        found: dict[str, Any] = ask().to_dict()
    except stripe.InvalidRequestError as error:
        if error.http_status == 404:
            return None
        raise
    return found


@contextmanager
def _asking() -> Iterator[None]:
    """Stripe's errors in our words. Only a clear no is a no: all else may have happened."""
    import stripe

    try:
        yield
    except stripe.CardError as error:
        raise _declined(error) from error
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        raise ProviderRefused(f"Stripe does not accept the key: {error.user_message}") from error
    except stripe.InvalidRequestError as error:
        if error.http_status == 409:
            raise ProviderAway(f"Stripe is at it already: {error.user_message}") from error
        raise ProviderRefused(f"Stripe refused: {error.user_message}") from error
    except stripe.StripeError as error:
        raise ProviderAway(f"Stripe did not answer clearly: {error.user_message}") from error


def _declined(error: stripe.CardError) -> Declined:
    body = error.json_body if isinstance(error.json_body, dict) else {}
    told = body.get("error") or {}
    code = str(told.get("decline_code") or error.code or "declined")
    if error.code == "authentication_required":
        code = error.code
    intent = told.get("payment_intent") or {}
    return Declined(
        code,
        error.user_message or "the card was declined",
        s.needs_customer(code),
        str(intent.get("id") or ""),
    )
