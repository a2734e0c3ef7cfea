"""``avocado serve``: the paid API over every offer of the workspace."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from avocado.cli.arguments import workspace_here
from avocado.cli.output import Output, with_output
from avocado.errors import Refused
from avocado.lineage import short
from avocado.release.offer import Offer
from avocado.workspace import Artifact, Workspace

if TYPE_CHECKING:
    from avocado.engine.engine import Engine


def current_offers(workspace: Workspace) -> dict[str, Offer]:
    """Public name → the offer that it means now."""
    store = workspace.store
    return {
        name: Offer.from_manifest(store.load(offer).manifest)
        for name, offer in store.pointed("offer").items()
    }


def load_engines(workspace: Workspace, offers: Mapping[str, Offer]) -> dict[str, Engine]:
    """Loads each release once, after checking that its files are those that were released.

    Raises:
        Refused: a file was changed, or the chat template is not the one that was evaluated.
    """
    engines: dict[str, Engine] = {}
    for release in dict.fromkeys(offer.release for offer in offers.values()):
        artifact = workspace.store.load(release)
        if changed := workspace.store.changed_files(artifact):
            raise Refused(*(f"{short(release)}: {name} was changed" for name in changed))
        engines[release] = load_engine(artifact)
    return engines


def load_engine(release: Artifact) -> Engine:
    """The embedded engine on one release's weights."""
    from avocado.engine.embedded import EmbeddedEngine
    from avocado.engine.engine import EngineError

    try:
        engine = EmbeddedEngine.load(release.files)
    except (EngineError, ValueError) as error:
        raise Refused(f"{short(release.id)} does not load: {error}") from error
    if engine.template.sha256 != release.manifest.facts["template_sha256"]:
        raise Refused(f"{short(release.id)}: its chat template is not the one that was evaluated")
    return engine


@click.command()
@click.option("--host", help="Address to listen at; avocado.toml's if left out.")
@click.option("--port", type=click.IntRange(0, 65_535), help="0 takes any free port.")
@with_output
def serve(out: Output, host: str | None, port: int | None) -> None:
    """Serve the workspace's offers behind an OpenAI-compatible API, every token billed.

    Stops in good order at Ctrl-C or SIGTERM: running requests end and are settled.
    """
    from avocado.gateway.server import Settings
    from avocado.gateway.server import serve as run

    workspace = workspace_here()
    offers = current_offers(workspace)
    if not offers:
        raise Refused("nothing is offered yet: release a checkpoint with: avocado release")
    config = workspace.config.serve
    settings = Settings(
        ledger=workspace.ledger,
        pepper=workspace.pepper(),
        admin_socket=workspace.admin_socket,
        host=host or config.host,
        port=config.port if port is None else port,
    )

    def ready(url: str) -> None:
        if out.json:
            out.result({"url": url, "models": sorted(offers)})
        else:
            out.say(f"Serving {', '.join(sorted(offers))} at {url}/v1 (Ctrl-C stops)")
        sys.stdout.flush()

    def log(line: bytes) -> None:
        sys.stderr.buffer.write(line)
        sys.stderr.flush()

    run(settings, offers, lambda: load_engines(workspace, offers), ready, log)
