"""Time and ids as injected values, so that tests decide what time it is."""

from __future__ import annotations

import os
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time may step; monotonic time never goes back. Both in ns."""

    def now(self) -> int: ...

    def monotonic(self) -> int: ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> int:
        return time.time_ns()

    def monotonic(self) -> int:
        return time.monotonic_ns()


def new_id(prefix: str = "") -> str:
    """A unique id that sorts by time (48 bits of ms, 80 random bits, hex), after ``prefix``.

    Ids that grow with time keep the book's index pages warm: use them for requests too.
    """
    return f"{prefix}{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


class ManualClock:
    """A clock that moves when it is told to: for tests. ``step`` moves the wall clock alone."""

    def __init__(self, now: int = 1_790_000_000_000_000_000) -> None:
        self._now = now
        self._monotonic = 0

    def now(self) -> int:
        return self._now

    def monotonic(self) -> int:
        return self._monotonic

    def pass_time(self, nanoseconds: int) -> None:
        """Time goes by, on both clocks."""
        self._now += nanoseconds
        self._monotonic += nanoseconds

    def step(self, nanoseconds: int) -> None:
        """Somebody sets the wall clock, in either direction."""
        self._now += nanoseconds
