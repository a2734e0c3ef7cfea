"""Line: one request of a batch on the paid path, and what has become of it. Nobody listens on a
socket: the exchange keeps its answer. Knows nothing about tables.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from avocado.gateway.errors import ApiError
from avocado.gateway.exchange import Exchange
from avocado.gateway.keys import Caller
from avocado.terms.usage import Usage

ADDRESS: Final = "batch"
"""Where such a request comes from, for the log."""
NONE: Final = Usage(0, 0)


class LineExchange(Exchange):
    """An exchange without a client. ``status`` 0 means that it got no answer."""

    def __init__(self, path: str, key: str, keep: Callable[[str, bytes], Awaitable[None]]) -> None:
        scope: dict[str, Any] = {
            "method": "POST",
            "path": path,
            "headers": [(b"idempotency-key", key.encode())],
        }
        super().__init__(scope, _nothing, _nowhere)
        self.address = ADDRESS
        self.batch = True
        self.answer = b""
        self.error: ApiError | None = None
        self.usage = NONE
        self.kept = False
        """Whether an answer was stored, paid or not."""
        self._keep = keep
        self.keep_unpaid = self._note

    async def _note(self, body: bytes) -> None:
        self.kept = True  # before it is: whether it was is looked up where it matters
        await self._keep(self.id, body)

    def bill(self, usage: Usage, charge: int, currency: str) -> None:
        super().bill(usage, charge, currency)
        self.usage = usage

    async def reply(
        self, status: int, body: bytes, more: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        self.status, self.answer = status, body
        self.answered = True

    async def refuse(self, error: ApiError) -> None:
        self.error = error
        self.outcome = self.outcome or (error.code or error.type)
        await self.reply(error.status, error.body())


Sell = Callable[[LineExchange, Caller, bytes], Awaitable[None]]
"""Runs a request of a caller down the paid path; returns when it is over, whatever came of it."""


async def _nothing() -> Any:
    raise AssertionError("a line has no client to hear from")


async def _nowhere(message: Any) -> None:
    raise AssertionError("a line has no client to tell")
