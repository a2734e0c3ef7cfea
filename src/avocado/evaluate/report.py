"""The scorecard for people: a table for the terminal. :mod:`avocado.evaluate.page` makes the page.

Pure: a scorecard in, a table out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from avocado.evaluate.compare import Comparison
from avocado.evaluate.scorecard import Scorecard

if TYPE_CHECKING:
    from rich.table import Table


def percent(rate: float) -> str:
    return f"{100 * rate:.1f}%"


def points(difference: float) -> str:
    """A difference of rates in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def span(comparison: Comparison) -> str:
    """The interval of the difference, in points."""
    return f"{points(comparison.low)} … {points(comparison.high)}"


def p_value(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def rows(scorecard: Scorecard) -> Iterator[tuple[str, Comparison]]:
    """Languages in the suite's order, then all items together if there are several languages."""
    yield from scorecard.languages.items()
    if len(scorecard.languages) > 1:
        yield "all", scorecard.overall


def verdict(comparison: Comparison) -> str:
    """What the interval says, in a word."""
    if comparison.low > 0:
        return "better"
    return "worse" if comparison.high < 0 else "undecided"


def table(scorecard: Scorecard) -> Table:
    """A row a language: items, both scores, the difference in points with its interval."""
    from rich.table import Table

    confidence = f"{100 * scorecard.confidence:g}% interval"
    result = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("language", "items", "base", "refined", "difference", confidence, "p", ""):
        numeric = name not in ("language", "")
        result.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    colours = {"better": "green", "worse": "red", "undecided": "yellow"}
    for name, each in rows(scorecard):
        word = verdict(each)
        result.add_row(
            name,
            str(each.n),
            percent(each.base / each.n),
            percent(each.other / each.n),
            points(each.difference),
            span(each),
            p_value(each.p),
            f"[{colours[word]}]{word}[/]",
            style="bold" if each is scorecard.overall else "",
        )
    return result
