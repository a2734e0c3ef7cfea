"""Statement and costs: what a month earned, what it cost, what is left, by release and customer."""

from __future__ import annotations

import io
import re
from typing import Final

from avocado.billing.costs import (
    Rate,
    engine_costs,
    price_engine,
    price_training,
    training_cost,
)
from avocado.billing.statement import By, Statement
from avocado.cli.statements import draw_statement, write_csv
from avocado.console.operator.acting import record
from avocado.console.operator.doors import DOORS
from avocado.console.operator.overview import currency_of, today
from avocado.console.page import Download, Nav, Pages, Redirect, Reply, Values, Visit
from avocado.errors import Refused
from avocado.terms.money import Money, MoneyError

PAGES = Pages()
_MONTH: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


def month_of(visit: Visit) -> str:
    """The month that was asked for, or the current one."""
    text = visit.query.get("month", "") or visit.form.get("month", "")
    return text if _MONTH.fullmatch(text) else today(visit).strftime("%Y-%m")


def _by(visit: Visit) -> By:
    return "customer" if visit.query.get("by") == "customer" else "release"


def _drawn(visit: Visit) -> Statement:
    return draw_statement(visit.console.workspace, visit.reader, month_of(visit))


def months(visit: Visit) -> list[str]:
    """Months that have usage, newest first, and the current one."""
    book = visit.daybook
    found = {row.day or "" for row in book.months()}
    return sorted(found | {today(visit).strftime("%Y-%m")}, reverse=True)


@PAGES.show(
    "/operator/statement",
    roles=DOORS["statement"],
    template="operator/statement.html",
    nav=Nav("op.statement", "scale", 210, "op.group_money"),
)
def statement(visit: Visit) -> Values:
    drawn, what = _drawn(visit), _by(visit)
    return {
        "statement": drawn,
        "month": drawn.month,
        "months": months(visit),
        "by": what,
        "rows": drawn.by(what),
        "totals": drawn.totals(),
        "releases": releases(visit),
    }


def releases(visit: Visit) -> dict[str, str]:
    """Names of releases by id, for those that this workspace holds."""
    store = visit.console.workspace.store
    return {each: store.load(each).manifest.facts["name"] for each in store.ids("release")}


@PAGES.show("/operator/statement.csv", roles=DOORS["statement"])
def statement_csv(visit: Visit) -> Reply:
    drawn, what = _drawn(visit), _by(visit)
    text = io.StringIO()
    write_csv([{"month": drawn.month, **row.to_json()} for row in drawn.by(what)], text)
    name = f"statement-{drawn.month}-by-{what}.csv"
    return Download(name, "text/csv; charset=utf-8", text.getvalue().encode())


@PAGES.show("/operator/costs", roles=DOORS["costs"], template="operator/costs.html")
def costs(visit: Visit) -> Values:
    return {
        "engines": engine_costs(visit.reader),
        "training": training_cost(visit.reader),
        "currency": currency_of(visit),
        "today": today(visit).isoformat(),
        "releases": releases(visit),
    }


@PAGES.act("/operator/costs/engine", roles=DOORS["costs"], again=costs)
def set_engine(visit: Visit) -> Reply:
    name = visit.form.text("name", 64)
    if not _NAME.fullmatch(name):
        raise Refused(visit.t("op_costs.bad_name"))
    rate = Rate(
        visit.form.text("since") or today(visit).isoformat(),
        read_amount(visit, "price").nanos,
        visit.form.text("until") or None,
        visit.form.number("machines", 1, 1, 100_000),
    )
    known = visit.console.workspace.store.ids("release")
    named = [each for each in visit.form.many("release") if each in known] or None
    currency = currency_of(visit)
    with visit.writing() as do:
        price_engine(visit.reader, do, name, rate, currency, named, visit.who.email)
        record(visit, do, "engine cost", name, since=rate.since, per_hour=rate.per_hour)
    return Redirect("/operator/costs", visit.t("op_costs.saved"))


@PAGES.act("/operator/costs/training", roles=DOORS["costs"], again=costs)
def set_training(visit: Visit) -> Reply:
    since = visit.form.text("training_since") or today(visit).isoformat()
    rate = Rate(since, read_amount(visit, "training_price").nanos)
    count = visit.form.number("months", 12, 1, 120)
    currency = currency_of(visit)
    with visit.writing() as do:
        price_training(visit.reader, do, rate, currency, count, visit.who.email)
        record(visit, do, "training cost", "training", since=since, per_hour=rate.per_hour)
    return Redirect("/operator/costs", visit.t("op_costs.saved"))


def read_amount(visit: Visit, name: str) -> Money:
    """A typed amount of the workspace's currency.

    Raises:
        Refused: it is none.
    """
    text = visit.form.text(name, 40).replace(",", ".")
    try:
        return Money.parse(text, currency_of(visit))
    except MoneyError as error:
        raise Refused(str(error)) from error


def decimal(nanos: int, currency: str) -> str:
    """An amount as it is typed: plain digits."""
    return Money(nanos, currency).decimal()
