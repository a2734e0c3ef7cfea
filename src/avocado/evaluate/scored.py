"""What two models answered to the items of one suite, item by item, with their scores.

Knows nothing about statistics or folders; :mod:`avocado.evaluate.scorecard` compares and keeps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from avocado.evaluate.compare import Pairs
from avocado.evaluate.run import Result
from avocado.evaluate.suite import Suite, SuiteError
from avocado.lineage import Json, canonical

Role = Literal["target", "guard"]
"""What a suite is for: the gain that is wanted, or what must not be lost on the way."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One item: the last thing that was said to the models, what was expected, both answers."""

    question: str
    expected: str
    base: Result
    other: Result


@dataclass(frozen=True)
class Scored:
    """Both models on one suite. ``metric`` says what a score is; ``sha256`` is the suite's."""

    name: str
    role: Role
    metric: str
    sha256: str
    rows: tuple[Asked, ...]

    @classmethod
    def of(cls, suite: Suite, base: Sequence[Result], other: Sequence[Result]) -> Scored:
        """Puts two runs of ``suite`` side by side.

        Raises:
            SuiteError: the results are not those of the suite's items, in its order.
        """
        for results in (base, other):
            if [result.item for result in results] != [item.id for item in suite.items]:
                raise SuiteError(f"these results are not those of the suite {suite.name!r}")
        rows = (
            Asked(str(item.messages[-1]["content"]), item.answer, left, right)
            for item, left, right in zip(suite.items, base, other, strict=True)
        )
        return cls(suite.name, suite.role, suite.metric, suite.sha256, tuple(rows))

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """In the order in which they first appear."""
        return tuple(dict.fromkeys(row.base.language for row in self.rows))

    def pairs(self, language: str | None = None) -> Pairs:
        """Scores and clusters of one language, or of all items."""
        rows = [row for row in self.rows if language in (None, row.base.language)]
        return Pairs(
            tuple(row.base.score for row in rows),
            tuple(row.other.score for row in rows),
            tuple(row.base.cluster or row.base.item for row in rows),
        )


def lines(scored: Sequence[Scored]) -> bytes:
    """Every suite, a line of its facts and then a line an item. Times are left out: the same
    answers give the same bytes on any machine."""
    return b"".join(canonical(row) + b"\n" for row in _rows(scored))


def _rows(scored: Sequence[Scored]) -> Iterator[Json]:
    for each in scored:
        yield {
            "suite": each.name,
            "role": each.role,
            "metric": each.metric,
            "sha256": each.sha256,
            "items": len(each.rows),
        }
        for row in each.rows:
            yield {
                "question": row.question,
                "expected": row.expected,
                "base": _timeless(row.base),
                "checkpoint": _timeless(row.other),
            }


def _timeless(result: Result) -> Json:
    facts = result.to_json()
    del facts["seconds"]
    return facts


def read_lines(data: bytes) -> tuple[Scored, ...]:
    """What :func:`lines` wrote; every answer took 0 seconds."""
    rows = iter(data.splitlines())
    found = []
    for line in rows:
        head = json.loads(line)
        asked = tuple(_asked(json.loads(next(rows))) for _ in range(head["items"]))
        found.append(Scored(head["suite"], head["role"], head["metric"], head["sha256"], asked))
    return tuple(found)


def _asked(row: Json) -> Asked:
    sides = (Result(**row[side], seconds=0.0) for side in ("base", "checkpoint"))
    return Asked(row["question"], row["expected"], *sides)
