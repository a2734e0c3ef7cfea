"""Billing: what is left, topping it up, the plan and its included tokens, coupons."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from avocado.billing import coupons, subscriptions
from avocado.billing.dates import start_of
from avocado.billing.plans import Published, published, version_of
from avocado.billing.upkeep import load
from avocado.cli.entitlement import entitle_one
from avocado.console.customer.invoices import newest
from avocado.console.customer.paying import account_of, payments_on
from avocado.console.page import Nav, Pages, Redirect, Reply, Values, Visit
from avocado.console.roles import ADMIN, CUSTOMER

if TYPE_CHECKING:
    from avocado.billing.subscription import Subscription

PAGES = Pages()


@dataclass(frozen=True)
class Choice:
    """A plan that can be had. ``fee`` in nano-units a period, None where there is none."""

    name: str
    version: int
    title: str
    fee: int | None
    period: str
    tokens: int
    trial_days: int | None
    trial_tokens: int
    current: bool


@PAGES.show(
    "/billing", roles=CUSTOMER, template="customer/billing.html", nav=Nav("nav.billing", "card", 60)
)
def billing(visit: Visit) -> Values:
    reader, tenant = visit.reader, visit.tenant
    stored = load(reader, tenant)
    sub = stored.value if stored is not None and stored.value.entitled else None
    customer = reader.customer(tenant)
    return {
        "customer": customer,
        "balance": reader.balance(tenant),
        "sub": sub,
        "plan": None if sub is None else version_of(reader, sub.plan, sub.version).plan,
        "ends": _day(sub.ends) if sub else None,
        "due": _day(sub.due) if sub else None,
        "choices": choices(visit, sub, customer.currency),
        "allowances": [each for each in reader.allowances(tenant) if each.left],
        "invoices": newest(visit, 5),
        "payments": payments_on(visit.console),
        "account": account_of(visit),
    }


def _day(day: date | None) -> int | None:
    return None if day is None else start_of(day)


def choices(visit: Visit, sub: Subscription | None, currency: str) -> list[Choice]:
    """The newest version of every plan in the customer's currency."""
    newest_of: dict[str, Published] = {}
    for each in published(visit.reader):
        newest_of[each.plan.name] = each
    found = []
    for each in newest_of.values():
        plan = each.plan
        if plan.currency != currency or not plan.listed:
            continue
        terms, trial = plan.subscription, plan.trial
        found.append(
            Choice(
                plan.name,
                each.version,
                plan.called(visit.speaker.language),
                None if terms is None else terms.fee,
                "month" if terms is None else terms.period,
                0 if terms is None else sum(one.tokens for one in terms.included),
                None if trial is None else trial.days,
                0 if trial is None else trial.tokens,
                sub is not None and (sub.plan, sub.version) == (plan.name, each.version),
            )
        )
    return found


@PAGES.act("/billing/plan", roles=ADMIN, again=billing)
def choose_plan(visit: Visit) -> Reply:
    """Starts a subscription, or changes it: at the period's end, or at once."""
    plan = visit.form.text("plan", 80)
    with visit.writing() as do:
        stored = load(visit.reader, visit.tenant)
        if stored is None or not stored.value.entitled:
            sub = subscriptions.start(
                visit.reader,
                do,
                visit.tenant,
                plan,
                visit.now,
                trial=visit.form.get("trial") == "yes",
                self_service=True,
                actor=visit.actor,
            )
        else:
            sub = subscriptions.change(
                visit.reader,
                do,
                visit.tenant,
                plan,
                visit.now,
                at_once=visit.form.get("when") == "now",
                self_service=True,
                actor=visit.actor,
            )
    entitle_one(visit.console.workspace, visit.reader, sub, visit.actor)
    return Redirect("/billing", visit.t("billing.plan_changed"))


@PAGES.act("/billing/plan/cancel", roles=ADMIN, again=billing)
def cancel_plan(visit: Visit) -> Reply:
    with visit.writing() as do:
        sub = subscriptions.cancel(visit.reader, do, visit.tenant, visit.now, actor=visit.actor)
    entitle_one(visit.console.workspace, visit.reader, sub, visit.actor)
    return Redirect("/billing", visit.t("billing.plan_cancelled"))


@PAGES.act("/billing/coupon", roles=ADMIN, again=billing)
def redeem(visit: Visit) -> Reply:
    code = visit.form.text("code", 40).upper()
    with visit.writing() as do:
        coupons.redeem(visit.reader, do, code, visit.tenant, visit.now)
    return Redirect("/billing", visit.t("billing.redeemed", code=code))
