"""The checks' report as one HTML page that needs nothing else: no script, no font, no image.

Text of rows is escaped, and a content security policy forbids scripts besides. The same report
gives the same bytes: there is no date on it. Knows how a report looks, not how it was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final

from avocado.data.report import Histogram, Report

BARS_SHOWN: Final = 12
"""Bars of one list; what is less is added up in a last one."""

_STYLE = """
:root { color-scheme: light dark;
  --ink: #1d2a1c; --soft: #5d6b5a; --page: #fbfcf8; --card: #fff; --line: #dfe5d8; --rest: #edf1e8;
  --all: #a3b59a; --trained: #3f7d2c; --good: #3f7d2c; --bad: #b3372c; --unsure: #8a660c }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e4ebdf; --soft: #9dab98; --page: #14190f; --card: #1c2317; --line: #333d2c;
  --rest: #262e20; --all: #5f7356; --trained: #8fce72; --good: #8fce72; --bad: #f0887c;
  --unsure: #e0b84f } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 62rem; background: var(--page);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; letter-spacing: -.01em; text-wrap: balance }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .7rem }
h3 { font-size: .95rem; margin: 0 0 .6rem }
.soft { color: var(--soft) } .good { color: var(--good) } .bad { color: var(--bad) }
.unsure { color: var(--unsure) }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.8rem, 1fr)); gap: .8rem;
  margin: 1.6rem 0 0 }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: .9rem 1.1rem }
.tile b { display: block; font-size: 1.45rem; line-height: 1.25; font-weight: 650;
  font-variant-numeric: tabular-nums; letter-spacing: -.01em }
.tile span { color: var(--soft); font-size: .85rem }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: .8rem }
.card { min-width: 0 }
.bars { display: grid; grid-template-columns: minmax(3rem, max-content) 1fr max-content;
  gap: .3rem .8rem; align-items: center; font-size: .9rem }
.bars > span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; max-width: 11rem }
.bars > b { font-weight: 400; text-align: right; font-variant-numeric: tabular-nums }
.bars > i { height: .7rem; border-radius: 3px; background: var(--rest) }
.bars > i > i { display: block; height: 100%; min-width: 2px; border-radius: 3px;
  background: var(--trained) }
.wide { overflow-x: auto }
svg { width: 100%; min-width: 38rem; height: auto; display: block }
svg text { fill: var(--soft); font-size: 12px } svg .axis { stroke: var(--line) }
svg .all { fill: var(--all) } svg .trained { fill: var(--trained) }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1.3rem; font-size: .9rem; margin: 0 0 .5rem }
.key i { display: inline-block; width: .75rem; height: .75rem; border-radius: 3px;
  margin-right: .4rem } .key .all { background: var(--all) }
.key .trained { background: var(--trained) }
details { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  margin: .6rem 0; padding: .7rem 1.1rem }
summary { cursor: pointer; font-weight: 600 }
summary span { font-weight: 400; color: var(--soft); margin-left: .5rem }
ul { margin: .5rem 0 0; padding: 0; list-style: none }
li { padding: .35rem 0; border-top: 1px solid var(--line); overflow-wrap: anywhere;
  font: 13px/1.5 ui-monospace, monospace }
