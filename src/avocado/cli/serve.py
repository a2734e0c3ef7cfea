"""``avocado serve``: the paid API over every offer of the workspace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from avocado.cli.arguments import workspace_here
from avocado.cli.output import Output, with_output
from avocado.configuration import CONFIG
from avocado.errors import Refused
from avocado.workspace import URL_SUFFIX, Workspace, write_atomically

if TYPE_CHECKING:
    from avocado.gateway.server import Settings


def server_settings(workspace: Workspace, host: str | None, port: int | None) -> Settings:
    """What avocado.toml says, with what the command line says instead.

    Raises:
        Refused: a trusted proxy that is no network.
    """
    from avocado.gateway.limits import Limits
    from avocado.gateway.proxies import Proxies
    from avocado.gateway.server import Settings

    config = workspace.config
    try:
        Proxies(config.serve.trusted_proxies)
    except ValueError as error:
        raise Refused(f"{CONFIG}: [serve] trusted_proxies: {error}") from error
    chosen = config.serve.port if port is None else port
    shared = config.ledger.url is not None
    limits: dict[str, float | int | None] = {**config.limits.given()}
    return Settings(
        ledger=workspace.ledger,
        pepper=workspace.pepper(),
        # Several servers of one workspace may share a database; each has its own socket.
        admin_socket=workspace.admin_socket_of(chosen) if shared else workspace.admin_socket,
        host=host or config.serve.host,
        port=chosen,
        limits=Limits(**limits, log_prompts=config.telemetry.log_prompts),  # type: ignore[arg-type]
        trusted_proxies=config.serve.trusted_proxies,
        otlp_endpoint=config.telemetry.otlp_endpoint,
    )


@click.command()
@click.option("--host", help="Address to listen at; avocado.toml's if left out.")
@click.option("--port", type=click.IntRange(0, 65_535), help="0 takes any free port.")
@with_output
def serve(out: Output, host: str | None, port: int | None) -> None:
    """Serve the workspace's offers behind an OpenAI-compatible API, every token billed.

    Stops in good order at Ctrl-C or SIGTERM: running requests end and are settled.
    """
    from avocado.cli.engines import WorkspaceStock
    from avocado.gateway.server import serve as run

    workspace = workspace_here()
    offered = sorted(workspace.store.pointed("offer"))
    if not offered:
        raise Refused("nothing is offered yet: release a checkpoint with: avocado release")
    settings = server_settings(workspace, host, port)
    stock = WorkspaceStock(workspace)
    told: list[Path] = []

    def ready(url: str) -> None:
        told.append(settings.admin_socket.with_suffix(URL_SUFFIX))
        write_atomically(told[0], f"{url}\n".encode())
        if out.json:
            out.result({"url": url, "models": offered})
        else:
            out.say(f"Serving {', '.join(offered)} at {url}/v1 (Ctrl-C stops)")
        sys.stdout.flush()

    def log(line: bytes) -> None:
        sys.stderr.buffer.write(line)
        sys.stderr.flush()

    try:
        run(settings, {}, dict, ready, log, stock)
    finally:
        for each in told:
            each.unlink(missing_ok=True)
