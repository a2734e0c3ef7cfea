"""API keys: how one looks, how it is minted, stored and recognised.

A key is ``av_live_<id>_<secret><checksum>``: twelve base62 characters that name it, thirty secret
ones (178 bits) and six of a CRC-32 over all that comes before (GitHub's form), so that a typo is
refused without a read. The book keeps the id and an HMAC-SHA-256 under a pepper that lies outside
it. Knows nothing about money; the book is asked only for a record by id.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import time
import zlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from avocado.gateway.errors import ApiError, unauthorized
from avocado.gateway.rates import FAILURES, MINUTE, Draw, Rate, Rates
from avocado.gateway.shelf import ShelfUnavailable

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIX: Final = "av_live_"
ID_LENGTH: Final = 12
SECRET_LENGTH: Final = 30
CHECKSUM_LENGTH: Final = 6
LENGTH: Final = len(PREFIX) + ID_LENGTH + 1 + SECRET_LENGTH + CHECKSUM_LENGTH

DEFAULT_SCOPES: Final = frozenset(("inference", "read"))
"""What a key may do that was made without a word about it."""

_KEY = re.compile(
    rb"%s([0-9A-Za-z]{%d})_[0-9A-Za-z]{%d}"
    % (PREFIX.encode(), ID_LENGTH, SECRET_LENGTH + CHECKSUM_LENGTH)
)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just minted. ``text`` is shown once and stored nowhere."""

    id: str
    text: str = field(repr=False)
    digest: str
    """Hex HMAC-SHA-256 under the pepper: what the book stores."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What the book knows of a key. ``expires`` is in nanoseconds since 1970."""

    id: str
    tenant: str
    digest: str
    revoked: bool = False
    expires: int | None = None
    scopes: frozenset[str] = DEFAULT_SCOPES
    models: frozenset[str] | None = None
    """The only models that the key may ask for; None: all."""
    rates: tuple[Rate, ...] = ()
    plan: str | None = None
    """The plan that the customer is on, for offers that are not for everybody."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a customer (``tenant``) by one of its keys, and what it may ask for."""

    tenant: str
    key_id: str
    scopes: frozenset[str] = DEFAULT_SCOPES
    models: frozenset[str] | None = None
    rates: tuple[Rate, ...] = ()
    plan: str | None = None

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models


KeyLookup = Callable[[str], Awaitable[KeyRecord | None]]
"""Reads a key's record by id from the book, or None."""


def mint(pepper: bytes) -> NewKey:
    """A fresh key from the system's randomness."""
    key_id = _random(ID_LENGTH)
    body = f"{PREFIX}{key_id}_{_random(SECRET_LENGTH)}"
    text = body + checksum(body.encode())
    return NewKey(key_id, text, digest(text.encode(), pepper))


def digest(key: bytes, pepper: bytes) -> str:
    """Hex HMAC-SHA-256 of the whole key under the pepper."""
    return hmac.digest(pepper, key, "sha256").hex()


def checksum(body: bytes) -> str:
    """CRC-32 of ``body`` as six base62 digits."""
    value = zlib.crc32(body)
    digits = []
    for _ in range(CHECKSUM_LENGTH):
        value, digit = divmod(value, 62)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def key_id(key: bytes) -> str | None:
    """The id inside a well-formed key, or None where form or checksum are wrong."""
    match = _KEY.fullmatch(key)
    if match is None or checksum(key[:-CHECKSUM_LENGTH]).encode() != key[-CHECKSUM_LENGTH:]:
        return None
    return match.group(1).decode()


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _caller(record: KeyRecord) -> Caller:
    return Caller(record.tenant, record.id, record.scopes, record.models, record.rates, record.plan)


def _valid(record: KeyRecord) -> bool:
    return not record.revoked and (record.expires is None or record.expires > time.time_ns())


class Throttle:
    """Counts failures by name (an address, a key id) and says when one had too many.

    A name may fail ``burst`` times and gets one more try every ``seconds / burst``. At most
    ``names`` are remembered, the most recently failed ones.
    """

    def __init__(self, burst: int = 20, seconds: float = 60.0, names: int = 10_000) -> None:
        self._burst = burst
        self._rate = burst / seconds
        self._names = names
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, name: str, now: float) -> float:
        """Seconds until ``name`` may try again; 0 when it may now."""
        failed = self._failures.get(name)
        if failed is None:
            return 0.0
        level = failed[0] - (now - failed[1]) * self._rate
        return max(0.0, (level - self._burst + 1) / self._rate)

    def draw(self, name: str) -> Draw:
        """One failure, for a bucket that throttles of a minute share."""
        return Draw(f"{FAILURES}{name}", self._burst, 1)

    def learn(self, name: str, wait: float, now: float) -> None:
        """Others have seen ``name`` fail too: it may try again in ``wait`` seconds."""
        level = self._burst - 1 + wait * self._rate
        if wait > self.wait(name, now):
            self._note(name, level, now)

    def failed(self, name: str, now: float) -> None:
        level, since = self._failures.pop(name, (0.0, now))
        self._note(name, max(0.0, level - (now - since) * self._rate) + 1, now)

    def _note(self, name: str, level: float, now: float) -> None:
        self._failures[name] = (level, now)
        self._failures.move_to_end(name)
        if len(self._failures) > self._names:
            self._failures.popitem(last=False)


