"""Subscriptions on record: what people ask for.

Decisions are in ``subscription``; here they are checked, filed as revisions of the document
``subscription/<tenant>``, and carried out by ``upkeep``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import msgspec

from avocado.billing import subscription as s
from avocado.billing.coupons import discounts
from avocado.billing.dates import day_of, later, start_of
from avocado.billing.plan import Plan, item
from avocado.billing.plans import Published, find, latest, version_of
from avocado.billing.record import ATTEMPTS, Do, Stored, busy
from avocado.billing.subscription import Subscription
from avocado.billing.upkeep import (
    advance,
    fee_left,
    file_subscription,
    load,
    settle,
    settled,
)
from avocado.errors import Refused
from avocado.ledger.entry import Billed
from avocado.ledger.operation import Bill, Grant, Refund
from avocado.ledger.reader import Reader
from avocado.terms.money import Money


def subscriptions(reader: Reader) -> Iterator[Subscription]:
    """Of all customers, also those that have ended."""
    for document in list(reader.documents("subscription")):
        yield msgspec.convert(document.content, Subscription)


def start(
    reader: Reader,
    do: Do,
    tenant: str,
    plan: str,
    now: int,
    *,
    trial: bool = False,
    self_service: bool = False,
    actor: str = "",
) -> Subscription:
    """Puts a customer on a plan (``pro``, or ``pro@3``) from today on, and charges the first fee.
    ``self_service``: the customer chose it, so it must be listed, in its newest version.

    Raises:
        Refused: no such plan, another currency, subscribed already, no (second) trial, no money.
        UnknownCustomer: there is no such customer.
    """
    customer = reader.customer(tenant)
    for _ in range(ATTEMPTS):
        wanted = _find(reader, plan, None, self_service)
        before = settle(reader, do, tenant, now)
        _check_currency(tenant, customer.currency, wanted.plan)
        if before is not None and before.value.entitled:
            raise Refused(
                f"{tenant} is subscribed to {before.value.plan} already: "
                f"avocado subscriptions change {tenant} {plan}"
            )
        if trial and wanted.plan.trial is None:
            raise Refused(f"the plan {wanted.plan.name} has no trial")
        if trial and before is not None and before.value.trialled:
            raise Refused(f"{tenant} had its trial: it is given once")
        made = s.begin(
            tenant,
            wanted.plan,
            wanted.version,
            day_of(now),
            discounts(reader, tenant),
            trial=trial,
            before=None if before is None else before.value,
        )
        _check_money(reader, made)
        if file_subscription(do, made, 1 if before is None else before.revision + 1, actor):
            return settled(reader, do, tenant, now)
    raise busy(f"the subscription of {tenant}")


def change(
    reader: Reader,
    do: Do,
    tenant: str,
    plan: str,
    now: int,
    *,
    at_once: bool = False,
    self_service: bool = False,
    actor: str = "",
) -> Subscription:
    """Moves a subscriber to a plan's version: at the period's end, or at once with proration.
    ``self_service`` as in :func:`start`; the version that the customer is on can be kept.

    Raises:
        Refused: not subscribed, no such plan, on it already, another currency, past due, no money.
    """
    for _ in range(ATTEMPTS):
        stored = _subscribed(reader, do, tenant, now)
        sub = stored.value
        wanted = _find(reader, plan, sub, self_service)
        _check_currency(tenant, sub.currency, wanted.plan)
        same = (wanted.plan.name, wanted.version) == (sub.plan, sub.version)
        if same and (at_once or sub.following is None):
            raise Refused(f"{tenant} is on {sub.plan}@{sub.version} already")
        if at_once and sub.state == "past due":
            raise Refused(f"{tenant} owes the fee of {sub.plan}: it can change once that is paid")
        if at_once or (sub.ends is None and not same):
            made = s.leave(sub, wanted.plan.name, wanted.version)
            _check_money(reader, _foreseen(reader, made, wanted.plan, day_of(now)))
        else:
            made = s.follow(sub, wanted.plan.name, wanted.version)
        if file_subscription(do, made, stored.revision + 1, actor):
            return settled(reader, do, tenant, now)
    raise busy(f"the subscription of {tenant}")


def cancel(
    reader: Reader,
    do: Do,
    tenant: str,
    now: int,
    *,
    at_once: bool = False,
    reason: str = "cancelled",
    actor: str = "",
) -> Subscription:
    """Ends a subscription at the end of its period, or at once with credit for the unused days.

    Raises:
        Refused: not subscribed.
    """
    for _ in range(ATTEMPTS):
        stored = _subscribed(reader, do, tenant, now)
        named = msgspec.structs.replace(stored.value, reason=reason)
        at_end = not at_once and named.ends is not None
        made = s.follow(named, "", 0) if at_end else s.leave(named, "", 0)
        if file_subscription(do, made, stored.revision + 1, actor):
            return settled(reader, do, tenant, now)
    raise busy(f"the subscription of {tenant}")


def buy_pack(
    reader: Reader, do: Do, tenant: str, number: int, purchase: str, now: int, *, actor: str = ""
) -> bool:
    """Turns money in the wallet into the credit of a pack, the ``number``-th (from 1) of the
    customer's prepaid plan. ``purchase`` names this one purchase: the same again is none, False.

    Raises:
        Refused: not on a prepaid plan, no such pack, no money.
    """
    if not (0 < len(purchase) <= 100 and purchase.isascii() and purchase.isprintable()):
        raise Refused(f"{purchase!r} names a purchase badly: use 1 to 100 ASCII signs")
    bill = f"pack/{tenant}/{purchase}"
    for _ in range(ATTEMPTS):
        stored = _subscribed(reader, do, tenant, now)
        sub = stored.value
        plan = version_of(reader, sub.plan, sub.version).plan
        if _billed(reader, tenant, bill):
            return False
        if not 1 <= number <= len(plan.packs):
            raise Refused(f"the plan {plan.name} has {len(plan.packs)} packs, and no {number}")
        pack, word = plan.packs[number - 1], item(sub.plan, sub.version)
        ends = None if pack.days is None else start_of(later(day_of(now), pack.days))
        todo = (
            Bill(
                id=bill,
                tenant=tenant,
                amount=pack.price,
                currency=sub.currency,
                item=word,
                reason=f"pack {number}",
            ),
            Grant(
                id=f"{bill}/credit",
                tenant=tenant,
                amount=pack.credit,
                currency=sub.currency,
                reason=word,
                expires=ends,
            ),
        )
        made = msgspec.structs.replace(sub, todo=todo)
        _check_money(reader, made)
        if file_subscription(do, made, stored.revision + 1, actor):
            settled(reader, do, tenant, now)
            if _billed(reader, tenant, bill):  # else the money was used meanwhile: look again
                return True
    raise busy(f"the subscription of {tenant}")


def _billed(reader: Reader, tenant: str, id_: str) -> bool:
    entries = (each.entry for each in reader.postings(tenant))
    return any(isinstance(each, Billed) and each.id == id_ for each in entries)


def _subscribed(reader: Reader, do: Do, tenant: str, now: int) -> Stored[Subscription]:
    """The subscription as it is today, with nothing left to do."""
    advance(reader, do, tenant, now)
    stored = load(reader, tenant)
    if stored is None or not stored.value.entitled:
        raise Refused(f"{tenant} is on no plan: avocado subscriptions start {tenant} PLAN")
    return stored


def _find(reader: Reader, text: str, sub: Subscription | None, self_service: bool) -> Published:
    """The plan that is asked for. Customers learn nothing of plans that are not for them."""
    wanted = find(reader, text)
    kept = sub is not None and (sub.plan, sub.version) == (wanted.plan.name, wanted.version)
    if self_service and not kept:
        newest = latest(reader, wanted.plan.name)
        if not wanted.plan.listed or newest is None or newest.version != wanted.version:
            raise Refused(f"there is no plan {text!r} to choose")
    return wanted


def _check_currency(tenant: str, currency: str, plan: Plan) -> None:
    if plan.currency != currency:
        raise Refused(
            f"the plan {plan.name} is in {plan.currency}, the book of {tenant} in {currency}"
        )


def _check_money(reader: Reader, sub: Subscription) -> None:
    """Raises Refused if the wallet cannot pay what is to be done, so that nothing is begun."""
    needed = sum(each.amount for each in sub.todo if isinstance(each, Bill))
    back = sum(each.amount or 0 for each in sub.todo if isinstance(each, Refund))
    balance = reader.balance(sub.tenant)
    missing = needed - back - balance.wallet - balance.credit_limit
    if needed and missing > 0:
        raise Refused(
            f"{Money(needed, sub.currency)} are due for {sub.plan} and {sub.tenant} is short of "
            f"{Money(missing, sub.currency)}: avocado credit {sub.tenant} AMOUNT"
        )


def _foreseen(reader: Reader, sub: Subscription, plan: Plan, today: date) -> Subscription:
    """What the second half of a change would be if nothing were used meanwhile."""
    left = [
        (each.left, each.tokens) for each in reader.allowances(sub.tenant) if each.id in sub.tokens
    ]
    left += fee_left(reader, sub)
    return s.move(sub, plan, today, left, discounts(reader, sub.tenant))
