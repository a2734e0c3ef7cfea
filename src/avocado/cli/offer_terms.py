"""``avocado offer set``, ``price`` and ``show``: for whom, how long, at what price a name is sold.

Each change is a new offer version; nobody is billed by another one than they were served under.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import click

from avocado.cli.arguments import AWAY, Amount, Moment, OrNone, workspace_here
from avocado.cli.book import reading
from avocado.cli.lineups import Line, current, declare, keep_offer, saleable, servers
from avocado.cli.output import Output, with_output
from avocado.errors import Refused
from avocado.lineage import short
from avocado.release.offer import PLAN, Offer
from avocado.terms.money import Money
from avocado.terms.price import MILLION, PriceSheet
from avocado.workspace import Workspace


def day(seconds: int) -> str:
    """A date as people write it, UTC."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


def _change(out: Output, workspace: Workspace, line: Line, changed: Mapping[str, Any]) -> None:
    """Makes a new version of an offer, and tells the servers."""
    if line.canary is not None:
        raise Refused(
            f"a canary of {line.offer.name} runs: end it with avocado offer rollback, or use its "
            "release for all, before the terms change"
        )
    try:
        wanted = replace(line.offer, **changed, id="")
    except ValueError as error:
        raise Refused(str(error)) from error
    if wanted.manifest().id == line.offer.id:
        raise Refused(f"{line.offer.name} is offered so already")
    kept = keep_offer(workspace, wanted)
    told = declare(workspace, kept.name, kept)
    out.result(
        {**terms(kept), "servers": told}, *in_words(kept), f"{short(kept.id)}{servers(told)}"
    )


def terms(offer: Offer) -> dict[str, Any]:
    """An offer as plain values. Times are Unix seconds."""
    price = offer.price
    return {
        "name": offer.name,
        "offer": offer.id,
        "release": offer.release,
        "price_version": price.version,
        "input": Money(price.prompt, price.currency).decimal(),
        "output": Money(price.completion, price.currency).decimal(),
        "batch_percent": 100 if price.batch is None else price.batch * 100 / MILLION,
        "audience": list(offer.audience),
        "begins": offer.begins,
        "deprecated": offer.deprecated,
        "ends": offer.ends,
        "successor": offer.successor,
    }


def in_words(offer: Offer) -> list[str]:
    """Price, audience and dates of an offer, a line each."""
    price = offer.price
    prices = [Money(each, price.currency) for each in (price.prompt, price.completion)]
    lines = [
        f"{offer.name} at {prices[0]} and {prices[1]} per million tokens, price {price.version}",
        f"for {', '.join(offer.audience) or 'all customers'}",
    ]
    if price.batch is not None:
        lines.insert(1, f"batches pay {price.batch * 100 / MILLION:g} % of that")
    for word, date in (("sold from", offer.begins), ("deprecated from", offer.deprecated)):
        lines += [] if date is None else [f"{word} {day(date)} UTC"]
    if offer.ends is not None:
        after = f"; after that a 404 that names {offer.successor}" if offer.successor else ""
        lines.append(f"sold until {day(offer.ends)} UTC{after}")
    return lines


@click.command("set")
@click.argument("name")
@click.option(
    "--for",
    "audience",
    multiple=True,
    help="A customer, or plan:NAME, that may know of it; once for each. `all` for everybody.",
)
@click.option("--from", "begins", type=OrNone(Moment()), help="When it is first sold, UTC.")
@click.option("--deprecated", type=OrNone(Moment()), help="From when customers are warned.")
@click.option("--until", "ends", type=OrNone(Moment()), help="When it is not sold any more.")
@click.option("--successor", help="The name that customers are told to change to, or none.")
@with_output
def set_terms(
    out: Output,
    name: str,
    audience: tuple[str, ...],
    begins: int | str | None,
    deprecated: int | str | None,
    ends: int | str | None,
    successor: str | None,
) -> None:
    """Say who may use NAME, and from when until when. What is not named stays; `none` takes a date
    away. For customers outside of its audience NAME does not exist.

    A deprecated model warns in headers (Deprecation, Sunset) and in /v1/models. After its end it is
    a 404 that names its successor.
    """
    workspace = workspace_here()
    line = current(workspace, name)
    given = {"begins": begins, "deprecated": deprecated, "ends": ends, "successor": successor}
    changed: dict[str, Any] = {
        key: None if value in (AWAY, "none") else value
        for key, value in given.items()
        if value is not None
    }
    if audience:
        changed["audience"] = () if audience == ("all",) else audience
    following = changed.get("successor")
    if following is not None and following not in workspace.store.pointed("offer"):
        raise Refused(f"nothing is offered as {following!r}: name a successor that there is")
    if "all" in audience and len(audience) > 1:
        raise Refused("--for all leaves nobody out: name all alone, or customers and plans")
    _require_customers(workspace, audience)
    if not changed:
        raise click.UsageError("say what to change: --for, --from, --deprecated, --until, ...")
    _change(out, workspace, line, changed)


def _require_customers(workspace: Workspace, audience: Sequence[str]) -> None:
    """Raises Refused for a customer that there is not: a typo would hide the model from it."""
    named = [each for each in audience if each != "all" and not each.startswith(PLAN)]
    if not named:
        return
    known: set[str] = set()
    if workspace.has_ledger:
        with reading(workspace) as reader:
            known = {each.tenant for each in reader.customers()}
    for each in named:
        if each not in known:
            raise Refused(f"there is no customer {each!r}; a plan is written as plan:NAME")


@click.command("price")
@click.argument("name")
@click.option("--price-input", type=Amount(), required=True, help="Per million prompt tokens.")
@click.option("--price-output", type=Amount(), required=True, help="Per million answer tokens.")
@click.option("--price-cached", type=Amount(), help="Per million prompt tokens from the cache.")
@click.option(
    "--batch",
    type=OrNone(click.IntRange(0, 100)),
    help="What lines of batches pay of these prices, in percent, such as 50; none: all of it.",
)
@with_output
def set_price(
    out: Output,
    name: str,
    price_input: Money,
    price_output: Money,
    price_cached: Money | None,
    batch: int | str | None,
) -> None:
    """Sell NAME at another price from now on: a new version. What was asked for before is billed at
    the old one; volume terms stay, and so do batch terms where they are not named."""
    workspace = workspace_here()
    line = current(workspace, name)
    before = line.offer.price.terms()
    cached = before["cached"] if price_cached is None else price_cached.nanos
    changed = {"prompt": price_input.nanos, "completion": price_output.nanos, "cached": cached}
    if batch is not None:
        changed["batch"] = batch * (MILLION // 100) if isinstance(batch, int) else None
    try:
        price = PriceSheet(**before | changed)
    except ValueError as error:
        raise Refused(str(error)) from error
    saleable(workspace, line.offer.release, price)
    _change(out, workspace, line, {"price": price})


@click.command("show")
@click.argument("name")
@with_output
def show(out: Output, name: str) -> None:
    """Show what NAME means: release, price version, audience and dates."""
    found = current(workspace_here(), name).offer
    out.result(
        terms(found), *in_words(found), f"{short(found.id)}, which sells {short(found.release)}"
    )
