"""Plans on the command line: budgets are held before anything is trained, and settled after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from avocado.workspace import Workspace

from .conftest import RECIPE, Avocado

STAGES = """
[[stages]]
name = "adapt"
weights = "lora"
lora = {r = 4}

[[stages]]
name = "polish"
training = {learning_rate = 1e-6, batch = 4, steps = 3, max_length = 256}
"""


def checkpoints(folder: Path) -> list[Any]:
    store = Workspace.find(folder).store
    return [store.load(each) for each in store.ids("checkpoint")]


def test_a_plan_measures_by_default_and_prices(shop: Path, avocado: Avocado) -> None:
    planned: Any = avocado(shop, "plan", "recipe.toml", "--price-per-hour", "2.50", "--json").json
    assert planned["steps"] == 2
    assert planned["flops"] == 6 * planned["parameters"] * planned["tokens"]
    assert 0 < planned["seconds"][0] <= planned["seconds"][1]
    assert "1 steps measured here" in planned["basis"]
    assert all(money.endswith(" USD") for money in planned["cost"])
    counted: Any = avocado(shop, "plan", "recipe.toml", "--probe", "0", "--json").json
    assert (counted["tokens"], counted["seconds"]) == (planned["tokens"], None)
    assert not checkpoints(shop)
    assert not (shop / ".avocado" / "runs").exists()
    wrong = avocado(shop, "plan", "recipe.toml", "--probe", "0", "--price-per-hour", "1")
    assert wrong.code == 2


def test_stages_are_planned_each_and_together(shop: Path, avocado: Avocado) -> None:
    (shop / "recipe.toml").write_text(RECIPE + STAGES)
    planned: Any = avocado(shop, "plan", "recipe.toml", "--probe", "0", "--json").json
    adapt, polish = planned["stages"]
    assert (adapt["name"], polish["name"]) == ("small.adapt", "small.polish")
    assert (adapt["formulas"]["flops"][:2], polish["formulas"]["flops"][:2]) == ("4N", "6N")
    assert planned["total"]["tokens"] == adapt["tokens"] + polish["tokens"]
    assert "all stages: 5 steps" in avocado(shop, "plan", "recipe.toml", "--probe", "0").out


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("hours = 0.0000001", "over the budget of 0 s"),
        ('cost = "0.000000001"\nprice_per_hour = "90"', "over the budget of 0.000000001 USD"),
    ],
)
def test_what_may_be_over_its_budget_does_not_begin(
    shop: Path, avocado: Avocado, budget: str, said: str
) -> None:
    (shop / "recipe.toml").write_text(f"{RECIPE}\n[budget]\n{budget}\n")
    for verb in ("plan", "train"):
        ran = avocado(shop, verb, "recipe.toml")
        assert ran.code == 1
        assert said in ran.err
    assert not checkpoints(shop)
    assert not (shop / ".avocado" / "runs").exists()


def test_a_budget_changes_nothing_that_is_learnt_and_is_settled(
    shop: Path, avocado: Avocado
) -> None:
    assert avocado(shop, "train", "recipe.toml").code == 0
    budget = '\n[budget]\nhours = 1\ncost = "100"\nprice_per_hour = "36"\ncurrency = "EUR"\n'
    (shop / "recipe.toml").write_text(RECIPE + budget)
    ran = avocado(shop, "train", "recipe.toml")
    assert ran.code == 0, ran.err
    (made,) = checkpoints(shop)  # the very same weights, so the same id
    shown = avocado(shop, "runs", "show", "small")
    for out in (ran.out, shown.out):
        assert f"tokens: {made.manifest.facts['tokens']:,} planned" in out
        assert "EUR planned, " in out
    plan = json.loads((shop / ".avocado/runs/small/plan.json").read_text())
    assert plan["planned"]["tokens"] == plan["actual"]["tokens"]
    assert plan["planned"]["flops"] == plan["actual"]["flops"]
    assert plan["actual"]["seconds"] > 0
    assert plan["actual"]["memory"] > 10_000_000
    assert made.note["plan"]["actual"]["tokens"] == plan["actual"]["tokens"]


def test_tensorboard_reads_what_was_logged(shop: Path, avocado: Avocado) -> None:
    from tensorboard.backend.event_processing import (  # type: ignore[import-untyped]
        event_accumulator,
    )

    ran = avocado(shop, "train", "recipe.toml", "--report-to", "tensorboard")
    assert ran.code == 0, ran.err
    folder = shop / ".avocado" / "runs" / "small"
    events = event_accumulator.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    tags = events.Tags()["scalars"]
    for key in ("loss", "tokens", "tokens_per_second", "grad_norm"):
        (tag,) = [each for each in tags if each.rpartition("/")[2] == key]
        found = [(each.step, each.value) for each in events.Scalars(tag)]
        assert found == [(line["step"], pytest.approx(line[key])) for line in lines]


def test_a_tracker_that_is_not_there_is_one_sentence(shop: Path, avocado: Avocado) -> None:
    for name, said in (("nothing", "is not supported"), ("wandb", "does not work here")):
        ran = avocado(shop, "train", "recipe.toml", "--report-to", name)
        assert ran.code == 1
        assert said in ran.err
        assert len(ran.err.strip().splitlines()[-1]) < 400


def test_the_schema_of_recipes_is_json(shop: Path, avocado: Avocado) -> None:
    import tomllib

    import jsonschema

    schema: Any = avocado(shop, "recipe", "schema").json
    jsonschema.validate(tomllib.loads(RECIPE), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(RECIPE.replace("batch", "bacth")), schema)
