"""Provider: who takes money for us, behind an interface that a second one fits.

A provider turns orders into pages and charges, and its events into frozen values. It knows nothing
of the ledger. Every method may raise :class:`ProviderAway`; asking again with the same key is safe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

from avocado.billing.payment import Card, Event, Order, PaymentSucceeded, RefundFailed, RefundMade
from avocado.errors import Refused

API_KEY: Final = "STRIPE_API_KEY"
WEBHOOK_SECRET: Final = "STRIPE_WEBHOOK_SECRET"  # noqa: S105 (the variable's name)


class PaymentsOff(Refused):
    """No provider is set up; credit is given by the operator."""


class ProviderAway(Refused):
    """The provider did not answer, or not clearly: what was asked may have happened or not."""


class ProviderRefused(Refused):
    """The provider understood and said no; nothing happened."""


class Declined(ProviderRefused):
    """The card was not charged. ``needs_customer``: its owner has to do something about it."""

    def __init__(self, code: str, reason: str, needs_customer: bool, payment: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.needs_customer = needs_customer
        self.payment = payment


class BadSignature(Refused):
    """A webhook that did not come from the provider, or came too late to be believed."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A page at the provider's where a customer pays; ``id`` finds it again."""

    id: str
    url: str


class Provider(Protocol):
    """What is asked of a provider. Amounts are nano-units of the order's currency."""

    name: str
    """Tells real money and test money apart: ids of one mean nothing to the other."""
    live: bool
    """Whether it moves real money."""
    listens: bool
    """Whether events can be verified: without the secret they are all refused."""

    def check_amount(self, nanos: int, currency: str) -> None:
        """Raises Refused for an amount that the provider cannot express or take."""

    def smallest(self, currency: str) -> int:
        """The step of amounts in a currency, nano-units."""

    def create_payer(self, tenant: str, name: str, email: str | None, key: str) -> str:
        """The provider's customer for a tenant; the same one for the same ``key``."""

    def open_checkout(
        self, payer: str, order: Order, success_url: str, cancel_url: str
    ) -> Checkout:
        """A page to pay an order on; the way to pay is saved for automatic top-ups."""

    def find_checkout(self, checkout: str) -> PaymentSucceeded | None:
        """What was paid on a page; None while nothing is."""

    def find_payment(self, payment: str) -> PaymentSucceeded | None:
        """A payment by its id; None if it did not succeed."""

    def charge_saved(self, payer: str, method: str, order: Order, key: str) -> PaymentSucceeded:
        """Charges a saved card with nobody present; the same ``key`` charges once.

        Raises:
            Declined: it was not charged.
            ProviderAway: it may have been charged: ask again with the same key, or wait for events.
        """

    def find_card(self, payer: str, method: str) -> Card | None:
        """A saved way to pay, or None if it is not (or no longer) this payer's."""

    def portal_link(self, payer: str, return_url: str) -> str:
        """A page where the customer sees and removes its cards."""

    def refund(self, payment: str, gross: int, currency: str, ours: str) -> RefundMade:
        """Sends money back to the card; once for one ``ours``, which the refund carries.

        Raises:
            ProviderRefused: it cannot be sent back.
        """

    def find_refund(self, payment: str, ours: str) -> RefundMade | RefundFailed | None:
        """The refund that carries ``ours``, if there is one."""

    def read_event(self, body: bytes, signature: str | None) -> Event:
        """What a webhook tells, after its signature was verified.

        Raises:
            BadSignature: not the provider's, or too old to be a delivery of now.
        """

    def read_trusted(self, body: bytes) -> Event:
        """What a stored event tells. Only for those whom the operator hands us."""

    def recent(self, since: int) -> Iterator[Event]:
        """Events that matter to us since ``since`` (Unix seconds), oldest first."""


def open_provider(
    name: str, environment: Mapping[str, str], api_base: str | None = None
) -> Provider:
    """The provider ``name``, with its keys from the environment.

    Raises:
        PaymentsOff: there is no key.
        Refused: there is no such provider, its package is missing, or ``api_base`` would send the
            key over the network in plain.
    """
    if name != "stripe":
        raise Refused(f"there is no payment provider {name!r}: use stripe")
    key = environment.get(API_KEY, "").strip()
    if not key:
        raise PaymentsOff(
            f"payments are off: {API_KEY} is not set. Give credit by hand with: "
            "avocado credit CUSTOMER AMOUNT"
        )
    if api_base is not None:
        _check_base(api_base)
    from avocado.billing.stripe_provider import StripeProvider

    secret = environment.get(WEBHOOK_SECRET, "").strip()
    return StripeProvider(key, secret or None, api_base)


def _check_base(api_base: str) -> None:
    parts = urlsplit(api_base)
    near = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and near):
        raise Refused(
            f"[payments] api_base {api_base!r} would carry the key in plain: use https://, "
            "or an address of this machine"
        )
