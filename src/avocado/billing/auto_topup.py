"""Automatic top-ups: the saved card is charged when the balance falls below a threshold.

Each is numbered: the n-th time that a customer's balance was too low. The number goes on record
before the card is charged and makes the provider's idempotency key, so one crossing is charged
once, whoever runs this, how often, and wherever it was cut off.
"""

from __future__ import annotations

from dataclasses import dataclass
from secrets import token_hex
from typing import Final, Literal

from msgspec.structs import replace

from avocado.billing import payment as p
from avocado.billing.events import ACTOR, carry_out
from avocado.billing.provider import Declined, Provider, ProviderAway, ProviderRefused
from avocado.billing.record import Do, Stored, file, read
from avocado.billing.standing import failures_before
from avocado.billing.topup import TaxOf, account_of, change_account, order, quote
from avocado.errors import Refused
from avocado.ledger.errors import LedgerError
from avocado.ledger.reader import Reader
from avocado.terms.money import NANO, Money

HOUR: Final = 3600 * NANO
WAITS: Final = (1 * HOUR, 24 * HOUR)
"""After the first failure in a row, and after the second; a third stops automatic top-ups."""
KEY_LIFE: Final = 20 * HOUR
"""How long a provider's idempotency key is trusted. Stripe forgets them after 24 hours."""


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
        except (LedgerError, Refused) as error:
            outcome = ToppedUp(document.tenant, 0, "unknown", str(error))
        if outcome is not None:
            done.append(outcome)
    return tuple(done)


def top_up(
    reader: Reader, do: Do, provider: Provider, tax: TaxOf, tenant: str, now: int
) -> ToppedUp | None:
    """Tops one customer up if it is due; None if it is not."""
    account = _chargeable(reader, provider, tenant)
    if account is None or account.auto is None:
        return None
    found = attempts(reader, tenant)
    # After the attempts: whatever they brought is in the balance then, and is not charged twice.
    available = reader.balance(tenant).available
    tried = [(at, stored.value) for at, stored in found]
    number = tried[-1][1].number + 1 if tried else 1
    failures = failures_before(reader, tenant, number, account.auto.armed)
    step = due(account.auto, available, tried, failures, _this_month(tried, now), now)
    frozen = bool(reader.customer(tenant).frozen)
    if step.step == "wait" or (step.step == "charge" and (frozen or account.card is None)):
        return None
    if step.step == "give up":
        return _give_up(reader, do, tenant, found[-1][1])
    if step.step == "charge":
        _ask(reader, do, provider, tax, account, tenant, step.number, account.auto.net)
    return _charge(reader, do, provider, tenant, step.number)


def collect(
    reader: Reader, do: Do, provider: Provider, tax: TaxOf, tenant: str, nanos: int, now: int
) -> ToppedUp | None:
    """Charges the saved card so that the wallet, with its credit limit, can pay a fee of ``nanos``.

    Only where automatic top-ups are on, and within their limit of the month; the caller sees to it
    that it does not ask too often. None: nothing was tried, or nothing is lacking.
    """
    account = _chargeable(reader, provider, tenant)
    if account is None or account.auto is None:
        return None
    auto, found = account.auto, attempts(reader, tenant)
    customer, balance = reader.customer(tenant), reader.balance(tenant)
    lacking = nanos - balance.wallet - balance.credit_limit
    last = found[-1][1].value if found else None
    if last is not None and last.state == "asked":
        return top_up(reader, do, provider, tax, tenant, now)
    step = provider.smallest(customer.currency)
    net = max(-(-lacking // step) * step, auto.net)
    over = _this_month([(at, stored.value) for at, stored in found], now) + net > auto.most
    if lacking <= 0 or auto.off or account.card is None or customer.frozen or over:
        return None
    number = last.number + 1 if last is not None else 1
    _ask(reader, do, provider, tax, account, tenant, number, net)
    return _charge(reader, do, provider, tenant, number)


def _chargeable(reader: Reader, provider: Provider, tenant: str) -> p.Account | None:
    """The account of a customer at this provider, if it has one."""
    stored = account_of(reader, tenant)
    if stored is None or stored.value.provider != provider.name:
        return None
    return stored.value


def _ask(
    reader: Reader,
    do: Do,
    provider: Provider,
    tax: TaxOf,
    account: p.Account,
    tenant: str,
    number: int,
    net: int,
) -> None:
    """Puts an attempt on record, unless somebody else was faster."""
    if account.card is None:
        return
    quoted = quote(reader, provider, tax, tenant, net)
    made = order(do, tenant, quoted, f"auto-{number}-{token_hex(4)}", number)
    attempt = p.Attempt(
        number=number,
        net=made.net,
        tax=made.tax,
        currency=made.currency,
        payer=account.payer,
        method=account.card.method,
        quote=made.quote,
    )
    file(do, p.attempt_id(tenant, number), "auto-topup", tenant, attempt, 1, ACTOR)


def _this_month(tried: list[tuple[int, p.Attempt]], now: int) -> int:
    """Net of the automatic top-ups that were paid in the calendar month of ``now``, UTC."""
    import time

    month = time.gmtime(now // NANO)[:2]
    return sum(
        attempt.net
        for at, attempt in tried
        if attempt.state == "paid" and time.gmtime(at // NANO)[:2] == month
    )


def _charge(
    reader: Reader, do: Do, provider: Provider, tenant: str, number: int
) -> ToppedUp | None:
    """Charges the attempt that is on record, if it still waits for that."""
    stored = read(reader, p.attempt_id(tenant, number), p.Attempt)
    if stored is None or stored.value.state != "asked":
        return None
    asked = stored.value
    made = p.Order(tenant, asked.net, asked.tax, asked.currency, number, asked.quote)
    what: p.Happening
    try:
        key = f"auto-{asked.payer}-{number}"
        what = provider.charge_saved(asked.payer, asked.method, made, key)
    except Declined as no:
        what = p.PaymentFailed(no.payment, made, no.code, no.reason, no.needs_customer)
    except ProviderRefused as no:
        what = p.PaymentFailed("", made, "refused", str(no), needs_customer=False)
    except ProviderAway as away:
        return ToppedUp(tenant, number, "unknown", str(away))
    outcome = carry_out(what, reader, do, provider.find_payment)
    state: Literal["paid", "failed"] = "paid" if outcome.deposit else "failed"
    return ToppedUp(tenant, number, state, outcome.words, outcome.deposit)


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
