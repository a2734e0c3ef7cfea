"""Office: files and batches of one gateway: where they lie, who answers, and who runs them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from avocado.gateway.batches.files import FILES, Files
from avocado.gateway.batches.holds import Holds
from avocado.gateway.batches.jobs import BATCHES, AnsweredBefore, Identify, Jobs
from avocado.gateway.batches.line import Sell
from avocado.gateway.batches.means import Means
from avocado.gateway.batches.rows import BatchLimits
from avocado.gateway.batches.runner import Runner
from avocado.gateway.batches.share import Places
from avocado.gateway.batches.store import Store
from avocado.gateway.exchange import Handler
from avocado.gateway.keys import Caller
from avocado.gateway.limits import Limits
from avocado.gateway.shelf import Database
from avocado.gateway.swap import Floor
from avocado.ledger.reader import Reader

Routes = dict[str, Handler]
EXACT: Final = (FILES, BATCHES)
NAMED: Final = (
    FILES + "/{file_id}",
    FILES + "/{file_id}/content",
    BATCHES + "/{batch_id}",
    BATCHES + "/{batch_id}/cancel",
)
"""The paths with an id in them, as the API's document names them."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the office needs of the gateway that it is in."""

    identify: Identify
    answered_before: AnsweredBefore
    standing: Callable[[str], Awaitable[Caller]]
    models: Callable[[Caller], frozenset[str]]
    sell: Sell
    floor: Floor
    limits: Limits
    stopping: Callable[[], bool]


class Batches:
    """``open_book`` opens a reader of the ledger, ``connect`` a connection to where files lie."""

    def __init__(
        self,
        connect: Callable[[], Database],
        open_book: Callable[[], Reader],
        limits: BatchLimits | None = None,
    ) -> None:
        self.limits = limits or BatchLimits()
        self._store = Store(connect)
        self._holds = Holds(open_book)
        self.places: Places | None = None
        self._runner: Runner | None = None
        self._routes: list[tuple[re.Pattern[str], Routes]] = []

    def open(self, gateway: Gateway) -> None:
        """Puts it into a gateway; once."""
        self.places = Places(gateway.floor, self.limits.running)
        self._runner = runner = Runner(
            Means(
                self._store,
                self._holds,
                self.places,
                self.limits,
                gateway.standing,
                gateway.models,
                gateway.sell,
                gateway.stopping,
            )
        )
        body = gateway.limits.body_bytes, gateway.limits.body_seconds
        files = Files(self._store, self.limits, gateway.identify, *body)
        jobs = Jobs(
            self._store, self.limits, gateway.identify, gateway.answered_before, runner, body
        )
        table: list[tuple[str, Routes]] = [
            (FILES, {"POST": files.upload, "GET": files.list}),
            (BATCHES, {"POST": jobs.create, "GET": jobs.list}),
            (NAMED[0], {"GET": files.show, "DELETE": files.delete}),
            (NAMED[1], {"GET": files.content}),
            (NAMED[2], {"GET": jobs.show}),
            (NAMED[3], {"POST": jobs.cancel}),
        ]
        self._routes = [
            (re.compile(re.sub(r"\{\w+\}", "[^/]+", path), re.DOTALL), routes)
            for path, routes in table
        ]

    def route(self, path: str) -> Routes | None:
        """Who answers at a path, by method."""
        if not path.startswith(EXACT):
            return None
        return next((routes for shape, routes in self._routes if shape.fullmatch(path)), None)

    def paths(self) -> Iterator[str]:
        """All of them, as the API's document names them."""
        yield from EXACT
        yield from NAMED

    async def run(self) -> None:
        """Runs batches as long as the server lives."""
        assert self._runner is not None, "an office that is in no gateway runs nothing"
        await self._runner.run()

    def close(self) -> None:
        self._holds.close()
        self._store.close()
