"""``avocado data``: what is wrong with training data, and freezing what is right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from avocado.cli.arguments import EXISTING, workspace_here
from avocado.cli.output import Output, with_output
from avocado.cli.recipe import load_recipe
from avocado.cli.show import show
from avocado.data.provenance import UNKNOWN
from avocado.data.record import LEARNT_BY
from avocado.errors import Refused
from avocado.lineage import Manifest, short
from avocado.workspace import Artifact, Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from avocado.data.checks import Rules
    from avocado.data.contamination import Question
    from avocado.data.sources import Source
    from avocado.train.base import Base
    from avocado.train.recipe import Data, Recipe


def questions(path: Path | None) -> Sequence[Question]:
    """Every item of every suite of an evaluation, by its id; none where there is no file."""
    from avocado.data.contamination import Question
    from avocado.evaluate.evaluation import Evaluation
    from avocado.evaluate.suite import SuiteError

    if path is None:
        return []
    try:
        return [
            Question(f"{suite.name} {item.id}", item.messages)
            for suite in Evaluation.read(path).suites()
            for item in suite.items
        ]
    except SuiteError as error:
        raise Refused(str(error)) from error


def place_base(workspace: Workspace, base: Base) -> Artifact:
    """Records a base by the hashes of its files, where it lies."""
    manifest = Manifest("base", base.facts, {}, base.files())
    return workspace.store.place(manifest, {}, location=base.folder)


def recipe_base(recipe: Recipe, path: Path) -> Base:
    """The base that the recipe at ``path`` names."""
    from avocado.train.base import resolve

    return resolve(recipe.base, path.parent)


def source_of(data: Data, folder: Path) -> Source:
    """What the data room is to read; paths are relative to the recipe's ``folder``."""
    from avocado.data.hugging_face import PREFIX
    from avocado.data.sources import Source

    return Source(
        data.path if data.path.startswith(PREFIX) else folder / data.path,
        weight=data.weight,
        replay=data.replay,
        shape=data.shape,
        split=data.split,
        licence=data.license or UNKNOWN,
        group=data.group,
    )


def rules_of(recipe: Recipe) -> Rules:
    """What the corpus of ``recipe`` accepts."""
    from avocado.data.checks import Rules

    checks = recipe.checks
    return Rules(
        recipe.training.max_length,
        invalid=checks.invalid,
        over_length=recipe.training.over_length,
        contaminated=checks.contaminated,
        near_duplicates=checks.near_duplicates,
        likeness=checks.likeness,
        mask=checks.mask,
    )


def freeze_corpus(workspace: Workspace, recipe: Recipe, path: Path, base: Base) -> Artifact:
    """Checks and freezes the data of the recipe at ``path``; the same data again is the same id."""
    from avocado.data import corpus
    from avocado.data.chat import ChatTemplate

    held_out = None if recipe.evaluation is None else path.parent / recipe.evaluation
    with workspace.store.stage() as staging:
        frozen = corpus.freeze(
            [source_of(each, path.parent) for each in recipe.sources],
            ChatTemplate.load(base.folder),
            rules_of(recipe),
            staging.folder,
            kind=LEARNT_BY[recipe.method],
            evaluation=questions(held_out),
            holdout=recipe.holdout,
        )
        return staging.keep("corpus", frozen.facts)


@click.group()
def data() -> None:
    """Check, show and freeze training data."""


data.add_command(show)


