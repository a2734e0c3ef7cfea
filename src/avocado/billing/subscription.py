"""Subscription: which plan a customer is on, and what happens to it. Pure and frozen.

A subscription is a document with revisions. Each revision names in ``todo`` the ledger operations
that make it so (the fee, the included tokens), under ids that follow from customer, period and
change. It is filed first and carried out then: whoever finds it, after a crash or in a second
process, carries out the same operations, and those that were done change nothing.

The operations of a period: the fee, and only once it is paid, its tokens and its credit. A change
at once has two halves. First what is left of the tokens and credit is taken back (``leaving``);
then, knowing how much that was, the unused days are credited and the rest of the period is charged.
The credit is the smallest of the unused shares of days, of tokens and of credit, so that nobody
uses a month's tokens in a day and has the fee back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Final, Literal

import msgspec

from avocado.billing.coupon import Discount, reduced
from avocado.billing.dates import later, period, period_at, start_of
from avocado.billing.plan import Fee, Plan, item
from avocado.billing.proration import split
from avocado.ledger.operation import Allow, Bill, EndAllowance, Grant, Refund

State = Literal["trial", "active", "past due", "ended"]
Todo = Bill | Allow | Grant | Refund | EndAllowance
UNPAID: Final = "the fee was not paid"


class Following(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What comes next: a plan's version, or the end of the subscription (no plan)."""

    plan: str = ""
    version: int = 0