"""


def page(report: Report, title: str, dropped: Iterable[str]) -> str:
    """The whole page. ``title`` names the data; the reasons in ``dropped`` stop no training."""
    kept = f"{report.accepted:,} of {report.rows:,} rows accepted"
    body = [
        f'<p class="soft" style="margin:0">Data check</p><h1>{escape(title)}</h1>',
        f"<p>{kept}. {_verdict(report)}</p>",
        _tiles(report),
        "<h2>Length in tokens</h2>",
        _lengths(report),
        "<h2>What is in it</h2>",
        f'<div class="cards">{_contents(report)}</div>',
        *_rejections(report, frozenset(dropped)),
        *_repeated(report),
        *_personal(report),
        *_languages(report),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: data check</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _verdict(report: Report) -> str:
    if report.refused:
        rows = "row stops" if report.refused == 1 else "rows stop"
        return f'<b class="bad">{report.refused:,} {rows} training.</b>'
    if not report.accepted:
        return '<b class="bad">There is nothing to train on.</b>'
    if report.dropped:
        return f'<span class="unsure">{report.dropped:,} left out.</span>'
    return '<span class="good">Nothing is wrong with it.</span>'


def _tiles(report: Report) -> str:
    share = f", {report.trained / report.tokens:.0%} of all" if report.tokens else ""
    tiles = [
        (f"{report.accepted:,}", "rows accepted"),
        (f"{report.refused + report.dropped:,}", "rows rejected"),
        (f"{report.sequences:,}", "training sequences"),
        (f"{report.tokens:,}", "tokens"),
        (f"{report.trained:,}", f"trained{share}"),
        (f"{report.longest:,}", "tokens in the longest"),
    ]
    shown = "".join(f'<div class="tile"><b>{n}</b><span>{what}</span></div>' for n, what in tiles)
    return f'<div class="tiles">{shown}</div>'


_LEFT, _WIDTH, _HEIGHT, _TOP = 56, 820, 210, 14
"""Pixels of the histogram: room for the counts, the bars' area, room above it."""


def _lengths(report: Report) -> str:
    total, trained = report.lengths["total"], report.lengths["trained"]
    if not total.buckets:
        return '<p class="soft">No row was accepted.</p>'
    key = (
        '<p class="key"><span><i class="all"></i>sequences by all their tokens</span>'
        '<span><i class="trained"></i>by those that are trained</span></p>'
    )
    shares = ", ".join(f"{p}%: ≤ {value:,}" for p, value in total.percentiles.items())
    return (
        f'{key}<div class="wide">{_histogram(total, trained)}</div>'
        f'<p class="soft">All tokens: {shares}.</p>'
    )


