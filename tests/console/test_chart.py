"""Charts: what is drawn is what was given, whatever was given."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.console.chart import Caption, Curve, Series, bars, lines, nice, sparkline

CAPTION = Caption("Spend <by> day", "Day", "Show as a table")
VALUES = st.floats(0, 1e12, allow_nan=False)


@given(st.floats(1e-9, 1e15))
def test_an_axis_ends_at_a_round_number_not_far_above(value: float) -> None:
    assert value * 0.99 <= nice(value) <= value * 2.51


@given(st.lists(VALUES, min_size=1, max_size=40), st.integers(1, 8))
def test_bars_are_well_formed_stay_inside_and_tell_their_values(
    values: list[float], count: int
) -> None:
    labels = [f"day {place}" for place in range(len(values))]
    series = [Series(f"model {n}", values) for n in range(count)]
    drawn = bars(labels, series, lambda value: f"{value:.2f}", CAPTION)
    root = ElementTree.fromstring(str(drawn))
    for rect in root.iter("rect"):
        if rect.get("class", "").startswith("bar-") and rect.get("height") != "10":
            top, height = float(rect.get("y", 0)), float(rect.get("height", 0))
            assert -0.5 <= top <= 200.5
            assert top + height <= 200.5
    rows = list(root.iter("tr"))
    assert len(rows) == len(values) + 1
    assert "style=" not in str(drawn)


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.floats(-1e6, 1e6) | st.just(float("nan"))),
        max_size=2000,
    )
)
def test_lines_are_well_formed_for_any_points(points: list[tuple[int, float]]) -> None:
    ordered = sorted(points, key=lambda each: each[0])
    curve = Curve("run", [(float(x), y) for x, y in ordered])
    drawn = str(lines([curve], str, str, CAPTION))
    ElementTree.fromstring(drawn)
    assert "nan" not in re.sub(r"<td.*?</td>|<title>.*?</title>", "", drawn)


def test_names_cannot_break_out() -> None:
    evil = '"><script>alert(1)</script>'
    drawn = str(bars([evil], [Series(evil, [1]), Series(evil, [2])], lambda _: evil, CAPTION))
    assert "<script>" not in drawn
    ElementTree.fromstring(drawn)


@pytest.mark.parametrize("values", [[], [0.0], [0.0, 0.0], [1.0, 2.0, 3.0]])
def test_a_sparkline_of_anything(values: list[float]) -> None:
    ElementTree.fromstring(str(sparkline(values, "Requests")))
