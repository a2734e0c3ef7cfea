"""Paying by card: a page at the provider's, the saved card, automatic top-ups, and the webhook.

Card data never comes here: the customer types it at the provider's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from avocado.billing.payment import Account
from avocado.console.amounts import need_amount, typed
from avocado.console.page import Data, Pages, Redirect, Reply, Values, Visit
from avocado.console.roles import ADMIN
from avocado.errors import Refused
from avocado.terms.money import Money

if TYPE_CHECKING:
    from avocado.billing.payments import Payments
    from avocado.console.console import Console

PAGES = Pages()
SUGGESTED: Final = (10, 25, 50, 100)
"""Units of the currency."""
SIGNATURE: Final = "stripe-signature"


def payments_on(console: Console) -> bool:
    """Whether customers can pay by card."""
    if console.workspace.config.payments is None:
        return False
    from avocado.cli.payments import provider_of

    return provider_of(console.workspace) is not None


@contextmanager
def paying(visit: Visit) -> Iterator[Payments]:
    """Yields what moves money between cards and the ledger.

    Raises:
        PaymentsOff: no provider is set up.
    """
    from avocado.cli.payments import payments_of

    with visit.writing() as do:
        yield payments_of(visit.console.workspace, visit.reader, do)


def account_of(visit: Visit) -> Account | None:
    """What is known of the customer's way to pay."""
    from avocado.billing.topup import account_of as stored_account

    stored = stored_account(visit.reader, visit.tenant)
    return None if stored is None else stored.value


@PAGES.show("/billing/top-up", roles=ADMIN, template="customer/top_up.html")
def top_up_page(visit: Visit) -> Values:
    currency = visit.reader.customer(visit.tenant).currency
    config = visit.console.workspace.config.payments
    account = account_of(visit)
    auto = None if account is None else account.auto
    return {
        "currency": currency,
        "payments": payments_on(visit.console),
        "suggested": SUGGESTED,
        "minimum": Money.parse(config.minimum, currency).nanos if config else 0,
        "balance": visit.reader.balance(visit.tenant),
        "account": account,
        "auto": auto,
        "threshold": typed(auto.threshold, currency) if auto else "",
        "net": typed(auto.net, currency) if auto else "",
        "most": typed(auto.most, currency) if auto else "",
    }


@PAGES.act("/billing/top-up", roles=ADMIN, again=top_up_page)
def top_up(visit: Visit) -> Reply:
    """Goes to the provider's page, where the amount and its tax are paid."""
    net = need_amount(visit, "amount", visit.reader.customer(visit.tenant).currency)
    origin = visit.console.origin
    with paying(visit) as payments:
        checkout = payments.open_checkout(
            visit.tenant,
            net,
            f"{origin}/billing/paid?checkout={{CHECKOUT_SESSION_ID}}",
            f"{origin}/billing/top-up",
            visit.who.email,
        )
    return Redirect(checkout.url, abroad=True)


@PAGES.show("/billing/paid", roles=ADMIN)
def paid(visit: Visit) -> Redirect:
    """Where the provider sends the customer back to. The payment is asked for there, so that the
    credit is here before its event is; both together credit once."""
    checkout = visit.query.text("checkout", 200)
    if not checkout:
        return Redirect("/billing")
    try:
        with paying(visit) as payments:
            outcome = payments.confirm(visit.tenant, checkout)
    except Refused as refused:
        return Redirect("/billing", "; ".join(refused.reasons), "bad")
    if outcome is None:
        return Redirect("/billing", visit.t("billing.not_paid_yet"), "plain")
    return Redirect("/billing", visit.t("billing.paid"))


@PAGES.act("/billing/cards", roles=ADMIN, again=top_up_page)
def cards(visit: Visit) -> Reply:
    """The provider's page of the saved cards."""
    with paying(visit) as payments:
        return Redirect(
            payments.portal(visit.tenant, f"{visit.console.origin}/billing/top-up"), abroad=True
        )


@PAGES.act("/billing/auto", roles=ADMIN, again=top_up_page)
def set_auto(visit: Visit) -> Reply:
    currency = visit.reader.customer(visit.tenant).currency
    with paying(visit) as payments:
        payments.set_auto(
            visit.tenant,
            need_amount(visit, "threshold", currency),
            need_amount(visit, "net", currency),
            need_amount(visit, "most", currency),
            visit.actor,
        )
    return Redirect("/billing/top-up", visit.t("billing.auto_on"))


@PAGES.act("/billing/auto/stop", roles=ADMIN, again=top_up_page)
def stop_auto(visit: Visit) -> Reply:
    from avocado.billing.topup import stop_auto as stop

    with visit.writing() as do:
        stop(visit.reader, do, visit.tenant, visit.actor)
    return Redirect("/billing/top-up", visit.t("billing.auto_off"))


@PAGES.hook("/webhooks/stripe")
def stripe(visit: Visit) -> Reply:
    """What Stripe tells. Its signature over the raw body is the only proof that is taken."""
    with paying(visit) as payments:
        outcome = payments.receive(visit.body, visit.headers.get(SIGNATURE))
    return Data({"received": outcome.words}, outcome.status)
