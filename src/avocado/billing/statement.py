"""Statement: what a month earned and what it cost, by release and by customer. Pure.

Revenue is what the ledger moved to its revenue accounts for the month's requests and fees, with
refunds taken off at the month of the charge (so a later refund changes the month it belongs to).
It is before tax, whether it was paid with money or with granted credit; ``granted`` says what was
given away in the month. Costs are of ``costs``, shared as ``margin`` says. Every sum is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from avocado.billing.costs import Cost
from avocado.billing.daybook import Daybook, MoneySum, UsageSum
from avocado.billing.margin import share_all, weigh
from avocado.terms.money import Money

By = Literal["release", "customer"]
COLUMNS: Final = (
    "requests",
    "prompt",
    "cached",
    "completion",
    "usage",
    "fees",
    "engine",
    "training",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One release and customer, or one of both, or all, in one currency. Money in nano-units;
    ``usage`` and ``fees`` are what was earned, ``engine`` and ``training`` what it cost. A fee has
    its item, such as ``plan:pro@3``, for a release. Costs of what nobody used have neither."""

    release: str
    tenant: str
    currency: str
    requests: int = 0
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    usage: int = 0
    fees: int = 0
    engine: int = 0
    training: int = 0

    @property
    def revenue(self) -> int:
        return self.usage + self.fees

    @property
    def cost(self) -> int:
        return self.engine + self.training

    @property
    def margin(self) -> int:
        return self.revenue - self.cost

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion

    def share(self) -> float | None:
        """The margin as a part of the revenue, for reading; None where there is no revenue."""
        return self.margin / self.revenue if self.revenue else None

    def plus(self, other: Row) -> Row:
        sums = {name: getattr(self, name) + getattr(other, name) for name in COLUMNS}
        return replace(self, **sums)

    def to_json(self) -> dict[str, Any]:
        """Plain values; money as exact decimals."""
        counts = {name: getattr(self, name) for name in ("requests", "prompt", "cached")}
        names = ("usage", "fees", "revenue", "engine", "training", "cost", "margin")
        money = {name: Money(getattr(self, name), self.currency).decimal() for name in names}
        return {
            "release": self.release,
            "customer": self.tenant,
            "currency": self.currency,
            **counts,
            "completion": self.completion,
            **money,
        }


@dataclass(frozen=True)
class Statement:
    """``cells`` are releases × customers; every other view is a sum of them."""

    month: str
    cells: tuple[Row, ...]
    costs: tuple[Cost, ...]
    granted: tuple[tuple[str, int], ...] = field(default=())
    """(currency, nano-units) of credit that was given in the month."""

    def by(self, what: By) -> list[Row]:
        """Rows by release or by customer, dearest first, what was not shared last."""
        if what == "release":
            rows = _sum(replace(each, tenant="") for each in self.cells)
        else:
            rows = _sum(replace(each, release="") for each in self.cells)
        return sorted(
            rows,
            key=lambda row: (
                not (row.release or row.tenant),
                row.currency,
                -row.revenue,
                row.release,
                row.tenant,
            ),
        )

    def totals(self) -> list[Row]:
        """One row a currency; they do not mix."""
        return _sum(replace(each, release="", tenant="") for each in self.cells)

    def to_json(self, what: By) -> dict[str, Any]:
        return {
            "month": self.month,
            "by": what,
            "rows": [row.to_json() for row in self.by(what)],
            "totals": [row.to_json() for row in self.totals()],
            "costs": [
                {
                    "kind": cost.kind,
                    "name": cost.name,
                    "amount": Money(cost.nanos, cost.currency).decimal(),
                    "currency": cost.currency,
                    "releases": None if cost.releases is None else list(cost.releases),
                    "basis": cost.basis,
                }
                for cost in self.costs
            ],
            "granted": {
                currency: Money(nanos, currency).decimal() for currency, nanos in self.granted
            },
        }


def _sum(rows: Iterable[Row]) -> list[Row]:
    found: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        key = (row.release, row.tenant, row.currency)
        found[key] = found[key].plus(row) if key in found else row
    return [found[key] for key in sorted(found)]


def draw_up(
    month: str, usage: Sequence[UsageSum], money: Sequence[MoneySum], costs: Sequence[Cost]
) -> Statement:
    """A month's statement from the daybook's sums (by tenant, release and currency), its money that
    is no request, and what the month cost."""
    cells = [
        Row(
            each.release or "",
            each.tenant or "",
            each.currency or "",
            requests=each.requests,
            prompt=each.prompt,
            cached=each.cached,
            completion=each.completion,
            usage=each.net,
        )
        for each in usage
    ]
    cells += [
        Row(each.item, each.tenant, each.currency, fees=each.amount - each.refunded)
        for each in money
        if each.kind == "Billed"
    ]
    weights: dict[tuple[str, str], int] = {}
    for each in usage:
        place = (each.release or "", each.tenant or "")
        weight = weigh(each.prompt, each.cached, each.completion)
        weights[place] = weights.get(place, 0) + weight
    for (release, tenant, currency, kind), nanos in share_all(costs, weights).items():
        cells.append(Row(release, tenant, currency, **{kind: nanos}))
    granted: dict[str, int] = {}
    for entry in money:
        if entry.kind == "Granted":
            left = entry.amount - entry.refunded
            granted[entry.currency] = granted.get(entry.currency, 0) + left
    return Statement(month, tuple(_sum(cells)), tuple(costs), tuple(sorted(granted.items())))


def statement_of(book: Daybook, month: str, costs: Sequence[Cost]) -> Statement:
    """The statement of a month (``2026-11``) from a daybook that was refreshed."""
    after = f"{int(month[:4]) + int(month[5:]) // 12:04d}-{int(month[5:]) % 12 + 1:02d}"
    usage = book.months(by=("tenant", "release", "currency"), since=month, until=after)
    return draw_up(month, usage, book.money(since=f"{month}-01", until=f"{after}-01"), costs)