def _histogram(total: Histogram, trained: Histogram) -> str:
    """Two bars a bucket. The classes take the page's colours, so it follows light and dark."""
    counts = {low: [high, count, 0] for low, high, count in total.buckets}
    for low, high, count in trained.buckets:
        counts.setdefault(low, [high, 0, 0])[2] = count
    buckets = [(low, *counts[low]) for low in sorted(counts)]
    tallest = max(max(all_, some) for _, _, all_, some in buckets)
    step = _WIDTH / len(buckets)
    width = round(min((step - 4) / 2, 26), 1)
    parts = [
        f'<svg viewBox="0 0 {_LEFT + _WIDTH + 8} {_TOP + _HEIGHT + 40}" role="img" '
        'aria-label="How many sequences have how many tokens">'
    ]
    for share in (0, 0.5, 1):
        y = round(_TOP + _HEIGHT * (1 - share), 1)
        end = _LEFT + _WIDTH
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{end}" y1="{y}" y2="{y}"/>')
        label = f"{round(tallest * share):,}"
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{label}</text>')
    every = -(-len(buckets) // 14)
    for place, (low, high, all_, some) in enumerate(buckets):
        middle = _LEFT + step * (place + 0.5)
        bars = ("all", all_, middle - width - 1), ("trained", some, middle + 1)
        for name, count, x in bars:
            height = round(_HEIGHT * count / tallest, 1)
            if height:
                what = "tokens" if name == "all" else "trained tokens"
                parts.append(
                    f'<rect class="{name}" x="{x:.1f}" y="{_TOP + _HEIGHT - height:.1f}" '
                    f'width="{width}" height="{height}" rx="2">'
                    f"<title>{low:,} to {high:,} {what}: {count:,} sequences</title></rect>"
                )
        if place % every == 0:
            y = _TOP + _HEIGHT + 18
            parts.append(f'<text x="{middle:.1f}" y="{y}" text-anchor="middle">{low:,}</text>')
    y = _TOP + _HEIGHT + 36
    parts.append(f'<text x="{_LEFT + _WIDTH}" y="{y}" text-anchor="end">tokens, from</text>')
    return "".join(parts) + "</svg>"


def _contents(report: Report) -> str:
    lists = {
        "Languages, as stated": report.languages,
        "Licences": report.licences,
        "Sources": report.sources,
        "Shapes": {**report.shapes, **{f"with {k}": v for k, v in report.features.items()}},
    }
    return "".join(_bars(title, counts) for title, counts in lists.items())


def _bars(title: str, counts: Mapping[str, int]) -> str:
    shown = list(counts.items())[:BARS_SHOWN]
    rest = sum(counts.values()) - sum(count for _, count in shown)
    if rest:
        shown.append((f"{len(counts) - BARS_SHOWN:,} others", rest))
    most = max((count for _, count in shown), default=1)
    rows = "".join(
        f'<span title="{escape(name)}">{escape(name)}</span>'
        f'<i><i style="width:{100 * count / most:.1f}%"></i></i><b>{count:,}</b>'
        for name, count in shown
    )
    body = f'<div class="bars">{rows}</div>' if rows else '<p class="soft">none</p>'
    return f'<div class="card"><h3>{title}</h3>{body}</div>'


def _rejections(report: Report, dropped: frozenset[str]) -> list[str]:
    if not report.rejected:
        return []
    parts = ["<h2>Rejected rows</h2>"]
    for reason, count in report.rejected.items():
        left_out = reason in dropped
        mark, what = ("unsure", "left out") if left_out else ("bad", "stop training")
        head = f'<b class="{mark}">{escape(reason)}</b><span>{count:,} {what}</span>'
        parts.append(_folded(head, report.examples[reason], count, is_open=not left_out))
    return parts


def _repeated(report: Report) -> list[str]:
    if not report.repeated:
        return []
    kept = f" {report.alike:,} near duplicates were kept." if report.alike else ""
    rows = "".join(
        f"<li>{escape(place)}: {count:,} {'time' if count == 1 else 'times'}</li>"
        for place, count in report.repeated
    )
    return [
        "<h2>Most repeated rows</h2>",
        f'<p class="soft">Exactly or nearly, by later rows.{kept}</p>',
        f'<div class="card"><ul style="margin:0">{rows}</ul></div>',
    ]


def _personal(report: Report) -> list[str]:
    if not report.personal:
        return []
    left = [kind for kind in report.personal if kind not in report.mask]
    said = f"Not masked: {', '.join(left)}." if left else "All of it was masked."
    return [
        "<h2>Secrets and personal data</h2>",
        f'<p class="soft">Found by pattern in {report.personal_rows:,} rows. {said}</p>',
        f'<div class="cards">{_bars("Findings by kind", report.personal)}</div>',
    ]


def _languages(report: Report) -> list[str]:
    guesses = report.guesses
    if not guesses.languages:
        return []
    parts = [
        "<h2>Languages by their look</h2>",
        '<p class="soft">A guess, for comparison: what a row states is what counts.</p>',
        f'<div class="cards">{_bars("Guessed", guesses.languages)}</div>',
    ]
    if guesses.mismatches:
        head = (
            '<b class="unsure">surely another language than stated</b>'
            f"<span>{guesses.mismatches:,} rows</span>"
        )
        parts.append(_folded(head, guesses.examples, guesses.mismatches, is_open=True))
    return parts


def _folded(head: str, examples: Sequence[str], count: int, *, is_open: bool) -> str:
    rows = "".join(f"<li>{escape(each)}</li>" for each in examples)
    more = count - len(examples)
    rest = f'<li class="soft">and {more:,} more</li>' if more > 0 else ""
    mark = " open" if is_open else ""
    return f"<details{mark}><summary>{head}</summary><ul>{rows}{rest}</ul></details>"
