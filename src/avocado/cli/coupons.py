"""``avocado coupons``: codes that take something off fees, or give credit."""

from __future__ import annotations

import time
from datetime import date, datetime
from typing import Any

import click
import msgspec

from avocado.billing import coupons as billing
from avocado.billing.coupon import MILLION, Coupon
from avocado.cli.arguments import Amount, workspace_here
from avocado.cli.book import operator, reading, writing
from avocado.cli.output import Output, with_output
from avocado.errors import Refused
from avocado.terms.money import NANO, Money


class Percent(click.ParamType[int]):
    """``12.5``: millionths."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            nanos = Money.parse(value.removesuffix("%")).nanos
        except ValueError:
            nanos = 0
        millionths, rest = divmod(nanos, NANO // (MILLION // 100))
        if rest or not 0 < millionths <= MILLION:
            self.fail(f"{value!r} is no percentage such as 20 or 12.5", param, ctx)
        return millionths


_DAY = click.DateTime(["%Y-%m-%d"])


@click.group()
def coupons() -> None:
    """Create, list and redeem coupons."""


@coupons.command("create")
@click.argument("code")
@click.option("--percent", type=Percent(), help="Off a fee, such as 20.")
@click.option("--amount", type=Amount(), help="Off a fee, such as 5.00.")
@click.option("--credit", type=Amount(), help="Credit that is given once, such as 10.00.")
@click.option(
    "--periods", type=click.IntRange(1, 120), default=1, help="Fees that it is taken off."
)
@click.option("--days", type=click.IntRange(1, 3660), help="After which given credit is gone.")
@click.option("--from", "begins", type=_DAY, help="First day on which it can be redeemed, UTC.")
@click.option("--until", "ends", type=_DAY, help="Last day, UTC.")
@click.option("--most", type=click.IntRange(1), help="Customers who can redeem it, each once.")
@click.option("--plan", "plans", multiple=True, help="The only plans it is for, once for each.")
@with_output
def create(
    out: Output,
    code: str,
    percent: int | None,
    amount: Money | None,
    credit: Money | None,
    periods: int,
    days: int | None,
    begins: datetime | None,
    ends: datetime | None,
    most: int | None,
    plans: tuple[str, ...],
) -> None:
    """Create the coupon CODE, capital letters and digits such as SPRING-20."""
    given = {"percent": percent, "amount": amount, "credit": credit}
    named = [(kind, value) for kind, value in given.items() if value is not None]
    if len(named) != 1:
        raise click.UsageError("say what it gives: one of --percent, --amount and --credit")
    kind, value = named[0]
    if days is not None and kind != "credit":
        raise click.UsageError("--days is for --credit: what is off a fee does not expire")
    workspace = workspace_here()
    content = {
        "code": code,
        "kind": kind,
        "value": value.nanos if isinstance(value, Money) else value,
        "currency": "" if kind == "percent" else workspace.config.currency,
        "periods": periods,
        "days": days,
        "begins": _day(begins),
        "ends": _day(ends),
        "most": most,
        "plans": plans,
    }
    try:
        made = msgspec.convert(content, Coupon)
    except (msgspec.ValidationError, ValueError) as error:
        raise Refused(str(error)) from error
    with writing(workspace) as do, reading(workspace) as reader:
        billing.create(reader, do, made, operator())
    out.result(
        shown(made),
        f"Created {code}: {in_words(made)}",
        f"Next: avocado coupons redeem {code} CUSTOMER",
    )


def _day(given: datetime | None) -> date | None:
    return None if given is None else given.date()


@coupons.command("list")
@with_output
def list_(out: Output) -> None:
    """List coupons, and how often each was redeemed."""
    with reading(workspace_here()) as reader:
        found = list(billing.coupons(reader))
    if out.json:
        out.result([shown(each) for each in found])
    elif not found:
        out.say("No coupons yet. Next: avocado coupons create CODE --percent 20")
    else:
        rows = [
            [
                each.code,
                in_words(each),
                f"{each.taken} of {each.most or 'any'}",
                str(each.ends or ""),
            ]
            for each in found
        ]
        out.table(["code", "gives", "redeemed", "until"], rows)


@coupons.command("redeem")
@click.argument("code")
@click.argument("customer")
@with_output
def redeem(out: Output, code: str, customer: str) -> None:
    """Redeem CODE for CUSTOMER. Credit is there at once; what is off a fee, from the next on."""
    workspace = workspace_here()
    with writing(workspace) as do, reading(workspace) as reader:
        made = billing.redeem(reader, do, code, customer, time.time_ns())
    out.result(
        {"code": code, "customer": customer, "place": made.place},
        f"{customer} has redeemed {code}, as number {made.place}",
    )


def shown(coupon: Coupon) -> dict[str, Any]:
    """A coupon as one flat value."""
    value = coupon.value
    return {
        "code": coupon.code,
        "kind": coupon.kind,
        "value": _percent(value) if coupon.kind == "percent" else _amount(coupon),
        "currency": coupon.currency,
        "periods": coupon.periods,
        "days": coupon.days,
        "begins": str(coupon.begins) if coupon.begins else None,
        "ends": str(coupon.ends) if coupon.ends else None,
        "most": coupon.most,
        "redeemed": coupon.taken,
        "plans": list(coupon.plans),
    }


def _percent(millionths: int) -> str:
    whole, rest = divmod(millionths, MILLION // 100)
    return f"{whole}.{rest:04d}".rstrip("0").rstrip(".")


def _amount(coupon: Coupon) -> str:
    return Money(coupon.value, coupon.currency).decimal()


def in_words(coupon: Coupon) -> str:
    """What it gives, in a few words."""
    plans = f" of {', '.join(coupon.plans)}" if coupon.plans else ""
    if coupon.kind == "credit":
        gone = f", gone after {coupon.days} days" if coupon.days else ""
        return f"{_amount(coupon)} {coupon.currency} of credit{gone}"
    off = f"{_percent(coupon.value)} %" if coupon.kind == "percent" else ""
    off = off or f"{_amount(coupon)} {coupon.currency}"
    fees = "the next fee" if coupon.periods == 1 else f"the next {coupon.periods} fees"
    return f"{off} off {fees}{plans}"
