"""Scorecards: each checkpoint against its base, and several of them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from avocado.console.operator.doors import DOORS
from avocado.console.page import Download, Nav, NotFound, Pages, Reply, Values, Visit
from avocado.errors import Refused
from avocado.lineage import short

if TYPE_CHECKING:
    from avocado.evaluate.report import Row
    from avocado.evaluate.scorecard import Scorecard
    from avocado.workspace import Artifact

PAGES = Pages()
MOST: Final = 4
POLICY: Final = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Of a report: a page of its own, that runs nothing, reaches nothing and is nobody's origin."""


@dataclass(frozen=True)
class Card:
    """A scorecard for the list. ``made`` in ns; ``rows`` by suite and language."""

    id: str
    name: str
    checkpoint: str
    made: int
    card: Scorecard
    rows: Sequence[Row]


def _read(artifact: Artifact) -> Card | None:
    """None for one of an older form."""
    from avocado.evaluate.report import rows
    from avocado.evaluate.scorecard import Scorecard
    from avocado.evaluate.suite import SuiteError

    try:
        card = Scorecard.from_facts(artifact.manifest.facts, artifact.manifest.parents)
    except SuiteError:
        return None
    return Card(
        artifact.id,
        short(artifact.id),
        artifact.manifest.parents["checkpoint"],
        int(artifact.note.get("created", 0)) * 10**9,
        card,
        list(rows(card)),
    )


def _all(visit: Visit) -> list[Card]:
    store = visit.console.workspace.store
    found = [_read(store.load(each)) for each in store.ids("scorecard")]
    return [card for card in reversed(found) if card is not None]


def artifact_of(visit: Visit, text: str, kind: str) -> Artifact:
    """An artifact by its id or a unique beginning of it. Raises NotFound."""
    store = visit.console.workspace.store
    try:
        return store.load(store.resolve(text, kind))
    except Refused:
        raise NotFound from None


@PAGES.show(
    "/operator/scorecards",
    roles=DOORS["scorecards"],
    template="operator/scorecards.html",
    nav=Nav("op.scorecards", "chart", 320, "op.group_models"),
)
def scorecards(visit: Visit) -> Values:
    return {"cards": _all(visit)}


@PAGES.show(
    "/operator/scorecards/compare",
    roles=DOORS["scorecards"],
    template="operator/scorecards_compare.html",
)
def compare(visit: Visit) -> Values:
    """The refined scores of several checkpoints on each suite and language that they share."""
    wanted = list(dict.fromkeys(visit.query.many("card")))[:MOST]
    found = [_read(artifact_of(visit, each, "scorecard")) for each in wanted]
    cards = [card for card in found if card is not None]
    names = list(dict.fromkeys(row.name for card in cards for row in card.rows))
    by_name = [{row.name: row for row in card.rows} for card in cards]
    table = [(name, [rows.get(name) for rows in by_name]) for name in names]
    return {"all_cards": _all(visit), "cards": cards, "wanted": wanted, "table": table}


@PAGES.show(
    "/operator/scorecards/{card}", roles=DOORS["scorecards"], template="operator/scorecard.html"
)
def scorecard(visit: Visit) -> Values:
    artifact = artifact_of(visit, visit.path["card"], "scorecard")
    card = _read(artifact)
    if card is None:
        raise Refused(visit.t("op_card.old_form"))
    return {
        "card": card,
        "target": next(name for name, each in card.card.suites.items() if each is card.card.target),
        "releases": _released(visit, card.id),
    }


def _released(visit: Visit, card: str) -> list[tuple[str, str]]:
    """(id, name) of the releases that were let out by it."""
    store = visit.console.workspace.store
    loaded = [store.load(each) for each in store.ids("release")]
    return [
        (each.id, each.manifest.facts["name"])
        for each in loaded
        if each.manifest.parents.get("scorecard") == card
    ]


@PAGES.show("/operator/scorecards/{card}/report", roles=DOORS["scorecards"])
def report(visit: Visit) -> Reply:
    """The self-contained report, as ``avocado evaluate`` wrote it, or written now."""
    from avocado.cli.report import report_path, write_report

    artifact = artifact_of(visit, visit.path["card"], "scorecard")
    path = report_path(visit.console.workspace, artifact)
    if not path.is_file():
        path = write_report(visit.console.workspace, artifact)
    return Download("report.html", "text/html; charset=utf-8", path.read_bytes(), True, POLICY)
