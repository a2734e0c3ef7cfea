"""``avocado demo``: the whole path, offline, in a few minutes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from avocado.cli.output import Output, with_output
from avocado.errors import Refused


@click.command()
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="A new folder for the workspace; a temporary one if left out.",
)
@with_output
def demo(out: Output, folder: Path | None) -> None:
    """Walk the whole path on the seedling, offline: refine, evaluate, release, serve, bill, trace.

    The workspace is kept, so that you can look around in it afterwards.
    """
    from avocado.workspace import Workspace

    if missing := _missing():
        raise Refused(
            f"the demo needs {', '.join(missing)}: pip install 'avocado-llm[models,demo,release]'"
        )
    where = folder or Path(tempfile.mkdtemp(prefix="avocado-demo-"))
    workspace = Workspace.create(where, "demo")
    from avocado.demo.walk import Demo

    made = Demo(out, workspace).run()
    if out.json:
        out.result({"workspace": str(workspace.folder), **made})


def _missing() -> list[str]:
    from importlib.util import find_spec

    return [
        name
        for name in ("torch", "trl", "babel", "openai", "model_signing")
        if find_spec(name) is None
    ]
