"""``avocado offer``: what is sold under which name, swapped while it is served.

Names are files under ``.avocado/refs``: ``offer`` is what a name means, ``canary`` a second offer,
its percentage and of what, ``previous`` what a roll-back goes to. Running servers are told to read
them again; a server that cannot serve the new state leaves both it and the files as they were.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from avocado.cli.arguments import workspace_here
from avocado.cli.book import reading, refresh_servers
from avocado.cli.output import Output, with_output
from avocado.errors import Refused
from avocado.lineage import short
from avocado.release.offer import Offer
from avocado.terms.money import Money
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


def place_offer(workspace: Workspace, name: str, release: str, price: PriceSheet) -> Offer:
    """Keeps an offer; nobody is sold it yet."""
    offer = Offer(name, release, price, int(time.time()))
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
    before = _refs(workspace, name)
    store = workspace.store
    if percent is not None:
        store.point("canary", name, f"{offer.id} {percent} {by}")
    else:
        if before["offer"] not in (None, offer.id):
            store.point("previous", name, str(before["offer"]))
        store.unpoint("canary", name)
        store.point("offer", name, offer.id)
    return _tell(workspace, name, before)


def _refs(workspace: Workspace, name: str) -> dict[str, str | None]:
    kinds = ("offer", "canary", "previous")
    return {kind: workspace.store.pointed(kind).get(name) for kind in kinds}


def _tell(workspace: Workspace, name: str, before: dict[str, str | None]) -> int:
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


def _current(workspace: Workspace, name: str) -> Line:
    line = line_up(workspace, name)
    if line is None:
        offered = ", ".join(sorted(workspace.store.pointed("offer"))) or "nothing"
        raise Refused(f"nothing is offered as {name!r}; offered: {offered}")
    return line


def _saleable(workspace: Workspace, release: str, price: PriceSheet) -> str:
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


@click.group()
def offer() -> None:
    """What is sold under which name. Servers that run follow at once and drop no request."""


@offer.command("list")
@with_output
def list_offers(out: Output) -> None:
    """List what is offered, with canaries and what a roll-back goes to."""
    workspace = workspace_here()
    previous = workspace.store.pointed("previous")
    rows = []
    for name in workspace.store.pointed("offer"):
        line = _current(workspace, name)
        back = previous.get(name)
        rows.append(
            {
                "name": name,
                "release": short(line.offer.release),
                "canary": short(line.canary.release) if line.canary else "",
                "percent": str(line.percent) if line.canary else "",
                "of": f"{line.by}s" if line.canary else "",
                "previous": short(read_offer(workspace, back).release) if back else "",
                "input": Money(line.offer.price.prompt, line.offer.price.currency).decimal(),
                "output": Money(line.offer.price.completion, line.offer.price.currency).decimal(),
            }
        )
    if out.json:
        out.result(rows)
    elif not rows:
        out.say("Nothing is offered yet. Next: avocado release")
    else:
        out.table(list(rows[0]), [list(row.values()) for row in rows])


@offer.command("use")
@click.argument("name")
@click.argument("release")
@click.option(
    "--canary",
    type=click.IntRange(1, 99),
    help="Only so many of a hundred customers; the others stay with what is sold now.",
)
@click.option(
    "--by",
    type=click.Choice(["customer", "conversation"]),
    help="What stays with one version while a canary runs; customer if left out.",
)
@with_output
def use(out: Output, name: str, release: str, canary: int | None, by: Subject | None) -> None:
    """Sell RELEASE under NAME from now on, at the price of what is sold there now.

    A canary's customers are drawn by a hash: a higher percentage adds some and lets none go back.
    """
    if by is not None and canary is None:
        raise click.UsageError("--by goes with --canary")
    workspace = workspace_here()
    line = _current(workspace, name)
    price = line.offer.price
    wanted = _saleable(workspace, release, price)
    if wanted == line.offer.release:
        raise Refused(f"{short(wanted)} is what {name} means already")
    known = line.canary if line.canary and line.canary.release == wanted else None
    chosen = known or place_offer(workspace, name, wanted, price)
    subject: Subject = by or "customer"
    told = declare(workspace, name, chosen, canary, subject)
    share = f"{canary}% of {name}'s {subject}s get" if canary else f"{name} is"
    drawn = _drawn(workspace, chosen, canary) if canary and subject == "customer" else None
    found = "" if drawn is None else f"; of today's customers {drawn[0]} of {drawn[1]}"
    out.result(
        {
            "name": name,
            "offer": chosen.id,
            "release": wanted,
            "canary": canary,
            "by": subject if canary else None,
            "customers": None if drawn is None else drawn[0],
            "servers": told,
        },
        f"{share} {short(wanted)} now{found}{_servers(told)}",
        f"Back: avocado offer rollback {name}",
    )


def _drawn(workspace: Workspace, canary: Offer, percent: int) -> tuple[int, int] | None:
    """How many of the customers on record a canary takes, and how many there are."""
    from avocado.gateway.swap import drawn

    if not workspace.has_ledger:
        return None
    with reading(workspace) as reader:
        tenants = [each.tenant for each in reader.customers()]
    return sum(drawn(canary, percent, tenant) for tenant in tenants), len(tenants)


@offer.command("rollback")
@click.argument("name")
@with_output
def rollback(out: Output, name: str) -> None:
    """End NAME's canary, or else go back to what NAME meant before."""
    workspace = workspace_here()
    line = _current(workspace, name)
    store = workspace.store
    if line.canary is not None:
        before = _refs(workspace, name)
        store.unpoint("canary", name)
        told = _tell(workspace, name, before)
        now, said = line.offer, f"the canary {short(line.canary.release)} is over"
    else:
        back = store.pointed("previous").get(name)
        if back is None:
            raise Refused(f"{name} has not meant anything else before")
        now = read_offer(workspace, back)
        told = declare(workspace, name, now)
        said = f"{short(line.offer.release)} is not sold any more"
    out.result(
        {"name": name, "offer": now.id, "release": now.release, "servers": told},
        f"{name} is {short(now.release)} again; {said}{_servers(told)}",
    )


def _servers(told: int) -> str:
    return f" ({told} running server{'s' if told > 1 else ''} followed)" if told else ""
