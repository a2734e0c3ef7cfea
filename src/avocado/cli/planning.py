"""What a recipe will take, stage by stage, held against its budget, and what it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avocado.cli.data import freeze_corpus
from avocado.cli.distilling import place_teacher
from avocado.errors import Refused
from avocado.train.team import ALONE, Team
from avocado.workspace import Artifact, Workspace

if TYPE_CHECKING:
    from avocado.terms.money import Money
    from avocado.train.base import Base
    from avocado.train.plan import Plan, Total
    from avocado.train.recipe import Recipe
    from avocado.train.run import Finished
    from avocado.train.run_folder import RunFolder


@dataclass(frozen=True)
class Measure:
    """How time is found: ``probe`` real steps (None: some, where this machine is one to measure
    on), or ``tokens_per_second`` that somebody knows; and what an hour of a machine costs."""

    probe: int | None = None
    tokens_per_second: float | None = None
    price_per_hour: Money | None = None


def plan_recipe(
    workspace: Workspace,
    recipe: Recipe,
    path: Path,
    base: Base,
    measure: Measure,
    team: Team = ALONE,
) -> Total:
    """Plans every stage of the recipe at ``path``. Its data is checked and frozen; a later stage is
    measured on the base's own weights, which are as many."""
    from avocado.train.plan import Total

    plans = []
    for stage in recipe.expanded():
        corpus = team.once(lambda: freeze_corpus(workspace, stage, path, base))  # noqa: B023
        plans.append(plan_stage(workspace, stage, path, base.folder, corpus, measure, team))
    return Total(tuple(plans))


def plan_stage(
    workspace: Workspace,
    stage: Recipe,
    path: Path,
    base: Path,
    corpus: Artifact,
    measure: Measure,
    team: Team = ALONE,
) -> Plan:
    """The plan of one stage on its frozen ``corpus``."""
    from avocado.train.budget import price_of
    from avocado.train.plan import plan

    teacher = team.once(lambda: place_teacher(workspace, stage, path))
    return plan(
        stage,
        base=base,
        corpus=corpus.files,
        teacher=teacher.files if teacher else None,
        probe_steps=measure.probe,
        tokens_per_second=measure.tokens_per_second,
        price_per_hour=measure.price_per_hour or price_of(stage.budget),
        team=team,
    )


def hold_budget(total: Total, recipe: Recipe) -> None:
    """Raises Refused where the plan's high end is over the recipe's budget; says by how much."""
    from avocado.train.budget import excess

    reasons = [] if recipe.budget is None else excess(total, recipe.budget)
    if reasons:
        raise Refused(*reasons)


def settle(stage: Recipe, planned: Plan, finished: Finished, folder: RunFolder) -> dict[str, Any]:
    """Planned against actual, kept in the run's folder; returned for the checkpoint's note."""
    from avocado.train.budget import actual, price_of

    memory = finished.note["memory_peak"]
    assert isinstance(memory, int)
    nodes = stage.compute.nodes if stage.compute else 1
    taken = actual(
        planned,
        finished.checkpoint.tokens,
        list(folder.metrics()),
        memory,
        price_of(stage.budget),
        nodes,
    )
    folder.keep_plan(planned.to_json(), taken.to_json())
    return {"planned": planned.to_json(), "actual": taken.to_json()}


def settled_lines(plan: Mapping[str, Any]) -> list[str]:
    """Planned against actual, for people."""
    from avocado.train.budget import compared

    return compared(plan["planned"], plan["actual"])
