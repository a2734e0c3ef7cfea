"""Offers: what is sold under which name at what price; canaries, and the way back in one button.

Every change does what ``avocado offer`` does: a new version is kept, the name is pointed at it, and
running servers follow at once; a server that cannot leaves everything as it was.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from avocado.cli import lineups
from avocado.console.operator.acting import ask_first, reason_of, record
from avocado.console.operator.doors import DOORS
from avocado.console.operator.money import decimal, read_amount
from avocado.console.page import Nav, NotFound, Pages, Redirect, Reply, Values, Visit
from avocado.errors import Refused
from avocado.lineage import short
from avocado.terms.price import PriceSheet

if TYPE_CHECKING:
    from avocado.cli.lineups import Line
    from avocado.release.offer import Offer

PAGES = Pages()


@dataclass(frozen=True)
class Sold:
    """One name for the list."""

    name: str
    line: Line
    release_name: str
    state: str
    back: Offer | None
    """What a roll-back goes to, where no canary runs."""


def sold(visit: Visit, name: str) -> Sold:
    """Raises NotFound for a name that means nothing."""
    workspace = visit.console.workspace
    line = lineups.line_up(workspace, name)
    if line is None:
        raise NotFound
    back = workspace.store.pointed("previous").get(name)
    return Sold(
        name,
        line,
        _name_of(visit, line.offer.release),
        line.offer.state(time.time()),
        None if back is None else lineups.read_offer(workspace, back),
    )


def _name_of(visit: Visit, release: str) -> str:
    """A release's own name; its id where its files are not here any more."""
    try:
        name: str = visit.console.workspace.store.load(release).manifest.facts["name"]
    except Refused:
        return short(release)
    return name


@PAGES.show(
    "/operator/offers",
    roles=DOORS["offers"],
    template="operator/offers.html",
    nav=Nav("op.offers", "tag", 340, "op.group_models"),
)
def offers(visit: Visit) -> Values:
    names = visit.console.workspace.store.pointed("offer")
    return {"offers": [sold(visit, name) for name in sorted(names)]}


@PAGES.show("/operator/offers/{name}", roles=DOORS["offers"], template="operator/offer.html")
def offer(visit: Visit) -> Values:
    """One name: what it means, every version of it, and what can be done with it."""
    workspace = visit.console.workspace
    found = sold(visit, visit.path["name"])
    versions = [
        each
        for each in (lineups.read_offer(workspace, id_) for id_ in workspace.store.ids("offer"))
        if each.name == found.name
    ]
    releases = [workspace.store.load(each) for each in workspace.store.ids("release")]
    return {
        "sold": found,
        "price": found.line.offer.price,
        "versions": list(reversed(versions)),
        "releases": [
            (each.id, f"{each.manifest.facts['name']} · {short(each.id)}")
            for each in reversed(releases)
            if each.id != found.line.offer.release
        ],
        "may_sell": visit.who.role in DOORS["sell"],
        "drawn": _drawn(visit, found),
        "decimal": decimal,
    }


def _drawn(visit: Visit, found: Sold) -> tuple[int, int] | None:
    """How many of today's customers a running canary takes, of how many."""
    from avocado.gateway.swap import drawn

    canary = found.line.canary
    if canary is None or found.line.by != "customer":
        return None
    tenants = [each.tenant for each in visit.reader.customers()]
    return sum(drawn(canary, found.line.percent, each) for each in tenants), len(tenants)


def _page(name: str) -> str:
    return f"/operator/offers/{name}"


def _done(visit: Visit, name: str, what: str, reason: str, told: int, **facts: Any) -> Redirect:
    with visit.writing() as do:
        record(visit, do, what, name, reason=reason, **facts)
    return Redirect(_page(name), visit.t("op_offer.done", count=told))


