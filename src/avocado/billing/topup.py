"""Top-ups: a page to pay on, the saved card, and charging it when the balance falls too low.

An automatic top-up is numbered: the n-th time that a customer's balance was below its threshold.
The number goes on record before the card is charged and makes the provider's idempotency key, so
one crossing is charged once, whoever runs this, how often, and wherever it was cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_hex
from typing import Final, Literal, TypeAlias

from msgspec.structs import replace

from avocado.billing import payment as p
from avocado.billing.events import ACTOR, Outcome, carry_out
from avocado.billing.provider import (
    Checkout,
    Declined,
    Provider,
    ProviderAway,
    ProviderRefused,
)
from avocado.billing.record import Do, Stored, busy, file, read
from avocado.billing.standing import failures_before
from avocado.errors import Refused
from avocado.ledger.reader import Reader
from avocado.terms.money import NANO, Money

TaxOf: TypeAlias = Callable[[str, int], int]
"""(customer, net nano-units) → the tax on a top-up, nano-units. May raise Refused."""

ROUNDS: Final = 8
HOUR: Final = 3600 * NANO
WAITS: Final = (1 * HOUR, 24 * HOUR)
"""After the first failure in a row, and after the second; a third stops automatic top-ups."""
KEY_LIFE: Final = 20 * HOUR
"""How long a provider's idempotency key is trusted. Stripe forgets them after 24 hours."""


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


def order_for(
    reader: Reader, provider: Provider, tax: TaxOf, tenant: str, net: int, minimum: int = 0
) -> p.Order:
    """A top-up of ``net`` with its tax.

    Raises:
        Refused: less than the minimum, or an amount that cannot be paid.
    """
    currency = reader.customer(tenant).currency
    if net < minimum:
        raise Refused(f"the least top-up is {Money(minimum, currency)}")
    provider.check_amount(net, currency)
    order = p.Order(tenant, net, tax(tenant, net), currency)
    provider.check_amount(order.gross, currency)
    return order


def open_checkout(
    reader: Reader,
    do: Do,
    provider: Provider,
    order: p.Order,
    success_url: str,
    cancel_url: str,
    email: str | None = None,
) -> Checkout:
    """The provider's page where ``order`` is paid, and the card saved. ``{CHECKOUT_SESSION_ID}`` in
    ``success_url`` becomes the page's id, for :func:`confirm_checkout`."""
    payer = payer_for(reader, do, provider, order.tenant, email)
    return provider.open_checkout(payer, order, success_url, cancel_url)


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


# -- automatic top-ups -----------------------------------------------------------------------------


def set_auto(
    reader: Reader,
    do: Do,
    provider: Provider,
    tenant: str,
    threshold: int,
    net: int,
    most: int,
    actor: str,
    minimum: int = 0,
) -> p.Account:
    """Turns automatic top-ups on, or changes them. Amounts are nano-units; ``most`` is of a month.

    Raises:
        Refused: no card is saved, or the amounts make no sense.
    """
    currency = reader.customer(tenant).currency
    if net < minimum:
        raise Refused(f"the least top-up is {Money(minimum, currency)}")
    provider.check_amount(net, currency)
    if threshold < 0:
        raise Refused("the threshold must not be below zero")
    if most < net:
        raise Refused(f"{Money(most, currency)} a month allows no top-up of {Money(net, currency)}")

    def change(account: p.Account) -> p.Account:
        if account.card is None:
            raise Refused(
                f"customer {tenant} has no saved card: one is saved when a top-up is paid"
            )
        last = last_attempt(reader, tenant)
        armed = last.value.number if last is not None else 0
        return replace(account, auto=p.AutoTopUp(threshold, net, most, armed))

    return change_account(reader, do, tenant, change, actor)


def stop_auto(reader: Reader, do: Do, tenant: str, actor: str) -> p.Account:
    """Turns automatic top-ups off. Raises Refused if the customer has no payment account."""
    return change_account(reader, do, tenant, lambda account: replace(account, auto=None), actor)


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


def attempts(reader: Reader, tenant: str) -> list[tuple[int, Stored[p.Attempt]]]:
    """A customer's automatic top-ups in order, each with the time at which it last changed, ns."""
    documents = list(reader.documents("auto-topup", tenant))
    found = [(each.at, read(reader, each.id, p.Attempt)) for each in documents]
    known = [(at, stored) for at, stored in found if stored is not None]
    return sorted(known, key=lambda pair: pair[1].value.number)


