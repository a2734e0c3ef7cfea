"""Corpus: accepted examples, frozen into a folder whose hash is the same on every machine.

``examples.jsonl`` holds one example a line in canonical JSON, in the order in which the sources
were given, with the file and row that each came from. Knows nothing of where artifacts are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, overload

from avocado.data import sources
from avocado.data.chat import ChatTemplate
from avocado.data.checks import Checker, Report, Rules, asks, questions_of
from avocado.data.document import Document
from avocado.data.example import Example
from avocado.data.preference import Label, Preference
from avocado.data.problem import Problem
from avocado.data.provenance import UNKNOWN
from avocado.data.record import FILE as FILES
from avocado.data.record import PLURAL
from avocado.data.rejection import Rejection
from avocado.errors import Refused
from avocado.lineage import canonical, digest_file

HELD_OUT: Final = "held_out.jsonl"

REASONS_SHOWN: Final = 10
"""Rejected rows that a refusal names before it says how many more there are."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """A frozen corpus: the manifest's ``facts``, and the ``report`` of the checks."""

    facts: Mapping[str, Any]
    report: Report


def survey(
    paths: Sequence[Path],
    template: ChatTemplate,
    rules: Rules,
    *,
    evaluation: Iterable[Sequence[Mapping[str, Any]]] = (),
    licence: str = UNKNOWN,
) -> Report:
    """Checks ``paths`` and keeps nothing. Arguments and errors as for :func:`freeze`."""
    checker = Checker(template, rules, evaluation)
    for _ in checker.accept(_items(sources.find(paths), licence)):
        pass
    return checker.report()


def freeze(
    paths: Sequence[Path],
    template: ChatTemplate,
    rules: Rules,
    folder: Path,
    *,
    evaluation: Iterable[Sequence[Mapping[str, Any]]] = (),
    licence: str = UNKNOWN,
) -> Corpus:
    """Reads and checks ``paths`` and writes the accepted examples into ``folder``.

    ``evaluation`` holds the messages of the items that the model will be judged on; ``licence`` is
    that of rows which state none. The same files give the same bytes and facts on any machine.

    Raises:
        Refused: a source is missing or empty, a row is invalid and ``rules`` do not say to drop
            such rows (up to ten are named), or nothing was accepted. Nothing is left in ``folder``.
    """
    files = sources.find(paths)
    checker = Checker(template, rules, evaluation)
    target = folder / FILES[Example]
    try:
        with target.open("wb") as handle:
            for example in checker.accept(_items(files, licence)):
                handle.write(canonical(example.to_json()) + b"\n")
        report = checker.report()
        _refuse(report, rules)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    facts = {
        "format": "messages",
        "template_sha256": template.sha256,
        "max_length": rules.max_length,
        "files": [{"name": file.name, "sha256": digest_file(file.path)} for file in files],
        **report.to_json(),
    }
    return Corpus(facts, report)


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
    path = folder / FILES[kind]
    if not path.is_file():
        other = next((PLURAL[each] for each, name in FILES.items() if (folder / name).exists()), "")
        found = f"it holds {other}" if other else f"it has no {FILES[kind]}"
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


def contamination(folder: Path, evaluation: Iterable[Sequence[Mapping[str, Any]]]) -> list[str]:
    """The rows of a frozen corpus that ask what an evaluation asks, as ``file, row N``."""
    questions = questions_of(evaluation)
    return [f"{each.file}, row {each.row}" for each in read(folder) if asks(each, questions)]


def _items(files: Iterable[sources.SourceFile], licence: str) -> Iterator[Example | Rejection]:
    for file in files:
        yield from sources.read(file, licence)


def _refuse(report: Report, rules: Rules) -> None:
    if report.refused:
        stopping = [reason for reason in report.rejected if rules.of(reason) == "refuse"]
        shown = [each for reason in stopping for each in report.examples[reason]][:REASONS_SHOWN]
        more = report.refused - len(shown)
        if more > 0:
            shown.append(f"… and {more:,} more rows")
        raise Refused(*shown)
    if not report.accepted:
        raise Refused("no row was accepted, so there is nothing to train on")
