"""Means: what those work with who run a batch, and the batch that they have taken."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from avocado.gateway.batches.holds import Holds
from avocado.gateway.batches.line import Sell
from avocado.gateway.batches.rows import BatchLimits, BatchRow
from avocado.gateway.batches.share import Places
from avocado.gateway.batches.store import Store
from avocado.gateway.keys import Caller


@dataclass(frozen=True, slots=True)
class Means:
    """``standing`` says who is behind a key now, ``models`` what it may ask for, ``sell`` runs a
    line, ``stopping`` says that nothing may begin any more."""

    store: Store
    holds: Holds
    places: Places
    limits: BatchLimits
    standing: Callable[[str], Awaitable[Caller]]
    models: Callable[[Caller], frozenset[str]]
    sell: Sell
    stopping: Callable[[], bool]


class Lost(Exception):
    """Another process runs the batch now, or it is over, or this server stops."""


@dataclass(slots=True)
class Taken:
    """A batch that this process runs, as it was last seen; its epoch is ours."""

    row: BatchRow
    lost: bool = False
    paused: str | None = None
    """Why nothing moves just now."""

    def seen(self, row: BatchRow | None) -> None:
        """What the batch is now; None: there is none any more."""
        if row is None or row.epoch != self.row.epoch:
            self.lost = True
        else:
            self.row = row

    @property
    def may_begin(self) -> bool:
        """Whether a line may begin yet."""
        return not self.lost and self.row.status == "in_progress" and time.time() < self.row.expires
