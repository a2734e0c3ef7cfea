"""Limits and alerts: the most that may be spent, and who hears of it before."""

from __future__ import annotations

from secrets import token_hex
from typing import Any

import msgspec

from avocado.billing import alerts, webhook
from avocado.billing.alert import Alert
from avocado.console.amounts import need_amount, read_amount, typed
from avocado.console.customer.figures import this_month
from avocado.console.page import Nav, NotFound, Pages, Redirect, Reply, Shown, Values, Visit
from avocado.console.roles import ADMIN, CUSTOMER
from avocado.errors import Refused
from avocado.ledger.operation import SetSpendLimit

PAGES = Pages()
MOST = 50


@PAGES.show(
    "/limits", roles=CUSTOMER, template="customer/limits.html", nav=Nav("nav.limits", "bell", 70)
)
def limits(visit: Visit) -> Values:
    customer = visit.reader.customer(visit.tenant)
    currency = customer.currency
    return {
        "customer": customer,
        "month": typed(customer.month_limit, currency),
        "total": typed(customer.total_limit, currency),
        "spent": this_month(visit).spent,
        "alerts": alerts.active(visit.reader, visit.tenant),
        "mail": visit.console.workspace.config.mail is not None,
    }


@PAGES.act("/limits", roles=ADMIN, again=limits)
def set_limits(visit: Visit) -> Reply:
    currency = visit.reader.customer(visit.tenant).currency
    month = read_amount(visit, "month", currency)
    total = read_amount(visit, "total", currency)
    with visit.writing() as do:
        do(SetSpendLimit(tenant=visit.tenant, month=month, total=total))
    return Redirect("/limits", visit.t("limits.saved"))


@PAGES.act("/alerts", roles=ADMIN, again=limits)
def add_alert(visit: Visit) -> Reply:
    """The secret of a webhook is shown once for each address."""
    if len(alerts.active(visit.reader, visit.tenant)) >= MOST:
        raise Refused(visit.t("limits.too_many", most=MOST))
    url = visit.form.text("webhook", 500)
    known = {each.webhook: each.serial for each in alerts.active(visit.reader, visit.tenant)}
    if url:
        networks = visit.console.workspace.config.billing.webhook_networks
        webhook.check_url(url, networks)
    serial = (known.get(url) or token_hex(8)) if url else ""
    try:
        made = msgspec.convert({**_what(visit), "webhook": url or None, "serial": serial}, Alert)
    except (msgspec.ValidationError, ValueError) as error:
        raise Refused(str(error)) from error
    with visit.writing() as do:
        alerts.add(visit.reader, do, made, visit.actor)
    if url and url not in known:
        secret = webhook.secret_of(visit.console.workspace.pepper(), serial)
        return Shown("customer/webhook_made.html", {"url": url, "secret": secret})
    return Redirect("/limits", visit.t("limits.added"))


def _what(visit: Visit) -> dict[str, Any]:
    """The alert that the form asks for, but for its webhook. Raises Refused."""
    currency = visit.reader.customer(visit.tenant).currency
    kind = visit.form.get("kind", "spend")
    percent = kind == "percent"
    email = visit.form.text("email", 254)
    if not email and not visit.form.text("webhook", 500):
        raise Refused(visit.t("limits.where"))
    return {
        "tenant": visit.tenant,
        "number": 0,
        "kind": "balance" if kind == "balance" else "spend",
        "currency": currency,
        "amount": None if percent else need_amount(visit, "amount", currency),
        "percent": visit.form.number("percent", 0, 0, 100) if percent else None,
        "email": email or None,
        "language": visit.speaker.language,
    }


@PAGES.act("/alerts/{number}/remove", roles=ADMIN, again=limits)
def remove_alert(visit: Visit) -> Reply:
    number = visit.path["number"]
    known = {str(each.number) for each in alerts.active(visit.reader, visit.tenant)}
    if number not in known:
        raise NotFound
    with visit.writing() as do:
        alerts.remove(visit.reader, do, visit.tenant, int(number), visit.actor)
    return Redirect("/limits", visit.t("limits.removed"))
