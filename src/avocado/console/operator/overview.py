"""Overview: how the business does this month, and how the servers do now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Final

from avocado.billing.daybook import MoneySum, UsageSum
from avocado.cli.statements import draw_statement
from avocado.console import chart
from avocado.console.operator.doors import DOORS
from avocado.console.operator.gauges import ask
from avocado.console.page import Nav, Pages, Redirect, Values, Visit
from avocado.errors import Refused
from avocado.terms.money import NANO

if TYPE_CHECKING:
    from markupsafe import Markup

PAGES = Pages()
DAYS: Final = 30
"""Of the charts."""


def today(visit: Visit) -> date:
    return datetime.fromtimestamp(visit.now // NANO, UTC).date()


def currency_of(visit: Visit) -> str:
    """The workspace's own currency: charts are of that one."""
    return visit.console.workspace.config.currency


@dataclass(frozen=True)
class Total:
    """One span of days, in the workspace's currency but for the counts, which are of all."""

    requests: int = 0
    tokens: int = 0
    revenue: int = 0

    @classmethod
    def of(cls, rows: Sequence[UsageSum], fees: Sequence[MoneySum], currency: str) -> Total:
        earned = sum(row.net for row in rows if row.currency == currency)
        earned += sum(
            fee.amount - fee.refunded
            for fee in fees
            if fee.kind == "Billed" and fee.currency == currency
        )
        return cls(sum(row.requests for row in rows), sum(row.tokens for row in rows), earned)


@PAGES.show("/operator", roles=DOORS["overview"])
def home(visit: Visit) -> Redirect:
    return Redirect("/operator/overview")


@PAGES.show(
    "/operator/overview",
    roles=DOORS["overview"],
    template="operator/overview.html",
    nav=Nav("op.overview", "home", 100),
)
def overview(visit: Visit) -> Values:
    return {**figures(visit), **charts(visit), "gauges": ask(visit.console)}


@PAGES.live(
    "/operator/overview/live",
    roles=DOORS["overview"],
    template="operator/overview_live.html",
    every=5.0,
)
def live(visit: Visit) -> Values:
    return {**figures(visit), "gauges": ask(visit.console)}


def figures(visit: Visit) -> Values:
    """The numbers at the top: this month, the same days of the month before, today."""
    now, currency = today(visit), currency_of(visit)
    month = now.strftime("%Y-%m")
    last = (now.replace(day=1) - timedelta(days=1)).replace(day=1)
    until_then = min(last + timedelta(days=now.day), now.replace(day=1))
    book = visit.daybook
    this = book.usage(since=f"{month}-01", by=("day", "currency"))
    fees = book.money(since=f"{month}-01")
    then = (last.isoformat(), until_then.isoformat())
    before = book.usage(None, *then, by=("day", "currency"))
    fees_before = book.money(None, *then)
    days = [row for row in this if row.day == now.isoformat()]
    values: dict[str, object] = {
        "month": month,
        "currency": currency,
        "total": Total.of(this, fees, currency),
        "before": Total.of(before, fees_before, currency),
        "today": Total.of(days, (), currency),
        "money_pages": visit.who.role in DOORS["statement"],
        "margin": None,
    }
    if values["money_pages"]:
        try:
            statement = draw_statement(visit.console.workspace, visit.reader, month)
        except Refused:  # an artifact of it was taken away: the statement's own page says which
            return values
        totals = [row for row in statement.totals() if row.currency == currency]
        values["margin"] = totals[0] if totals else None
        values["has_costs"] = bool(statement.costs)
    return values


def charts(visit: Visit) -> Values:
    """Thirty days of revenue, tokens and requests, and who pays most."""
    now, currency = today(visit), currency_of(visit)
    first = now - timedelta(days=DAYS - 1)
    days = [(first + timedelta(days=each)).isoformat() for each in range(DAYS)]
    month = now.strftime("%Y-%m")
    book = visit.daybook
    rows = book.usage(since=days[0], by=("day", "offer", "currency"))
    top = book.top_customers(month, 8)
    empty = book.span() is None
    names = {each.tenant: each.name for each in visit.reader.customers()} if top else {}
    say = visit.formats
    revenue = [row for row in rows if row.currency == currency]
    models = _largest(rows)
    return {
        "empty": empty,
        "revenue_chart": _bars(
            visit, days, models, revenue, lambda row: row.net, lambda v: say.money(int(v), currency)
        ),
        "tokens_chart": _bars(visit, days, models, rows, lambda row: row.tokens, say.compact),
        "top": [(row, names.get(row.tenant or "", row.tenant)) for row in top],
        "customers": len(visit.reader.customers()) if empty else 1,
        "offers": len(visit.console.workspace.store.pointed("offer")) if empty else 1,
    }


def _largest(rows: Sequence[UsageSum]) -> list[str]:
    """The models that earn most, as many as the charts have colours for, in one order for all."""
    sums: dict[str, tuple[int, int]] = {}
    for row in rows:
        net, tokens = sums.get(row.offer or "", (0, 0))
        sums[row.offer or ""] = (net + row.net, tokens + row.tokens)
    ordered = sorted(sums, key=lambda name: (-sums[name][0], -sums[name][1], name))
    return ordered if len(ordered) <= chart.COLOURS else ordered[: chart.COLOURS - 1]


def _bars(
    visit: Visit,
    days: Sequence[str],
    models: Sequence[str],
    rows: Sequence[UsageSum],
    of: Callable[[UsageSum], int],
    say: chart.Say,
) -> Markup:
    """Bars by day, stacked by model, what is not named together."""
    place = {day: number for number, day in enumerate(days)}
    values = {name: [0] * len(days) for name in models or [""]}
    others = visit.t("op.others")
    for row in rows:
        name = row.offer if row.offer in values else others
        counts = values.setdefault(name or "", [0] * len(days))
        if row.day in place:
            counts[place[row.day or ""]] += max(0, of(row))
    labels = [visit.formats.short_day(day) for day in days]
    series = [chart.Series(name, counts) for name, counts in values.items()]
    caption = chart.Caption(visit.t("op.by_day"), visit.t("op.day"), visit.t("do.as_table"))
    return chart.bars(labels, series, cache(say), caption, low=True)
