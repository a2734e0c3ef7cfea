"""Share: how many lines of batches an engine may run now, beneath the requests of people who wait.

An engine that is idle gives batches half of its places, so that whoever comes finds one at once.
While others are served, and for a second after, it gives a line for four of them (an eighth of its
places at most, one line at least), so that a batch goes on under a steady load too, and nothing
where half of the places are taken or somebody waits.
What runs is never stopped: a batch yields by not starting. ``share`` is pure.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from avocado.engine.engine import Occupancy
from avocado.gateway.swap import Floor

UNKNOWN: Final = 16
"""The places of an engine that doesn't say how many it has."""
QUIET_SECONDS: Final = 1.0
"""How long after the last request of somebody else an engine counts as idle."""


def share(occupancy: Occupancy, own: int, others: int, quiet: bool, most: int) -> int:
    """How many lines may run on an engine. ``own`` lines run there now, and ``others`` requests
    that are no lines; ``quiet`` says that there were none for a while. ``most``: never more."""
    capacity = min(occupancy.capacity or UNKNOWN, 2 * most)
    half = max(1, capacity // 2)
    if not others and quiet:
        return half
    elsewhere = max(others, occupancy.running - own)
    if occupancy.waiting or elsewhere >= half:
        return 0
    return min(max(1, min(capacity // 8, others // 4)), half - elsewhere)


class Places:
    """Counts the lines that run in this process, by release."""

    def __init__(
        self, floor: Floor, most: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._floor = floor
        self._most = most
        self._clock = clock
        self.running: Counter[str] = Counter()
        self._last: dict[str, float] = {}

    def noticed(self, release: str) -> None:
        """A request that is no line has ended there."""
        self._last[release] = self._clock()

    def take(self, model: str) -> str | None:
        """The release on which a line of ``model`` may start now, counted; None: not now. A model
        that is not sold any more is refused later, by name, and takes no place ("")."""
        if self.running.total() >= self._most:
            return None
        offer = self._floor.offers.get(model)
        engine = self._floor.engines.get(offer.release) if offer else None
        if offer is None or engine is None:
            self.running[""] += 1
            return ""
        own = self.running[offer.release]
        quiet = self._clock() - self._last.get(offer.release, -QUIET_SECONDS) >= QUIET_SECONDS
        others = self._floor.serving[offer.release] - own
        if own >= share(engine.occupancy, own, max(0, others), quiet, self._most):
            return None
        self.running[offer.release] += 1
        return offer.release

    def give_back(self, release: str) -> None:
        self.running[release] -= 1
