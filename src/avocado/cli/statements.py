"""``avocado statement`` and ``cost``: what was earned, what it cost, and what is left of it."""

from __future__ import annotations

import csv
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from avocado.cli.arguments import Amount, Month, this_month, workspace_here
from avocado.cli.book import operator, reading, writing
from avocado.cli.output import Output, with_output
from avocado.errors import Refused
from avocado.lineage import short
from avocado.terms.money import NANO, Money
from avocado.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from avocado.billing.costs import Cost, Rate, Run
    from avocado.billing.statement import By, Statement
    from avocado.ledger.reader import Reader

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def month_name(period: tuple[int, int]) -> str:
    """``2026-11`` of a period that a :class:`Month` gave."""
    return time.strftime("%Y-%m", time.gmtime(period[0] // NANO))


def runs_of(workspace: Workspace) -> list[Run]:
    """Every training that made a checkpoint, with the releases that came of it."""
    from avocado.billing.costs import Run

    store = workspace.store
    releases: dict[str, list[str]] = {}
    for release in store.ids("release"):
        try:
            came_from = store.ancestors(release, "checkpoint")
        except Refused:
            continue  # a part of its lineage was taken away: what it cost is not known
        for checkpoint in came_from:
            releases.setdefault(checkpoint.id, []).append(release)
    plans = dict(_plans(workspace))
    found = []
    for each in store.ids("checkpoint"):
        note = store.load(each).note
        measured = plans.get(each, (1, None))
        cost = measured[1]
        found.append(
            Run(
                short(each),
                int(note.get("created", 0)),
                float(note.get("seconds", 0.0)),
                tuple(releases.get(each, ())),
                measured[0],
                None if cost is None else cost.nanos,
                None if cost is None else cost.currency,
            )
        )
    return found


def _plans(workspace: Workspace) -> Iterator[tuple[str, tuple[int, Money | None]]]:
    """(checkpoint, (machines, what it was measured to cost)) of runs whose folder is still here."""
    root = workspace.state / "runs"
    for folder in root.glob("*"):
        try:
            checkpoint = (folder / "checkpoint").read_text("utf-8").strip()
            kept = json.loads((folder / "plan.json").read_bytes())
            cost = kept["actual"].get("cost")
            machines = int(kept["planned"].get("devices") or 1)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # an unfinished or older run: its hours are known from the checkpoint
        yield checkpoint, (machines, None if not cost else _money(cost))


def _money(text: str) -> Money:
    """``1.20 USD``, as a run's plan has it."""
    amount, _, currency = text.partition(" ")
    return Money.parse(amount, currency)


def costs_of(workspace: Workspace, reader: Reader, month: str, now: int) -> list[Cost]:
    """What a month cost by what is on record; ``now`` in seconds since 1970."""
    from avocado.billing.costs import engine_costs, month_costs, training_cost

    return month_costs(engine_costs(reader), training_cost(reader), runs_of(workspace), month, now)


def draw_statement(workspace: Workspace, reader: Reader, month: str) -> Statement:
    """The statement of a month (``2026-11``)."""
    from avocado.billing.daybook import FILE, open_daybook
    from avocado.billing.statement import statement_of

    costs = costs_of(workspace, reader, month, int(time.time()))
    with open_daybook(workspace.state / FILE, reader) as book:
        return statement_of(book, month, costs)


COLUMNS = ("requests", "tokens", "usage", "fees", "engines", "training", "margin", "of revenue")


def name_of(row: Any) -> str:
    """What a row is of."""
    subject = row.release or row.tenant
    if not subject:
        return "not used by anybody"
    return short(subject) if subject.startswith("release-") else subject


def _cells(row: Any) -> list[str]:
    share = row.share()
    money = (row.usage, row.fees, row.engine, row.training, row.margin)
    return [
        f"{row.requests:,}",
        f"{row.tokens:,}",
        *(Money(nanos, row.currency).decimal() for nanos in money),
        "" if share is None else f"{100 * share:.1f}%",
    ]


def write_csv(rows: Sequence[Mapping[str, Any]], out: Any) -> None:
    """Rows with their keys as a heading. A text that a spreadsheet would take for a formula gets
    an apostrophe before it."""
    writer = csv.writer(out, lineterminator="\n")
    if rows:
        writer.writerow(rows[0])
    for row in rows:
        writer.writerow([_harmless(value) for value in row.values()])


def _harmless(value: Any) -> Any:
    risky = isinstance(value, str) and value[:1] in ("=", "+", "@", "\t", "\r")
    risky = risky or (isinstance(value, str) and re.match(r"-(?![\d.]+$)", value) is not None)
    return f"'{value}" if risky else value


@click.command()
@click.option("--month", type=Month(), help="Such as 2026-11 (UTC); the current one if left out.")
@click.option(
    "--by",
    "what",
    type=click.Choice(["release", "customer"]),
    default="release",
    show_default=True,
    help="What a row is.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@with_output
def statement(out: Output, month: tuple[int, int] | None, what: By, as_csv: bool) -> None:
    """What a month earned and what it cost, by release or by customer.

    Revenue is the ledger's, refunds taken off. Costs are what `avocado cost` put on record, shared
    by weighted tokens; see docs/billing.md for the formula and its limits.
    """
    if as_csv and out.json:
        raise click.UsageError("--csv or --json, not both")
    workspace = workspace_here()
    name = month_name(month or this_month())
    with reading(workspace) as reader:
        drawn = draw_statement(workspace, reader, name)
    rows = drawn.by(what)
    if as_csv:
        write_csv([{"month": name, **row.to_json()} for row in rows], sys.stdout)
        return
    if out.json:
        out.result(drawn.to_json(what))
        return
    if not rows:
        out.say(f"Nothing was used or spent in {name}.")
        return
    for total in drawn.totals():
        currency = total.currency
        shown = [[name_of(row), *_cells(row)] for row in rows if row.currency == currency]
        shown.append(["total", *_cells(total)])
        out.table([what, *COLUMNS], shown, title=f"{name}, in {currency}")
    for cost in drawn.costs:
        amount = Money(cost.nanos, cost.currency)
        out.say(f"{cost.kind} {cost.name}: {amount} ({cost.basis})")
    if not drawn.costs:
        out.say("No costs are on record. Next: avocado cost engine NAME PRICE --since DAY")
    for currency, nanos in drawn.granted:
        out.say(f"credit given away: {Money(nanos, currency)}")


@click.group()
def cost() -> None:
    """What engines and training cost, for `avocado statement`."""


SINCE = click.option(
    "--since", metavar="DAY", help="The first day of the price, such as 2026-11-01; today."
)


def _rate(since: str | None, price: Money, until: str | None = None, machines: int = 1) -> Rate:
    from avocado.billing.costs import Rate
    from avocado.billing.daybook import today

    return Rate(since or today(), price.nanos, until, machines)


@cost.command("engine")
@click.argument("name")
@click.argument("price", type=Amount())
@SINCE
@click.option("--until", metavar="DAY", help="The day on which it does not run any more.")
@click.option("--machines", type=click.IntRange(1, 100_000), default=1, show_default=True)
@click.option(
    "--release",
    "releases",
    multiple=True,
    help="What it serves, once for each; everything if left out.",
)
@with_output
def engine_(
    out: Output,
    name: str,
    price: Money,
    since: str | None,
    until: str | None,
    machines: int,
    releases: tuple[str, ...],
) -> None:
    """Say what an hour of the engine NAME costs, a machine. A new PRICE ends the one before it."""
    from avocado.billing.costs import price_engine

    if not _NAME.fullmatch(name):
        raise Refused(f"{name!r} is no engine's name: letters, digits, '.', '_' and '-'")
    workspace = workspace_here()
    named = [workspace.store.resolve(each, "release") for each in releases] or None
    rate = _rate(since, price, until, machines)
    currency = workspace.config.currency
    with writing(workspace) as do, reading(workspace) as reader:
        kept = price_engine(reader, do, name, rate, currency, named, operator())
    out.result(
        {"engine": name, "currency": currency, **_rates(kept.rates), "releases": kept.releases},
        f"{name} costs {Money(price.nanos, currency)} an hour from {rate.since} on",
    )


@cost.command("training")
@click.argument("price", type=Amount())
@SINCE
@click.option("--months", type=click.IntRange(1, 120), help="Over which a run is written off; 12.")
@with_output
def training_(out: Output, price: Money, since: str | None, months: int | None) -> None:
    """Say what an hour of training costs, a machine, where a recipe names no price itself."""
    from avocado.billing.costs import price_training

    workspace = workspace_here()
    rate = _rate(since, price)
    currency = workspace.config.currency
    with writing(workspace) as do, reading(workspace) as reader:
        kept = price_training(reader, do, rate, currency, months, operator())
    out.result(
        {"currency": currency, "months": kept.months, **_rates(kept.rates)},
        f"training costs {Money(price.nanos, currency)} an hour from {rate.since} on; "
        f"a run is written off over {kept.months} months",
    )


@cost.command("list")
@with_output
def list_costs(out: Output) -> None:
    """Every price that is on record."""
    from avocado.billing.costs import engine_costs, training_cost

    with reading(workspace_here()) as reader:
        engines, training = engine_costs(reader), training_cost(reader)
    rows = [
        {
            "what": what,
            "per_hour": Money(rate.per_hour, currency).decimal(),
            "currency": currency,
            "machines": rate.machines,
            "since": rate.since,
            "until": rate.until or "",
            "for": " ".join(map(short, releases)) or "all",
        }
        for what, currency, rates, releases in [
            *(
                (f"engine {each.name}", each.currency, each.rates, each.releases)
                for each in engines
            ),
            *([("training", training.currency, training.rates, ())] if training else []),
        ]
        for rate in rates
    ]
    if out.json:
        out.result(rows)
    elif not rows:
        out.say("No costs are on record. Next: avocado cost engine NAME PRICE --since DAY")
    else:
        out.table(list(rows[0]), [[str(value) for value in row.values()] for row in rows])


def _rates(rates: Sequence[Rate]) -> dict[str, Any]:
    return {
        "rates": [
            {"since": rate.since, "until": rate.until, "machines": rate.machines} for rate in rates
        ]
    }
