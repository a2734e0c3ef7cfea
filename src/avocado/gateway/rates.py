"""Rates: how many requests and tokens a minute a customer, or one key, may ask for.

A bucket holds a minute's worth and refills evenly. Its whole state is one integer: the time at
which it is full again (the generic cell rate algorithm, ITU-T I.371, with the burst equal to the
limit). ``decide`` is pure; ``MemoryRates`` is exact in one process, ``SharedRates`` across all
processes on one PostgreSQL: it decides under a lock in the database, by the database's clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final, Protocol

from avocado.gateway.errors import ApiError
from avocado.gateway.shelf import Database, Worker

MINUTE: Final = 60_000_000_000
FAILURES: Final = "failures/"
"""How the buckets of wrong keys are named: by addresses and key ids, without end."""
_KEPT_NAMES: Final = 20_000
_SLACK: Final = 1000
"""Ns of rounding that do not make a request less in what a client is told."""
Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Rate:
    """What one subject (``customer:acme``, ``key:…``) may ask for a minute; None: any number."""

    subject: str
    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Draw:
    """Takes ``cost`` from the bucket ``name``, which refills by ``limit`` a minute. A negative cost
    gives back."""

    name: str
    limit: int
    cost: int


@dataclass(frozen=True, slots=True)
class Level:
    """A bucket after a draw, or as it is where the draw was refused. Times in ns; ``wait`` is 0
    where it was let through."""

    limit: int
    remaining: int
    reset: int
    wait: int


def decide(
    full_at: Mapping[str, int], draws: Sequence[Draw], now: int
) -> tuple[dict[str, int], list[Level]]:
    """All draws or none: the new times at which the buckets are full, and a level each.

    A bucket that is not in ``full_at`` is full. Nothing changes where one draw is refused.
    """
    after = {}
    waits = []
    for draw in draws:
        began = max(full_at.get(draw.name, 0), now)
        ends = began + _span(draw.cost, draw.limit)
        wait = max(0, ends - now - MINUTE) if draw.cost > 0 else 0
        after[draw.name] = ends
        waits.append(wait)
    if any(waits):
        after = {}
    levels = []
    for draw, wait in zip(draws, waits, strict=True):
        reset = max(0, max(after.get(draw.name, full_at.get(draw.name, 0)), now) - now)
        remaining = max(0, (MINUTE - reset + _SLACK) * draw.limit // MINUTE)
        remaining = min(remaining, draw.limit)
        levels.append(Level(draw.limit, remaining, reset, wait))
    return after, levels


def _span(cost: int, limit: int) -> int:
    """Nanoseconds in which ``cost`` refills, rounded so that nobody gains."""
    return -(-cost * MINUTE // limit)


class Rates(Protocol):
    async def draw(self, draws: Sequence[Draw]) -> list[Level]:
        """All or none. Raises ShelfUnavailable."""

    def give_back(self, draws: Sequence[Draw]) -> None:
        """Draws of negative cost, some time soon."""

    def close(self) -> None: ...


class MemoryRates:
    """For one process."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._full_at: dict[str, int] = {}

    async def draw(self, draws: Sequence[Draw]) -> list[Level]:
        now = self._clock()
        after, levels = decide(self._full_at, draws, now)
        self._full_at.update(after)
        if len(self._full_at) > _KEPT_NAMES:
            self._full_at = {name: at for name, at in self._full_at.items() if at > now}
        return levels

    def give_back(self, draws: Sequence[Draw]) -> None:
        self._full_at.update(decide(self._full_at, draws, self._clock())[0])

    def close(self) -> None: ...


class SharedRates:
    """For all processes on one PostgreSQL. What waits is decided together, in one transaction."""

    def __init__(self, database: Database) -> None:
        self._worker: Worker[Sequence[Draw], list[Level]] = Worker(
            database, _decide_in_database, "gateway-rates"
        )
        self._giving: set[asyncio.Task[list[Level]]] = set()

    async def draw(self, draws: Sequence[Draw]) -> list[Level]:
        return await self._worker.ask(draws)

    def give_back(self, draws: Sequence[Draw]) -> None:
        task = asyncio.get_running_loop().create_task(self._worker.ask(draws))
        self._giving.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._given)

    def _given(self, task: asyncio.Task[list[Level]]) -> None:
        self._giving.discard(task)
        if not task.cancelled():
            task.exception()  # a rate that was not given back refills within a minute by itself

    def close(self) -> None:
        self._worker.close()


