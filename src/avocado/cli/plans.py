"""``avocado plans``: what customers may subscribe to or buy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from avocado.billing.plan import Plan, item, read_plan
from avocado.billing.plans import Published, find, publish, published
from avocado.cli.arguments import EXISTING, workspace_here
from avocado.cli.book import operator, reading, writing
from avocado.cli.output import Output, with_output
from avocado.errors import Refused
from avocado.release.offer import PLAN
from avocado.terms.money import Money
from avocado.workspace import Workspace


@click.group()
def plans() -> None:
    """Publish and show plans: pay as you go, prepaid packs, subscriptions. A published version
    never changes; whoever subscribed to it stays on it until moved.
    """


@plans.command("publish")
@click.argument("file", type=EXISTING)
@with_output
def publish_(out: Output, file: Path) -> None:
    """Publish the plan in FILE (TOML) as its next version. The same terms again publish nothing."""
    workspace = workspace_here()
    plan = read_plan(file, workspace.config.currency)
    hints = _offer_hints(workspace, plan)
    with writing(workspace) as do, reading(workspace) as reader:
        made, new = publish(reader, do, plan, operator())
    word = f"{plan.name}@{made.version}"
    lines = [f"Published {word}" if new else f"{word} says the same already; nothing to publish"]
    lines += hints
    if new:
        lines.append(f"Next: avocado subscriptions start CUSTOMER {plan.name}")
    out.result({**shown(made), "new": new}, *lines)


def _offer_hints(workspace: Workspace, plan: Plan) -> list[str]:
    """What is left to do so that the plan's offers are for it.

    Raises:
        Refused: it names an offer that there is not.
    """
    from avocado.cli.lineups import read_offer

    offered = workspace.store.pointed("offer")
    included = plan.subscription.included if plan.subscription is not None else ()
    trial = plan.trial.offers if plan.trial is not None else ()
    for name in dict.fromkeys(
        (*plan.offers, *trial, *(o for each in included for o in each.offers))
    ):
        if name not in offered:
            raise Refused(f"nothing is offered as {name!r}: avocado offer list shows what there is")
    hints = []
    for name in plan.offers:
        audience = read_offer(workspace, offered[name]).audience
        if audience and f"{PLAN}{plan.name}" not in audience:
            words = " ".join(f"--for {each}" for each in (*audience, f"{PLAN}{plan.name}"))
            hints.append(f"{name} is not for this plan yet: avocado offer set {name} {words}")
    return hints


@plans.command("list")
@click.option("--all", "every", is_flag=True, help="Older versions too.")
@with_output
def list_(out: Output, every: bool) -> None:
    """List plans by their newest versions."""
    with reading(workspace_here()) as reader:
        found = list(published(reader))
    newest = {each.plan.name: each for each in found}
    rows = [shown(each) for each in (found if every else newest.values())]
    if out.json:
        out.result(rows)
    elif not rows:
        out.say("No plans yet. Next: avocado plans publish FILE")
    else:
        columns = ["plan", "version", "kind", "fee", "period", "included_tokens", "currency"]
        out.table(columns, [[_cell(row.get(column)) for column in columns] for row in rows])


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


@plans.command("show")
@click.argument("plan")
@with_output
def show(out: Output, plan: str) -> None:
    """Show PLAN (`pro`), or one of its versions (`pro@3`)."""
    with reading(workspace_here()) as reader:
        found = find(reader, plan)
    out.result({**shown(found), "terms": msgspec.to_builtins(found.plan)}, *in_words(found))


def shown(found: Published) -> dict[str, Any]:
    """A published plan as one flat value."""
    plan, terms = found.plan, found.plan.subscription
    row: dict[str, Any] = {
        "plan": plan.name,
        "version": found.version,
        "kind": plan.kind,
        "currency": plan.currency,
        "title": plan.called("en"),
        "listed": plan.listed,
        "offers": list(plan.offers),
    }
    if terms is not None:
        row["fee"] = Money(terms.fee, plan.currency).decimal()
        row["period"] = terms.period
        row["included_tokens"] = sum(each.tokens for each in terms.included)
        row["credit"] = Money(terms.credit, plan.currency).decimal()
    return row


def in_words(found: Published) -> list[str]:
    """A plan's terms, a line each."""
    plan = found.plan

    def money(nanos: int) -> str:
        return str(Money(nanos, plan.currency))

    lines = [f"{item(plan.name, found.version)}: {plan.called('en')}, {plan.kind}"]
    if (terms := plan.subscription) is not None:
        lines.append(f"{money(terms.fee)} a {terms.period}")
        lines += [
            f"{each.tokens:,} tokens of {', '.join(each.offers) or 'every offer'} included"
            for each in terms.included
        ]
        lines += [f"{money(terms.credit)} of credit included"] if terms.credit else []
        days = ", ".join(map(str, terms.retry_days))
        lines.append(f"an unpaid fee is tried again after {days} days, then the plan lapses")
    for number, pack in enumerate(plan.packs, 1):
        gone = f", gone after {pack.days} days" if pack.days else ""
        lines.append(f"pack {number}: {money(pack.price)} buys {money(pack.credit)}{gone}")
    if (trial := plan.trial) is not None:
        parts = [f"{trial.tokens:,} tokens"] if trial.tokens else []
        parts += [money(trial.amount)] if trial.amount else []
        lines.append(f"trial of {trial.days} days: {' and '.join(parts)}, once a customer")
    lines += [] if plan.listed else ["customers do not see it"]
    if plan.offers:
        lines.append(f"opens {', '.join(plan.offers)}")
    for word, limit in msgspec.structs.asdict(plan.limits).items():
        lines += [f"{limit:,} {word.replace('_', ' ')}"] if limit else []
    return lines
