"""Items of a scorecard's page: what was asked, expected and answered, side by side, lost ones
first. Filters work without a script: a radio button and a rule of the style sheet each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from avocado.evaluate.run import Result
from avocado.evaluate.scored import Asked, Scored

SHOWN: Final = 30
"""Items of a kind and suite on the page; the results file has all."""

KINDS: Final = {
    "lost": "Lost",
    "wrong": "Still wrong",
    "won": "Won",
    "right": "Right before and after",
    "same": "Same score",
}
"""In the order of the page."""


def kind(row: Asked) -> str:
    """What became of an item: lost and won by score, the rest by whether the answer is right."""
    if row.other.score != row.base.score:
        return "lost" if row.other.score < row.base.score else "won"
    if row.other.correct is None:
        return "same"
    return "right" if row.other.correct else "wrong"


def samples(scored: Sequence[Scored]) -> list[str]:
    """Filters, then the items of all suites."""
    found: dict[str, list[tuple[str, Asked]]] = {name: [] for name in KINDS}
    total = dict.fromkeys(KINDS, 0)
    for suite in scored:
        seen = dict.fromkeys(KINDS, 0)
        for row in suite.rows:
            name = kind(row)
            total[name] += 1
            seen[name] += 1
            if seen[name] <= SHOWN:
                found[name].append((suite.name, row))
    languages = list(dict.fromkeys(row.base.language for s in scored for row in s.rows))
    suites = [each.name for each in scored]
    choices = [
        _choice("k", [f"{KINDS[name]} ({total[name]})" for name in KINDS if total[name]]),
        _choice("l", languages) if len(languages) > 1 else "",
        _choice("s", suites) if len(suites) > 1 else "",
    ]
    present = [name for name in KINDS if total[name]]
    items = (
        _item(suite, row, (present.index(name), languages.index(row.base.language)), suites)
        for name in present
        for suite, row in found[name]
    )
    counts = (len(present), len(languages), len(suites))
    hidden = sum(total.values()) - sum(map(len, found.values()))
    rest = f"; {hidden:,} more are in the results file" if hidden else ""
    return [
        f"<style>{''.join(_rules(counts))}</style>",
        "<h2>Items, side by side</h2>",
        f'<p class="soft">Lost ones first, at most {SHOWN} of a kind and suite{rest}.</p>',
        *choices,
        *items,
    ]


def _choice(group: str, names: Sequence[str]) -> str:
    """One row of radio buttons; the first shows all."""
    buttons = "".join(
        f'<label><input type="radio" name="{group}" id="{group}{place}"'
        f"{' checked' if place == 0 else ''}>{escape(name)}</label>"
        for place, name in enumerate(["all", *names])
    )
    return f'<fieldset class="filter">{buttons}</fieldset>'


def _rules(counts: tuple[int, int, int]) -> Iterator[str]:
    """Hides what is not of the chosen kind, language or suite; classes are numbers, never names."""
    for group, count in zip("kls", counts, strict=True):
        for place in range(1, count + 1):
            yield (
                f"body:has(#{group}{place}:checked) .item:not(.{group}{place}){{display:none}}\n"
            )


def _item(suite: str, row: Asked, places: tuple[int, int], suites: Sequence[str]) -> str:
    left, right = row.base, row.other
    sides = (
        ("expected", row.expected, ""),
        ("base", left.text, _mark(left)),
        ("refined", right.text, _mark(right)),
    )
    columns = "".join(
        f'<div><h4>{name}</h4><pre dir="auto" class="{mark}">{escape(text) or "(nothing)"}</pre>'
        "</div>"
        for name, text, mark in sides
        if text or name != "expected"
    )
    numbers = f"k{places[0] + 1} l{places[1] + 1} s{suites.index(suite) + 1}"
    facts = [suite, left.item, left.language]
    if right.correct is None:
        facts.append(f"score {left.score:.3g} → {right.score:.3g}")
    facts.append(f"{left.completion} → {right.completion} tokens")
    return (
        f'<div class="item {kind(row)} {numbers}"><p dir="auto" lang="{escape(left.language)}">'
        f"{escape(row.question)}</p>"
        f'<div class="sides">{columns}</div>'
        f'<p class="foot">{escape(" · ".join(facts))}</p></div>'
    )


def _mark(result: Result) -> str:
    if result.correct is None:
        return ""
    return "better" if result.correct else "worse"
