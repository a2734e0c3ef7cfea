"""The page of a check: whole, escaped, still where the report is empty, and the same every time."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from avocado.data.chat import ChatTemplate
from avocado.data.checks import Checker, Report, Rules
from avocado.data.example import Example
from avocado.data.page import page
from avocado.data.rejection import Rejection

VOID = {"meta"}


class Balanced(HTMLParser):
    """Fails where a tag is closed that is not open; collects text and tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(html: str) -> Balanced:
    parser = Balanced()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


def talk(question: str, answer: str = "yes", row: int = 1, **more: Any) -> Example:
    turns = {"role": "user", "content": question}, {"role": "assistant", "content": answer}
    return Example(turns, file="<i>a</i>.jsonl", row=row, **more)


@pytest.fixture(scope="module")
def report(seedling: ChatTemplate) -> Report:
    rows: list[Example | Rejection] = [
        talk(f"question {n}", "word " * n, n, language="en", licence="MIT") for n in range(90)
    ]
    evil = "<script>alert(1)</script>"
    rows += [talk("Bitte schreiben Sie an ann@firma.de, wenn Sie Fragen haben.", language="en")]
    rows += [talk("question 3", "word " * 3), talk(evil, source=evil, licence='"><img src=x>')]
    bad = Rejection("b.jsonl", 1, f"bad {evil}", f"row {evil}")
    checker = Checker(seedling, Rules(100, over_length="drop"))
    rows.append(bad)
    for _ in checker.accept(rows):
        pass
    return checker.report()


def test_it_needs_nothing_else_and_runs_nothing(report: Report) -> None:
    html = page(report, "<b>data</b>", ["duplicate", "over length"])
    found = parsed(html)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in found.tags}
    for _, attributes in found.tags:
        assert not {"src", "href", "srcset"} & attributes.keys()
    assert "http" not in re.sub(r"http-equiv", "", html)
    assert "default-src 'none'" in html
    assert "prefers-color-scheme: dark" in html
    assert "<script" not in html
    assert "<b>data</b>" not in html


def test_it_shows_every_count_and_reason(report: Report) -> None:
    text = " ".join(parsed(page(report, "data", ["duplicate", "over length"])).text)
    assert f"{report.accepted:,} of {report.rows:,} rows accepted" in text
    assert f"{report.tokens:,}" in text
    assert f"{report.trained:,}" in text
    for reason, count in report.rejected.items():
        assert reason in text
        what = "left out" if reason in ("duplicate", "over length") else "stop training"
        assert f"{count:,} {what}" in text
        for example in report.examples[reason]:
            assert example in text
    for name in (*report.languages, *report.licences, *report.sources, *report.personal):
        assert name in text
    assert "it states en, looks like de" in text


def test_the_bars_of_the_histogram_are_the_counts(report: Report) -> None:
    found = parsed(page(report, "data", []))
    heights = {
        name: sum(
            float(attributes["height"] or 0)
            for tag, attributes in found.tags
            if tag == "rect" and attributes["class"] == name
        )
        for name in ("all", "trained")
    }
    assert heights["all"] == pytest.approx(heights["trained"], rel=0.01), "as many sequences"
    titles = [text for text in found.text if re.search(r" tokens: [\d,]+ sequences$", text)]
    counted = [int(title.split(": ")[1].split()[0]) for title in titles]
    assert sum(counted) == 2 * report.sequences


def test_the_same_report_is_the_same_page(report: Report) -> None:
    assert page(report, "data", []) == page(report, "data", [])


def test_a_report_of_nothing_is_a_page(seedling: ChatTemplate) -> None:
    text = " ".join(parsed(page(Checker(seedling, Rules(64)).report(), "nothing", [])).text)
    assert "There is nothing to train on" in text
