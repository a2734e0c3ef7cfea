"""The terminal's table, the order of rows, and the pictures."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from avocado.evaluate.plot import write_plots
from avocado.evaluate.report import caveat, regressions_first, rows, table
from avocado.evaluate.scorecard import Scorecard
from tests.evaluate.rows import card, scored


def printed(scorecard: Scorecard) -> list[str]:
    console = Console(width=140, file=io.StringIO())
    console.print(table(scorecard))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_table_has_a_row_a_language_and_says_what_is_undecided() -> None:
    lines = printed(card(scored({"de": (0.1, 0.9), "fr": (0.5, 0.5), "es": (0.9, 0.1)})))
    assert [line.split()[0] for line in lines] == ["language", "de", "fr", "es", "all"]
    assert [line.split()[-1] for line in lines[1:4]] == ["better", "undecided", "worse"]


def test_several_suites_are_told_apart() -> None:
    target = scored({"de": (0.1, 0.9), "fr": (0.1, 0.9)}, name="dates")
    guard = scored({"en": (0.9, 0.2)}, name="general", role="guard")
    lines = printed(card(target, guard))
    assert lines[0].split()[0] == "suite"
    assert [line.split()[0] for line in lines[1:]] == ["dates", "fr", "all", "general"]


def test_the_smallest_difference_that_can_be_shown_stands_in_the_table() -> None:
    scorecard = card(scored({"de": (0.5, 0.55)}, n=100))
    smallest = f"{100 * scorecard.overall.detectable:.1f}"
    assert smallest in printed(scorecard)[1].split()
    assert smallest in caveat(scorecard)


def test_regressions_come_first_worst_first() -> None:
    scorecard = card(
        scored({"de": (0.1, 0.9), "fr": (0.9, 0.5), "es": (0.5, 0.48), "zh": (0.9, 0.1)})
    )
    names = [row.language for row in regressions_first(scorecard)]
    assert names[:2] == ["zh", "fr"]
    assert names[-1] == "de"


def test_p_values_of_languages_are_corrected_for_their_number() -> None:
    scorecard = card(scored({f"l{k}": (0.5, 0.6) for k in range(8)}))
    languages = [row for row in rows(scorecard) if row.language != "all"]
    smallest = min(languages, key=lambda row: row.compared.p)
    assert smallest.holm == min(1.0, 8 * smallest.compared.p)


def test_pictures_are_written_whatever_a_suite_is_called(tmp_path: Path) -> None:
    scorecard = card(scored({"de": (0.1, 0.9), "$x^": (0.5, 0.5)}, name="a$b_{"))
    paths = write_plots(scorecard, tmp_path)
    assert [path.name for path in paths] == ["differences.png", "scores.png"]
    first = [path.read_bytes() for path in paths]
    assert all(data.startswith(b"\x89PNG") for data in first)
    assert [path.read_bytes() for path in write_plots(scorecard, tmp_path)] == first
