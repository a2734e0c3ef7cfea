"""The scorecard as one HTML page that needs nothing else: no script, no font, no image from afar.

Text of models and suites is escaped, and a content security policy forbids scripts besides. The
same scorecard, times and ruling give the same bytes: there is no date on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from avocado.evaluate.chart import differences, scores
from avocado.evaluate.report import (
    Row,
    p_value,
    percent,
    points,
    regressions_first,
    rows,
    span,
    verdict,
)
from avocado.evaluate.samples import samples
from avocado.evaluate.scorecard import Scorecard
from avocado.evaluate.scored import Scored
from avocado.evaluate.style import STYLE
from avocado.evaluate.timing import Timing


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the gate said: ``approved``, ``refused`` or ``undecided``, and why."""

    word: str
    reasons: Sequence[str]


def page(
    scorecard: Scorecard,
    scored: Sequence[Scored],
    *,
    timings: Mapping[str, Timing] | None = None,
    ruling: Ruling | None = None,
    card: str = "",
) -> str:
    """The whole page. ``timings``: of ``base`` and ``checkpoint``; ``card``: the scorecard's id."""
    timings = timings or {}
    word = verdict(scorecard.overall)
    target = next(name for name, each in scorecard.suites.items() if each is scorecard.target)
    ordered = regressions_first(scorecard)
    interval = f"{100 * scorecard.confidence:g}%"
    body = [
        f'<h1 class="{word}">{_headline(scorecard)}</h1>',
        *_ruling(ruling),
        *_regressions(ordered),
        f'<p class="soft">{escape(target)}: {_summary(scorecard)}</p>',
        _tiles(scorecard, timings),
        "<h2>Difference to the base, worst first</h2>",
        f'<p class="soft">Lines: {interval} intervals. <span class="better">Better</span> and '
        '<span class="worse">worse</span> are proven, <span class="undecided">undecided</span> is '
        "not. A true difference within the pale band is missed more often than one time in five: "
        "the suite is too small to show it.</p>",
        f'<div class="wide">{differences(ordered, scorecard.confidence)}</div>',
        "<h2>Scores per suite and language</h2>",
        '<p class="soft">Grey: the base. Below it: the refined model. Lines: Wilson intervals.</p>',
        f'<div class="wide">{scores(list(rows(scorecard)), scorecard.confidence)}</div>',
        *_tables(scorecard),
        *_cost(scorecard, timings),
        *samples(scored),
        _origins(scorecard, card),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(target)}: scorecard</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _headline(scorecard: Scorecard) -> str:
    overall = scorecard.overall
    size = f"{abs(100 * overall.difference):.1f}"
    return {
        "better": f"The refined model is {size} points better than its base",
        "worse": f"The refined model is {size} points worse than its base",
        "undecided": "The difference between the refined model and its base is undecided",
    }[verdict(overall)]


def _ruling(ruling: Ruling | None) -> list[str]:
    if ruling is None:
        return []
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in ruling.reasons)
    listed = f"<ul>{reasons}</ul>" if reasons else ""
    word = escape(ruling.word)
    return [f'<div class="note {word}"><b>The gate: {word}.</b>{listed}</div>']


def _regressions(ordered: Sequence[Row]) -> list[str]:
    """What got worse stands above everything else, whatever the whole says."""
    worse = [escape(row.name) for row in ordered if row.word == "worse"]
    seen = [
        f"{escape(row.name)} ({points(row.compared.difference)})"
        for row in ordered
        if row.word == "undecided" and row.compared.difference < 0
    ]
    found = []
    if worse:
        found.append(f'<p class="worse"><b>Worse than its base in: {", ".join(worse)}.</b></p>')
    if seen:
        found.append(f'<p class="undecided">Seen lower, not proven: {", ".join(seen)}.</p>')
    return found


def _summary(scorecard: Scorecard) -> str:
    each = scorecard.overall
    clusters = f" in {each.clusters} clusters" if each.clusters < each.n else ""
    return (
        f"{each.n} items{clusters}, {percent(each.base / each.n)} → "
        f"{percent(each.other / each.n)} ({escape(scorecard.target.metric)}), "
        f"{100 * scorecard.confidence:g}% interval of the difference {span(each)} points. "
        f"{each.won} items won, {each.lost} lost."
    )


