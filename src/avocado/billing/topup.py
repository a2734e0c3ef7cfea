"""Top-ups: what one costs, a page to pay it on, and the card that is saved there."""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex
from typing import Final, TypeAlias

from msgspec.structs import replace

from avocado.billing import payment as p
from avocado.billing.events import ACTOR, Outcome, carry_out
from avocado.billing.invoices import TaxSum
from avocado.billing.provider import (
    Checkout,
    Provider,
)
from avocado.billing.record import Do, Stored, busy, file, read
from avocado.billing.rounding import unit_of
from avocado.errors import Refused
from avocado.ledger.reader import Reader
from avocado.terms.money import Money

TaxOf: TypeAlias = Callable[[str, int], tuple[TaxSum, ...]]
"""(customer, net in the smallest coins) → the taxes on a top-up. May raise Refused."""

ROUNDS: Final = 8


def account_of(reader: Reader, tenant: str) -> Stored[p.Account] | None:
    """What is known of a customer's way to pay."""
    return read(reader, p.account_id(tenant), p.Account)


def payer_for(
    reader: Reader, do: Do, provider: Provider, tenant: str, email: str | None = None
) -> str:
    """The provider's customer for a tenant, made when it is first needed.

    Who asks first draws a key and puts it on record; everybody asks the provider with that key, so
    there is one customer however many ask at once.

    Raises:
        UnknownCustomer, ProviderAway, ProviderRefused.
    """
    name = reader.customer(tenant).name
    for _ in range(ROUNDS):
        stored = account_of(reader, tenant)
        if stored is None or stored.value.provider != provider.name:
            fresh = p.Account(provider=provider.name, key=f"payer-{token_hex(16)}")
            _file_account(do, tenant, fresh, stored.revision if stored else 0)
            continue
        account = stored.value
        if account.payer:
            return account.payer
        payer = provider.create_payer(tenant, name, email, account.key)
        file(do, p.payer_id(payer), "payer", tenant, p.Payer(provider.name), 1, ACTOR)
        _file_account(do, tenant, replace(account, payer=payer), stored.revision)
    raise busy(f"the payment account of {tenant}")


def _file_account(
    do: Do, tenant: str, account: p.Account, revision: int, actor: str = ACTOR
) -> bool:
    return file(do, p.account_id(tenant), "payment", tenant, account, revision + 1, actor)


# -- a page to pay on ------------------------------------------------------------------------------


def quote(
    reader: Reader, provider: Provider, tax: TaxOf, tenant: str, net: int, minimum: int = 0
) -> p.Quote:
    """What a top-up of ``net`` costs, with its taxes.

    Raises:
        Refused: less than the minimum, or an amount that cannot be paid.
    """
    currency = reader.customer(tenant).currency
    if net < minimum:
        raise Refused(f"the least top-up is {Money(minimum, currency)}")
    provider.check_amount(net, currency)
    coin = unit_of(currency)
    if net % coin:
        raise Refused(f"{Money(net, currency)} is no whole number of coins")
    taxes = tax(tenant, net // coin)
    taxed = sum(each.amount_minor for each in taxes) * coin
    provider.check_amount(net + taxed, currency)
    return p.Quote(net, taxed, currency, taxes)


def order(do: Do, tenant: str, quoted: p.Quote, name: str, attempt: int = 0) -> p.Order:
    """Puts a quote on record under ``name``, and makes it an order."""
    id_ = p.quote_id(tenant, name)
    file(do, id_, "top-up-quote", tenant, quoted, 1, ACTOR)
    return p.Order(tenant, quoted.net, quoted.tax, quoted.currency, attempt, id_)


def open_checkout(
    reader: Reader,
    do: Do,
    provider: Provider,
    tenant: str,
    quoted: p.Quote,
    success_url: str,
    cancel_url: str,
    email: str | None = None,
) -> Checkout:
    """The provider's page where a quote is paid, and the card saved. ``{CHECKOUT_SESSION_ID}`` in
    ``success_url`` becomes the page's id, for :func:`confirm_checkout`."""
    payer = payer_for(reader, do, provider, tenant, email)
    made = order(do, tenant, quoted, token_hex(8))
    return provider.open_checkout(payer, made, success_url, cancel_url)


def confirm_checkout(
    reader: Reader, do: Do, provider: Provider, tenant: str, checkout: str
) -> Outcome | None:
    """What the page that a customer returns to asks: credits it now if its event is not here yet.
    None while nothing is paid.

    Raises:
        Refused: the checkout is another customer's.
    """
    found = provider.find_checkout(checkout)
    if found is None:
        return None
    if found.order is None or found.order.tenant != tenant:
        raise Refused(f"there is no payment {checkout!r} of yours")
    return carry_out(found, reader, do, provider.find_payment)


def portal_link(reader: Reader, do: Do, provider: Provider, tenant: str, return_url: str) -> str:
    """The provider's page where a customer sees and removes its cards."""
    return provider.portal_link(payer_for(reader, do, provider, tenant), return_url)


def change_account(
    reader: Reader, do: Do, tenant: str, change: Callable[[p.Account], p.Account], actor: str
) -> p.Account:
    """Files the account as ``change`` makes it of what is on record."""
    for _ in range(ROUNDS):
        stored = account_of(reader, tenant)
        if stored is None:
            reader.customer(tenant)
            raise Refused(f"customer {tenant} has not paid by card yet")
        after = change(stored.value)
        if after == stored.value or _file_account(do, tenant, after, stored.revision, actor):
            return after
    raise busy(f"the payment account of {tenant}")


def stop_auto(reader: Reader, do: Do, tenant: str, actor: str) -> p.Account:
    """Turns automatic top-ups off. Raises Refused if the customer has no payment account."""
    return change_account(reader, do, tenant, lambda account: replace(account, auto=None), actor)
