"""Notices: which messages are due, from how customers stand and from their subscriptions.

They follow from what is on record, under ids that follow from it too: nothing has to be remembered
from the moment in which it happened, so nothing is forgotten where a process died.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from hashlib import sha256
from typing import Final

from avocado.billing.alert import Alert, Position, fires, threshold
from avocado.billing.dates import later
from avocado.billing.letters import Letter, event, write
from avocado.billing.outbox import Message
from avocado.billing.plan import Plan
from avocado.billing.profile import Profile
from avocado.billing.subscription import UNPAID, Subscription
from avocado.ledger.operation import Bill
from avocado.terms.money import Money

Facts = Mapping[str, str | Money | date]
LAPSED_DAYS: Final = 7
"""Days after its end in which a customer is told that a subscription lapsed."""


def of_alert(alert: Alert, at: Position, name: str, seller: str, now: int) -> list[Message]:
    """What an alert sends to a customer called ``name`` now; nothing if it does not fire."""
    id_, level = fires(alert, at), threshold(alert, at)
    if id_ is None or level is None:
        return []
    facts: dict[str, str | Money | date] = {
        "customer": name,
        "threshold": Money(level, alert.currency),
    }
    if alert.kind == "spend":
        facts |= {"month": at.month, "spent": Money(at.spent, alert.currency)}
    else:
        facts["available"] = Money(at.available, alert.currency)
    return _both(alert, id_, alert.kind, facts, seller, now)


def of_test(alert: Alert, name: str, seller: str, now: int) -> list[Message]:
    """A trial of an alert's ways, whatever its threshold."""
    return _both(alert, f"{alert.id}/test/{now}", "test", {"customer": name}, seller, now)


def _both(
    alert: Alert, id_: str, letter: Letter, facts: Facts, seller: str, now: int
) -> list[Message]:
    made = []
    if alert.email is not None:
        made.append(_mail(id_, alert.email, letter, alert.language, seller, facts))
    if alert.webhook is not None:
        body = event(letter, now, {**facts, "account": alert.tenant, "alert": alert.number})
        made.append(_hook(id_, alert, body))
    return made


def _mail(id_: str, to: str, letter: Letter, language: str, seller: str, facts: Facts) -> Message:
    subject, body = write(letter, language, seller, facts)
    return Message(f"{id_}/mail", "mail", to, body, subject)


def _hook(id_: str, alert: Alert, body: str) -> Message:
    assert alert.webhook is not None
    return Message(f"{id_}/webhook", "webhook", alert.webhook, body, secret=alert.serial)


def wire_id(message: Message) -> str:
    """A message's id as a receiver sees it: without the dots that sign and time are joined by."""
    return f"msg_{sha256(message.id.encode()).hexdigest()[:32]}"


def of_subscription(
    sub: Subscription,
    plan: Plan,
    profile: Profile,
    alerts: Iterable[Alert],
    name: str,
    seller: str,
    now: int,
) -> list[Message]:
    """What a customer is told of its subscription: a fee that could not be collected, again on each
    retry day, and that it lapsed. It goes to the profile's address and each of its webhooks."""
    facts: dict[str, str | Money | date] = {
        "customer": name,
        "plan": plan.called(profile.language),
    }
    key = f"subscription/{sub.tenant}/{sub.count}"
    letter: Letter
    if sub.state == "past due" and sub.due is not None and plan.subscription is not None:
        letter, id_ = "past-due", f"{key}/{sub.due}/{sub.tried}"
        fee = sum(each.amount for each in sub.todo if isinstance(each, Bill))
        facts["fee"] = Money(fee, sub.currency)
        facts["last"] = later(sub.due, plan.subscription.retry_days[-1])
    elif sub.state == "ended" and sub.reason == UNPAID:
        letter, id_ = "lapsed", f"{key}/lapsed"
    else:
        return []
    made = []
    if profile.email:
        made.append(_mail(id_, profile.email, letter, profile.language, seller, facts))
    hooks = {each.webhook: each for each in alerts if each.webhook is not None}
    for url, alert in hooks.items():
        body = event(letter, now, {**facts, "account": sub.tenant})
        made.append(_hook(f"{id_}/{sha256(url.encode()).hexdigest()[:8]}", alert, body))
    return made
