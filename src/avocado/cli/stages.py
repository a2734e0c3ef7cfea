"""A recipe's stages, one after the other: each freezes its data, trains, and keeps a checkpoint.

A stage starts from the weights of the one before it (adapters folded in) and ends with whole
weights, so that every checkpoint of a chain can be evaluated, released and served by itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from avocado.cli.data import corpus_lines, freeze_corpus, place_base, recipe_base
from avocado.cli.distilling import gather_corpus, place_teacher
from avocado.cli.output import Output
from avocado.cli.planning import (
    Measure,
    hold_budget,
    plan_recipe,
    plan_stage,
    settle,
    settled_lines,
)
from avocado.errors import Refused
from avocado.lineage import short
from avocado.train.team import ALONE, Team
from avocado.train.throughput import spoken
from avocado.workspace import Artifact, Staging, Workspace

if TYPE_CHECKING:
    from avocado.train.base import Base
    from avocado.train.plan import Plan
    from avocado.train.recipe import Recipe
    from avocado.train.run import Finished, Progress, Start
    from avocado.train.run_folder import RunFolder

TOLD: Final = ("reward", "margin")
"""What progress shows beside the loss, where the method has it."""


@dataclass(frozen=True)
class Ground:
    """What all stages of a recipe share: the workspace, the recipe's file, its base, who trains it,
    which trackers hear of it, and after how many steps it is saved."""

    out: Output
    workspace: Workspace
    path: Path
    found: Base
    base: Artifact
    team: Team
    report_to: Sequence[str]
    save_every: int

    def run_folder(self, stage: Recipe) -> RunFolder:
        from avocado.train.run_folder import RunFolder

        return RunFolder(self.workspace.state / "runs" / stage.name)


def train_recipe(
    out: Output,
    workspace: Workspace,
    recipe: Recipe,
    path: Path,
    start: Start = "new",
    corpus: Artifact | None = None,
    *,
    team: Team = ALONE,
    report_to: Sequence[str] = (),
    save_every: int = 100,
) -> Artifact:
    """Carries out every stage and returns the last one's checkpoint. ``corpus`` is the frozen data
    where it is at hand already. Of a ``team``, process 0 alone reads data and keeps artifacts.

    Raises:
        Refused: as ``train.run.run`` says, and where there is nothing to resume.
    """
    found = team.together(lambda: recipe_base(recipe, path))  # each machine has its own copies
    base = team.once(lambda: place_base(workspace, found))
    ground = Ground(out, workspace, path, found, base, team, report_to, save_every)
    stages = recipe.expanded()
    plans: dict[str, Plan] = {}
    if recipe.budget is not None:
        total = plan_recipe(workspace, recipe, path, found, Measure(), team)
        out.say("\n".join(total.lines()))
        team.together(lambda: hold_budget(total, recipe))
        plans = {plan.name: plan for plan in total.plans}
    checkpoint: Artifact | None = None
    done = 0
    for stage in stages:
        if len(stages) > 1:
            out.say(f"stage {stage.name}")
        before = checkpoint
        again = start in ("resume", "auto")
        checkpoint = None
        if again and len(stages) > 1:
            checkpoint = team.once(partial(_finished, ground, stage, before))
        if checkpoint is not None:
            done += 1
            out.say(f"was finished before: {short(checkpoint.id)}")
            continue
        how = "auto" if again and len(stages) > 1 else start
        checkpoint = _train_stage(ground, stage, before, how, corpus, plans.get(stage.name))
    if done == len(stages):
        raise Refused("every stage of this recipe is finished: there is nothing to resume")
    assert checkpoint is not None
    return checkpoint


def _finished(ground: Ground, stage: Recipe, before: Artifact | None) -> Artifact | None:
    """The checkpoint of a stage that was carried out already, from the same start."""
    made = ground.run_folder(stage).checkpoint()
    if made is None or made not in ground.workspace.store.ids("checkpoint"):
        return None
    checkpoint = ground.workspace.store.load(made)
    same = (
        checkpoint.manifest.facts["recipe"] == stage.canonical()
        and checkpoint.manifest.parents["base"] == ground.base.id
        and checkpoint.manifest.parents.get("previous") == (before and before.id)
    )
    return checkpoint if same else None


def _train_stage(
    ground: Ground,
    stage: Recipe,
    before: Artifact | None,
    start: Start,
    corpus: Artifact | None,
    planned: Plan | None,
) -> Artifact:
    frozen = ground.team.once(lambda: corpus or _corpus(ground, stage))
    parents = {"base": ground.base.id, "corpus": frozen.id}
    teacher = ground.team.once(lambda: place_teacher(ground.workspace, stage, ground.path))
    if teacher is not None:
        parents["teacher"] = teacher.id
    if before is not None:
        parents["previous"] = before.id
    run_folder = ground.run_folder(stage)
    with ExitStack() as held:
        stagings: list[Staging] = []

        def prepare() -> tuple[Path, Path]:
            held.enter_context(run_folder.hold())
            stagings.append(held.enter_context(ground.workspace.store.stage()))
            return held.enter_context(_weights(ground, before)), stagings[0].folder

        base, folder = ground.team.once(prepare)
        plan = planned or ground.team.once(
            lambda: plan_stage(ground.workspace, stage, ground.path, base, frozen, Measure(probe=0))
        )
        finished = _run(ground, stage, base, frozen, teacher, parents, start, folder)

        def keep() -> Artifact:
            if before is not None:
                _fold(folder, base)
            note = {**finished.note, "plan": settle(stage, plan, finished, run_folder)}
            if stage.evaluation is not None:
                note["evaluation"] = str((ground.path.parent / stage.evaluation).resolve())
            kept = stagings[0].keep("checkpoint", finished.checkpoint.facts(), parents, note)
            run_folder.record(kept.id)
            for line in settled_lines(note["plan"]):
                ground.out.say(line)
            return kept

        return ground.team.once(keep)


def _corpus(ground: Ground, stage: Recipe) -> Artifact:
    """What the stage learns from, frozen; teachers answer its prompts first where it has them."""
    frozen = freeze_corpus(ground.workspace, stage, ground.path, ground.found)
    for line in corpus_lines(frozen):
        ground.out.say(line)
    if stage.distillation is None or not stage.distillation.teachers:
        return frozen
    taught = gather_corpus(ground.out, ground.workspace, stage, ground.path, ground.found, frozen)
    for line in corpus_lines(taught):
        ground.out.say(line)
    return taught


def _run(
    ground: Ground,
    stage: Recipe,
    base: Path,
    corpus: Artifact,
    teacher: Artifact | None,
    parents: dict[str, str],
    start: Start,
    folder: Path,
) -> Finished:
    from avocado.train.run import run

    with ground.out.progress("step") as report:

        def tell(progress: Progress) -> None:
            extra = progress.extra
            told = "".join(f"{key} {extra[key]:.3f}  " for key in TOLD if key in extra)
            used = "" if progress.mfu is None else f"MFU {progress.mfu:.0%}  "
            note = f"loss {progress.loss:.3f}  {told}"
            if progress.tokens_per_second:  # not known before the second step
                note += f"{progress.tokens_per_second:,.0f} tokens/s  {used}"
                note += f"{spoken(progress.seconds_left)} left"
            report(progress.step, progress.steps, note)

        return run(
            stage,
            base=base,
            corpus=corpus.files,
            identity=parents,
            folder=ground.run_folder(stage).path,
            out=folder,
            start=start,
            progress=tell,
            team=ground.team,
            report_to=ground.report_to,
            save_every=ground.save_every,
            teacher=teacher.files if teacher is not None else None,
        )


@contextmanager
def _weights(ground: Ground, before: Artifact | None) -> Iterator[Path]:
    """The folder of weights that a stage starts from: the base, or the checkpoint before, whole.

    Every checkpoint but a first stage's adapters is whole already.
    """
    from avocado.release.merge import is_adapter

    if before is None:
        yield ground.base.files
    elif not is_adapter(before.files):
        yield before.files
    else:
        staged = ground.workspace.store.root / "staging" / before.id
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        try:
            _whole(before.files, ground.base.files, staged)
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _whole(checkpoint: Path, base: Path, out: Path) -> None:
    """Writes a loadable model: the adapters of ``checkpoint`` folded into ``base``."""
    from avocado.release.bundle import LICENCE_FILES, write_weights

    write_weights(checkpoint, base, out)
    for name in LICENCE_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)


def _fold(folder: Path, base: Path) -> None:
    """Makes the adapters in ``folder``, trained on ``base``, whole weights in the same folder."""
    from avocado.release.merge import is_adapter

    if not is_adapter(folder):
        return
    adapters = folder.with_name(f"{folder.name}.adapters")
    folder.rename(adapters)
    try:
        folder.mkdir()
        _whole(adapters, base, folder)
    finally:
        shutil.rmtree(adapters)
