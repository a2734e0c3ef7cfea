"""Limits: how much one server takes on at once, and how long it waits for anybody.

``Gate`` refuses before anything is read, parsed or tokenized. Rates per minute are in ``rates``.
"""

from __future__ import annotations

from dataclasses import dataclass

from avocado.gateway.errors import ApiError, overloaded


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one server. Times in seconds, sizes in bytes."""

    body_bytes: int = 4 * 1024 * 1024
    body_seconds: float = 30.0
    connections: int = 8192
    """Open at once; one more is told 503, and at twice as many it is closed without a word."""
    running: int = 1024
    """Requests past the gate at once, over all customers."""
    running_per_customer: int = 512
    default_max_tokens: int = 4096
    """What a request gets that names no maximum, or what the context leaves if that is less."""
    hold_seconds: float = 1.0
    """How long the ledger may take to acknowledge a hold, at most; then 503."""
    idle_seconds: float = 120.0
    """How long an engine may produce nothing; then 504."""
    stall_seconds: float = 30.0
    """How long a client may read nothing of its stream; then it is cut off."""
    request_seconds: float = 840.0
    """How long one generation may take in all."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Of each customer that has no limits of its own. None: any number."""
    log_prompts: bool = False
    """Whether what clients send stands in the request log."""
    drain_seconds: float = 30.0
    """How long running requests may take after SIGTERM."""

    @property
    def hold_lifetime(self) -> int:
        """Nanoseconds after which the ledger closes a hold by itself: past every other limit."""
        return int((self.request_seconds + 60.0) * 1_000_000_000)


class Gate:
    """Counts the requests that are inside, over all and by customer."""

    def __init__(self, running: int, per_customer: int) -> None:
        self._most = running
        self._most_of_one = per_customer
        self._inside: dict[str, int] = {}
        self.total = 0

    def enter(self, tenant: str) -> None:
        """Lets one request in; ``leave`` must follow.

        Raises:
            ApiError: 429 with Retry-After.
        """
        if self.total >= self._most:
            raise overloaded("The server is at its limit of concurrent requests; try again")
        own = self._inside.get(tenant, 0)
        if own >= self._most_of_one:
            raise ApiError(
                429,
                f"You have {own} requests running, which is your limit; wait for one to end",
                type="rate_limit_error",
                code="rate_limit_exceeded",
                retry_after=1,
            )
        self._inside[tenant] = own + 1
        self.total += 1

    def leave(self, tenant: str) -> None:
        own = self._inside[tenant] - 1
        if own:
            self._inside[tenant] = own
        else:
            del self._inside[tenant]
        self.total -= 1
