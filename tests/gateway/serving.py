"""A real server process for tests: python serving.py FOLDER PORT REPLY DELAY DRAIN_SECONDS

Prints its URL when it is ready; the request log goes to FOLDER/requests.log.
"""

from __future__ import annotations

import sys
from pathlib import Path

from avocado.engine.scripted import Script, ScriptedEngine
from avocado.errors import Refused
from avocado.gateway.limits import Limits
from avocado.gateway.server import Settings, serve
from avocado.release.offer import Offer
from avocado.terms.price import PriceSheet

RELEASE = "release-" + "ab" * 32
OFFER = Offer("avocado-1", RELEASE, PriceSheet(200_000_000, 800_000_000), 1_700_000_000)


def main() -> int:
    folder, port, reply, delay, drain = sys.argv[1:]
    where = Path(folder)
    settings = Settings(
        ledger=where / "ledger.sqlite",
        pepper=b"a pepper of thirty-two bytes.....",
        admin_socket=where / "admin.sock",
        port=int(port),
        limits=Limits(drain_seconds=float(drain), hold_seconds=15.0),
    )
    engine = ScriptedEngine(Script(reply=reply, delay=float(delay)))
    try:
        with (where / "requests.log").open("ab", buffering=0) as log:
            serve(
                settings,
                {"avocado-1": OFFER},
                lambda: {RELEASE: engine},
                lambda url: print(url, flush=True),
                log.write,
            )
    except Refused as refused:
        print(*refused.reasons, sep="\n", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
