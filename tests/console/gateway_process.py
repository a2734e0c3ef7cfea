"""A real gateway over a test's workspace: python gateway_process.py FOLDER PORT REPLY DELAY

Its engine is scripted; its ledger, keys and prices are the workspace's. Prints its URL when it is
ready.
"""

from __future__ import annotations

import sys
from pathlib import Path

from avocado.cli.lineups import read_offer
from avocado.cli.serve import server_settings
from avocado.engine.scripted import Script, ScriptedEngine
from avocado.gateway.server import serve
from avocado.workspace import Workspace


def main() -> None:
    workspace = Workspace.open(Path(sys.argv[1]))
    offers = {
        name: read_offer(workspace, ref) for name, ref in workspace.store.pointed("offer").items()
    }
    engine = ScriptedEngine(Script(reply=sys.argv[3], delay=float(sys.argv[4])))
    serve(
        server_settings(workspace, None, int(sys.argv[2])),
        offers,
        lambda: {offer.release: engine for offer in offers.values()},
        lambda url: print(url, flush=True),
        lambda line: None,
    )


if __name__ == "__main__":
    main()
