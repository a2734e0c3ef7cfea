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
@click.option(
    "--open", "open_", is_flag=True, help="Serve it and open the console in the browser at the end."
)
@with_output
def demo(out: Output, folder: Path | None, open_: bool) -> None:
    """Walk the whole path on the seedling, offline: refine, evaluate, release, serve, bill, trace.

    The workspace is kept, so that you can look around in it afterwards.
    """
    from avocado.workspace import Workspace

    if missing := _missing():
        raise Refused(
            f"the demo needs {', '.join(missing)}: pip install "
            "'avocado-llm[models,demo,release,billing,console]'"
        )
    where = folder or Path(tempfile.mkdtemp(prefix="avocado-demo-"))
    from avocado.demo.showing import show_console, write_shop
    from avocado.demo.walk import Demo

    workspace = write_shop(Workspace.create(where, "Avocado demo"))

    made = Demo(out, workspace).run()
    if out.json:
        out.result({"workspace": str(workspace.folder), **made})
    if open_:
        show_console(out, workspace)


def _missing() -> list[str]:
    from importlib.util import find_spec

    needed = ("torch", "trl", "babel", "openai", "model_signing", "typst", "facturx", "starlette")
    return [name for name in needed if find_spec(name) is None]