@data.command("check")
@click.argument("sources", nargs=-1, required=True)
@click.option("--base", default="seedling", show_default=True, help="Whose tokens are counted.")
@click.option("--evaluation", type=EXISTING, help="Items that must not be in the data.")
@click.option("--license", "licence", default=UNKNOWN, help="Of rows that state none.")
@click.option("--max-length", type=click.IntRange(8), default=4096, show_default=True)
@click.option(
    "--method",
    type=click.Choice(tuple(LEARNT_BY)),
    help="What the data is to serve; else what it is by nature.",
)
@click.option(
    "--likeness",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.8,
    show_default=True,
    help="Of near duplicates, at least.",
)
@click.option("--shape", help="The rows' form, where it should not be detected.")
@click.option("--split", default="train", show_default=True, help="Of folders and data sets.")
@click.option("--html", type=EXISTING, help="Write the report there, as one page.")
@with_output
def check(
    out: Output,
    sources: tuple[str, ...],
    base: str,
    evaluation: Path | None,
    licence: str,
    max_length: int,
    method: str | None,
    likeness: float,
    shape: str | None,
    split: str,
    html: Path | None,
) -> None:
    """Say what is wrong with SOURCES: files, folders or data sets (hf://owner/name).

    Reads JSON Lines, JSON, CSV, TSV (each also .gz), Parquet and Hugging Face data sets. Counts
    everything, names examples, keeps nothing. Exit code 1 where a row would stop training.
    """
    from avocado.data import corpus, intake
    from avocado.data.chat import ChatTemplate
    from avocado.data.checks import Rules
    from avocado.data.sources import Source
    from avocado.train.base import resolve

    rules = Rules(max_length, likeness=likeness)
    template = ChatTemplate.load(resolve(base, Path.cwd()).folder)
    found = corpus.survey(
        [Source(each, licence=licence, shape=shape, split=split) for each in sources],
        template,
        rules,
        kind=None if method is None else LEARNT_BY[method],
        evaluation=questions(evaluation),
    )
    report = found.report
    value = {**found.facts, **report.to_json(), "guessed": report.guesses.to_json()}
    lines = [*intake.lines(found.facts), *report.lines()]
    if report.dropped:
        lines.append(f"training leaves out {report.dropped:,} of these rows")
    if report.refused:
        stopping = [reason for reason in report.rejected if rules.of(reason) == "refuse"]
        lines.append(
            f"training would stop at {report.refused:,} of these rows: mend them, or leave them "
            f"out in the recipe: {rules.remedies(stopping)}"
        )
    if html is not None:
        from avocado.data.page import page

        dropped = [reason for reason in report.rejected if rules.of(reason) == "drop"]
        names = ", ".join(each["name"] for each in found.facts["files"])
        try:
            html.write_text(page(report, names, dropped), "utf-8")
        except OSError as error:
            raise Refused(f"{html} cannot be written: {error.strerror}") from error
        lines.append(f"wrote {html}")
    out.result(value, *lines)
    if report.refused:
        raise click.exceptions.Exit(1)


@data.command("freeze")
@click.argument("recipe", type=EXISTING)
@with_output
def freeze(out: Output, recipe: Path) -> None:
    """Check and freeze the data of RECIPE into a corpus. `avocado train` does it too."""
    workspace = workspace_here()
    loaded = load_recipe(recipe)
    base = recipe_base(loaded, recipe)
    place_base(workspace, base)
    frozen = freeze_corpus(workspace, loaded, recipe, base)
    out.result({"corpus": frozen.id, **frozen.manifest.facts}, *corpus_lines(frozen))


def corpus_lines(frozen: Artifact) -> list[str]:
    """What a person wants to know of a corpus."""
    from avocado.data import intake

    facts = frozen.manifest.facts
    languages = ", ".join(f"{name} {count:,}" for name, count in facts["languages"].items())
    licences = ", ".join(f"{name} {count:,}" for name, count in facts["licences"].items())
    lines = [
        *intake.lines(facts),
        f"{facts['accepted']:,} of {facts['rows']:,} rows accepted; {facts['tokens']:,} tokens, "
        f"{facts['trained']:,} of them trained",
        f"languages: {languages}; licences: {licences}",
        f"{facts['learnt']:,} to learn, {facts['held_out']:,} held out",
    ]
    if facts["thinned"]:
        lines.append(f"left out by their source's weight: {facts['thinned']:,}")
    lines += [f"left out, {reason}: {count:,}" for reason, count in facts["rejected"].items()]
    return [*lines, f"made {short(frozen.id)}"]
