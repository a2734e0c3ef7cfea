"""``avocado plan`` and ``avocado train``: what a run will cost, and the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from avocado.cli.arguments import EXISTING, Amount, workspace_here
from avocado.cli.data import place_base, recipe_base
from avocado.cli.output import Output, Silent, with_output
from avocado.cli.planning import Measure, hold_budget, plan_recipe
from avocado.cli.recipe import load_recipe
from avocado.cli.stages import train_recipe
from avocado.lineage import short
from avocado.terms.money import Money
from avocado.workspace import Artifact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from avocado.train.launch import Launcher
    from avocado.train.recipe import Recipe
    from avocado.train.run import Start


def write_launch_file(out: Output, recipe: Recipe, path: Path, launcher: Launcher) -> None:
    """Writes it into the current folder, the workspace, and says how to start it."""
    from avocado.train.launch import launch_file
    from avocado.workspace import write_atomically

    file = launch_file(recipe, path.as_posix(), launcher)
    write_atomically(Path(file.name), file.text.encode())
    out.result(
        {"file": file.name, "start": file.command}, f"wrote {file.name}", f"Next: {file.command}"
    )


def _held_out(note: Mapping[str, Any]) -> Iterator[str]:
    if loss := note.get("held_out_loss"):
        yield f"loss a token on what was held out: {loss['before']:.4f} → {loss['after']:.4f}"


def checkpoint_lines(checkpoint: Artifact) -> list[str]:
    facts, note = checkpoint.manifest.facts, checkpoint.note
    return [
        f"{facts['method']}, {facts['weights']}, {facts['steps']:,} steps, "
        f"{facts['tokens']:,} tokens, "
        f"{facts['trainable']:,} of {facts['parameters']:,} parameters trained, "
        f"{note['seconds']:.0f} s; final loss {facts['loss']:.4f}",
        *_held_out(note),
        *(f"note: {each}" for each in note["notes"]),
        f"made {short(checkpoint.id)}",
    ]


@click.command()
@click.argument("recipe", type=EXISTING)
@click.option("--resume", is_flag=True, help="Go on with the interrupted run of this recipe.")
@click.option("--auto-resume", is_flag=True, help="Resume if there is something to resume.")
@click.option("--restart", is_flag=True, help="Throw the interrupted run away and begin again.")
@click.option(
    "--launch",
    type=click.Choice(("torchrun", "slurm", "skypilot")),
    help="Train nothing: write the file that starts it there, on [compute]'s machines.",
)
@click.option(
    "--report-to",
    multiple=True,
    metavar="TRACKER",
    help="Also log to tensorboard, wandb, mlflow … (may be repeated).",
)
@click.option(
    "--save-every",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    metavar="STEPS",
    help="Keep something to resume from so often; 0: never.",
)
@with_output
def train(
    out: Output,
    recipe: Path,
    resume: bool,
    auto_resume: bool,
    restart: bool,
    launch: Launcher | None,
    report_to: tuple[str, ...],
    save_every: int,
) -> None:
    """Refine a base as RECIPE says: checks and freezes the data, trains, makes a checkpoint.

    On several devices, torchrun starts it: --launch writes how.
    """
    from avocado.train.team import Elsewhere, join

    if resume + auto_resume + restart > 1:
        raise click.UsageError("--resume, --auto-resume and --restart exclude each other")
    workspace = workspace_here()
    if launch is not None:
        write_launch_file(out, load_recipe(recipe), recipe, launch)
        return
    start: Start = "new"
    if resume or restart:
        start = "resume" if resume else "restart"
    elif auto_resume:
        start = "auto"
    loaded = load_recipe(recipe)
    team = join(loaded.compute)
    if not team.leads:
        out = Silent()
    try:
        checkpoint = train_recipe(
            out,
            workspace,
            loaded,
            recipe,
            start,
            team=team,
            report_to=report_to,
            save_every=save_every,
        )
    except Elsewhere:
        raise click.exceptions.Exit(1) from None
    finally:
        team.leave()
    out.result(
        {"checkpoint": checkpoint.id, **checkpoint.manifest.facts},
        *checkpoint_lines(checkpoint),
        f"Next: avocado evaluate {short(checkpoint.id)}"
        + ("" if loaded.evaluation else " --suite ITEMS.jsonl"),
    )


@click.command()
@click.argument("recipe", type=EXISTING)
@click.option(
    "--probe",
    type=click.IntRange(0, 1000),
    metavar="STEPS",
    help="Time so many real steps on this machine; 0: none. Else 20, where it has a GPU or the "
    "base at most 100M parameters.",
)
@click.option(
    "--tokens-per-second",
    type=click.FloatRange(0, min_open=True),
    help="Believe this speed instead of measuring it.",
)
@click.option(
    "--price-per-hour", type=Amount(), help="Of one machine: adds the cost. Else [budget]'s."
)
@with_output
def plan(
    out: Output,
    recipe: Path,
    probe: int | None,
    tokens_per_second: float | None,
    price_per_hour: Money | None,
) -> None:
    """Say what RECIPE will take in tokens, FLOPs, memory, time and money, each stage and all.

    Its data is checked and frozen, so that tokens are counted from the very rows of the run; some
    real steps are timed and thrown away. Exit code 1 where the high end is over [budget].
    """
    if price_per_hour is not None and probe == 0 and not tokens_per_second:
        raise click.UsageError("--price-per-hour needs a time: --probe or --tokens-per-second")
    workspace = workspace_here()
    loaded = load_recipe(recipe)
    base = recipe_base(loaded, recipe)
    place_base(workspace, base)
    price = price_per_hour
    if price is not None and loaded.budget is not None:
        price = Money(price.nanos, loaded.budget.currency)
    total = plan_recipe(workspace, loaded, recipe, base, Measure(probe, tokens_per_second, price))
    if loaded.budget is None:
        out.result(total.to_json(), *total.lines())
        return
    if not out.json:
        out.result(None, *total.lines())
    hold_budget(total, loaded)
    out.result(total.to_json(), "this is within the budget")
