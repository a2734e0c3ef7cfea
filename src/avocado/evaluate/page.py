"""The scorecard as one HTML page that needs nothing else: no script, no font, no image from afar.

Text of models and suites is escaped, and a content security policy forbids scripts besides. The
same scorecard gives the same bytes: there is no date on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from avocado.evaluate.chart import chart
from avocado.evaluate.report import p_value, percent, points, rows, span, verdict
from avocado.evaluate.run import Result
from avocado.evaluate.scorecard import Scorecard
from avocado.evaluate.suite import Item, Suite
from avocado.lineage import short

SHOWN: Final = 30
"""Items of a kind on the page; the results file has all."""

_STYLE = """
:root { color-scheme: light dark;
  --ink: #1d2a1c; --soft: #5d6b5a; --page: #fbfcf8; --card: #fff; --line: #dfe5d8;
  --base: #a9b3a4; --good: #3f7d2c; --bad: #b3372c; --unsure: #96700f }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e4ebdf; --soft: #9dab98; --page: #14190f; --card: #1c2317; --line: #333d2c;
  --base: #66725f; --good: #8fce72; --bad: #f0887c; --unsure: #e0b84f } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 62rem; background: var(--page);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; letter-spacing: -.01em; text-wrap: balance }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .7rem }
.soft { color: var(--soft) } .better { color: var(--good) } .worse { color: var(--bad) }
.undecided { color: var(--unsure) }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .45rem .8rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap }
th { font-weight: 600; color: var(--soft); font-size: .85rem }
th:first-child, td:first-child { text-align: left } tr.all td { font-weight: 650 }
svg { width: 100%; min-width: 36rem; height: auto; display: block; margin-bottom: 1rem }
svg text { fill: var(--ink); font-size: 13px }
svg .axis { stroke: var(--line) } svg .soft { fill: var(--soft); font-size: 12px }
svg .base { fill: var(--base) } svg .better { fill: var(--good) } svg .worse { fill: var(--bad) }
svg .undecided { fill: var(--unsure) } svg .range { stroke: var(--ink); stroke-width: 1.5 }
.item { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: .9rem 1.1rem; margin: .7rem 0 }
.item p { margin: 0 0 .5rem; white-space: pre-wrap; overflow-wrap: anywhere }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .7rem }
.sides h4 { margin: 0 0 .2rem; font-size: .78rem; font-weight: 600; color: var(--soft) }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 13px/1.5 ui-monospace, monospace }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0;
  font-size: .9rem } dt { color: var(--soft) }
dd { margin: 0; overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: .82rem }
"""


def page(
    scorecard: Scorecard, suite: Suite, base: Sequence[Result], other: Sequence[Result]
) -> str:
    """The whole page."""
    overall = scorecard.overall
    word = verdict(overall)
    size = f"{abs(100 * overall.difference):.1f}"
    headline = {
        "better": f"The refined model is {size} points better than its base",
        "worse": f"The refined model is {size} points worse than its base",
        "undecided": "The difference between the refined model and its base is undecided",
    }[word]
    body = [
        f'<h1 class="{word}">{headline}</h1>',
        *_regressions(scorecard),
        f'<p class="soft">{escape(suite.name)}: {overall.n} items, '
        f"{percent(overall.base / overall.n)} → {percent(overall.other / overall.n)}, "
        f"{100 * scorecard.confidence:g}% interval of the difference {span(overall)} points. "
        f"{overall.won} items won, {overall.lost} lost.</p>",
        "<h2>Right answers per language</h2>",
        f'<p class="soft">Grey: the base. Below it: the refined model, '
        f'<span class="better">better</span>, <span class="worse">worse</span> or '
        f'<span class="undecided">undecided</span>. Lines: {100 * scorecard.confidence:g}% '
        "intervals (Wilson).</p>",
        f'<div class="wide">{chart(scorecard)}</div>',
        f'<div class="wide">{_table(scorecard)}</div>',
        *_samples(suite, base, other),
        _origins(scorecard),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(suite.name)}: scorecard</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _regressions(scorecard: Scorecard) -> list[str]:
    """Languages that got worse stand above everything else, whatever the whole says."""
    worse = [name for name, each in scorecard.languages.items() if verdict(each) == "worse"]
    names = ", ".join(map(escape, worse))
    return [f'<p class="worse"><b>Worse than its base in: {names}.</b></p>'] if worse else []


def _table(scorecard: Scorecard) -> str:
    names = ("language", "items", "base", "refined", "difference", "interval", "won", "lost", "p")
    lines = ["<tr>" + "".join(f"<th>{name}</th>" for name in names) + "</tr>"]
    for name, each in rows(scorecard):
        cells = (
            escape(name),
            str(each.n),
            percent(each.base / each.n),
            percent(each.other / each.n),
            f'<span class="{verdict(each)}">{points(each.difference)}</span>',
            span(each),
            str(each.won),
            str(each.lost),
            p_value(each.p),
        )
        mark = ' class="all"' if each is scorecard.overall else ""
        lines.append(f"<tr{mark}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _samples(suite: Suite, base: Sequence[Result], other: Sequence[Result]) -> list[str]:
    """Regressions first, then what both got wrong, then gains."""
    kinds = (
        ("Lost: the base was right, the refined model is not", True, False),
        ("Still wrong", False, False),
        ("Won: the base was wrong, the refined model is right", False, True),
        ("Right before and after", True, True),
    )
    parts = []
    for title, was, now in kinds:
        chosen = [
            _sample(item, left, right)
            for item, left, right in zip(suite.items, base, other, strict=True)
            if (left.correct, right.correct) == (was, now)
        ]
        if chosen:
            more = len(chosen) - SHOWN
            rest = f'<p class="soft">and {more} more, in the results file</p>' if more > 0 else ""
            shown = "".join(chosen[:SHOWN])
            parts.append(f"<h2>{title} ({len(chosen)})</h2>{shown}{rest}")
    return parts


def _sample(item: Item, left: Result, right: Result) -> str:
    question = escape(str(item.messages[-1]["content"]))
    sides = (
        ("expected", item.answer, ""),
        ("base", left.text, "better" if left.correct else "worse"),
        ("refined", right.text, "better" if right.correct else "worse"),
    )
    columns = "".join(
        f'<div><h4>{name}</h4><pre dir="auto" class="{mark}">{escape(text) or "(nothing)"}</pre>'
        "</div>"
        for name, text, mark in sides
    )
    return (
        f'<div class="item"><p dir="auto" lang="{escape(item.language)}">{question}</p>'
        f'<div class="sides">{columns}</div>'
        f'<p class="soft" style="margin: .5rem 0 0; font-size: .8rem">{escape(item.id)} · '
        f"{escape(item.language)}</p></div>"
    )


def _origins(scorecard: Scorecard) -> str:
    facts = {
        **{role: short(parent) for role, parent in scorecard.parents.items()},
        "suite SHA-256": scorecard.suite_sha256,
        "results SHA-256": scorecard.results_sha256,
        "sampling": f"greedy, at most {scorecard.max_tokens} tokens",
        "interval": f"{100 * scorecard.confidence:g}%: the wider of paired bootstrap "
        f"({scorecard.resamples} resamples, seed {scorecard.seed}) and Newcombe 1998",
        "p": "exact McNemar, two-sided",
    }
    pairs = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return f"<h2>Where this comes from</h2><dl>{pairs}</dl>"
