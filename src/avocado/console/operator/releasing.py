"""Releases: what the gate let out and why, under which licences, and everything it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from avocado.console.operator.doors import DOORS
from avocado.console.operator.overview import today
from avocado.console.operator.scorecards import artifact_of
from avocado.console.page import Nav, Pages, Redirect, Reply, Values, Visit
from avocado.errors import Refused
from avocado.lineage import short

if TYPE_CHECKING:
    from avocado.cli.links import Link
    from avocado.workspace import Artifact

PAGES = Pages()


@dataclass(frozen=True)
class Released:
    """A release for the list. ``made`` in ns; ``offered`` are the names that mean it now."""

    id: str
    short: str
    name: str
    made: int
    gate: dict[str, Any]
    offered: tuple[str, ...]


def released(visit: Visit, artifact: Artifact) -> Released:
    from avocado.cli.lineups import read_offer

    workspace = visit.console.workspace
    offered = [
        name
        for name, offer in workspace.store.pointed("offer").items()
        if read_offer(workspace, offer).release == artifact.id
    ]
    facts = artifact.manifest.facts
    return Released(
        artifact.id,
        short(artifact.id),
        facts["name"],
        int(artifact.note.get("created", 0)) * 10**9,
        dict(facts["gate"]),
        tuple(sorted(offered)),
    )


@PAGES.show(
    "/operator/releases",
    roles=DOORS["releases"],
    template="operator/releases.html",
    nav=Nav("op.releases", "box", 330, "op.group_models"),
)
def releases(visit: Visit) -> Values:
    store = visit.console.workspace.store
    found = [released(visit, store.load(each)) for each in store.ids("release")]
    return {"releases": list(reversed(found))}


@PAGES.show(
    "/operator/releases/{release}", roles=DOORS["releases"], template="operator/release.html"
)
def release(visit: Visit) -> Values:
    """Gate, findings, licences and lineage of one release, and the papers it ships."""
    from avocado.cli.provenance import duties

    artifact = artifact_of(visit, visit.path["release"], "release")
    found = released(visit, artifact)
    links, problems = _links(visit, artifact.id)
    return {
        "release": found,
        "facts": artifact.manifest.facts,
        "parents": artifact.manifest.parents,
        "findings": found.gate.get("findings", []),
        "licences": found.gate.get("licences", []),
        "duties": duties(found.gate.get("notices", ())),
        "links": links,
        "problems": problems,
    }


def _links(visit: Visit, start: str) -> tuple[list[Link], tuple[str, ...]]:
    """The chain of an artifact as far as it is here, and what of it is not."""
    from avocado.cli.links import artifact_links

    found: list[Link] = []
    try:
        for link in artifact_links(visit.console.workspace.store, start):
            found.append(link)
    except Refused as refused:
        return found, refused.reasons
    return found, ()


@PAGES.show("/operator/trace", roles=DOORS["trace"], template="operator/trace.html")
def trace(visit: Visit) -> Values:
    """The chain behind an invoice line, a request, an artifact or a model's name."""
    wanted = visit.query.text("id", 200)
    links: list[Link] = []
    problems: tuple[str, ...] = ()
    if wanted:
        try:
            links = _chain(visit, wanted)
        except Refused as refused:
            problems = refused.reasons
    return {"wanted": wanted, "links": links, "problems": problems}


def _chain(visit: Visit, wanted: str) -> list[Link]:
    from avocado.cli.arguments import nanoseconds
    from avocado.cli.links import trace_links

    now = today(visit)
    after = (now.year + now.month // 12, now.month % 12 + 1)
    period = (nanoseconds(now.year, now.month), nanoseconds(*after))
    return trace_links(visit.console.workspace, wanted, period)


@PAGES.show("/operator/artifacts/{artifact}", roles=DOORS["trace"])
def artifact(visit: Visit) -> Reply:
    """Wherever an artifact's own page is."""
    name = visit.path["artifact"]
    kind = name.partition("-")[0]
    places = {"release": "releases", "scorecard": "scorecards"}
    if kind in places and visit.who.role in DOORS[places[kind]]:
        return Redirect(f"/operator/{places[kind]}/{artifact_of(visit, name, kind).id}")
    return Redirect(f"/operator/trace?id={artifact_of(visit, name, kind).id}")