class Charged(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fee: ``amount`` nano-units for the days in [since, until), billed under ``id``."""

    id: str
    amount: int
    since: date
    until: date


class Subscription(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One customer's. A plan without a fee has no periods: ``ends`` is None.

    ``count`` numbers the subscriptions that this customer began, and ``moves`` the changes at once
    in this one; both make ids. ``tokens`` and ``credits`` are the ids of what this period brought.
    ``coupons`` says how many fees each code has reduced, ``applied`` which reduced this period's.
    ``due`` is the day on which a fee could not be collected, ``tried`` how many retry days went by,
    and ``claim`` marks the process that asks for money now: one of many.
    """

    tenant: str
    currency: str
    state: State
    plan: str
    version: int
    began: date
    anchor: date
    ends: date | None = None
    count: int = 1
    moves: int = 0
    charged: Charged | None = None
    tokens: tuple[str, ...] = ()
    credits: tuple[str, ...] = ()
    following: Following | None = None
    leaving: Following | None = None
    todo: tuple[Todo, ...] = ()
    due: date | None = None
    tried: int = 0
    claim: str = ""
    trialled: bool = False
    coupons: dict[str, int] = {}
    applied: tuple[str, ...] = ()
    reason: str = ""

    @property
    def entitled(self) -> bool:
        """Whether the customer is on its plan: also while a fee is being collected."""
        return self.state != "ended"


def begin(
    tenant: str,
    plan: Plan,
    version: int,
    today: date,
    discounts: Sequence[Discount] = (),
    *,
    trial: bool = False,
    before: Subscription | None = None,
) -> Subscription:
    """A new subscription; ``before`` is the one that ended. ``trial`` asks for the plan's trial."""
    made = Subscription(
        tenant,
        plan.currency,
        "active",
        plan.name,
        version,
        today,
        today,
        count=1 if before is None else before.count + 1,
        trialled=trial or (before is not None and before.trialled),
        coupons={} if before is None else before.coupons,
    )
    todo: tuple[Todo, ...] = _trial(tenant, plan, today) if trial else ()
    if trial and plan.trial is not None and plan.subscription is not None:
        return msgspec.structs.replace(
            made,
            state="trial",
            ends=later(today, plan.trial.days),
            tokens=tuple(each.id for each in todo if isinstance(each, Allow)),
            credits=tuple(each.id for each in todo if isinstance(each, Grant)),
            todo=todo,
        )
    opened = _open(made, plan, today, discounts)
    return msgspec.structs.replace(opened, todo=(*todo, *opened.todo))


def _trial(tenant: str, plan: Plan, today: date) -> tuple[Todo, ...]:
    """Its id is the customer's alone, so the ledger itself gives it once."""
    given = plan.trial
    if given is None:
        return ()
    expires, reason = start_of(later(today, given.days)), f"trial of {plan.name}"
    made: list[Todo] = []
    if given.tokens:
        made.append(
            Allow(
                id=f"trial/{tenant}/tokens",
                tenant=tenant,
                tokens=given.tokens,
                offers=given.offers,
                reason=reason,
                expires=expires,
            )
        )
    if given.amount:
        made.append(
            Grant(
                id=f"trial/{tenant}/credit",
                tenant=tenant,
                amount=given.amount,
                currency=plan.currency,
                reason=reason,
                expires=expires,
            )
        )
    return tuple(made)


def _open(
    sub: Subscription, plan: Plan, today: date, discounts: Sequence[Discount]
) -> Subscription:
    """The period that ``today`` lies in, counted from the anchor: a whole fee, whole contents."""
    if plan.subscription is None:
        return msgspec.structs.replace(sub, **_BLANK, began=today, ends=None)
    terms = plan.subscription
    began, ends = period(sub.anchor, terms.period, period_at(sub.anchor, terms.period, today))
    live = [each for each in discounts if each.serves(plan.name, sub.coupons.get(each.code, 0))]
    used = {each.code: sub.coupons.get(each.code, 0) + 1 for each in live} if terms.fee else {}
    opened = msgspec.structs.replace(
        sub,
        **_BLANK | {"applied": tuple(used)},
        began=began,
        ends=ends,
        coupons=sub.coupons | used,
    )
    return _fill(opened, terms, reduced(terms.fee, live), began, ends)


_BLANK: Final[dict[str, object]] = {
    "state": "active",
    "charged": None,
    "tokens": (),
    "credits": (),
    "following": None,
    "leaving": None,
    "todo": (),
    "due": None,
    "tried": 0,
    "claim": "",
    "applied": (),
}


def _fill(sub: Subscription, terms: Fee, fee: int, since: date, ends: date) -> Subscription:
    """Puts the operations of the days [since, ends) into ``todo``: what is the whole period's goes
    in by the share of its days."""
    key = f"{sub.tenant}/{sub.count}/{sub.began}/{sub.moves}"
    word, expires = item(sub.plan, sub.version), start_of(ends)
    part = split(fee, sub.began, ends, since)[1]
    charged = Charged(f"fee/{key}", part, since, ends)
    bill = Bill(
        id=charged.id,
        tenant=sub.tenant,
        amount=part,
        currency=sub.currency,
        item=word,
        reason=f"{since} to {later(ends, -1)}",
    )
    tokens = [
        Allow(
            id=f"tokens/{key}/{place}",
            tenant=sub.tenant,
            tokens=given,
            offers=each.offers,
            reason=word,
            expires=expires,
        )
        for place, each in enumerate(terms.included)
        if (given := split(each.tokens, sub.began, ends, since)[1])
    ]
    credit = split(terms.credit, sub.began, ends, since)[1]
    credits_ = [
        Grant(
            id=f"credit/{key}",
            tenant=sub.tenant,
            amount=credit,
            currency=sub.currency,
            reason=word,
            expires=expires,
        )
    ]
    credits_ = credits_ if credit else []
    return msgspec.structs.replace(
        sub,
        charged=charged if part else None,
        tokens=tuple(each.id for each in tokens),
        credits=tuple(each.id for each in credits_),
        todo=(*((bill,) if part else ()), *tokens, *credits_),
    )


# -- what time brings ------------------------------------------------------------------------------


def is_over(sub: Subscription, today: date) -> bool:
    """Whether its period, or its trial, has ended."""
    return sub.entitled and sub.ends is not None and today >= sub.ends


def renew(
    sub: Subscription, plan: Plan | None, today: date, discounts: Sequence[Discount] = ()
) -> Subscription:
    """What follows on a period that is over. ``plan`` is the one that follows, None if none does.

    A period that went by wholly while nobody looked is not billed: nobody could use its tokens.
    """
    if plan is None or sub.state == "past due":
        return end(sub, UNPAID if sub.state == "past due" else sub.reason or "cancelled")
    assert sub.ends is not None
    following = sub.following
    moved = sub
    if following is not None:
        moved = msgspec.structs.replace(sub, plan=following.plan, version=following.version)
    if sub.state == "trial" or not _same_length(sub, plan):
        moved = msgspec.structs.replace(moved, anchor=sub.ends)
    return _open(moved, plan, today, discounts)


def _same_length(sub: Subscription, plan: Plan) -> bool:
    """Whether the plan's periods are as long as the one that ends: then they go on from the same
    anchor."""
    if plan.subscription is None or sub.ends is None:
        return False
    number = period_at(sub.anchor, plan.subscription.period, sub.began)
    return period(sub.anchor, plan.subscription.period, number) == (sub.began, sub.ends)


def end(sub: Subscription, reason: str) -> Subscription:
    """No plan any more. What was not paid is not owed: it was not given either."""
    return msgspec.structs.replace(
        sub, state="ended", todo=(), following=None, leaving=None, due=None, claim="", reason=reason
    )


def fall_due(sub: Subscription, today: date, claim: str = "") -> Subscription:
    """The fee could not be collected. It stays in ``todo``, and the customer stays on the plan."""
    if sub.state == "past due":
        return sub
    return msgspec.structs.replace(sub, state="past due", due=today, tried=0, claim=claim)


def retry(sub: Subscription, terms: Fee, today: date, claim: str) -> Subscription:
    """Counts the retry days that went by; after the last of them the subscription lapses."""
    assert sub.due is not None
    tried = sum((today - sub.due).days >= days for days in terms.retry_days)
    if tried == len(terms.retry_days):
        return end(sub, UNPAID)
    if tried <= sub.tried:
        return sub
    return msgspec.structs.replace(sub, tried=tried, claim=claim)


def done(sub: Subscription) -> Subscription:
    """All of ``todo`` is carried out."""
    state: State = "active" if sub.state == "past due" else sub.state
    return msgspec.structs.replace(sub, todo=(), state=state, due=None, tried=0, claim="")


# -- what people ask for ---------------------------------------------------------------------------


def follow(sub: Subscription, plan: str, version: int) -> Subscription:
    """Changes at the period's end, to a plan or to none (""). The present plan again: stays."""
    if (plan, version) == (sub.plan, sub.version):
        return msgspec.structs.replace(sub, following=None)
    return msgspec.structs.replace(sub, following=Following(plan, version))


def leave(sub: Subscription, plan: str, version: int) -> Subscription:
    """First half of a change at once: takes back what is left of the period's contents."""
    if sub.state == "past due":  # nothing was paid, so nothing was given
        sub = msgspec.structs.replace(sub, charged=None, tokens=(), credits=())
    if sub.state == "trial" and plan:  # the trial goes on, on another plan
        return msgspec.structs.replace(sub, leaving=Following(plan, version), following=None)
    key = f"{sub.tenant}/{sub.count}/{sub.moves + 1}"
    todo: list[Todo] = [EndAllowance(id=id_, reason="the plan changed") for id_ in sub.tokens]
    todo += [
        Refund(id=f"back/{key}/{place}", of=id_, reason="the plan changed")
        for place, id_ in enumerate(sub.credits)
    ]
    return msgspec.structs.replace(
        sub, leaving=Following(plan, version), following=None, todo=tuple(todo)
    )


def unused(sub: Subscription, left: Sequence[tuple[int, int]], today: date) -> int:
    """What the fee's unused days come to, bounded by how much was left of each thing that it
    brought (left, whole)."""
    if sub.charged is None:
        return 0
    fee = sub.charged
    by_days = split(fee.amount, fee.since, fee.until, today)[1]
    by_use = [fee.amount * min(max(rest, 0), whole) // whole for rest, whole in left if whole > 0]
    return min([by_days, *by_use])


def move(
    sub: Subscription,
    plan: Plan | None,
    today: date,
    left: Sequence[tuple[int, int]],
    discounts: Sequence[Discount] = (),
) -> Subscription:
    """Second half of a change at once. ``plan`` is the new one, None to end; ``left`` as in
    :func:`unused`. A plan whose periods are as long keeps the period; another begins one today."""
    assert sub.leaving is not None
    back = unused(sub, left, today)
    moves = sub.moves + 1
    credit: tuple[Todo, ...] = ()
    if back and sub.charged is not None:
        credit = (
            Refund(
                id=f"unused/{sub.tenant}/{sub.count}/{moves}",
                of=sub.charged.id,
                amount=back,
                reason=f"unused from {today}",
            ),
        )
    if plan is None:
        ended = end(sub, sub.reason or "cancelled")
        return msgspec.structs.replace(ended, todo=credit, moves=moves, charged=None)
    moved = msgspec.structs.replace(
        sub, plan=sub.leaving.plan, version=sub.leaving.version, moves=moves
    )
    if sub.state == "trial":
        return msgspec.structs.replace(moved, leaving=None, following=None)
    if _same_length(sub, plan) and plan.subscription is not None and sub.ends is not None:
        kept = [each for each in discounts if each.code in sub.applied]
        blank = _BLANK | {"applied": sub.applied}
        filled = _fill(
            msgspec.structs.replace(moved, **blank),
            plan.subscription,
            reduced(plan.subscription.fee, [each for each in kept if each.suits(plan.name)]),
            max(today, sub.began),
            sub.ends,
        )
    else:
        filled = _open(msgspec.structs.replace(moved, anchor=today), plan, today, discounts)
    return msgspec.structs.replace(filled, todo=(*credit, *filled.todo))
