"""A circuit breaker: whether to send anything to a server that failed. Pure; time is passed in.

Closed, it lets all through. After some failures in a row it opens, and lets nothing through for a
while, which doubles each time it reopens. Then it is half open: one request goes through, and what
becomes of it closes or reopens the breaker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

State = Literal["closed", "open", "half-open"]

FAILURES: Final = 3
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0


@dataclass(slots=True)
class Breaker:
    """Seconds are those of one monotonic clock."""

    failures: int = 0
    """In a row."""
    _pause: float = 0.0
    _until: float = 0.0
    _trying: bool = False

    def state(self, now: float) -> State:
        if not self._pause:
            return "closed"
        return "open" if now < self._until else "half-open"

    def allows(self, now: float) -> bool:
        """Whether a request may go through now."""
        state = self.state(now)
        return state == "closed" or (state == "half-open" and not self._trying)

    def begin(self, now: float) -> None:
        """A request goes through; ``succeed``, ``fail`` or ``forget`` must follow."""
        self._trying = self.state(now) == "half-open"

    def succeed(self) -> None:
        self.failures, self._pause, self._trying = 0, 0.0, False

    def fail(self, now: float) -> None:
        self.failures += 1
        self._trying = False
        # Requests that were under way when it opened fail too, and are no news.
        if (self.failures >= FAILURES or self._pause) and now >= self._until:
            self._pause = min(2 * self._pause or FIRST_PAUSE, LONGEST_PAUSE)
            self._until = now + self._pause

    def forget(self) -> None:
        """The request ended without a word on the server's health."""
        self._trying = False

    def wait(self, now: float) -> float:
        """Seconds until it lets something through again."""
        return max(0.0, self._until - now) if self._pause else 0.0
