"""The page is whole, safe whatever a model says, and puts what got worse above everything else."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from avocado.evaluate.page import Ruling, page
from avocado.evaluate.scored import Asked, Scored
from avocado.evaluate.timing import Timing
from tests.evaluate.rows import EVIL, card, result, scored


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_a_language_that_lost_is_named_at_the_top_even_of_a_gain() -> None:
    suite = scored({"de": (0.1, 0.95), "fr": (0.1, 0.95), "zh": (0.9, 0.2)}, name="dates")
    html = page(card(suite), [suite])
    worse = html.index("Worse than its base in: dates · zh.")
    assert html.index("points better than its base") < worse < html.index("<svg")
    right = Scored("s", "target", "m", "a" * 64, tuple(r for r in suite.rows if r.base.score))
    assert "Worse than" not in page(card(_unchanged(right)), [_unchanged(right)])


def _unchanged(suite: Scored) -> Scored:
    rows = tuple(Asked(row.question, row.expected, row.base, row.base) for row in suite.rows)
    return Scored(suite.name, suite.role, suite.metric, suite.sha256, rows)


def test_the_page_is_whole_and_nothing_of_a_model_becomes_markup() -> None:
    suite = scored({"de": (0.3, 0.8), 'x" onload="y': (0.5, 0.5)})
    ruling = Ruling("refused", [EVIL])
    timing = {"base": Timing(9, 0.1, 0.2, 30), "checkpoint": Timing(9, 0.1, 0.2, 30)}
    html = page(card(suite), [suite], ruling=ruling, timings=timing, card=EVIL)
    parser = Tags()
    parser.feed(html)
    names = {tag for tag, _ in parser.tags}
    assert "script" not in names
    assert "img" not in names
    assert not any(key.startswith("on") for _, attributes in parser.tags for key in attributes)
    assert not re.search(r"(?:src|href)=|url\(|@import", html.replace("src=x", ""))
    assert "default-src 'none'" in html
    assert html == page(card(suite), [suite], ruling=ruling, timings=timing, card=EVIL)


def test_items_lost_come_first_and_every_kind_is_counted() -> None:
    suite = scored({"de": (0.3, 0.8), "en": (0.5, 0.5)})
    html = page(card(suite), [suite])
    lost = sum(row.other.score < row.base.score for row in suite.rows)
    assert f">Lost ({lost})</label>" in html
    assert html.index('class="item lost') < html.index('class="item wrong')
    assert html.index('class="item wrong') < html.index('class="item won')


def test_every_filter_has_its_rule_and_its_items() -> None:
    suites = [
        scored({"de": (0.3, 0.8), "en": (0.5, 0.5)}, name="dates"),
        scored({"fr": (0.5, 0.5)}, name="general", role="guard"),
    ]
    html = page(card(*suites), suites)
    for button in re.findall(r'<input type="radio" name="[kls]" id="([kls]\d+)"', html):
        if not button.endswith("0"):
            assert f"body:has(#{button}:checked) .item:not(.{button})" in html
            assert re.search(rf'class="item [^"]*\b{button}\b', html), button


def test_scores_that_are_not_right_or_wrong_are_told_as_numbers() -> None:
    rows = (Asked("q", "", result("i", "en", 0.25), result("i", "en", 0.75)),)
    suite = Scored("judged", "target", "mean score", "a" * 64, rows)
    html = page(card(suite), [suite])
    assert "score 0.25 → 0.75" in html
    assert "<h4>expected</h4>" not in html


def test_the_gates_ruling_cost_latency_and_origin_stand_on_it() -> None:
    suite = scored({"de": (0.1, 0.9)}, name="dates")
    scorecard = card(suite)
    timing = Timing(40, 0.25, 0.75, 33.3)
    html = page(
        scorecard,
        [suite],
        timings={"checkpoint": timing},
        ruling=Ruling("undecided", ["about 120 more items would tell"]),
        card="scorecard-1234",
    )
    assert "The gate: undecided." in html
    assert "about 120 more items would tell" in html
    assert "0.75 s" in html
    assert f"{100 * scorecard.overall.detectable:.1f}" in html
    for origin in ("scorecard-1234", *scorecard.parents.values(), scorecard.measured.checkpoint):
        assert origin in html
