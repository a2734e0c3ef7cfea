"""Figures of a customer's usage, from the daybook: by day, with the days on which nothing was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from markupsafe import Markup

from avocado.billing.daybook import UsageSum
from avocado.console.chart import COLOURS, Caption, Say, Series, bars
from avocado.console.page import Visit

NANO: Final = 1_000_000_000


def today(visit: Visit) -> date:
    """The present day, UTC."""
    return datetime.fromtimestamp(visit.now // NANO, UTC).date()


def days_back(visit: Visit, count: int) -> list[str]:
    """The last ``count`` days, today the last."""
    last = today(visit)
    return [(last - timedelta(days=back)).isoformat() for back in range(count - 1, -1, -1)]


def day_after(day: str) -> str:
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()


@dataclass(frozen=True)
class Total:
    """Sums over some rows. ``spent`` in nano-units, refunds taken off."""

    requests: int
    tokens: int
    spent: int


def total(rows: Sequence[UsageSum]) -> Total:
    return Total(
        sum(each.requests for each in rows),
        sum(each.tokens for each in rows),
        sum(each.net for each in rows),
    )


def this_month(visit: Visit) -> Total:
    """What the customer used in this calendar month, UTC."""
    first = today(visit).replace(day=1).isoformat()
    return total(visit.daybook.usage(visit.tenant, first, day_after(days_back(visit, 1)[0]), by=()))


def spend_chart(
    visit: Visit, rows: Sequence[UsageSum], days: Sequence[str], currency: str
) -> Markup:
    """Spend by day, stacked by model. ``rows`` are by day and offer."""
    return _chart(
        visit,
        rows,
        days,
        lambda each: each.net / NANO,
        lambda value: visit.formats.money(round(value * NANO), currency),
        "usage.spend_by_day",
    )


def token_chart(visit: Visit, rows: Sequence[UsageSum], days: Sequence[str]) -> Markup:
    """Tokens by day, stacked by model."""
    return _chart(
        visit,
        rows,
        days,
        lambda each: each.tokens,
        visit.formats.compact,
        "usage.tokens_by_day",
    )


def _chart(
    visit: Visit,
    rows: Sequence[UsageSum],
    days: Sequence[str],
    value: Callable[[UsageSum], float],
    say: Say,
    title: str,
) -> Markup:
    sums: dict[str, dict[str, float]] = {}
    for each in rows:
        of_model = sums.setdefault(each.offer or "", {})
        of_model[each.day or ""] = of_model.get(each.day or "", 0.0) + value(each)
    dear: dict[str, int] = {}  # one order for every chart, so that a model keeps its colour
    for each in rows:
        dear[each.offer or ""] = dear.get(each.offer or "", 0) + each.net
    ranked = sorted(sums, key=lambda name: (-dear[name], name))
    kept, others = ranked, []
    if len(ranked) > COLOURS:
        kept, others = ranked[: COLOURS - 1], ranked[COLOURS - 1 :]
    series = [Series(name, [max(0.0, sums[name].get(day, 0.0)) for day in days]) for name in kept]
    if others:
        rest = [sum(max(0.0, sums[name].get(day, 0.0)) for name in others) for day in days]
        series.append(Series(visit.t("usage.others"), rest))
    labels = [visit.formats.short_day(day) for day in days]
    caption = Caption(visit.t(title), visit.t("usage.day"), visit.t("do.as_table"))
    return bars(labels, series or [Series("", [0.0] * len(days))], say, caption)
