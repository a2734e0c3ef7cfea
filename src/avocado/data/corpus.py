"""Corpus: accepted records, frozen into a folder whose hash is the same on every machine.

One file holds what is learnt (``examples.jsonl``, or that of another kind of record), one record a
line in canonical JSON, in the order in which the sources were given, with the file and row that it
came from; ``held_out.jsonl`` holds what is not learnt. Knows nothing of where artifacts are kept.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar, overload

from avocado.data import holdout as holdouts
from avocado.data.chat import ChatTemplate
from avocado.data.checks import Checker, Report, Rules
from avocado.data.contamination import Evaluation, Messages, Question, found_in
from avocado.data.document import Document
from avocado.data.example import Example
from avocado.data.intake import Intake
from avocado.data.preference import Label, Preference
from avocado.data.problem import Problem
from avocado.data.record import FILE, PLURAL, Record, RecordType
from avocado.data.rejection import Rejection
from avocado.data.sources import Source
from avocado.errors import Refused
from avocado.lineage import canonical, digest

HELD_OUT: Final = "held_out.jsonl"

REASONS_SHOWN: Final = 10
"""Rejected rows that a refusal names before it says how many more there are."""

_DRAFT: Final = "draft.jsonl"


@dataclass(frozen=True, slots=True)
class Corpus:
    """A frozen corpus: the manifest's ``facts``, and the ``report`` of the checks."""

    facts: dict[str, Any]
    report: Report


@dataclass(frozen=True, slots=True)
class Survey:
    """What was read, as ``facts`` (see ``intake.lines``), and the checks' ``report``."""

    report: Report
    facts: dict[str, Any]


def survey(
    sources: Iterable[Source | Path],
    template: ChatTemplate,
    rules: Rules,
    *,
    kind: RecordType | None = None,
    evaluation: Iterable[Question | Messages] = (),
) -> Survey:
    """Checks ``sources`` and keeps nothing; where ``kind`` is None, it is that of the first file.

    Arguments and errors otherwise as for :func:`freeze`, but no row stops it.
    """
    intake = Intake(_full(sources), kind)
    checker = Checker(template, rules, evaluation)
    mixture = _Mixture(intake)
    for _ in checker.accept(mixture):
        pass
    facts = {**_described(intake), "thinned": mixture.thinned}
    return Survey(checker.report(), facts)


def freeze(
    sources: Iterable[Source | Path],
    template: ChatTemplate,
    rules: Rules,
    folder: Path,
    *,
    kind: RecordType = Example,
    evaluation: Iterable[Question | Messages] = (),
    holdout: float = 0.0,
) -> Corpus:
    """Reads and checks ``sources`` and writes the accepted records into ``folder``.

    A path is a source of weight 1. ``kind`` is what the recipe's method learns from, ``evaluation``
    holds the items that the model will be judged on, and ``holdout`` is the share of the rows that
    are kept apart, whole groups of them. The same files give the same bytes and facts on any
    machine.

    Raises:
        Refused: a source is missing, empty or holds no records of ``kind``, a row is invalid and
            ``rules`` do not say to drop such rows (up to ten are named), or nothing was accepted.
            Nothing is left in ``folder``.
    """
    intake = Intake(_full(sources), kind)
    checker = Checker(template, rules, evaluation)
    mixture = _Mixture(intake)
    names = _DRAFT, FILE[kind], HELD_OUT
    try:
        split = _write(folder, mixture, checker, rules, holdout)
    except BaseException:
        for name in names:
            (folder / name).unlink(missing_ok=True)
        raise
    report = checker.report()
    facts = {
        **_described(intake),
        "template_sha256": template.sha256,
        "max_length": rules.max_length,
        "thinned": mixture.thinned,
        **split,
        **report.to_json(),
    }
    return Corpus(facts, report)


def _full(sources: Iterable[Source | Path]) -> list[Source]:
    return [Source(each) if isinstance(each, Path) else each for each in sources]


def _described(intake: Intake) -> dict[str, Any]:
    return {
        "kind": intake.kind.__name__.lower(),
        "files": intake.facts(),
        "left_out": list(intake.left_out),
    }


@dataclass
class _Mixture:
    """The records of an intake that their weights let in, and how often each comes."""

    intake: Intake
    thinned: int = field(init=False, default=0)
    """Rows that a weight below 1 has left out."""

    def __iter__(self) -> Iterator[Record | Rejection]:
        for item in self.intake:
            if isinstance(item, Rejection) or self.copies(item):
                yield item
            else:
                self.thinned += 1

    def copies(self, record: Record) -> int:
        """How often ``record`` is learnt in one epoch.

        The part of a weight behind the point is the share of the rows that come once more, chosen
        by the hash of what they say: the same rows in any order, and more of them at more weight.
        """
        weight = self.intake.source(record).weight
        whole = int(weight)
        if weight == whole:
            return whole
        place = int(digest(f"weight {record.sha256}".encode())[:16], 16) / 2**64
        return whole + (place < weight - whole)


