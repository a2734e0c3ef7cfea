"""Usage: what was used and what it cost, by day, model and key."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from avocado.billing.daybook import UsageSum
from avocado.console.customer import figures
from avocado.console.customer.keyring import INTERNAL
from avocado.console.page import Download, Nav, Pages, Values, Visit
from avocado.console.roles import CUSTOMER
from avocado.terms.money import Money

PAGES = Pages()
SPANS: Final = (7, 30, 90, 365)
"""Days."""


@dataclass(frozen=True)
class Chosen:
    """What the filters say."""

    days: list[str]
    span: int
    model: str
    key: str

    @property
    def only(self) -> dict[str, str]:
        found = {"offer": self.model, "key_id": self.key}
        return {name: value for name, value in found.items() if value}

    def sums(self, visit: Visit, *by: str) -> list[UsageSum]:
        until = figures.day_after(self.days[-1])
        return visit.daybook.usage(visit.tenant, self.days[0], until, by=by, **self.only)

    @property
    def query(self) -> str:
        return urlencode({"days": self.span, "model": self.model, "key": self.key})


def chosen(visit: Visit) -> Chosen:
    span = visit.query.number("days", 30, 1, 365)
    if span not in SPANS:
        span = 30
    days = figures.days_back(visit, span)
    return Chosen(days, span, visit.query.text("model"), visit.query.text("key"))


def key_names(visit: Visit) -> dict[str, str]:
    """The customer's keys by id. Those of the playground go by its name."""
    names = {}
    for each in visit.reader.keys(visit.tenant):
        internal = each.name == INTERNAL
        names[each.key_id] = visit.t("usage.playground") if internal else each.name
    return names


@PAGES.show(
    "/usage", roles=CUSTOMER, template="customer/usage.html", nav=Nav("nav.usage", "chart", 50)
)
def usage(visit: Visit) -> Values:
    what = chosen(visit)
    currency = visit.reader.customer(visit.tenant).currency
    by_day = what.sums(visit, "day", "offer")
    names = key_names(visit)
    keys = [
        (names.get(each.key_id or "", visit.t("usage.gone_key")), each)
        for each in _dearest(what.sums(visit, "key_id"))
    ]
    models = sorted(
        {each.offer or "" for each in visit.daybook.months(visit.tenant, by=("offer",))}
    )
    return {
        "what": what,
        "total": figures.total(by_day),
        "prompt": sum(each.prompt for each in by_day),
        "cached": sum(each.cached for each in by_day),
        "completion": sum(each.completion for each in by_day),
        "covered": sum(each.covered for each in by_day),
        "spend": figures.spend_chart(visit, by_day, what.days, currency),
        "tokens": figures.token_chart(visit, by_day, what.days),
        "by_model": _dearest(what.sums(visit, "offer")),
        "by_key": keys,
        "models": [("", visit.t("usage.all_models")), *((each, each) for each in models)],
        "keys": [("", visit.t("usage.all_keys")), *sorted(names.items(), key=lambda each: each[1])],
        "spans": [(each, visit.t("usage.last", count=each)) for each in SPANS],
        "currency": currency,
    }


def _dearest(rows: list[UsageSum]) -> list[UsageSum]:
    return sorted(rows, key=lambda each: (-each.net, -each.tokens))


@PAGES.show("/usage.csv", roles=CUSTOMER)
def usage_csv(visit: Visit) -> Download:
    """Every day × model × key of what the filters chose, amounts to the last digit."""
    what = chosen(visit)
    rows = what.sums(visit, "day", "key_id", "offer", "currency")
    names = key_names(visit)
    name = f"usage-{visit.tenant}-{what.days[0]}-{what.days[-1]}.csv"
    return Download(name, "text/csv; charset=utf-8", _lines(rows, names))


COLUMNS: Final = (
    "day model key key_name requests prompt_tokens cached_tokens completion_tokens"
    " reasoning_tokens included_tokens amount currency"
).split()


def _lines(rows: list[UsageSum], names: dict[str, str]) -> Iterator[bytes]:
    yield _line(COLUMNS)
    for each in rows:
        currency = each.currency or ""
        yield _line(
            [
                each.day or "",
                each.offer or "",
                each.key_id or "",
                _plain(names.get(each.key_id or "", "")),
                each.requests,
                each.prompt,
                each.cached,
                each.completion,
                each.reasoning,
                each.covered,
                Money(each.net, currency).decimal(),
                currency,
            ]
        )


def _plain(text: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" else text


def _line(cells: list[object] | list[str]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue().encode()
