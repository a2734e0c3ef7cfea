"""What the days bring to subscriptions: carrying out what is to be done, renewing, collecting fees.

Any number of processes may do this at once: decisions are filed as revisions, operations carry ids
that follow from them, and whoever meets a newer revision reads again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from secrets import token_hex
from typing import Final, Literal

import msgspec

from avocado.billing import subscription as s
from avocado.billing.coupons import discounts
from avocado.billing.dates import day_of
from avocado.billing.plans import version_of
from avocado.billing.record import ATTEMPTS, Do, Refusals, Stored, busy, code_of, file, read
from avocado.billing.subscription import Subscription
from avocado.ledger.entry import Refunded
from avocado.ledger.operation import Allow, Bill, EndAllowance, Grant, Refund
from avocado.ledger.reader import Reader

CLERK: Final = "clerk"
What = Literal["renewed", "past due", "collected", "reminded", "lapsed", "ended", "changed"]


class Event(msgspec.Struct, frozen=True):
    """What happened to a customer's subscription; ``amount`` is the fee that is meant."""

    tenant: str
    what: What
    plan: str
    version: int
    day: date
    amount: int = 0


def load(reader: Reader, tenant: str) -> Stored[Subscription] | None:
    """A customer's newest subscription, which may have ended."""
    return read(reader, f"subscription/{tenant}", Subscription)


def file_subscription(do: Do, sub: Subscription, revision: int, actor: str = CLERK) -> bool:
    id_ = f"subscription/{sub.tenant}"
    return file(do, id_, "subscription", sub.tenant, sub, revision, actor)


def settle(
    reader: Reader, do: Do, tenant: str, now: int, claim: str = ""
) -> Stored[Subscription] | None:
    """Carries out what the newest revision says is to be done, until nothing is, or money lacks.
    ``claim`` marks who found that it lacks.

    Raises:
        Refused, LedgerError: the ledger said no to something else; it is tried again next time.
    """
    for _ in range(ATTEMPTS):
        stored = load(reader, tenant)
        if stored is None:
            return None
        sub = stored.value
        if sub.todo:
            # A pack that the wallet cannot pay is not bought; only a fee is asked for again.
            over = _carry_out(do, sub, now) or sub.ends is None
            after = _told(sub) if over else s.fall_due(sub, day_of(now), claim)
            if after == sub:
                return stored
        elif sub.leaving is not None:
            after = _second_half(reader, sub, day_of(now))
        else:
            return stored
        file_subscription(do, after, stored.revision + 1)
    raise busy(f"the subscription of {tenant}")


def _told(sub: Subscription) -> Subscription:
    """A fee's ``todo`` is done; of a change's first half only that half."""
    return s.done(sub) if sub.leaving is None else msgspec.structs.replace(sub, todo=())


def _second_half(reader: Reader, sub: Subscription, today: date) -> Subscription:
    assert sub.leaving is not None
    plan = None
    if sub.leaving.plan:
        plan = version_of(reader, sub.leaving.plan, sub.leaving.version).plan
    left = [
        (each.expired + each.left, each.tokens)
        for each in reader.allowances(sub.tenant)
        if each.id in sub.tokens
    ]
    left += fee_left(reader, sub)
    back = dict.fromkeys(sub.credits, 0)
    given = dict.fromkeys(sub.credits, 0)
    for record in reader.postings(sub.tenant) if sub.credits else ():
        entry = record.entry
        if isinstance(entry, Refunded) and entry.of in back:
            back[entry.of] += entry.amount
        elif getattr(entry, "id", "") in given:
            given[entry.id] = entry.amount  # type: ignore[union-attr]
    left += [(back[id_], given[id_]) for id_ in sub.credits]
    return s.move(sub, plan, today, left, discounts(reader, sub.tenant))


