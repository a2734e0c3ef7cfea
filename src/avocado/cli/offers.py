"""``avocado offer``: what is sold under which name, swapped while it is served."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from avocado.cli.arguments import workspace_here
from avocado.cli.book import reading
from avocado.cli.lineups import (
    current,
    declare,
    place_offer,
    read_offer,
    refs,
    saleable,
    servers,
    tell,
)
from avocado.cli.offer_terms import day, set_price, set_terms, show
from avocado.cli.output import Output, with_output
from avocado.errors import Refused
from avocado.lineage import short
from avocado.release.offer import Offer
from avocado.terms.money import Money
from avocado.workspace import Workspace

if TYPE_CHECKING:
    from avocado.gateway.swap import Subject


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
        line = current(workspace, name)
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
                "for": " ".join(line.offer.audience) or "all",
                "state": line.offer.state(time.time()),
                "ends": "" if line.offer.ends is None else day(line.offer.ends),
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
    line = current(workspace, name)
    price = line.offer.price
    wanted = saleable(workspace, release, price)
    if wanted == line.offer.release:
        raise Refused(f"{short(wanted)} is what {name} means already")
    known = line.canary if line.canary and line.canary.release == wanted else None
    chosen = known or place_offer(workspace, name, wanted, price, line.offer)
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
        f"{share} {short(wanted)} now{found}{servers(told)}",
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
    line = current(workspace, name)
    store = workspace.store
    if line.canary is not None:
        before = refs(workspace, name)
        store.unpoint("canary", name)
        told = tell(workspace, name, before)
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
        f"{name} is {short(now.release)} again; {said}{servers(told)}",
    )


for each in (show, set_terms, set_price):
    offer.add_command(each)