def _tiles(scorecard: Scorecard, timings: Mapping[str, Timing]) -> str:
    overall, cost = scorecard.overall, scorecard.target.cost
    tiles = [
        (points(overall.difference), f"points to the base, within {span(overall)}"),
        (f"{overall.won} : {overall.lost}", "items won and lost"),
        (f"{100 * overall.detectable:.1f}", "points: the smallest difference that it can show"),
        (f"{cost.ratio:.2f}×", f"tokens an answer: {cost.base:.1f} → {cost.other:.1f}"),
    ]
    if "checkpoint" in timings:
        timing = timings["checkpoint"]
        tiles.append((f"{timing.p50:.2g} s", f"half of the answers; 95 of 100: {timing.p95:.2g} s"))
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><b>{escape(value)}</b><span>{escape(text)}</span></div>'
            for value, text in tiles
        )
        + "</div>"
    )


_COLUMNS = (
    "language",
    "items",
    "base",
    "refined",
    "difference",
    "interval",
    "won",
    "lost",
    "detects",
    "p",
    "p, Holm",
)


def _tables(scorecard: Scorecard) -> Iterator[str]:
    """A table a suite."""
    found = list(rows(scorecard))
    for name, suite in scorecard.suites.items():
        lines = ["<tr>" + "".join(f"<th>{column}</th>" for column in _COLUMNS) + "</tr>"]
        lines += [_line(row) for row in found if row.suite == name]
        several = len(scorecard.suites) > 1
        if several:
            yield f'<h3>{escape(name)} <span class="soft">({suite.role})</span></h3>'
        yield f'<div class="wide"><table>{"".join(lines)}</table></div>'
    yield (
        '<p class="soft">detects: the smallest true difference that so many items prove with a '
        "chance of 80%. p: no difference; Holm's is corrected for all rows of languages.</p>"
    )


def _line(row: Row) -> str:
    each = row.compared
    cells = (
        escape(row.language),
        str(each.n),
        percent(each.base / each.n),
        percent(each.other / each.n),
        f'<span class="{row.word}">{points(each.difference)}</span>',
        span(each),
        str(each.won),
        str(each.lost),
        f"{100 * each.detectable:.1f}",
        p_value(each.p),
        p_value(row.holm) if row.language != "all" else "",
    )
    mark = ' class="all"' if row.language == "all" else ""
    return f"<tr{mark}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _cost(scorecard: Scorecard, timings: Mapping[str, Timing]) -> Iterator[str]:
    yield "<h2>Cost and latency</h2>"
    lines = ["<tr><th>tokens an answer</th><th>base</th><th>refined</th><th>ratio</th></tr>"]
    for name, suite in scorecard.suites.items():
        cost = suite.cost
        lines.append(
            f"<tr><td>{escape(name)}</td><td>{cost.base:.1f}</td><td>{cost.other:.1f}</td>"
            f"<td>{cost.ratio:.2f}</td></tr>"
        )
    yield f'<div class="wide"><table>{"".join(lines)}</table></div>'
    if timings:
        lines = [
            "<tr><th>answers</th><th>half within</th><th>95 of 100 within</th>"
            "<th>tokens a second of one</th><th>timed</th></tr>"
        ]
        for name, each in timings.items():
            lines.append(
                f"<tr><td>{'refined' if name == 'checkpoint' else escape(name)}</td>"
                f"<td>{each.p50:.3g} s</td><td>{each.p95:.3g} s</td>"
                f"<td>{each.tokens_per_second:.3g}</td><td>{each.answers}</td></tr>"
            )
        yield f'<div class="wide"><table>{"".join(lines)}</table></div>'
        yield (
            '<p class="soft">Times are of the machine that evaluated, with other items answered '
            "beside each.</p>"
        )


def _origins(scorecard: Scorecard, card: str) -> str:
    sampling = ", ".join(f"{key} {value}" for key, value in scorecard.sampling.items())
    facts = {
        **({"scorecard": card} if card else {}),
        **scorecard.parents,
        "weights measured": f"{scorecard.measured.checkpoint} ({scorecard.measured.form})",
        "base's weights": scorecard.measured.base,
        **{f"suite {name}, SHA-256": each.sha256 for name, each in scorecard.suites.items()},
        "results SHA-256": scorecard.results_sha256,
        "sampling": sampling,
        "intervals": f"{100 * scorecard.confidence:g}%: the widest of the cluster bootstrap "
        f"({scorecard.resamples} resamples, seed {scorecard.seed}), Newcombe 1998 and Student's t",
        "p": "exact McNemar of right and wrong, else a paired permutation test; two-sided",
    }
    pairs = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return f"<h2>Where this comes from</h2><dl>{pairs}</dl>"
