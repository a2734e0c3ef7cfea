"""A scorecard is a value: the same results, the same hash; it reads back; its page is safe."""

from __future__ import annotations

import dataclasses
import io
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from avocado.evaluate.page import page
from avocado.evaluate.report import table
from avocado.evaluate.run import Result
from avocado.evaluate.scorecard import Scorecard, read_results, write_results
from avocado.evaluate.suite import Item, Suite, SuiteError

PARENTS = {"checkpoint": "checkpoint-" + "c" * 64, "base": "base-" + "b" * 64}
EVIL = "</pre><script>alert(1)</script>&\"'<img src=x onerror=alert(1)>"


def results(
    rates: dict[str, tuple[float, float]], n: int = 40, seed: int = 1
) -> tuple[Suite, list[Result], list[Result]]:
    """A suite, and results of two models right at given rates per language."""
    draw = random.Random(seed)
    items: list[Item] = []
    base: list[Result] = []
    other: list[Result] = []
    for language, pair in rates.items():
        for k in range(n):
            item = Item(f"{language}-{k}", language, ({"role": "user", "content": EVIL},), "{}")
            items.append(item)
            for side, rate in zip((base, other), pair, strict=True):
                right = draw.random() < rate
                text = "{}" if right else EVIL
                side.append(Result(item.id, language, text, right, "stop", 3))
    return Suite("dates <b>", tuple(items), "json"), base, other


def card(suite: Suite, base: list[Result], other: list[Result]) -> Scorecard:
    return Scorecard.of(suite, base, other, parents=PARENTS, max_tokens=64)


def test_it_counts_per_language_and_overall() -> None:
    suite, base, other = results({"de": (0.1, 0.9), "zh": (0.5, 0.5)})
    scorecard = card(suite, base, other)
    assert list(scorecard.languages) == ["de", "zh"]
    assert scorecard.overall.n == sum(each.n for each in scorecard.languages.values()) == 80
    assert scorecard.overall.won == sum(each.won for each in scorecard.languages.values())
    assert scorecard.languages["de"].other == sum(r.correct for r in other if r.language == "de")
    assert scorecard.languages["de"].low > 0


def test_the_same_results_give_the_same_hash_and_others_another() -> None:
    suite, base, other = results({"de": (0.1, 0.9)})
    first = card(suite, base, other)
    assert card(suite, base, other).sha256 == first.sha256
    changed = [dataclasses.replace(other[0], text="other"), *other[1:]]
    assert card(suite, base, changed).sha256 != first.sha256
    assert dataclasses.replace(first, parents={}).sha256 != first.sha256


def test_facts_and_results_read_back(tmp_path: Path) -> None:
    suite, base, other = results({"de": (0.1, 0.9), "en": (0.3, 0.8)})
    scorecard = card(suite, base, other)
    facts = json.loads(json.dumps(scorecard.facts()))
    again = Scorecard.from_facts(facts, PARENTS)
    assert again.facts() == facts
    assert again.sha256 == scorecard.sha256
    write_results(tmp_path, base, other)
    assert read_results(tmp_path) == (tuple(base), tuple(other))


def test_results_of_other_items_are_refused() -> None:
    suite, base, other = results({"de": (0.1, 0.9)})
    with pytest.raises(SuiteError, match="not those of the suite"):
        card(suite, base, other[1:])
    with pytest.raises(SuiteError, match="not those of the suite"):
        card(suite, base, other[::-1])


def test_the_table_has_a_row_a_language_and_says_what_is_undecided() -> None:
    suite, base, other = results({"de": (0.1, 0.9), "fr": (0.5, 0.5), "es": (0.9, 0.1)})
    console = Console(width=120, file=io.StringIO())
    console.print(table(card(suite, base, other)))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["language", "de", "fr", "es", "all"]
    assert [line.split()[-1] for line in lines[1:4]] == ["better", "undecided", "worse"]


def test_a_language_that_lost_is_named_at_the_top_even_of_a_gain() -> None:
    suite, base, other = results({"de": (0.1, 0.95), "fr": (0.1, 0.95), "zh": (0.9, 0.2)})
    html = page(card(suite, base, other), suite, base, other)
    assert html.index("points better than its base") < html.index("Worse than its base in: zh.")
    assert "Worse than" not in page(card(suite, base, base), suite, base, base)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_is_whole_and_nothing_of_a_model_becomes_markup() -> None:
    suite, base, other = results({"de": (0.3, 0.8), 'x" onload="y': (0.5, 0.5)})
    html = page(card(suite, base, other), suite, base, other)
    parser = Tags()
    parser.feed(html)
    names = {tag for tag, _ in parser.tags}
    assert "script" not in names
    assert "img" not in names
    assert not any(key.startswith("on") for _, attributes in parser.tags for key in attributes)
    assert not re.search(r"(?:src|href)=|url\(|@import", html.replace("src=x", ""))
    assert "default-src 'none'" in html
    assert html == page(card(suite, base, other), suite, base, other)
    lost = sum(a.correct and not b.correct for a, b in zip(base, other, strict=True))
    assert f"Lost: the base was right, the refined model is not ({lost})" in html
    assert html.index("Lost:") < html.index("Still wrong") < html.index("Won:")
