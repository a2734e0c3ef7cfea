"""Plans and coupons: what customers can subscribe to, and codes that take something off."""

from __future__ import annotations

from collections import Counter
from datetime import date
from typing import Any

from avocado.billing.coupon import Coupon
from avocado.billing.coupons import coupons, create
from avocado.billing.plan import parse_plan
from avocado.billing.plans import publish, published
from avocado.billing.subscriptions import subscriptions
from avocado.console.operator.acting import ask_first, reason_of, record
from avocado.console.operator.doors import DOORS
from avocado.console.operator.money import read_amount
from avocado.console.operator.overview import currency_of
from avocado.console.page import Nav, Pages, Redirect, Reply, Values, Visit
from avocado.errors import Refused

PAGES = Pages()


@PAGES.show(
    "/operator/plans",
    roles=DOORS["plans"],
    template="operator/plans.html",
    nav=Nav("op.plans", "coins", 250, "op.group_money"),
)
def plans(visit: Visit) -> Values:
    """Every version of every plan, who is on which, and all coupons."""
    found = list(published(visit.reader))
    newest = {each.plan.name: each.version for each in found}
    on = Counter((each.plan, each.version) for each in subscriptions(visit.reader) if each.entitled)
    return {
        "plans": list(reversed(found)),
        "newest": newest,
        "on": on,
        "coupons": list(reversed(list(coupons(visit.reader)))),
        "currency": currency_of(visit),
        "names": sorted(newest),
    }


@PAGES.act("/operator/plans", roles=DOORS["plans"], again=plans)
def publish_plan(visit: Visit) -> Reply:
    """Publishes a plan's next version from its TOML."""
    text = visit.form.text("toml", 20_000)
    plan = parse_plan(text.encode(), currency_of(visit))
    title = visit.t("op_plan.publish_title")
    sentence = visit.t("op_plan.publish_text", name=plan.name)
    asked = ask_first(visit, title, sentence, "/operator/plans", danger=False)
    if asked is not None:
        return asked
    reason = reason_of(visit)
    with visit.writing() as do:
        made, new = publish(visit.reader, do, plan, visit.who.email)
        name = f"{made.plan.name}@{made.version}"
        if new:
            record(visit, do, "plan", name, reason=reason)
    word = "op_plan.published" if new else "op_plan.same"
    return Redirect("/operator/plans", visit.t(word, name=name))


@PAGES.act("/operator/coupons", roles=DOORS["plans"], again=plans)
def create_coupon(visit: Visit) -> Reply:
    coupon = _typed(visit)
    with visit.writing() as do:
        create(visit.reader, do, coupon, visit.who.email)
        record(visit, do, "coupon", coupon.code)
    return Redirect("/operator/plans", visit.t("op_plan.coupon_done", code=coupon.code))


def _typed(visit: Visit) -> Coupon:
    """The coupon of the form. Raises Refused."""
    kind: Any = visit.form.get("kind", "percent")
    currency = currency_of(visit)
    facts: dict[str, Any] = {
        "periods": visit.form.number("periods", 1, 1, 120),
        "most": visit.form.number("most", 0, 0, 10**9) or None,
        "days": visit.form.number("days", 0, 0, 3660) or None,
        "plans": tuple(name for name in visit.form.many("plan") if name),
    }
    try:
        if ends := visit.form.text("ends"):
            facts["ends"] = date.fromisoformat(ends)
        if kind == "percent":
            value = visit.form.number("percent", 0, 0, 100) * 10_000
            return Coupon(visit.form.text("code", 40).upper(), kind, value, **facts)
        if kind not in ("amount", "credit"):
            raise Refused(visit.t("op_plan.bad_kind"))
        value = read_amount(visit, "amount").nanos
        return Coupon(visit.form.text("code", 40).upper(), kind, value, currency, **facts)
    except ValueError as error:
        raise Refused(str(error)) from error