class Keyring:
    """Recognises callers by their Authorization header.

    A record is believed for ``fresh`` seconds (1 by default), so that is how long a revoked key
    may still work. Failures are throttled by address and by key id, before the book is read; a key
    that was right before from the same address is not locked out by somebody else's mistakes.

    With ``shared`` rates the failures of all processes count together. Nobody waits for that: each
    failure is told after its answer, and a process that hears of too many refuses from then on. So
    a name fails at most ``burst`` times, and what each process answers before it has heard.
    """

    def __init__(
        self,
        lookup: KeyLookup,
        pepper: bytes,
        *,
        fresh: float = 1.0,
        throttle: Throttle | None = None,
        shared: Rates | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lookup = lookup
        self._pepper = pepper
        self._fresh = fresh
        self._throttle = throttle or Throttle()
        self._shared = shared
        self._telling: set[asyncio.Task[None]] = set()
        self._clock = clock
        self._records: OrderedDict[str, tuple[KeyRecord | None, float]] = OrderedDict()
        self._trusted: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._read: OrderedDict[bytes, tuple[str, str]] = OrderedDict()
        """Keys that were right, each with its id and digest: what is slow to compute. Whether the
        digest is still that of a valid record is looked at each time."""

    async def identify(self, authorization: bytes | None, address: str) -> Caller:
        """The caller behind a header's value.

        Raises:
            ApiError: 401 for no key or a wrong one, 429 after too many wrong ones.
        """
        if authorization is None:
            raise unauthorized(
                "You sent no API key: put it in the Authorization header, as in "
                "Authorization: Bearer av_live_…"
            )
        key = authorization[7:].strip() if authorization[:7].lower() == b"bearer " else b""
        read = self._read.get(key)
        # The length check keeps a megabyte of nonsense away from the pattern and the CRC.
        found = read[0] if read else key_id(key) if len(key) == LENGTH else None
        now = self._clock()
        self._hold_back(address, found, now)
        if found is not None:
            record = await self._record(found, now)
            if record is None or not _valid(record):
                self._trusted.pop((address, found), None)
            elif hmac.compare_digest(
                computed := read[1] if read else digest(key, self._pepper), record.digest
            ):
                self._remember(address, found)
                if read is None:
                    self._read[key] = (found, computed)
                    if len(self._read) > 10_000:
                        self._read.popitem(last=False)
                return _caller(record)
            self._failed(f"key {found}", now)
        self._failed(f"address {address}", now)
        raise unauthorized("Incorrect API key provided")

    async def standing(self, found: str) -> Caller:
        """Who is behind a key by its id, as it stands now: for what was asked with it before.

        Raises:
            ApiError: 401, it is not valid any more.
        """
        record = await self._record(found, self._clock())
        if record is None or not _valid(record):
            raise unauthorized("The API key that asked for this is not valid any more")
        return _caller(record)

    def _failed(self, name: str, now: float) -> None:
        self._throttle.failed(name, now)
        if self._shared is not None:
            task = asyncio.get_running_loop().create_task(self._tell(self._shared, name))
            self._telling.add(task)  # the loop itself holds tasks only weakly
            task.add_done_callback(self._telling.discard)

    async def _tell(self, shared: Rates, name: str) -> None:
        try:
            (level,) = await shared.draw([self._throttle.draw(name)])
        except ShelfUnavailable:
            return  # this process throttles by itself meanwhile
        wait = level.reset + MINUTE // level.limit - MINUTE
        self._throttle.learn(name, wait / 1e9, self._clock())

    def _hold_back(self, address: str, found: str | None, now: float) -> None:
        if found is not None and (address, found) in self._trusted:
            return
        wait = self._throttle.wait(f"address {address}", now)
        if found is not None:
            wait = max(wait, self._throttle.wait(f"key {found}", now))
        if wait > 0:
            raise ApiError(
                429,
                "Too many wrong API keys; wait before you try again",
                type="rate_limit_error",
                code="too_many_failures",
                retry_after=int(wait) + 1,
            )

    async def _record(self, found: str, now: float) -> KeyRecord | None:
        known = self._records.get(found)
        if known is not None and now - known[1] < self._fresh:
            return known[0]
        record = await self._lookup(found)
        # Stamped with the time before the read: a revocation during it is seen in time.
        self._records[found] = (record, now)
        self._records.move_to_end(found)
        if len(self._records) > 10_000:
            self._records.popitem(last=False)
        return record

    def _remember(self, address: str, found: str) -> None:
        pair = (address, found)
        if pair in self._trusted:
            return
        self._trusted[pair] = None
        if len(self._trusted) > 10_000:
            self._trusted.popitem(last=False)
