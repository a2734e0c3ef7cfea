"""``avocado init``: a workspace to work in."""

from __future__ import annotations

from pathlib import Path

import click

from avocado.cli.output import Output, with_output
from avocado.workspace import Workspace


@click.command()
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--name", help="The workspace's name; the folder's name if left out.")
@with_output
def init(out: Output, folder: Path, name: str | None) -> None:
    """Make a workspace in FOLDER: avocado.toml (yours to edit) and .avocado/ (ours to keep)."""
    workspace = Workspace.create(folder, name)
    out.result(
        {"workspace": str(workspace.folder), "name": workspace.config.name},
        f"Made the workspace {workspace.config.name} in {workspace.folder}",
        "Next: avocado data check train.jsonl",
    )
