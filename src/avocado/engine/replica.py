"""One server of a remote engine: how patient we are with it, what we know of it, and what its
refusals mean. Knows nothing about requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from avocado.engine.breaker import Breaker
from avocado.engine.connection import Connection
from avocado.engine.engine import EngineBusy, EngineError
from avocado.engine.hearing import Declined

RETRY_AFTER = (1.0, 60.0)
"""Seconds that we believe a busy server, at least and at most."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to wait for a connection, for the next bytes, for all of an answer, and between looks
    at a replica's health (0: none); and how often to try again."""

    connect: float = 5.0
    idle: float = 60.0
    total: float = 900.0
    health: float = 5.0
    retries: int = 2


@dataclass(eq=False, slots=True)
class Replica:
    """One server, as we know it."""

    url: str
    breaker: Breaker = field(default_factory=Breaker)
    running: int = 0
    up: bool = True
    """What it said when asked for its health."""
    disagrees: bool = False
    """Whether it once counted a prompt otherwise than we do, and that was told."""

    def ready(self, now: float) -> bool:
        return self.up and self.breaker.allows(now)


class TryAgain(Exception):
    """Nothing of an answer came. ``elsewhere``: only another replica may do better."""

    def __init__(self, error: EngineError, *, elsewhere: bool = False) -> None:
        super().__init__(str(error))
        self.error, self.elsewhere = error, elsewhere


async def refusal(answer: Connection) -> Exception:
    """What an answer other than 200 means."""
    said = f"the upstream answered {answer.status}: {await excerpt(answer)}"
    if answer.status in (429, 503):
        return EngineBusy(said, retry_after=_retry_after(answer.headers.get(b"retry-after")))
    if answer.status in (502, 504):
        return TryAgain(EngineError(said, retryable=True))
    return EngineError(said, retryable=True) if answer.status >= 500 else Declined(said)


async def excerpt(answer: Connection) -> str:
    """The beginning of a body, for the log."""
    return (await answer.read())[:2048].decode(errors="replace")


def _retry_after(header: bytes | None) -> float:
    """Seconds; a date or nonsense is a second."""
    try:
        seconds = float(header or b"")
    except ValueError:
        seconds = 0.0
    least, most = RETRY_AFTER
    return min(max(seconds, least), most) if seconds == seconds else least