def fee_left(reader: Reader, sub: Subscription) -> list[tuple[int, int]]:
    """(left, whole) of the period's fee, of which somebody may have refunded a part."""
    fee = "" if sub.charged is None else sub.charged.id
    sql = "SELECT amount - refunded, amount FROM posting WHERE id = ?"
    return [(int(left), int(whole)) for left, whole in reader.rows(sql, (fee,))]


def _carry_out(do: Do, sub: Subscription, now: int) -> bool:
    """Does all of ``todo``. False: the wallet cannot pay, and what follows on that is not done."""
    for operation in sub.todo:
        if isinstance(operation, Allow | Grant) and (operation.expires or now + 1) <= now:
            continue  # its time was over before it could be given
        try:
            do(operation)
        except Refusals as error:
            code = code_of(error)
            if isinstance(operation, Bill) and code == "insufficient_funds":
                return False
            taken_back = isinstance(operation, Refund) and code == "nothing_to_refund"
            if not (taken_back or (isinstance(operation, EndAllowance) and code == "not_allowed")):
                raise  # an allowance that never was cannot be ended, and that is fine
    return True


def settled(reader: Reader, do: Do, tenant: str, now: int) -> Subscription:
    stored = settle(reader, do, tenant, now)
    assert stored is not None
    return stored.value


def advance(
    reader: Reader,
    do: Do,
    tenant: str,
    now: int,
    collect: Callable[[str, int], object] | None = None,
) -> tuple[Event, ...]:
    """Does what is due for one customer today: what a crash left undone, the next period, a change
    or an end that was asked for, another try at a fee. Done twice it is once.

    ``collect`` is asked, on the day that a fee fails and on each retry day, to get so many
    nano-units into the customer's wallet; what it brings is used at once. Of several processes at
    once one asks: the one whose claim is on record.
    """
    today, mine = day_of(now), token_hex(8)
    events: list[Event] = []
    asked: set[int] = set()
    for _ in range(ATTEMPTS):
        before = load(reader, tenant)
        if before is None:
            return tuple(events)
        stored = settle(reader, do, tenant, now, mine)
        assert stored is not None
        sub = stored.value
        events += _events(before.value, sub, today)
        if sub.claim == mine and sub.tried not in asked and collect is not None:
            asked.add(sub.tried)
            if collect(tenant, _owed(sub)):
                continue
        after = _next(reader, sub, today, mine)
        if after == sub:
            return tuple(events)
        if file_subscription(do, after, stored.revision + 1):
            events += _events(sub, after, today)
    raise busy(f"the subscription of {tenant}")


def _next(reader: Reader, sub: Subscription, today: date, claim: str) -> Subscription:
    """What today makes of a subscription with nothing undone; itself if nothing."""
    if s.is_over(sub, today):
        following = sub.following or s.Following(sub.plan, sub.version)
        plan = None
        if following.plan:
            plan = version_of(reader, following.plan, following.version).plan
        return s.renew(sub, plan, today, discounts(reader, sub.tenant))
    if sub.state == "past due":
        terms = version_of(reader, sub.plan, sub.version).plan.subscription
        assert terms is not None
        return s.retry(sub, terms, today, claim)
    return sub


def _owed(sub: Subscription) -> int:
    return sum(each.amount for each in sub.todo if isinstance(each, Bill))


def _events(before: Subscription, after: Subscription, today: date) -> list[Event]:
    def event(what: What, amount: int = 0) -> Event:
        return Event(after.tenant, what, after.plan, after.version, today, amount)

    if after.state == "ended" and before.state != "ended":
        return [event("lapsed" if after.reason == s.UNPAID else "ended")]
    if after.state == "past due" and before.state != "past due":
        return [event("past due", _owed(after))]
    if before.state == "past due" and after.state == "active":
        return [event("collected", _owed(before))]
    if after.tried > before.tried:
        return [event("reminded", _owed(after))]
    if (after.plan, after.version) != (before.plan, before.version):
        return [event("changed", _owed(after))]
    if after.began != before.began:
        return [event("renewed", _owed(after))]
    return []
