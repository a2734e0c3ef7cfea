"""Answers that may be asked for again: Stripe's meaning of the Idempotency-Key header.

The first request with a key runs; the same again, by the same customer, gets the same bytes for 24
hours, and waits for them while the first still runs. Another body is a conflict. After its day a
key is free: the next request with it is a new one, whatever its body. The ledger's own promise, of
the same day, stands behind this: whatever is lost here, a key is never charged twice. An answer is
kept only where its request sent a key, and is deleted when its day is over or the shelf is full.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from avocado.gateway.errors import idempotency_conflict, unavailable
from avocado.gateway.exchange import ClientGone, Exchange, Kept
from avocado.gateway.shelf import Database, ShelfUnavailable, Worker
from avocado.ledger.rows import PROMISED

log = logging.getLogger("avocado.gateway")

LIFETIME: Final = PROMISED
MAX_ANSWER: Final = 8 * 1024 * 1024
"""Bytes of one answer; a longer one is not kept, and its repeat is a 409."""
MAX_TOTAL: Final = 1024 * 1024 * 1024
"""Bytes of all answers; above it the oldest go first."""
ELSEWHERE_SECONDS: Final = 25.0
"""How long a request waits for its twin in another process, or for an answer about to be kept."""
JUST_ENDED_SECONDS: Final = 2.0
POLL_SECONDS: Final = 0.1
TIDY_SECONDS: Final = 60.0
TIDY_ANSWERS: Final = 200
"""Answers that one transaction deletes: what comes in between is not kept waiting."""


@dataclass(frozen=True, slots=True)
class _Find:
    name: str
    now: int


@dataclass(frozen=True, slots=True)
class _Keep:
    name: str
    kept: Kept
    until: int


@dataclass(frozen=True, slots=True)
class _Tidy:
    now: int
    most: int


_Item = _Find | _Keep | _Tidy
_Outcome = Kept | int | None
"""Of a find what was found, of a tidying how many answers it deleted."""


def _act(database: Database, items: Sequence[_Item]) -> list[_Outcome]:
    return [_do(database, item) for item in items]


def _do(database: Database, item: _Item) -> _Outcome:
    if isinstance(item, _Find):
        rows = database.run(
            "SELECT fingerprint, request, kind, body, until FROM gateway_answer WHERE name = ?",
            (item.name,),
        )
        for fingerprint, request, kind, body, until in rows:
            if until > item.now:
                return Kept(fingerprint, request, kind, bytes(body))
        return None
    if isinstance(item, _Keep):
        kept = item.kept
        database.run(
            "INSERT INTO gateway_answer (name, fingerprint, request, kind, body, size, until)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
            " fingerprint = excluded.fingerprint, request = excluded.request,"
            " kind = excluded.kind, body = excluded.body, size = excluded.size,"
            " until = excluded.until",
            (
                item.name,
                kept.fingerprint,
                kept.request,
                kept.kind,
                kept.body,
                len(kept.body),
                item.until,
            ),
        )
        return None
    return _tidy(database, item)


def _tidy(database: Database, item: _Tidy) -> int:
    """Deletes at most ``TIDY_ANSWERS``, the oldest first."""
    total = int(database.run("SELECT coalesce(sum(size), 0) FROM gateway_answer")[0][0])
    oldest = database.run(
        "SELECT name, size, until FROM gateway_answer ORDER BY until LIMIT ?", (TIDY_ANSWERS,)
    )
    deleted = 0
    for name, size, until in oldest:
        if until > item.now and total <= item.most:
            break
        database.run("DELETE FROM gateway_answer WHERE name = ?", (name,))
        total -= int(size)
        deleted += 1
    return deleted


class Tape:
    """Records one answer while it is sent, and keeps it before its last bytes go out."""

    def __init__(self, answers: Answers, name: str, fingerprint: str, request: str) -> None:
        self._answers = answers
        self._name = name
        self._fingerprint = fingerprint
        self._request = request
        self._parts: list[bytes] = []
        self._size = 0
        self._kept: Kept | None = None

    def note(self, data: bytes) -> None:
        """A part of a stream that is about to be sent."""
        self._size += len(data)
        if self._size > MAX_ANSWER:
            self._parts.clear()
        else:
            self._parts.append(data)

    async def keep(self, kind: str, last: bytes) -> None:
        """The answer is whole with ``last``: stores it. A shelf that is away costs the repeat,
        not the answer."""
        self.note(last)
        if self._size > MAX_ANSWER:
            log.warning("request %s: its answer is too long to be kept", self._request)
            return
        self._kept = Kept(self._fingerprint, self._request, kind, b"".join(self._parts))
        try:
            await self._answers.store(self._name, self._kept)
        except ShelfUnavailable as error:
            log.error("request %s: its answer is not kept: %s", self._request, error)

    async def elsewhere(self, running: bool) -> Kept | None:
        """The ledger knows the key, so its answer was made by another process, or is being made
        (``running``): waits for it a while."""
        until = time.monotonic() + (ELSEWHERE_SECONDS if running else JUST_ENDED_SECONDS)
        while True:
            try:
                found = await self._answers.find(self._name)
            except ShelfUnavailable:
                return None
            if found is not None or time.monotonic() > until:
                return found
            await asyncio.sleep(POLL_SECONDS)

    def end(self) -> None:
        """The request is over: whoever waits for its answer gets it, or may try in its turn."""
        self._answers.end(self._name, self._kept)


@dataclass(slots=True)
class _First:
    """A request that runs, and the answer that others wait for (None: it failed)."""

    fingerprint: str
    answer: asyncio.Future[Kept | None]


class Answers:
    """All requests with a key that run in this process, and the kept answers of all processes."""

    def __init__(
        self,
        database: Database,
        *,
        most: int = MAX_TOTAL,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._worker: Worker[_Item, _Outcome] = Worker(database, _act, "gateway-answers")
        self._most = most
        self._now = now
        self._running: dict[str, _First] = {}

    async def admit(
        self, exchange: Exchange, tenant: str, key: str, fingerprint: str
    ) -> Kept | None:
        """The kept answer; or None, and then ``exchange`` is the first and has its tape.

        Raises:
            ApiError: 409 for another body, 503 while the shelf is away.
            ClientGone: the client left while it waited.
        """
        name = f"{tenant}/{key}"
        while (first := self._running.get(name)) is not None:
            if first.fingerprint != fingerprint:
                raise idempotency_conflict()
            kept = await _unless_gone(exchange, first.answer)
            if kept is not None:
                return kept
        answer: asyncio.Future[Kept | None] = asyncio.get_running_loop().create_future()
        self._running[name] = _First(fingerprint, answer)
        kept = None
        try:
            kept = await self.find(name)
            if kept is None:
                exchange.tape = Tape(self, name, fingerprint, exchange.id)
                return None
            if kept.fingerprint != fingerprint:
                raise idempotency_conflict()
            return kept
        except ShelfUnavailable as error:
            log.error("kept answers cannot be read: %s", error)
            raise unavailable(
                "Kept answers cannot be read now; try again", "ledger_unavailable"
            ) from error
        finally:
            if exchange.tape is None:
                self.end(name, kept if kept and kept.fingerprint == fingerprint else None)

    def end(self, name: str, kept: Kept | None) -> None:
        first = self._running.pop(name, None)
        if first is not None and not first.answer.done():
            first.answer.set_result(kept)

    async def find(self, name: str) -> Kept | None:
        found = await self._worker.ask(_Find(name, self._now()))
        return found if isinstance(found, Kept) else None

    async def store(self, name: str, kept: Kept) -> None:
        await self._worker.ask(_Keep(name, kept, self._now() + LIFETIME))

    async def tidy(self) -> None:
        """Deletes what is past its day, and the oldest while there is too much."""
        while await self._worker.ask(_Tidy(self._now(), self._most)) == TIDY_ANSWERS:
            pass  # each batch queues behind what came in meanwhile

    async def run(self) -> None:
        """Tidies as long as the server lives."""
        while True:
            try:
                await self.tidy()
            except ShelfUnavailable as error:
                log.warning("kept answers were not tidied: %s", error)
            await asyncio.sleep(TIDY_SECONDS)

    def close(self) -> None:
        self._worker.close()


async def _unless_gone(exchange: Exchange, answer: asyncio.Future[Kept | None]) -> Kept | None:
    """Waits for another request's answer as long as there is a client to give it to."""
    gone = asyncio.ensure_future(exchange.gone())
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientGone
        return answer.result()
    finally:
        gone.cancel()
        await asyncio.wait((gone,))
