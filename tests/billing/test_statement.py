"""Statements: costs are shared to the last nano-unit, and revenue is the ledger's."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.billing.costs import (
    Cost,
    EngineCost,
    Rate,
    Run,
    TrainingCost,
    add_rate,
    engine_month,
    month_bounds,
    month_costs,
    run_cost,
    training_month,
)
from avocado.billing.daybook import MoneySum, UsageSum
from avocado.billing.margin import UNSHARED, share, split, weigh
from avocado.billing.statement import draw_up
from avocado.cli.book import writing
from avocado.cli.main import run
from avocado.cli.statements import write_csv
from avocado.errors import Refused
from avocado.ledger import operation as o
from avocado.terms.money import Money
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage
from avocado.workspace import Workspace

NANO = 1_000_000_000
LATE = 2**40


def used(release: str, tenant: str, tokens: int, charge: int, currency: str = "USD") -> UsageSum:
    return UsageSum(
        day="2026-11",
        tenant=tenant,
        key_id=None,
        offer=None,
        release=release,
        price_version=None,
        batch=None,
        currency=currency,
        requests=1,
        prompt=tokens,
        cached=tokens // 3,
        completion=tokens // 2,
        reasoning=0,
        covered=0,
        charge=charge,
        refunded=charge // 5,
    )


@given(st.integers(0, 2**63), st.lists(st.integers(0, 10**15), min_size=1, max_size=50))
def test_parts_sum_to_the_whole_and_none_is_off_by_more_than_one(
    total: int, weights: list[int]
) -> None:
    if not sum(weights):
        with pytest.raises(ValueError, match="not all 0"):
            split(total, weights)
        return
    parts = split(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        exact = total * weight
        assert abs(part * sum(weights) - exact) < sum(weights)
        assert part == 0 or weight > 0


releases = st.sampled_from(["r1", "r2", "r3"])
costs = st.builds(
    Cost,
    st.sampled_from(["engine", "training"]),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["USD", "EUR"]),
    st.integers(0, 10**15),
    st.one_of(st.none(), st.lists(releases, min_size=1, max_size=2).map(tuple)),
    st.just(""),
)
usages = st.builds(
    used,
    releases,
    st.sampled_from(["acme", "beta", "gamma"]),
    st.integers(0, 10**9),
    st.integers(0, 10**15),
    st.sampled_from(["USD", "EUR"]),
)


@given(st.lists(usages, max_size=20), st.lists(costs, max_size=8))
def test_every_view_of_a_statement_sums_to_the_same(
    usage: list[UsageSum], spent: list[Cost]
) -> None:
    fees = [MoneySum("2026-11-02", "acme", "Billed", "plan:pro@1", "USD", 1, 900, 100)]
    statement = draw_up("2026-11", usage, fees, spent)
    for currency in ("USD", "EUR"):
        earned = sum(each.net for each in usage if each.currency == currency)
        earned += 800 if currency == "USD" else 0
        cost = sum(each.nanos for each in spent if each.currency == currency)
        for view in (statement.cells, statement.by("release"), statement.by("customer")):
            assert sum(row.revenue for row in view if row.currency == currency) == earned
            assert sum(row.cost for row in view if row.currency == currency) == cost
        for total in statement.totals():
            if total.currency == currency:
                assert (total.revenue, total.cost) == (earned, cost)
                assert total.margin == earned - cost


def test_a_cost_goes_to_its_releases_by_weight() -> None:
    weights = {("r1", "acme"): weigh(100, 40, 10), ("r2", "acme"): 100, ("r1", "beta"): 0}
    assert weigh(100, 40, 10) == 4 * 60 + 40 + 16 * 10 == 440
    mine = Cost("engine", "gpu", "USD", 540, None, "")
    assert share(mine, weights) == {("r1", "acme"): 440, ("r2", "acme"): 100}
    named = Cost("engine", "gpu", "USD", 541, ("r2",), "")
    assert share(named, weights) == {("r2", "acme"): 541}
    idle = Cost("engine", "gpu", "USD", 7, ("r9",), "")
    assert share(idle, weights) == {UNSHARED: 7}


def test_an_engine_costs_its_hours_of_the_month() -> None:
    engine = EngineCost(
        "gpu",
        "USD",
        (
            Rate("2026-10-20", 2 * NANO, until="2026-11-11"),
            Rate("2026-11-11", 3 * NANO, machines=2),
        ),
    )
    assert engine_month(engine, "2026-09", LATE).nanos == 0
    assert engine_month(engine, "2026-10", LATE).nanos == 12 * 24 * 2 * NANO
    november = engine_month(engine, "2026-11", LATE)
    assert november.nanos == (10 * 24 * 2 + 20 * 24 * 2 * 3) * NANO
    assert november.basis == "1,200.0 machine hours"
    begin, _ = month_bounds("2026-11")
    assert engine_month(engine, "2026-11", begin + 1800).nanos == NANO  # half an hour has gone
    assert engine_month(engine, "2026-12", begin).nanos == 0


@given(st.integers(1, 10**15), st.integers(1, 120), st.integers(1, 12))
def test_the_parts_of_a_run_sum_to_it(whole: int, count: int, month: int) -> None:
    made = month_bounds(f"2026-{month:02d}")[0] + 5
    run = Run("sft", made, 60.0, ("r1",), nanos=whole, currency="USD")
    training = TrainingCost("USD", (), count)
    parts = []
    for index in range(-3, 130):
        at = 12 * 2026 + month - 1 + index
        cost = training_month(run, training, f"{at // 12}-{at % 12 + 1:02d}")
        if cost is not None:
            parts.append(cost.nanos)
    assert len(parts) == count
    assert sum(parts) == whole
    assert max(parts) - min(parts) <= 1


def test_a_run_costs_its_hours_at_the_price_of_its_day() -> None:
    rates = (Rate("2026-01-01", NANO, until="2026-06-01"), Rate("2026-06-01", 2 * NANO))
    training = TrainingCost("USD", rates)
    may, june = (month_bounds(f"2026-{month}")[0] for month in ("05", "06"))
    assert run_cost(Run("a", may, 5400.0, ("r",)), training) == (
        1_500_000_000,
        "USD",
        "1.50 hours of training",
    )
    assert run_cost(Run("a", june, 1800.0, ("r",), machines=4), training) == (
        4 * NANO,
        "USD",
        "2.00 hours of training",
    )
    assert run_cost(Run("a", 0, 1800.0, ("r",)), training) is None
    assert run_cost(Run("a", may, 1800.0, ("r",)), None) is None
    unreleased = Run("a", may, 5400.0, ())
    assert month_costs([], training, [unreleased], "2026-05", LATE) == []


def test_a_new_price_ends_the_one_before() -> None:
    first = add_rate((), Rate("2026-11-01", 5))
    second = add_rate(first, Rate("2026-12-01", 6))
    assert [(rate.since, rate.until) for rate in second] == [
        ("2026-11-01", "2026-12-01"),
        ("2026-12-01", None),
    ]
    wrong: list[dict[str, Any]] = [
        {"since": "2026-12-01", "per_hour": 1},
        {"since": "soon", "per_hour": 1},
        {"since": "2027-01-01", "per_hour": 1, "until": "2027-01-01"},
        {"since": "2027-01-01", "per_hour": -1},
        {"since": "2027-01-01", "per_hour": 1, "machines": 0},
    ]
    for facts in wrong:
        with pytest.raises(Refused):
            add_rate(second, Rate(**facts))


def test_the_commands_say_what_the_ledger_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def said(*words: str) -> str:
        capsys.readouterr()
        assert run(list(words)) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    said("init", ".")
    said("customer", "add", "acme", "--credit", "5")
    sheet = PriceSheet(200_000_000, 800_000_000)
    with writing(Workspace.find(tmp_path)) as do:
        do(o.PublishPrice(terms=sheet.terms()))
        do(
            o.Hold(
                id="req-1",
                tenant="acme",
                offer="avocado-1",
                release="release-1",
                price_version=sheet.version,
                prompt_tokens=1000,
                max_tokens=500,
            )
        )
        do(o.Settle(hold="req-1", usage=Usage(1000, 500)))
        do(o.Bill(id="fee-1", tenant="acme", amount=NANO, currency="USD", item="plan:pro@1"))
    assert "No costs are on record" in said("statement")
    said("cost", "engine", "gpu", "0.01", "--since", "2026-01-01", "--machines", "2")
    assert run(["cost", "engine", "gpu", "1", "--since", "2026-01-01"]) == 1
    assert run(["cost", "engine", "bad name", "1"]) == 1
    assert run(["statement", "--csv", "--json"]) == 2
    assert [row["what"] for row in json.loads(said("cost", "list", "--json"))] == ["engine gpu"]
    drawn = json.loads(said("statement", "--by", "customer", "--json"))
    (total,) = drawn["totals"]
    assert total["usage"] == Money(sheet.charge(Usage(1000, 500)).nanos).decimal()
    assert total["fees"] == "1.00"
    assert total["engine"] == drawn["costs"][0]["amount"]
    assert [row["customer"] for row in drawn["rows"]] == ["acme"]
    head, *rows = said("statement", "--csv").splitlines()
    assert head.startswith("month,release,customer,currency,requests")
    assert len(rows) == 2, "a release and a fee"
    assert "plan:pro@1" in said("statement")
    nothing = said("statement", "--month", "2020-01")
    assert "Nothing was used or spent" in nothing


def test_a_cell_of_a_csv_is_no_formula() -> None:
    text = io.StringIO()
    write_csv([{"name": "=1+1", "amount": "-3.50", "other": "-x"}], text)
    assert text.getvalue() == "name,amount,other\n'=1+1,-3.50,'-x\n"
