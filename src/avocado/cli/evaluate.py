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
    from collections.abc import Mapping, Sequence

    from avocado.engine.embedded import EmbeddedEngine
    from avocado.evaluate.cache import Cache
    from avocado.evaluate.evaluation import Evaluation
    from avocado.evaluate.run import Result
    from avocado.evaluate.scorecard import Scorecard
    from avocado.evaluate.suite import Suite

    Results = Mapping[str, tuple[Result, ...]]
    """By the suite's name."""


def read_evaluation(
    checkpoint: Artifact, path: Path | None, max_tokens: int | None = None
) -> Evaluation:
    """The evaluation at ``path``, or the one that the checkpoint's recipe names."""
    from avocado.evaluate.evaluation import Evaluation
    from avocado.evaluate.suite import SuiteError

    named: str | None = checkpoint.note.get("evaluation")
    chosen = path or (Path(named) if named else None)
    if chosen is None:
        raise Refused("the recipe names no evaluation: give one with --suite FILE")
    try:
        return Evaluation.read(chosen, max_tokens)
    except SuiteError as error:
        raise Refused(str(error)) from error


def suites_of(evaluation: Evaluation) -> tuple[Suite, ...]:
    """Every suite; tasks of lm-evaluation-harness are looked up here."""
    from avocado.evaluate.suite import SuiteError

    try:
        return tuple(evaluation.suites())
    except SuiteError as error:
        raise Refused(str(error)) from error


def place_suites(workspace: Workspace, suites: Sequence[Suite]) -> dict[str, str]:
    """Keeps each suite; the roles that they have as parents of a scorecard, and their ids."""
    parents = {}
    for suite in suites:
        with workspace.store.stage() as staging:
            suite.write(staging.folder)
            placed = staging.keep("suite", suite.facts())
        parents["suite" if len(suites) == 1 else f"suite {suite.name}"] = placed.id
    return parents


def refuse_contaminated(corpus: Artifact, suites: Sequence[Suite]) -> None:
    """A suite that was given later must not be in what the checkpoint learnt from either."""
    from avocado.data.corpus import contamination

    found = contamination(corpus.files, [item.messages for each in suites for item in each.items])
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


async def measure(
    engine: EmbeddedEngine, evaluation: Evaluation, cache: Cache, report: Report
) -> Results:
    """Every item's result, suite by suite; the engine is closed whatever happens."""
    from avocado.engine.engine import EngineError
    from avocado.evaluate.run import run
    from avocado.evaluate.suite import Suite, SuiteError

    total = sum(len(suite.items) for suite in evaluation.suites())
    found: dict[str, tuple[Result, ...]] = {}
    before = 0
    try:
        for entry in evaluation.entries:
            for suite in (entry,) if isinstance(entry, Suite) else entry.suites:

                def tell(done: int, _: int, name: str = suite.name, start: int = before) -> None:
                    report(start + done, total, name)

                if isinstance(entry, Suite):
                    told = await run(engine, suite, progress=tell, cache=cache)
                else:
                    told = await entry.run(engine, suite, progress=tell, cache=cache)
                found[suite.name] = told
                before += len(told)
    except (SuiteError, EngineError) as error:
        raise Refused(f"the evaluation stopped: {error}") from error
    finally:
        cache.close()
        await engine.close()
    return found


def cache_of(workspace: Workspace, base: Artifact, checkpoint: Artifact | None) -> Cache:
    """What this model answered before: the same files, read by the same engine and arithmetic."""
    from importlib.metadata import version

    import torch

    from avocado.evaluate.cache import Cache

    return Cache(
        workspace.state / "cache",
        {
            "base": dict(base.manifest.files),
            "checkpoint": None if checkpoint is None else dict(checkpoint.manifest.files),
            "engine": [version("avocado-llm"), torch.__version__, torch.cuda.is_available()],
        },
    )


def judged(
    out: Output,
    workspace: Workspace,
    suites: Sequence[Suite],
    base: Results,
    other: Results,
) -> Results:
    """``other`` after the judges of the suites that have one spoke."""
    from avocado.evaluate.cache import Cache
    from avocado.evaluate.graders import Judge
    from avocado.evaluate.judge import prefer

    found = dict(other)
    for suite in suites:
        if not isinstance(suite.grade, Judge):
            continue
        cache = Cache(workspace.state / "cache", {"judge": suite.grade.url})
        with out.progress(f"judge of {suite.name}") as report:
            work = prefer(
                suite,
                base[suite.name],
                other[suite.name],
                cache=cache,
                progress=lambda done, total, report=report: report(done, total, "verdicts"),  # type: ignore[misc]
            )
            found[suite.name] = asyncio.run(work)
        cache.close()
    return found


def evaluate_checkpoint(
    out: Output,
    workspace: Workspace,
    checkpoint: Artifact,
    path: Path | None,
    max_tokens: int | None = None,
) -> tuple[Artifact, Scorecard]:
    """Scores base and checkpoint on every suite and keeps the scorecard with its report."""
    from avocado.evaluate.scorecard import Measured, Scorecard, model_sha256, write_results
    from avocado.evaluate.scored import Scored
    from avocado.evaluate.timing import Timing
    from avocado.release.merge import is_adapter

    store = workspace.store
    base = store.load(checkpoint.manifest.parents["base"])
    evaluation = read_evaluation(checkpoint, path, max_tokens)
    suites = suites_of(evaluation)
    for corpus in store.ancestors(checkpoint.id, "corpus"):
        refuse_contaminated(corpus, suites)
    results: list[Results] = []
    for title, model in (("base", None), ("refined", checkpoint)):
        with out.progress(title) as report:
            engine = load_engine(workspace, base, model)
            cache = cache_of(workspace, base, model)
            results.append(asyncio.run(measure(engine, evaluation, cache, report)))
    results[1] = judged(out, workspace, suites, *results)
    parents = {
        "checkpoint": checkpoint.id,
        "base": base.id,
        **place_suites(workspace, suites),
    }
    scored = [Scored.of(each, results[0][each.name], results[1][each.name]) for each in suites]
    card = Scorecard.of(
        scored,
        parents=parents,
        measured=Measured(
            model_sha256(base.manifest.files),
            model_sha256(checkpoint.manifest.files),
            "adapters" if is_adapter(checkpoint.files) else "whole",
        ),
        sampling={"temperature": 0},
    )
    answers = [[each for found in side.values() for each in found] for side in results]
    timed = zip(("base", "checkpoint"), map(Timing.of, answers), strict=True)
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
@click.option(
    "--suite",
    type=EXISTING,
    help="Suites as TOML, or items as JSONL; the recipe's evaluation if left out.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(1),
    help="Of an answer, in place of what the suites say (256 if they don't).",
)
@with_output
def evaluate(out: Output, checkpoint: str, suite: Path | None, max_tokens: int | None) -> None:
    """Score CHECKPOINT and its base on the same held-out items, through the engine that serves.

    Makes a scorecard: a row per language of every suite, with a confidence interval of the
    difference. Answers are kept: what was asked before is not asked again.
    """
    workspace = workspace_here()
    found = workspace.store.load(workspace.store.resolve(checkpoint, "checkpoint"))
    artifact, card = evaluate_checkpoint(out, workspace, found, suite, max_tokens)
    show_scorecard(out, workspace, artifact, card)
    if out.json:
        report = str(report_path(workspace, artifact))
        out.result({"scorecard": artifact.id, "report": report, **card.facts()})