@PAGES.act("/operator/offers/{name}/price", roles=DOORS["sell"], again=offer)
def set_price(visit: Visit) -> Reply:
    """A new price version. What was asked for before is billed at the old one; batch and volume
    terms stay."""
    found = sold(visit, visit.path["name"])
    line = found.line
    if line.canary is not None:
        raise Refused(visit.t("op_offer.canary_first"))
    price = _typed_price(visit, line.offer.price)
    lineups.saleable(visit.console.workspace, line.offer.release, price)
    try:
        wanted = replace(line.offer, price=price, id="")
    except ValueError as error:
        raise Refused(str(error)) from error
    if wanted.manifest().id == line.offer.id:
        raise Refused(visit.t("op_offer.same_price"))
    say = visit.formats
    sentence = visit.t(
        "op_offer.price_sentence",
        name=found.name,
        prompt=say.exact(price.prompt, price.currency),
        completion=say.exact(price.completion, price.currency),
    )
    asked = ask_first(
        visit, visit.t("op_offer.price_title"), sentence, _page(found.name), danger=False
    )
    if asked is not None:
        return asked
    reason = reason_of(visit)
    kept = lineups.keep_offer(visit.console.workspace, wanted)
    told = lineups.declare(visit.console.workspace, found.name, kept)
    return _done(
        visit, found.name, "price", reason, told, offer=kept.id, price_version=price.version
    )


def _typed_price(visit: Visit, before: PriceSheet) -> PriceSheet:
    """The sheet with the prices that were typed. Raises Refused."""
    cached = visit.form.text("cached")
    changed: dict[str, Any] = {
        "prompt": read_amount(visit, "prompt").nanos,
        "completion": read_amount(visit, "completion").nanos,
        "cached": read_amount(visit, "cached").nanos if cached else None,
    }
    try:
        return PriceSheet(**(before.terms() | changed))
    except ValueError as error:
        raise Refused(str(error)) from error


@PAGES.act("/operator/offers/{name}/release", roles=DOORS["sell"], again=offer)
def use_release(visit: Visit) -> Reply:
    """Sells another release under the name: to all, or as a canary to some of a hundred."""
    workspace = visit.console.workspace
    found = sold(visit, visit.path["name"])
    percent = visit.form.number("percent", 0, 0, 99)
    by = "conversation" if visit.form.get("by") == "conversation" else "customer"
    line = found.line
    given = visit.form.text("release", 100)
    if not given and line.canary is not None:
        given = line.canary.release  # the same canary, at another percentage
    wanted = lineups.saleable(workspace, given, line.offer.price)
    if wanted == line.offer.release:
        raise Refused(visit.t("op_offer.same_release"))
    words = {"name": found.name, "release": short(wanted), "percent": percent}
    word = "canary_sentence" if percent else "release_sentence"
    asked = ask_first(
        visit, visit.t("op_offer.release_title"), visit.t(f"op_offer.{word}", **words),
        _page(found.name), danger=not percent,
    )  # fmt: skip
    if asked is not None:
        return asked
    reason = reason_of(visit)
    known = line.canary if line.canary and line.canary.release == wanted else None
    chosen = known or lineups.place_offer(
        workspace, found.name, wanted, line.offer.price, line.offer
    )
    told = lineups.declare(
        workspace,
        found.name,
        chosen,
        percent or None,
        "conversation" if by == "conversation" else "customer",
    )
    what = "canary" if percent else "release"
    return _done(visit, found.name, what, reason, told, release=wanted, percent=percent)


@PAGES.act("/operator/offers/{name}/rollback", roles=DOORS["sell"], again=offer)
def roll_back(visit: Visit) -> Reply:
    """Ends a canary, or goes back to what the name meant before."""
    workspace = visit.console.workspace
    found = sold(visit, visit.path["name"])
    line = found.line
    if line.canary is None and found.back is None:
        raise Refused(visit.t("op_offer.nothing_before"))
    target = line.offer if line.canary is not None else found.back
    assert target is not None
    asked = ask_first(
        visit,
        visit.t("op_offer.rollback_title"),
        visit.t("op_offer.rollback_sentence", name=found.name, release=short(target.release)),
        _page(found.name),
    )
    if asked is not None:
        return asked
    reason = reason_of(visit)
    if line.canary is not None:
        before = lineups.refs(workspace, found.name)
        workspace.store.unpoint("canary", found.name)
        told = lineups.tell(workspace, found.name, before)
    else:
        told = lineups.declare(workspace, found.name, target)
    return _done(visit, found.name, "roll-back", reason, told, release=target.release)