def _decide_in_database(database: Database, items: Sequence[Sequence[Draw]]) -> list[list[Level]]:
    # One lock for all: batches of all processes follow one another, as the ledger's do.
    database.run("SELECT pg_advisory_xact_lock(hashtext('avocado gateway rates'))")
    names = sorted({draw.name for draws in items for draw in draws})
    rows = database.run(
        "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000, name, full_at"
        " FROM (SELECT unnest(?::text[]) AS name) AS asked LEFT JOIN gateway_rate USING (name)",
        (names,),
    )
    now = max(int(row[0]) for row in rows)
    full_at = {str(name): int(at) for _, name, at in rows if at is not None}
    changed: dict[str, int] = {}
    answers = []
    for draws in items:
        after, levels = decide(full_at, draws, now)
        full_at.update(after)
        changed.update(after)
        answers.append(levels)
    if any(name.startswith(FAILURES) for name in changed):
        # A full bucket is as good as none, and this one names whoever failed.
        database.run(
            "DELETE FROM gateway_rate WHERE name IN"
            " (SELECT name FROM gateway_rate WHERE full_at <= ? LIMIT 100)",
            (now,),
        )
    if changed:
        database.run(
            "INSERT INTO gateway_rate (name, full_at) SELECT * FROM unnest(?::text[], ?::bigint[])"
            " ON CONFLICT (name) DO UPDATE SET full_at = excluded.full_at",
            (list(changed), list(changed.values())),
        )
    return answers


# -- one request -----------------------------------------------------------------------------------


class Meter:
    """The rates of one request: a request when it comes, its tokens once they are counted."""

    __slots__ = ("_levels", "_rates", "_subjects", "_taken")

    def __init__(self, rates: Rates, subjects: Sequence[Rate]) -> None:
        self._rates = rates
        self._subjects = subjects
        self._levels: dict[str, list[Level]] = {}
        self._taken = 0

    async def request(self) -> None:
        """Counts the request.

        Raises:
            ApiError: 429 with Retry-After.
            ShelfUnavailable: the database is away.
        """
        asked = [
            Draw(f"{each.subject}/requests", each.requests, 1)
            for each in self._subjects
            if each.requests is not None
        ]
        levels = await self._rates.draw([*asked, *self._tokens(0)])
        self._levels = {"requests": levels[: len(asked)], "tokens": levels[len(asked) :]}
        self._check("requests", 1)

    async def tokens(self, most: int) -> None:
        """Takes the most tokens that the request can come to, prompt included.

        Raises:
            ApiError: 429 with Retry-After.
            ShelfUnavailable: the database is away.
        """
        draws = self._tokens(most)
        if draws:
            self._levels["tokens"] = await self._rates.draw(draws)
            self._check("tokens", most)
            self._taken = most

    def used(self, tokens: int) -> None:
        """Gives back what was not used in the end."""
        if self._taken > tokens:
            self._rates.give_back(self._tokens(tokens - self._taken))
        self._taken = 0

    def _tokens(self, cost: int) -> list[Draw]:
        return [
            Draw(f"{each.subject}/tokens", each.tokens, cost)
            for each in self._subjects
            if each.tokens is not None
        ]

    def _check(self, what: str, cost: int) -> None:
        for level in self._levels[what]:
            if level.wait:
                raise _too_fast(what, cost, level)

    def headers(self) -> Headers:
        """``x-ratelimit-*``, of the tightest of the buckets that apply."""
        fields: list[tuple[bytes, bytes]] = []
        for what, levels in self._levels.items():
            if levels:
                level = min(levels, key=lambda each: (each.remaining, -each.reset))
                for name, value in (
                    ("limit", str(level.limit)),
                    ("remaining", str(level.remaining)),
                    ("reset", duration(level.reset)),
                ):
                    fields.append((f"x-ratelimit-{name}-{what}".encode(), value.encode()))
        return tuple(fields)


def _too_fast(what: str, cost: int, level: Level) -> ApiError:
    if cost > level.limit:
        said = f"This request may come to {cost} tokens; lower max_tokens"
    else:
        said = f"Wait {duration(level.wait)}"
    return ApiError(
        429,
        f"Your limit is {level.limit} {what} a minute, and {level.remaining} are left. {said}",
        type="rate_limit_error",
        code="rate_limit_exceeded",
        retry_after=ceil(level.wait / 1e9),
    )


def duration(nanoseconds: int) -> str:
    """As OpenAI writes it: ``350ms``, ``12.5s``, ``1m2s``."""
    milliseconds = ceil(nanoseconds / 1e6)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes}m{seconds}" if minutes else seconds
