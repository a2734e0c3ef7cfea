"""The clerk: does what is due, for every customer. Run it as often as you like, and as many times
at once: what was done is done.

Money first, messages last, so that a slow mail server holds nothing up. What fails for one customer
is reported and tried again the next time; it stops nobody else's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from avocado.billing import alerts, outbox
from avocado.billing.alert import Alert
from avocado.billing.dates import day_of
from avocado.billing.notices import LAPSED_DAYS, of_alert, of_subscription
from avocado.billing.outbox import Message, Send
from avocado.billing.plan import Limits
from avocado.billing.plans import version_of
from avocado.billing.profile import profile_of
from avocado.billing.record import Do, Refusals
from avocado.billing.subscription import UNPAID, Subscription, is_over
from avocado.billing.upkeep import advance
from avocado.ledger.reader import Reader

if TYPE_CHECKING:
    from avocado.ledger.views import Document

log = logging.getLogger("avocado.billing")


class Done(msgspec.Struct, frozen=True):
    """One thing that was done, or that ``failed``. ``what`` is a word, ``detail`` a few more."""

    what: str
    tenant: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Entitled:
    """A subscriber's ``plan`` and ``limits``; no ``on`` where the subscription has ended."""

    tenant: str
    plan: str
    limits: Limits
    on: bool


Chore = Callable[[], Sequence[Done]]
"""Another room's part of the work, such as closing invoices."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What the clerk needs of other rooms; what is None is left undone.

    ``entitle`` makes the gateway serve subscribers by their plans. ``collect`` is asked to get so
    many nano-units of a customer's into its wallet, and says whether any may have come. ``spent``
    tells the month's spend without adding up its requests. ``chores`` are done in their order:
    automatic top-ups, closing invoices.
    """

    seller: str = "Avocado"
    send: Send | None = None
    entitle: Callable[[Sequence[Entitled]], Sequence[Done]] | None = None
    collect: Callable[[str, int], object] | None = None
    spent: alerts.Spent | None = None
    chores: tuple[tuple[str, Chore], ...] = field(default=())


def work(reader: Reader, do: Do, now: int, tools: Tools | None = None) -> tuple[Done, ...]:
    """Does what is due at ``now`` (ns), and says what it was.

    Subscriptions come first, then ``chores`` and entitlements, then alerts and what is to be sent.
    """
    tools = tools or Tools()
    made = list(_subscriptions(reader, do, now, tools))
    for name, chore in tools.chores:
        made += _guarded(name, "", chore)
    found = list(_documents(reader))
    if tools.entitle is not None:
        entitle, people = tools.entitle, list(entitled(reader, [sub for _, sub in found]))
        made += _guarded("entitle", "", lambda: entitle(people))
    made += _write(reader, do, now, tools, found)
    if tools.send is not None:
        send = tools.send
        made += _guarded("send", "", lambda: _send(reader, do, send, now))
    return tuple(made)


def _guarded(name: str, tenant: str, part: Chore) -> list[Done]:
    try:
        return list(part())
    except Refusals as error:
        return [Done("failed", tenant, f"{name}: {error}")]
    except Exception as error:  # a fault of ours, or in one document, stops nobody else's work
        log.exception("%s of %s failed", name, tenant or "everybody")
        return [Done("failed", tenant, f"{name}: {type(error).__name__}: {error}")]


def _documents(reader: Reader) -> Iterator[tuple[Document, Subscription]]:
    for document in list(reader.documents("subscription")):
        yield document, msgspec.convert(document.content, Subscription)


def _subscriptions(reader: Reader, do: Do, now: int, tools: Tools) -> Iterator[Done]:
    today = day_of(now)
    for _, sub in _documents(reader):
        if not (sub.todo or sub.leaving or is_over(sub, today)):
            continue
        if not sub.todo and reader.customer(sub.tenant).frozen:
            continue  # it can use nothing: the next period begins, and is paid, once it is free

        def part(tenant: str = sub.tenant) -> list[Done]:
            return [
                Done(event.what, event.tenant, f"{event.plan}@{event.version}")
                for event in advance(reader, do, tenant, now, tools.collect)
            ]

        yield from _guarded("subscription", sub.tenant, part)


def entitled(reader: Reader, subs: Iterable[Subscription]) -> Iterator[Entitled]:
    """What subscriptions mean to the gateway."""
    known: dict[tuple[str, int], Limits] = {}
    for sub in subs:
        key = (sub.plan, sub.version)
        if key not in known:
            known[key] = version_of(reader, *key).plan.limits
        yield Entitled(sub.tenant, sub.plan, known[key], sub.entitled)


def _write(
    reader: Reader,
    do: Do,
    now: int,
    tools: Tools,
    found: Sequence[tuple[Document, Subscription]],
) -> Iterator[Done]:
    """Puts the messages that are due into the outboxes."""
    watched: dict[str, list[Alert]] = {}
    for alert in alerts.active(reader):
        watched.setdefault(alert.tenant, []).append(alert)

    def of_alerts(tenant: str) -> list[Message]:
        at = alerts.position(reader, tenant, now, watched[tenant], tools.spent)
        name = reader.customer(tenant).name
        return [m for each in watched[tenant] for m in of_alert(each, at, name, tools.seller, now)]

    def of_sub(sub: Subscription) -> list[Message]:
        tenant = sub.tenant
        plan, profile = version_of(reader, sub.plan, sub.version).plan, profile_of(reader, tenant)
        name, these = reader.customer(tenant).name, watched.get(tenant, [])
        return of_subscription(sub, plan, profile, these, name, tools.seller, now)

    def put(tenant: str, messages: Callable[[], list[Message]], what: str) -> list[Done]:
        new = outbox.put(reader, do, tenant, messages(), now)
        return [Done("written", tenant, f"{new} of {what}")] if new else []

    for tenant in watched:
        yield from _guarded(
            "alerts", tenant, partial(put, tenant, partial(of_alerts, tenant), "alerts")
        )
    for document, sub in found:
        lapsed = sub.state == "ended" and sub.reason == UNPAID
        recent = (day_of(now) - day_of(document.at)).days <= LAPSED_DAYS
        if sub.state == "past due" or (lapsed and recent):
            part = partial(put, sub.tenant, partial(of_sub, sub), "its subscription")
            yield from _guarded("notices", sub.tenant, part)


def _send(reader: Reader, do: Do, send: Send, now: int) -> list[Done]:
    return told(outbox.deliver(reader, do, send, now))


def told(deliveries: Iterable[outbox.Delivery]) -> list[Done]:
    """What became of messages, as the clerk reports it."""
    return [
        Done("not sent" if each.error else "sent", each.tenant, each.error or each.message.target)
        for each in deliveries
    ]
