"""One structured log line a request: who, what, how long, how much. Never a word of a prompt,
unless the operator asks for prompts.

Lines are collected and written together a few times a second, so that a request pays for its JSON
only. Knows nothing about where they go.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from avocado.gateway.exchange import Exchange

FLUSH_SECONDS = 0.25

_encode = msgspec.json.Encoder().encode
log = logging.getLogger("avocado.gateway")


class _Line(msgspec.Struct, omit_defaults=True):
    """Amounts are nano-units; ``ms`` is the whole time from the headers to the settlement."""

    time: float
    id: str
    method: str
    path: str
    status: int
    ms: float
    outcome: str = ""
    tenant: str = ""
    key: str = ""
    model: str = ""
    release: str = ""
    first_ms: float = 0
    user: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    charge: int = 0
    currency: str = ""
    body: str = ""
    """What the client sent, only where the operator asked for it."""


class RequestLog:
    """Collects lines; ``sink`` gets them as bytes that end with a newline."""

    def __init__(self, sink: Callable[[bytes], object]) -> None:
        self._sink = sink
        self._lines: list[bytes] = []

    def write(self, exchange: Exchange) -> None:
        line = _Line(
            time=round(time.time(), 3),
            id=exchange.id,
            method=exchange.method[:16],
            path=exchange.path[:200],
            status=exchange.status or 499,
            ms=round((time.monotonic() - exchange.began) * 1000, 2),
            outcome=exchange.outcome,
            tenant=exchange.tenant,
            key=exchange.key_id,
            model=exchange.model[:100],
            release=exchange.release,
            first_ms=round((exchange.first - exchange.began) * 1000, 2) if exchange.first else 0,
            user=exchange.user,
            prompt_tokens=exchange.prompt,
            completion_tokens=exchange.completion,
            charge=exchange.charge,
            currency=exchange.currency,
            body=exchange.said.decode("utf-8", "replace"),
        )
        self._lines.append(_encode(line))

    def flush(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            try:
                self._sink(b"\n".join(lines) + b"\n")
            except OSError as error:
                log.warning("%d request lines were lost: %s", len(lines), error)

    async def run(self) -> None:
        """Flushes as long as the server lives."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self.flush()
