"""``avocado subscriptions``: who is on which plan, and what changes when."""

from __future__ import annotations

import time
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import click

from avocado.billing import subscriptions as billing
from avocado.billing.record import Do
from avocado.billing.subscription import Subscription
from avocado.billing.upkeep import load
from avocado.cli.arguments import workspace_here
from avocado.cli.book import operator, reading, writing
from avocado.cli.entitlement import entitle_one
from avocado.cli.output import Output, with_output
from avocado.terms.money import Money

if TYPE_CHECKING:
    from collections.abc import Callable

    from avocado.ledger.reader import Reader


@click.group()
def subscriptions() -> None:
    """Put customers on plans, move them and end it. `avocado billing run` renews."""


def _change(
    out: Output, act: Callable[[Reader, Do], Subscription], *, next_: str | None = None
) -> None:
    """Does it, and tells the gateway what the customer may use now."""
    workspace = workspace_here()
    with writing(workspace) as do, reading(workspace) as reader:
        sub = act(reader, do)
        entitle_one(workspace, reader, sub, operator())
    lines = in_words(sub)
    out.result(shown(sub), *lines, *([next_] if next_ else []))


@subscriptions.command("start")
@click.argument("customer")
@click.argument("plan")
@click.option("--trial", is_flag=True, help="Begin with the plan's free trial: once a customer.")
@with_output
def start(out: Output, customer: str, plan: str, trial: bool) -> None:
    """Put CUSTOMER on PLAN (`pro`, or `pro@3`) from today on, and charge its first fee."""
    now = time.time_ns()
    _change(
        out,
        lambda reader, do: billing.start(
            reader, do, customer, plan, now, trial=trial, actor=operator()
        ),
        next_="Next: let `avocado billing run --every 60` renew it",
    )


@subscriptions.command("change")
@click.argument("customer")
@click.argument("plan")
@click.option("--now", "at_once", is_flag=True, help="Today, with proration by day.")
@with_output
def change(out: Output, customer: str, plan: str, at_once: bool) -> None:
    """Move CUSTOMER to PLAN at the end of its period. The plan that it is on undoes a change or an
    end that was asked for.

    With --now it changes today: the unused days of the old fee are credited, as far as its tokens
    and credit are unused too, and what is left of those goes; the rest of the period is charged at
    the new fee.
    """
    _change(
        out,
        lambda reader, do: billing.change(
            reader, do, customer, plan, time.time_ns(), at_once=at_once, actor=operator()
        ),
    )


@subscriptions.command("cancel")
@click.argument("customer")
@click.option("--now", "at_once", is_flag=True, help="Today, with credit for the unused days.")
@click.option("--reason", default="cancelled", show_default=True, help="For the record.")
@with_output
def cancel(out: Output, customer: str, at_once: bool, reason: str) -> None:
    """End the subscription of CUSTOMER at the end of its period."""
    _change(
        out,
        lambda reader, do: billing.cancel(
            reader, do, customer, time.time_ns(), at_once=at_once, reason=reason, actor=operator()
        ),
    )


@subscriptions.command("pack")
@click.argument("customer")
@click.argument("number", type=click.IntRange(1), default=1)
@click.option("--id", "purchase", help="Names the purchase, so that asking twice buys once.")
@with_output
def pack(out: Output, customer: str, number: int, purchase: str | None) -> None:
    """Buy pack NUMBER of the prepaid plan that CUSTOMER is on, with money in its wallet."""
    workspace = workspace_here()
    name = purchase or token_hex(8)
    with writing(workspace) as do, reading(workspace) as reader:
        new = billing.buy_pack(reader, do, customer, number, name, time.time_ns(), actor=operator())
        balance = reader.balance(customer)
    left = Money(balance.available, balance.currency)
    out.result(
        {"customer": customer, "pack": number, "id": name, "new": new, "available": left.decimal()},
        f"{customer} bought pack {number}" if new else f"{customer} bought this before",
        f"{left} can be spent",
    )


@subscriptions.command("list")
@with_output
def list_(out: Output) -> None:
    """List who is on which plan, and until when."""
    with reading(workspace_here()) as reader:
        found = list(billing.subscriptions(reader))
    rows = [shown(each) for each in found]
    if out.json:
        out.result(rows)
    elif not rows:
        out.say("No subscriptions yet. Next: avocado subscriptions start CUSTOMER PLAN")
    else:
        columns = ["customer", "plan", "state", "since", "until", "then"]
        out.table(columns, [[row[column] or "" for column in columns] for row in rows])


@subscriptions.command("show")
@click.argument("customer")
@with_output
def show(out: Output, customer: str) -> None:
    """Show the subscription of CUSTOMER, and what is left of its included tokens."""
    with reading(workspace_here()) as reader:
        reader.customer(customer)
        stored = load(reader, customer)
        lots = reader.allowances(customer)
    if stored is None:
        out.result(None, f"{customer} is on no plan")
        return
    sub = stored.value
    left = [
        {"tokens": each.tokens, "left": each.left, "offers": list(each.offers)}
        for each in lots
        if each.id in sub.tokens
    ]
    lines = [
        f"{each['left']:,} of {each['tokens']:,} tokens of "
        f"{', '.join(each['offers']) or 'every offer'} are left"  # type: ignore[arg-type]
        for each in left
    ]
    out.result({**shown(sub), "included": left}, *in_words(sub), *lines)


def shown(sub: Subscription) -> dict[str, Any]:
    """A subscription as one flat value."""
    following = sub.following
    then = f"{sub.plan}@{sub.version}" if sub.ends is not None and sub.entitled else None
    if following is not None:
        then = f"{following.plan}@{following.version}" if following.plan else "no plan"
    return {
        "customer": sub.tenant,
        "plan": f"{sub.plan}@{sub.version}",
        "state": sub.state,
        "since": sub.began.isoformat(),
        "until": None if sub.ends is None else sub.ends.isoformat(),
        "then": then,
        "charged": None if sub.charged is None else _money(sub.charged.amount, sub),
        "currency": sub.currency,
        "reason": sub.reason if sub.state == "ended" else "",
    }


def _money(nanos: int, sub: Subscription) -> str:
    return Money(nanos, sub.currency).decimal()


def in_words(sub: Subscription) -> list[str]:
    """How a subscription stands, a line each."""
    row = shown(sub)
    if sub.state == "ended":
        return [f"{sub.tenant} is on no plan any more: {sub.reason}"]
    lines = [f"{sub.tenant} is on {row['plan']}, {sub.state}"]
    if row["charged"] and sub.charged is not None:
        days = f"{sub.charged.since} to the day before {sub.charged.until}"
        paid = "are due" if sub.state == "past due" else "were charged"
        lines.append(f"{row['charged']} {sub.currency} {paid} for {days}")
    if sub.ends is not None:
        lines.append(f"from {sub.ends} on: {row['then']}")
    return lines
