"""A real server process for tests: python serving.py FOLDER PORT REPLY DELAY DRAIN_SECONDS [LEDGER]

Prints its URL when it is ready; the request log goes to FOLDER/requests.log. Where there is a
FOLDER/lineup.json it says what is offered, and a refresh reads it again; see ``FileStock``. LEDGER
is the address of a PostgreSQL database.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from avocado.engine.engine import Engine
from avocado.engine.scripted import Script, ScriptedEngine
from avocado.errors import Refused
from avocado.gateway.batches.rows import BatchLimits
from avocado.gateway.limits import Limits
from avocado.gateway.server import Settings, serve
from avocado.gateway.swap import Lineup
from avocado.release.offer import Offer
from avocado.terms.price import PriceSheet

RELEASE = "release-" + "ab" * 32
OFFER = Offer("avocado-1", RELEASE, PriceSheet(200_000_000, 800_000_000), 1_700_000_000)


class FileStock:
    """``lineup.json``: {"current": letter, "canary": letter or null, "percent": 10,
    "by": "customer"}. A letter makes a release whose engine says it at each word; the letter z does
    not load."""

    def __init__(self, path: Path, delay: float) -> None:
        self._path = path
        self._delay = delay

    def lineups(self) -> dict[str, Lineup]:
        said = json.loads(self._path.read_text())
        canary = _offer(said["canary"]) if said.get("canary") else None
        share = said.get("percent", 0), said.get("by", "customer")
        return {"avocado-1": Lineup(_offer(said["current"]), canary, *share)}

    async def engine(self, release: str) -> Engine:
        letter = release[-1]
        if letter == "z":
            raise Refused(f"{release} does not load")
        return ScriptedEngine(Script(reply=" ".join(letter * 5), delay=self._delay))


def _offer(letter: str) -> Offer:
    return replace(OFFER, release=f"release-{letter}{'0' * 62}{letter}")


def main() -> int:
    folder, port, reply, delay, drain, *ledger = sys.argv[1:]
    where = Path(folder)
    lineup = where / "lineup.json"
    stock = FileStock(lineup, float(delay)) if lineup.exists() else None
    settings = Settings(
        ledger=ledger[0] if ledger else where / "ledger.sqlite",
        pepper=b"a pepper of thirty-two bytes.....",
        admin_socket=where / "admin.sock",
        port=int(port),
        limits=Limits(drain_seconds=float(drain), hold_seconds=15.0),
        batch_limits=BatchLimits(lease=2.0, tick=0.1),
    )
    engine = ScriptedEngine(Script(reply=reply, delay=float(delay)))
    try:
        with (where / "requests.log").open("ab", buffering=0) as log:
            serve(
                settings,
                {} if stock else {"avocado-1": OFFER},
                lambda: {} if stock else {RELEASE: engine},
                lambda url: print(url, flush=True),
                log.write,
                stock,
            )
    except Refused as refused:
        print(*refused.reasons, sep="\n", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
