"""``avocado evaluate``: a checkpoint against its base, on held-out items, item by item."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from avocado.cli.arguments import EXISTING, workspace_here
from avocado.cli.output import Output, Report, with_output
from avocado.cli.report import report_path, write_report
from avocado.errors import Refused
from avocado.lineage import short
from avocado.workspace import Artifact, Workspace

if TYPE_CHECKING:
    from avocado.engine.embedded import EmbeddedEngine
    from avocado.evaluate.run import Result
    from avocado.evaluate.scorecard import Scorecard
    from avocado.evaluate.suite import Suite


def read_suite(checkpoint: Artifact, path: Path | None) -> Suite:
    """The suite at ``path``, or the one that the checkpoint's recipe names."""
    from avocado.evaluate.suite import Suite, SuiteError

    named: str | None = checkpoint.note.get("evaluation")
    chosen = path or (Path(named) if named else None)
    if chosen is None:
        raise Refused("the recipe names no evaluation: give one with --suite FILE")
    try:
        return Suite.read(chosen)
    except SuiteError as error:
        raise Refused(str(error)) from error


def place_suite(workspace: Workspace, suite: Suite) -> Artifact:
    with workspace.store.stage() as staging:
        suite.write(staging.folder)
        return staging.keep("suite", suite.facts())


def refuse_contaminated(corpus: Artifact, suite: Suite) -> None:
    """A suite that was given later must not be in what the checkpoint learnt from either."""
    from avocado.data.corpus import contamination

    found = contamination(corpus.files, [item.messages for item in suite.items])
    if found:
        named = [f"{each} of the training data asks what the evaluation asks" for each in found]
        more = [f"… and {len(named) - 10} more rows"] if len(named) > 10 else []
        raise Refused(*named[:10], *more)


def load_engine(
    workspace: Workspace, base: Artifact, checkpoint: Artifact | None
) -> EmbeddedEngine:
    """The engine on the base, or on a checkpoint (adapters are folded in)."""
    from avocado.engine.embedded import EmbeddedEngine
    from avocado.engine.engine import EngineError
    from avocado.release.merge import is_adapter

    for artifact in (base, checkpoint):
        if artifact is not None and (changed := workspace.store.changed_files(artifact)):
            raise Refused(*(f"{short(artifact.id)}: {name} was changed" for name in changed))
    try:
        if checkpoint is None:
            return EmbeddedEngine.load(base.files)
        if is_adapter(checkpoint.files):
            return EmbeddedEngine.load(base.files, adapter=checkpoint.files)
        return EmbeddedEngine.load(checkpoint.files)
    except (EngineError, ValueError) as error:
        raise Refused(f"the model does not load: {error}") from error


async def score(
    engine: EmbeddedEngine, suite: Suite, max_tokens: int, report: Report
) -> tuple[Result, ...]:
    """Every item's result; the engine is closed whatever happens."""
    from avocado.engine.engine import EngineError
    from avocado.evaluate.run import run
    from avocado.evaluate.suite import SuiteError

    try:
        return await run(
            engine,
            suite,
            max_tokens=max_tokens,
            progress=lambda done, total: report(done, total, "items"),
        )
    except (SuiteError, EngineError) as error:
        raise Refused(f"the evaluation stopped: {error}") from error
    finally:
        await engine.close()


def evaluate_checkpoint(
    out: Output, workspace: Workspace, checkpoint: Artifact, path: Path | None, max_tokens: int
) -> tuple[Artifact, Scorecard]:
    """Scores base and checkpoint and keeps the scorecard with its report."""
    from avocado.evaluate.scorecard import Measured, Scorecard, model_sha256, write_results
    from avocado.evaluate.scored import Scored
    from avocado.evaluate.timing import Timing
    from avocado.release.merge import is_adapter

    store = workspace.store
    base = store.load(checkpoint.manifest.parents["base"])
    suite = read_suite(checkpoint, path)
    for corpus in store.ancestors(checkpoint.id, "corpus"):
        refuse_contaminated(corpus, suite)
    placed = place_suite(workspace, suite)
    results = []
    for title, model in (("base", None), ("refined", checkpoint)):
        with out.progress(title) as report:
            engine = load_engine(workspace, base, model)
            results.append(asyncio.run(score(engine, suite, max_tokens, report)))
    parents = {"checkpoint": checkpoint.id, "base": base.id, "suite": placed.id}
    scored = [Scored.of(suite, *results)]
    card = Scorecard.of(
        scored,
        parents=parents,
        measured=Measured(
            model_sha256(base.manifest.files),
            model_sha256(checkpoint.manifest.files),
            "adapters" if is_adapter(checkpoint.files) else "whole",
        ),
        sampling={"temperature": 0, "max_tokens": max_tokens},
    )
    timed = zip(("base", "checkpoint"), map(Timing.of, results), strict=True)
    timing = {side: each.to_json() for side, each in timed if each is not None}
    with store.stage() as staging:
        write_results(staging.folder, scored)
        kept = staging.keep("scorecard", card.facts(), parents, {"timing": timing})
    write_report(workspace, kept)
    return kept, card


def scorecards_of(workspace: Workspace, checkpoint: str) -> list[Artifact]:
    """The scorecards of a checkpoint, oldest first."""
    found = map(workspace.store.load, workspace.store.ids("scorecard"))
    return [card for card in found if card.manifest.parents["checkpoint"] == checkpoint]


def show_scorecard(out: Output, workspace: Workspace, artifact: Artifact, card: Scorecard) -> None:
    from avocado.evaluate.report import caveat, table

    if out.json:
        return
    out.show(table(card))
    out.say(caveat(card))
    out.say(f"made {short(artifact.id)}; report: {report_path(workspace, artifact)}")


@click.command()
@click.argument("checkpoint")
@click.option("--suite", type=EXISTING, help="Items as JSONL; the recipe's evaluation if left out.")
@click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True)
@with_output
def evaluate(out: Output, checkpoint: str, suite: Path | None, max_tokens: int) -> None:
    """Score CHECKPOINT and its base on the same held-out items, through the engine that serves.

    Makes a scorecard: a row per language, with a confidence interval of the difference.
    """
    workspace = workspace_here()
    found = workspace.store.load(workspace.store.resolve(checkpoint, "checkpoint"))
    artifact, card = evaluate_checkpoint(out, workspace, found, suite, max_tokens)
    show_scorecard(out, workspace, artifact, card)
    if out.json:
        report = str(report_path(workspace, artifact))
        out.result({"scorecard": artifact.id, "report": report, **card.facts()})