def last_attempt(reader: Reader, tenant: str) -> Stored[p.Attempt] | None:
    found = attempts(reader, tenant)
    return found[-1][1] if found else None


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done for a customer: ``charge`` a new attempt, take one up again (``resume``),
    ``give up`` on one whose fate is not known, or ``wait``, which ``why`` explains."""

    step: Literal["charge", "resume", "give up", "wait"]
    number: int = 0
    why: str = ""


def due(
    auto: p.AutoTopUp,
    available: int,
    tried: list[tuple[int, p.Attempt]],
    failures: int,
    month: int,
    now: int,
) -> Due:
    """Decides, purely. ``tried`` are (when it last changed, attempt), oldest first; ``failures``
    counts those that failed in a row; ``month`` is what succeeded this month, net."""
    at, last = tried[-1] if tried else (0, None)
    if last is not None and last.state == "asked":
        # The key must still be known to the provider, or the card could be charged twice.
        return Due("resume" if now - at < KEY_LIFE else "give up", last.number)
    if auto.off:
        return Due("wait", why=auto.off)
    if available >= auto.threshold:
        return Due("wait", why="the balance is not below the threshold")
    if last is not None and last.state == "failed" and last.number > auto.armed:
        pause = WAITS[min(max(failures, 1), len(WAITS)) - 1]
        if now - at < pause:
            return Due("wait", why="the last charge failed a short while ago")
    if month + auto.net > auto.most:
        return Due("wait", why="the month's limit is reached")
    return Due("charge", last.number + 1 if last is not None else 1)


@dataclass(frozen=True, slots=True)
class ToppedUp:
    """What became of an automatic top-up. ``deposit`` is set where money came in."""

    tenant: str
    number: int
    state: Literal["paid", "failed", "unknown"]
    words: str
    deposit: str = ""


def run_auto(
    reader: Reader, do: Do, provider: Provider, tax: TaxOf, now: int
) -> tuple[ToppedUp, ...]:
    """Tops up every customer whose balance asks for it. ``now`` is ns since 1970, UTC.

    A customer for whom something is wrong holds up nobody else: it is told as ``unknown``.
    """
    done: list[ToppedUp] = []
    for document in list(reader.documents("payment")):
        if not document.content.get("auto"):
            continue
        try:
            outcome = top_up(reader, do, provider, tax, document.tenant, now)
        except Refused as error:
            outcome = ToppedUp(document.tenant, 0, "unknown", str(error))
        if outcome is not None:
            done.append(outcome)
    return tuple(done)


def top_up(
    reader: Reader, do: Do, provider: Provider, tax: TaxOf, tenant: str, now: int
) -> ToppedUp | None:
    """Tops one customer up if it is due; None if it is not."""
    stored = account_of(reader, tenant)
    if stored is None or stored.value.auto is None or stored.value.provider != provider.name:
        return None
    auto, customer = stored.value.auto, reader.customer(tenant)
    balance = reader.balance(tenant)
    if balance.available >= auto.threshold and not _asked(reader, tenant):
        return None
    found = attempts(reader, tenant)
    tried = [(at, attempt.value) for at, attempt in found]
    number = tried[-1][1].number + 1 if tried else 1
    failures = failures_before(reader, tenant, number, auto.armed)
    step = due(auto, balance.available, tried, failures, _this_month(tried, now), now)
    if step.step == "wait" or (step.step == "charge" and customer.frozen):
        return None
    if step.step == "give up":
        return _give_up(reader, do, tenant, found[-1][1])
    if step.step == "charge":
        card = stored.value.card
        if card is None:
            return None
        attempt = p.Attempt(
            number=step.number,
            net=auto.net,
            tax=tax(tenant, auto.net),
            currency=customer.currency,
            payer=stored.value.payer,
            method=card.method,
        )
        file(do, p.attempt_id(tenant, step.number), "auto-topup", tenant, attempt, 1, ACTOR)
    asked = read(reader, p.attempt_id(tenant, step.number), p.Attempt)
    if asked is None or asked.value.state != "asked":
        return None  # somebody else was faster
    return _charge(reader, do, provider, tenant, asked.value)


def _asked(reader: Reader, tenant: str) -> bool:
    last = last_attempt(reader, tenant)
    return last is not None and last.value.state == "asked"


def _this_month(tried: list[tuple[int, p.Attempt]], now: int) -> int:
    """Net of the automatic top-ups that were paid in the calendar month of ``now``, UTC."""
    import time

    month = time.gmtime(now // NANO)[:2]
    return sum(
        attempt.net
        for at, attempt in tried
        if attempt.state == "paid" and time.gmtime(at // NANO)[:2] == month
    )


def _charge(reader: Reader, do: Do, provider: Provider, tenant: str, asked: p.Attempt) -> ToppedUp:
    order = p.Order(tenant, asked.net, asked.tax, asked.currency, asked.number)
    key = f"auto-{asked.payer}-{asked.number}"
    what: p.Happening
    try:
        what = provider.charge_saved(asked.payer, asked.method, order, key)
    except Declined as no:
        what = p.PaymentFailed(no.payment, order, no.code, no.reason, no.needs_customer)
    except ProviderRefused as no:
        what = p.PaymentFailed("", order, "refused", str(no), needs_customer=False)
    except ProviderAway as away:
        return ToppedUp(tenant, asked.number, "unknown", str(away))
    outcome = carry_out(what, reader, do, provider.find_payment)
    state: Literal["paid", "failed"] = "paid" if outcome.deposit else "failed"
    return ToppedUp(tenant, asked.number, state, outcome.words, outcome.deposit)


def _give_up(reader: Reader, do: Do, tenant: str, stored: Stored[p.Attempt]) -> ToppedUp:
    """Nobody knows whether this one was charged: nothing more is charged until a person looked.
    Should its event still come, it is credited as any other."""
    number = stored.value.number
    why = f"what became of automatic top-up {number} is not known: look at the provider's pages"

    def change(account: p.Account) -> p.Account:
        auto = account.auto
        return replace(account, auto=replace(auto, off=why)) if auto is not None else account

    change_account(reader, do, tenant, change, ACTOR)
    unknown = replace(stored.value, state="unknown", reason=why)
    name = p.attempt_id(tenant, number)
    file(do, name, "auto-topup", tenant, unknown, stored.revision + 1, ACTOR)
    return ToppedUp(tenant, number, "unknown", why)
