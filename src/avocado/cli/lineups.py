"""Lineups: what a public name means, and how that changes for servers that run.

Names are files under ``.avocado/refs``: ``offer`` is what a name means, ``canary`` a second offer,
its percentage and of what, ``previous`` what a roll-back goes to. Running servers are told to read
them again; a server that cannot serve the new state leaves both it and the files as they were.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from avocado.cli.book import refresh_servers
from avocado.errors import Refused
from avocado.lineage import short
from avocado.release.offer import Offer
from avocado.terms.price import PriceSheet
from avocado.workspace import Workspace

if TYPE_CHECKING:
    from avocado.gateway.swap import Subject


@dataclass(frozen=True)
class Line:
    """What a name means: its offer, and a canary for ``percent`` of its customers, or of their
    conversations."""

    offer: Offer
    canary: Offer | None = None
    percent: int = 0
    by: Subject = "customer"


def read_offer(workspace: Workspace, offer: str) -> Offer:
    return Offer.from_manifest(workspace.store.load(offer).manifest)


def line_up(workspace: Workspace, name: str) -> Line | None:
    """What ``name`` means now, or None."""
    store = workspace.store
    current = store.pointed("offer").get(name)
    if current is None:
        return None
    offer = read_offer(workspace, current)
    canary = store.pointed("canary").get(name)
    if canary is None:
        return Line(offer)
    ref, percent, *by = canary.split(" ")
    whole = by != ["conversation"]
    return Line(
        offer,
        read_offer(workspace, ref),
        int(percent),
        "customer" if whole else "conversation",
    )


def place_offer(
    workspace: Workspace, name: str, release: str, price: PriceSheet, like: Offer | None = None
) -> Offer:
    """Keeps an offer; nobody is sold it yet. Audience and dates are those of ``like``."""
    now = int(time.time())
    if like is None:
        return keep_offer(workspace, Offer(name, release, price, now))
    return keep_offer(workspace, replace(like, release=release, price=price, created=now))


def keep_offer(workspace: Workspace, offer: Offer) -> Offer:
    """Keeps an offer as a version of its own."""
    return Offer.from_manifest(workspace.store.place(offer.manifest(), {}).manifest)


def declare(
    workspace: Workspace,
    name: str,
    offer: Offer,
    percent: int | None = None,
    by: Subject = "customer",
) -> int:
    """Sells ``offer`` under ``name``: to all, or as a canary to ``percent`` of the customers or
    conversations beside what is sold now. Returns how many running servers took it up.

    Raises:
        Refused: a server cannot serve it; then everything is as it was.
    """
    before = refs(workspace, name)
    store = workspace.store
    if percent is not None:
        store.point("canary", name, f"{offer.id} {percent} {by}")
    else:
        if before["offer"] not in (None, offer.id):
            store.point("previous", name, str(before["offer"]))
        store.unpoint("canary", name)
        store.point("offer", name, offer.id)
    return tell(workspace, name, before)


def refs(workspace: Workspace, name: str) -> dict[str, str | None]:
    kinds = ("offer", "canary", "previous")
    return {kind: workspace.store.pointed(kind).get(name) for kind in kinds}


def tell(workspace: Workspace, name: str, before: dict[str, str | None]) -> int:
    try:
        return refresh_servers(workspace)
    except BaseException:
        for kind, value in before.items():
            if value is None:
                workspace.store.unpoint(kind, name)
            else:
                workspace.store.point(kind, name, value)
        if len(workspace.admin_sockets()) > 1:
            refresh_servers(workspace)  # those that took it up go back too
        raise


def current(workspace: Workspace, name: str) -> Line:
    line = line_up(workspace, name)
    if line is None:
        offered = ", ".join(sorted(workspace.store.pointed("offer"))) or "nothing"
        raise Refused(f"nothing is offered as {name!r}; offered: {offered}")
    return line


def saleable(workspace: Workspace, release: str, price: PriceSheet) -> str:
    """The whole id of a release that the gate let out for what is asked of it."""
    store = workspace.store
    found = store.load(store.resolve(release, "release"))
    purpose = found.manifest.facts["gate"]["purpose"]
    if purpose != "sale" and price.prompt + price.completion > 0:
        raise Refused(
            f"{short(found.id)} was let out for {purpose}, not for sale: "
            "release its checkpoint with --paid to sell it"
        )
    return found.id


def servers(told: int) -> str:
    return f" ({told} running server{'s' if told > 1 else ''} followed)" if told else ""
