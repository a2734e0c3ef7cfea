"""A scorecard's report: read back from its artifact, written beside the artifacts.

The report is derived, so no id hashes it: the same answers are the same scorecard, however fast
they came, and a later decision of the gate stands on the page.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from avocado.errors import Refused
from avocado.lineage import digest_file, short
from avocado.workspace import Artifact, Workspace, write_atomically

if TYPE_CHECKING:
    from avocado.evaluate.page import Ruling
    from avocado.evaluate.scorecard import Scorecard
    from avocado.evaluate.scored import Scored
    from avocado.evaluate.timing import Timing


def read_card(artifact: Artifact) -> tuple[Scorecard, tuple[Scored, ...]]:
    """A kept scorecard, and every answer behind it.

    Raises:
        Refused: its answers are not those that it was made from, or it is of an older form.
    """
    from avocado.evaluate.scorecard import RESULTS, Scorecard, read_results
    from avocado.evaluate.suite import SuiteError

    try:
        card = Scorecard.from_facts(artifact.manifest.facts, artifact.manifest.parents)
    except SuiteError as error:
        raise Refused(f"{short(artifact.id)}: {error}") from error
    path = artifact.files / RESULTS
    if not path.is_file() or digest_file(path) != card.results_sha256:
        raise Refused(f"{short(artifact.id)}: {RESULTS} is missing or was changed")
    return card, read_results(artifact.files)


def read_timings(artifact: Artifact) -> dict[str, Timing]:
    """How long base and checkpoint took, where that was measured."""
    from avocado.evaluate.timing import Timing

    return {side: Timing(**each) for side, each in artifact.note.get("timing", {}).items()}


def report_path(workspace: Workspace, artifact: Artifact) -> Path:
    """Where a scorecard's page is, or would be."""
    return workspace.state / "reports" / short(artifact.id) / "report.html"


def write_report(workspace: Workspace, artifact: Artifact, ruling: Ruling | None = None) -> Path:
    """Writes ``report.html`` and its charts as PNG; returns the page's path."""
    from avocado.evaluate.page import page
    from avocado.evaluate.plot import write_plots

    card, scored = read_card(artifact)
    path = report_path(workspace, artifact)
    html = page(
        card, scored, timings=read_timings(artifact), ruling=ruling, card=short(artifact.id)
    )
    write_atomically(path, html.encode())
    write_plots(card, path.parent)
    return path