@dataclass
class _Draft:
    """What is known of each accepted row besides its line, in order; 13 bytes a row."""

    copies: array[int] = field(default_factory=lambda: array("I"))
    keys: array[int] = field(default_factory=lambda: array("Q"))
    replay: array[int] = field(default_factory=lambda: array("B"))


def _write(
    folder: Path, mixture: _Mixture, checker: Checker, rules: Rules, holdout: float
) -> dict[str, Any]:
    """Writes the corpus's files; how many records are in which."""
    path = folder / _DRAFT
    draft = _Draft()
    first: dict[str, int] = {}
    with path.open("wb") as handle:
        for place, record in enumerate(checker.accept(mixture)):
            handle.write(canonical(record.to_json()) + b"\n")
            draft.copies.append(mixture.copies(record) or 1)
            if holdout:
                key = record.group or record.sha256
                draft.keys.append(int(digest(key.encode())[:16], 16))
                draft.replay.append(mixture.intake.source(record).replay)
                if record.group:
                    checker.groups.join(first.setdefault(record.group, place), place)
    _refuse(checker.report(), rules)
    learnt = folder / FILE[mixture.intake.kind]
    if not holdout and max(draft.copies) == 1:
        path.rename(learnt)
        return {"learnt": len(draft.copies), "held_out": 0}
    held: frozenset[int] = frozenset()
    groups = checker.groups.all()
    if holdout:
        held = holdouts.chosen(groups, draft.keys, [bool(each) for each in draft.replay], holdout)
    counts = [0, 0]
    with path.open("rb") as lines, learnt.open("wb") as kept, (folder / HELD_OUT).open("wb") as out:
        for line, group, copies in zip(lines, groups, draft.copies, strict=True):
            if group in held:
                out.write(line)
                counts[1] += 1
            else:
                kept.write(line * copies)
                counts[0] += copies
    path.unlink()
    if not held:
        (folder / HELD_OUT).unlink()
    return {"learnt": counts[0], "held_out": counts[1]}


def _refuse(report: Report, rules: Rules) -> None:
    if report.refused:
        stopping = [reason for reason in report.rejected if rules.of(reason) == "refuse"]
        shown = [each for reason in stopping for each in report.examples[reason]][:REASONS_SHOWN]
        more = report.refused - len(shown)
        if more > 0:
            shown.append(f"… and {more:,} more rows")
        raise Refused(*shown, f"mend the data, or leave such rows out: {rules.remedies(stopping)}")
    if not report.accepted:
        raise Refused("no row was accepted, so there is nothing to train on")


R = TypeVar("R", Example, Document, Preference, Label, Problem)


@overload
def read(folder: Path, *, held_out: bool = False) -> Iterator[Example]: ...


@overload
def read(folder: Path, kind: type[R], *, held_out: bool = False) -> Iterator[R]: ...


def read(folder: Path, kind: type[Any] = Example, *, held_out: bool = False) -> Iterator[Any]:
    """Streams the records of a frozen corpus: those to learn from, or those that are ``held_out``
    (none where the recipe holds nothing out).

    Raises:
        Refused: ``folder`` is no corpus of that ``kind``, or its file is damaged.
    """
    path = folder / FILE[kind]
    if not path.is_file():
        other = kind_of(folder)
        found = f"it holds {PLURAL[other]}" if other else f"it has no {FILE[kind]}"
        raise Refused(f"{folder} is no corpus of {PLURAL[kind]}: {found}")
    if held_out:
        path = folder / HELD_OUT
        if not path.exists():
            return
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            try:
                yield kind.from_json(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise Refused(f"{path}, row {number} is damaged: {error}") from error


def kind_of(folder: Path) -> RecordType | None:
    """The kind of record that the corpus in ``folder`` holds; None where it is no corpus."""
    return next((kind for kind, name in FILE.items() if (folder / name).is_file()), None)


def contamination(folder: Path, evaluation: Iterable[Question | Messages]) -> list[str]:
    """The rows of a frozen corpus that ask what an evaluation asks, as ``file, row N``."""
    items = Evaluation(evaluation)
    rows: Iterator[Any] = read(folder, kind_of(folder) or Example)
    return [f"{row.file}, row {row.row}" for row in rows if found_in(row, items)]
