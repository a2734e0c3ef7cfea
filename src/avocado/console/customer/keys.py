"""The pages of a customer's keys."""

from __future__ import annotations

from avocado.console.amounts import read_amount, typed
from avocado.console.customer import keyring
from avocado.console.customer.figures import day_after, today
from avocado.console.customer.keyring import Bounds
from avocado.console.customer.models import models_of, policy_of
from avocado.console.page import Nav, Pages, Redirect, Reply, Shown, Values, Visit
from avocado.console.roles import CUSTOMER
from avocado.errors import Refused
from avocado.gateway.access import Policy

PAGES = Pages()
LIFETIMES = (0, 7, 30, 90, 365)
"""Days; 0: until it is revoked."""
OVERLAPS = (0, 1, 24, 168)
"""Hours."""
DAY = 86_400 * 1_000_000_000


@PAGES.show("/keys", roles=CUSTOMER, template="customer/keys.html", nav=Nav("nav.keys", "key", 20))
def keys(visit: Visit) -> Values:
    now = today(visit)
    month, tomorrow = now.replace(day=1).isoformat(), day_after(now.isoformat())
    spent = {
        each.key_id or "": each.net
        for each in visit.daybook.usage(visit.tenant, month, tomorrow, by=("key_id",))
    }
    return {"keys": keyring.shown_keys(visit, spent), "overlaps": OVERLAPS}


@PAGES.show("/keys/new", roles=CUSTOMER, template="customer/key_new.html")
def new_key(visit: Visit) -> Values:
    return {"models": models_of(visit), "lifetimes": LIFETIMES}


@PAGES.act("/keys/new", roles=CUSTOMER, again=new_key)
def create_key(visit: Visit) -> Reply:
    name = visit.form.text("name", 100)
    days = visit.form.number("days", 0, 0, 3650)
    text = keyring.create(visit, name, visit.now + days * DAY if days else None, _bounds(visit))
    return _shown(visit, name, text)


def _shown(visit: Visit, name: str, text: str) -> Shown:
    """The one page that has the key in it. It is never stored, and no browser keeps it."""
    return Shown("customer/key_made.html", {"name": name, "text": text})


def _bounds(visit: Visit) -> Bounds:
    """What a form says that a key may do. Raises Refused."""
    currency = visit.reader.customer(visit.tenant).currency
    offered = {each.name for each in models_of(visit)}
    models = tuple(each for each in visit.form.many("models") if each in offered)
    scopes = tuple(each for each in visit.form.many("scopes") if each in ("inference", "read"))
    if "scoped" in visit.form and not scopes:
        raise Refused(visit.t("keys.no_scope"))
    return Bounds(
        scopes=scopes if scopes and set(scopes) != {"inference", "read"} else None,
        models=models or None,
        month=read_amount(visit, "month", currency),
        total=read_amount(visit, "total", currency),
        requests_per_minute=visit.form.number("requests_per_minute", 0, 0, 10**9) or None,
        tokens_per_minute=visit.form.number("tokens_per_minute", 0, 0, 10**12) or None,
    )


@PAGES.show("/keys/{key}", roles=CUSTOMER, template="customer/key.html")
def key(visit: Visit) -> Values:
    found = keyring.find(visit, visit.path["key"])
    subject = f"key:{found.key_id}"
    currency = visit.reader.customer(visit.tenant).currency
    return {
        "key": found,
        "policy": policy_of(visit, subject).get(subject, Policy()),
        "models": models_of(visit),
        "month": typed(found.month_limit, currency),
        "total": typed(found.total_limit, currency),
    }


@PAGES.act("/keys/{key}", roles=CUSTOMER, again=key)
def bound_key(visit: Visit) -> Reply:
    found = keyring.find(visit, visit.path["key"])
    keyring.bound(visit, found, _bounds(visit))
    return Redirect("/keys", visit.t("keys.changed", name=found.name))


@PAGES.act("/keys/{key}/rotate", roles=CUSTOMER, again=keys)
def rotate_key(visit: Visit) -> Reply:
    found = keyring.find(visit, visit.path["key"])
    text = keyring.rotate(visit, found, visit.form.number("hours", 24, 0, 24 * 365))
    return _shown(visit, found.name, text)


@PAGES.act("/keys/{key}/revoke", roles=CUSTOMER, again=keys)
def revoke_key(visit: Visit) -> Reply:
    found = keyring.find(visit, visit.path["key"])
    keyring.revoke(visit, found)
    return Redirect("/keys", visit.t("keys.revoked_now", name=found.name))
