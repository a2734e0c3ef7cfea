"""Teachers at work: their answers become a corpus, and a local teacher a recorded model."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from avocado.cli.data import place_base, questions, rules_of
from avocado.cli.output import Output
from avocado.errors import Refused
from avocado.lineage import canonical
from avocado.terms.money import Money
from avocado.workspace import Artifact, Workspace

if TYPE_CHECKING:
    from avocado.train.base import Base
    from avocado.train.gathering import Kept
    from avocado.train.recipe import Recipe

TEACHERS: Final = "teachers.jsonl"
"""Beside a corpus's examples: who answered each prompt, how it was asked and how it was judged."""


def place_teacher(workspace: Workspace, stage: Recipe, path: Path) -> Artifact | None:
    """The local model that an on-policy distillation learns from, checked as a base is."""
    from avocado.train.base import resolve

    if stage.distillation is None or stage.distillation.model is None:
        return None
    return place_base(workspace, resolve(stage.distillation.model, path.parent))


def gather_corpus(
    out: Output, workspace: Workspace, stage: Recipe, path: Path, base: Base, prompts: Artifact
) -> Artifact:
    """Asks the recipe's teachers every prompt, and freezes the best answers into a corpus.

    An interrupted gathering goes on where it stopped: its journal lies beside the runs.

    Raises:
        Refused: a teacher cannot answer, the budget is spent, or no answer was good enough.
    """
    from avocado.data import corpus as corpora
    from avocado.data.problem import Problem
    from avocado.train.gathering import Journal, choose, gather, summary

    settings = stage.distillation
    assert settings is not None
    problems = list(corpora.read(prompts.files, Problem))
    journal = Journal(workspace.state / "teachers" / f"{stage.name}.jsonl")
    try:
        with out.progress("answers") as report:
            attempts = asyncio.run(
                gather(settings, problems, journal, limit=_limit(stage), progress=report)
            )
    finally:
        journal.close()
    kept = choose(settings, problems, attempts)
    told = summary(settings, problems, attempts, kept)
    if not kept:
        errors = [each.error for each in attempts if each.error]
        why = f"; the first error: {errors[0]}" if errors else ""
        raise Refused(
            f"of {len(attempts):,} answers none reached the threshold of {settings.threshold}{why}"
        )
    for each in told["teachers"]:
        out.say(
            f"{each['model']}: {each['answers']:,} answers, {each['kept']:,} kept, "
            f"{each['failed']:,} failed, cost {each['cost']}"
        )
    return _freeze(workspace, stage, path, base, prompts, kept, told)


def _limit(stage: Recipe) -> Money | None:
    budget = stage.budget
    if budget is None or budget.cost is None:
        return None
    return Money(Money.parse(budget.cost).nanos, budget.currency)


def _freeze(
    workspace: Workspace,
    stage: Recipe,
    path: Path,
    base: Base,
    prompts: Artifact,
    kept: list[Kept],
    told: dict[str, object],
) -> Artifact:
    """What the student cannot learn from (too long, a control token in it) is left out, counted."""
    from dataclasses import replace

    from avocado.data import corpus as corpora
    from avocado.data.chat import ChatTemplate
    from avocado.data.example import Example

    held_out = None if stage.evaluation is None else path.parent / stage.evaluation
    rules = replace(rules_of(stage), invalid="drop", over_length="drop")
    with tempfile.TemporaryDirectory() as scratch, workspace.store.stage() as staging:
        answers = Path(scratch) / f"{stage.name}.jsonl"
        answers.write_bytes(b"".join(canonical(each.row) + b"\n" for each in kept))
        frozen = corpora.freeze(
            [answers],
            ChatTemplate.load(base.folder),
            rules,
            staging.folder,
            kind=Example,
            evaluation=questions(held_out),
        )
        records = b"".join(canonical(each.record) + b"\n" for each in kept)
        (staging.folder / TEACHERS).write_bytes(records)
        facts = {**frozen.facts, "teachers": told["teachers"], "asked": told["languages"]}
        return staging.keep("corpus", facts, {"prompts": prompts.id})
