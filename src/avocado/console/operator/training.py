"""Runs: what was trained, how it went, live while it goes, and how runs differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from avocado.console import chart
from avocado.console.operator.doors import DOORS
from avocado.console.page import Nav, NotFound, Pages, Values, Visit
from avocado.errors import Refused

if TYPE_CHECKING:
    from markupsafe import Markup

    from avocado.train.history import RunRecord

PAGES = Pages()
KEYS: Final = (
    "loss",
    "held_out_loss",
    "reward",
    "learning_rate",
    "gradient_norm",
    "kl",
    "answer_length",
    "tokens_per_second",
)
"""Numbers that are worth a curve, where a run logged them, in this order."""
MOST: Final = 5
"""Runs that are compared at once: as many as the charts have colours."""


def _root(visit: Visit) -> Path:
    return visit.console.workspace.state / "runs"


def find(visit: Visit, name: str) -> RunRecord:
    """A run by its name. Raises NotFound."""
    from avocado.train.history import read_run

    root = _root(visit)
    if Path(name).name != name or not (root / name / "run.json").is_file():
        raise NotFound
    return read_run(root / name)


@PAGES.show(
    "/operator/runs",
    roles=DOORS["runs"],
    template="operator/runs.html",
    nav=Nav("op.runs", "run", 310, "op.group_models"),
)
def runs(visit: Visit) -> Values:
    return {"runs": _all(visit)}


@PAGES.live(
    "/operator/live-runs", roles=DOORS["runs"], template="operator/runs_live.html", every=3.0
)
def runs_live(visit: Visit) -> Values:
    return {"runs": _all(visit)}


def _all(visit: Visit) -> list[RunRecord]:
    """Newest first; a damaged folder is passed over here, its own page says what is wrong."""
    from avocado.train.history import read_run

    found = []
    for folder in _root(visit).glob("*"):
        if (folder / "run.json").is_file():
            try:
                found.append(read_run(folder))
            except (Refused, KeyError):
                continue
    return sorted(found, key=lambda run: -run.changed)


@PAGES.show("/operator/compare-runs", roles=DOORS["runs"], template="operator/runs_compare.html")
def compare(visit: Visit) -> Values:
    """Recipes and results of several runs, side by side, with their curves in one chart."""
    from avocado.train.history import compared

    names = list(dict.fromkeys(visit.query.many("run")))[:MOST]
    found = [find(visit, name) for name in names]
    return {
        "all_runs": [run.name for run in _all(visit)],
        "names": names,
        "runs": found,
        "differences": compared(found) if len(found) > 1 else [],
        "charts": _charts(visit, found) if len(found) > 1 else [],
    }


@PAGES.show("/operator/runs/{name}", roles=DOORS["runs"], template="operator/run.html")
def run(visit: Visit) -> Values:
    found = find(visit, visit.path["name"])
    return {
        **_facts(visit, found),
        "recipe": _flat(found.recipe),
        "checkpoint": _made(visit, found),
    }


@PAGES.live(
    "/operator/runs/{name}/live", roles=DOORS["runs"], template="operator/run_live.html", every=2.0
)
def run_live(visit: Visit) -> Values:
    return _facts(visit, find(visit, visit.path["name"]))


def _facts(visit: Visit, found: RunRecord) -> Values:
    last = found.metrics[-1] if found.metrics else {}
    return {
        "run": found,
        "last": last,
        "charts": _charts(visit, [found]),
        "changed": int(found.changed * 1e9),
    }


def _made(visit: Visit, found: RunRecord) -> str | None:
    """The checkpoint that the run made, where it is still here."""
    store = visit.console.workspace.store
    return found.checkpoint if found.checkpoint in store.ids("checkpoint") else None


def _charts(visit: Visit, found: Sequence[RunRecord]) -> list[tuple[str, Markup]]:
    """(name of the number, its curves) of every number that the runs logged."""
    made = []
    for key in KEYS:
        curves = [
            chart.Curve(
                each.name, [(line["step"], line[key]) for line in each.metrics if key in line]
            )
            for each in found
            if any(key in line for line in each.metrics)
        ]
        curves = [curve for curve in curves if curve.points]
        if curves:
            made.append((key, _curves(visit, key, curves)))
    return made


def _curves(visit: Visit, key: str, curves: Sequence[chart.Curve]) -> Markup:
    say = visit.formats
    word = f"op_run.key_{key}"
    title = visit.t(word) if visit.speaker.has(word) else key
    caption = chart.Caption(title, visit.t("op_run.step"), visit.t("do.as_table"))

    def number(value: float) -> str:
        if value == 0:
            return "0"
        if 0 < abs(value) < 0.001:
            return f"{value:.1e}"
        return say.fixed(value, 0 if abs(value) >= 100 else 3)

    return chart.lines(
        curves,
        lambda step: say.compact(round(step)),
        number,
        caption,
        low=True,
        from_zero=key != "kl",
    )


def _flat(value: object, name: str = "") -> list[tuple[str, str]]:
    """A recipe as (dotted key, value), for a table."""
    if isinstance(value, dict):
        return [
            pair
            for key, each in value.items()
            for pair in _flat(each, f"{name}.{key}" if name else str(key))
        ]
    if value is None or value == []:
        return []
    return [(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]
