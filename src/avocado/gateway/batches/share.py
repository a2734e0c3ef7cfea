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
ASKS_SECONDS: Final = 0.5
"""How long a customer that asked for a place is thought to want more."""
Place = tuple[str, str]
"""A release and the customer that has a place there."""
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
    """Counts the lines that run in this process, by release and customer. Customers whose batches
    want the same release get the same number of places."""

    def __init__(
        self, floor: Floor, most: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._floor = floor
        self._most = most
        self._clock = clock
        self._running: Counter[str] = Counter()
        self._of: Counter[Place] = Counter()
        self._asked: dict[Place, float] = {}
        self._last: dict[str, float] = {}

    def noticed(self, release: str) -> None:
        """A request that is no line has ended there."""
        self._last[release] = self._clock()

    def take(self, model: str, tenant: str) -> Place | None:
        """A place in which a line of ``model`` may start now, counted; None: not now. A model that
        is not sold any more is refused later, by name, so it gets a place of no release."""
        offer = self._floor.offers.get(model)
        engine = self._floor.engines.get(offer.release) if offer else None
        place = ("" if offer is None or engine is None else offer.release, tenant)
        now = self._asked[place] = self._clock()
        allowed = self._most
        if offer is not None and engine is not None:
            own = self._running[offer.release]
            quiet = now - self._last.get(offer.release, -QUIET_SECONDS) >= QUIET_SECONDS
            others = self._floor.serving[offer.release] - own
            allowed = share(engine.occupancy, own, max(0, others), quiet, self._most)
            if own >= allowed:
                return None
        if self._running.total() >= self._most or self._of[place] >= self._fair(place, allowed):
            return None
        self._running[place[0]] += 1
        self._of[place] += 1
        return place

    def _fair(self, place: Place, allowed: int) -> int:
        """What one customer gets of what is allowed, where others want it too."""
        since = self._clock() - ASKS_SECONDS
        self._asked = {each: at for each, at in self._asked.items() if at >= since}
        wanted = sum(release == place[0] for release, _ in self._asked)
        return max(1, -(-allowed // max(1, wanted)))

    def give_back(self, place: Place) -> None:
        self._running[place[0]] -= 1
        self._of[place] -= 1
        if not self._of[place]:
            del self._of[place]
