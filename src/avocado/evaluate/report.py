"""The scorecard for people: a table for the terminal. :mod:`avocado.evaluate.page` makes the page,
:mod:`avocado.evaluate.plot` the pictures.

Pure: a scorecard in, a table out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from avocado.evaluate.compare import Comparison
from avocado.evaluate.scorecard import Scorecard
from avocado.evaluate.significance import holm

if TYPE_CHECKING:
    from rich.table import Table

ALL: Final = "all"
"""Stands for a language in the row of all items of a suite."""

Word = Literal["better", "worse", "undecided"]


def percent(rate: float) -> str:
    return f"{100 * rate:.1f}%"


def points(difference: float) -> str:
    """A difference of scores in points of a hundred, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def span(comparison: Comparison) -> str:
    """The interval of the difference, in points."""
    return f"{points(comparison.low)} … {points(comparison.high)}"


def p_value(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


@dataclass(frozen=True, slots=True)
class Row:
    """One language of a suite, or all of its items together (``whole``)."""

    suite: str
    language: str
    whole: bool
    compared: Comparison
    holm: float
    """The p-value, corrected for the number of rows that are told apart."""

    @property
    def word(self) -> Word:
        return verdict(self.compared)

    @property
    def name(self) -> str:
        return self.suite if self.whole else f"{self.suite} · {self.language}"


def rows(scorecard: Scorecard) -> Iterator[Row]:
    """Suite by suite: languages in its order, then all items where there are several languages."""
    found = [
        (name, language, False, each)
        for name, suite in scorecard.suites.items()
        for language, each in suite.languages.items()
    ]
    adjusted = dict(zip(((s, x) for s, x, *_ in found), holm([f[3].p for f in found]), strict=True))
    for name, suite in scorecard.suites.items():
        several = len(suite.languages) > 1
        for language, each in suite.languages.items():
            yield Row(name, language, not several, each, adjusted[name, language])
        if several:
            yield Row(name, ALL, True, suite.overall, suite.overall.p)


def regressions_first(scorecard: Scorecard) -> list[Row]:
    """Rows by what is worst: proven losses, then losses that were seen, then the rest."""
    order = {"worse": 0, "undecided": 1, "better": 2}
    return sorted(rows(scorecard), key=lambda row: (order[row.word], row.compared.difference))


def verdict(comparison: Comparison) -> Word:
    """What the interval says, in a word."""
    if comparison.low > 0:
        return "better"
    return "worse" if comparison.high < 0 else "undecided"


def table(scorecard: Scorecard) -> Table:
    """A row a language: items, both scores, the difference in points with its interval, and the
    smallest difference that the row could have shown."""
    from rich.table import Table

    confidence = f"{100 * scorecard.confidence:g}% interval"
    result = Table(box=None, pad_edge=False, header_style="bold")
    several = len(scorecard.suites) > 1
    names = ("language", "items", "base", "refined", "difference", confidence, "detects", "p", "")
    for name in (("suite",) if several else ()) + names:
        numeric = name not in ("suite", "language", "")
        result.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    colours = {"better": "green", "worse": "red", "undecided": "yellow"}
    last = ""
    for row in rows(scorecard):
        each = row.compared
        result.add_row(
            *(((row.suite if row.suite != last else ""),) if several else ()),
            row.language,
            str(each.n),
            percent(each.base / each.n),
            percent(each.other / each.n),
            points(each.difference),
            span(each),
            f"{100 * each.detectable:.1f}",
            p_value(each.p),
            f"[{colours[row.word]}]{row.word}[/]",
            style="bold" if row.language == ALL else "",
        )
        last = row.suite
    return result


def caveat(scorecard: Scorecard) -> str:
    """What the column "detects" means, for one who reads a table for the first time."""
    smallest = 100 * scorecard.overall.detectable
    return (
        f"detects: a smaller true difference stays undecided more often than one time in five "
        f"(all items of the target: {smallest:.1f} points)"
    )
