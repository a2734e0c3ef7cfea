"""The end of ``avocado demo --open``: API and console with what the demo made, until Ctrl-C."""

from __future__ import annotations

import signal
import time
import webbrowser
from importlib import resources
from typing import Final

from avocado.cli.output import Output
from avocado.configuration import CONFIG
from avocado.demo.server import free_ports, running
from avocado.demo.walk import TENANT
from avocado.workspace import Workspace

MEMBER: Final = "ada@acme.example"


def write_shop(workspace: Workspace) -> Workspace:
    """Names the seller, and ports that are free, in ``avocado.toml``."""
    api, console = free_ports(2)
    text = resources.files("avocado.demo").joinpath("shop.toml").read_text("utf-8")
    path = workspace.folder / CONFIG
    before = path.read_text("utf-8").replace("port = 8000", f"port = {api}")
    path.write_text(before + text.replace("CONSOLE_PORT", str(console)), "utf-8")
    return Workspace.open(workspace.folder)


def show_console(out: Output, workspace: Workspace) -> None:
    """Serves both and opens the console in the browser.

    Raises:
        Refused: one of them does not start, or does not stop in good order.
    """
    config = workspace.config
    with (
        running(workspace.folder, "serve", config.serve.port) as api,
        running(workspace.folder, "console", config.console.port) as console,
    ):
        lines = (
            f"\nThe API: {api['url']}/v1",
            f"The console, for you (once, within an hour): {console['first_link']}",
            f"The console, for the customer {TENANT} (once): {member_link(workspace)}",
            "Ctrl-C stops both",
        )
        out.say("\n".join(lines))
        webbrowser.open(console["first_link"])
        for word in (signal.SIGINT, signal.SIGTERM):
            signal.signal(word, signal.default_int_handler)
        try:
            signal.pause()
        except KeyboardInterrupt:
            out.say("Stopping")


def member_link(workspace: Workspace) -> str:
    """A link that lets a person of the customer in."""
    from avocado.cli.console import people_of
    from avocado.console import links
    from avocado.console.serving import known_origin

    with people_of(workspace) as database:
        now = time.time_ns()
        token = links.make(database, "invite", MEMBER, "admin", TENANT, "demo", now)
    return f"{known_origin(workspace)}/link/{token}"
