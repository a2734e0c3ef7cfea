"""Billing profile: who the customer is on its invoices."""

from __future__ import annotations

from typing import Any

from avocado.billing.profile import LANGUAGES, change_profile, profile_of
from avocado.console.page import Pages, Redirect, Reply, Values, Visit
from avocado.console.roles import ADMIN, CUSTOMER

PAGES = Pages()
WISHES = ("factur-x", "xml", "none")
FIELDS = ("company", "contact", "postcode", "city", "region", "country", "email", "reference")


@PAGES.show("/billing/profile", roles=CUSTOMER, template="customer/profile.html")
def profile(visit: Visit) -> Values:
    from babel import Locale

    names = Locale.parse(visit.formats.locale)
    countries = sorted(
        ((code, str(name)) for code, name in names.territories.items() if _is_country(code)),
        key=lambda each: each[1],
    )
    return {
        "profile": profile_of(visit.reader, visit.tenant),
        "customer": visit.reader.customer(visit.tenant),
        "countries": [("", "–"), *countries],
        "tongues": [(each, str(names.languages[each])) for each in LANGUAGES],
        "wishes": [(each, visit.t(f"profile.wish_{each.replace('-', '_')}")) for each in WISHES],
    }


def _is_country(code: str) -> bool:
    return len(code) == 2 and code.isalpha() and code not in _NO_COUNTRIES


_NO_COUNTRIES = frozenset("EU EZ UN XA XB XK ZZ QO AC CP CQ DG EA IC TA".split())
"""Codes of CLDR that ISO 3166-1 does not have as countries."""


@PAGES.act("/billing/profile", roles=ADMIN, again=profile)
def change(visit: Visit) -> Reply:
    form = visit.form
    lines = [line.strip() for line in form.text("address", 1000).splitlines()]
    changes: dict[str, Any] = {name: form.text(name) for name in FIELDS}
    changes |= {
        "address": tuple(line for line in lines if line),
        "vat_id": form.text("vat_id") or None,
        "language": form.get("language") if form.get("language") in LANGUAGES else "en",
        "e_invoice": form.get("e_invoice") if form.get("e_invoice") in WISHES else "factur-x",
    }
    with visit.writing() as do:
        change_profile(visit.reader, do, visit.tenant, changes, visit.actor)
    return Redirect("/billing/profile", visit.t("profile.saved"))
