"""Swap: a new version of a release goes live while requests run, and none of them is dropped.

What is offered is declared elsewhere (a workspace); ``refresh`` makes it so: it loads what is new,
publishes prices, turns the names over between two requests, and closes an engine when the last
request that it serves has ended. If anything fails, everything stays as it was. A canary is a
second offer under the same name that gets its share of the customers, or of their conversations:
a hash decides, so nobody meets one version now and the other next. Knows no workspace.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Literal, Protocol

import msgspec

from avocado.data.chat import Chat
from avocado.engine.engine import Engine
from avocado.errors import Refused
from avocado.gateway.surface import Raw
from avocado.release.offer import Offer

log = logging.getLogger("avocado.gateway")

IDLE_SECONDS = 0.2
"""How often an engine that goes is looked at."""


Subject = Literal["customer", "conversation"]
"""What stays with one version while a canary runs."""


@dataclass(frozen=True, slots=True)
class Lineup:
    """What a public name means: an offer, and beside it perhaps a canary for ``percent`` of the
    customers or conversations."""

    offer: Offer
    canary: Offer | None = None
    percent: int = 0
    by: Subject = "customer"

    def releases(self) -> set[str]:
        return {each.release for each in (self.offer, self.canary) if each is not None}


class Stock(Protocol):
    """Where offers are declared and engines come from."""

    def lineups(self) -> Mapping[str, Lineup]:
        """What is offered now, by public name. Runs in a thread. Raises Refused."""

    async def engine(self, release: str) -> Engine:
        """Loads a release. Raises Refused."""


def drawn(offer: Offer, percent: int, tenant: str, opening: bytes = b"") -> bool:
    """Whether a canary for ``percent`` of a hundred takes this customer (and conversation).

    The draw is a hash of name, release, customer and opening, the same in every process. It does
    not depend on ``percent``: a higher one takes more subjects and lets none go. Another release
    draws anew, so it is not always the same customers who try what is new.
    """
    named = "\0".join((offer.name, offer.release, tenant)).encode() + b"\0" + opening
    draw = int.from_bytes(hashlib.sha256(named).digest()[:8], "big")
    return draw * 100 < percent << 64


def opening(prompt: Chat | Raw) -> bytes:
    """What all turns of a conversation begin with: its messages up to the first of the user. A raw
    text has no turns, so its customer stands for it."""
    if isinstance(prompt, Raw):
        return b""
    before = list(takewhile(lambda message: message["role"] != "user", prompt.messages))
    return msgspec.json.encode(prompt.messages[: len(before) + 1], order="sorted", enc_hook=dict)


@dataclass(frozen=True, slots=True)
class Canary:
    """A second offer, and who gets it."""

    offer: Offer
    percent: int
    by: Subject = "customer"

    def takes(self, tenant: str, prompt: Chat | Raw) -> bool:
        whole = self.by == "customer"
        return drawn(self.offer, self.percent, tenant, b"" if whole else opening(prompt))


@dataclass(slots=True)
class Floor:
    """What is sold right now: offers by name, canaries by name, engines by release, and how many
    requests each release serves."""

    offers: dict[str, Offer]
    engines: dict[str, Engine]
    canaries: dict[str, Canary] = field(default_factory=dict)
    serving: Counter[str] = field(default_factory=Counter)

    def pick(self, name: str, tenant: str, prompt: Chat | Raw) -> tuple[Offer, Engine] | None:
        """The offer and the engine for a request of ``name``, or None. Counts nothing."""
        offer = self.offers.get(name)
        canary = self.canaries.get(name)
        if canary is not None and canary.takes(tenant, prompt):
            offer = canary.offer
        engine = self.engines.get(offer.release) if offer else None
        return (offer, engine) if offer is not None and engine is not None else None


@dataclass(frozen=True, slots=True)
class Changed:
    """What a refresh did: releases that were loaded, and releases that go when they are idle."""

    loaded: tuple[str, ...]
    going: tuple[str, ...]


class Swapper:
    """Makes the floor what the stock declares. ``publish`` puts an offer's price on record."""

    def __init__(
        self, floor: Floor, stock: Stock, publish: Callable[[Offer], Awaitable[object]]
    ) -> None:
        self._floor = floor
        self._stock = stock
        self._publish = publish
        self._one = asyncio.Lock()
        self._wanted: set[str] = set(floor.engines)
        self._going: dict[str, asyncio.Task[None]] = {}

    async def refresh(self) -> Changed:
        """Returns when the new offers serve.

        Raises:
            Refused: one of them does not load; nothing has changed.
        """
        async with self._one:
            lineups = await asyncio.to_thread(self._stock.lineups)
            wanted = {release for each in lineups.values() for release in each.releases()}
            before = self._wanted
            self._wanted = wanted | before  # what goes may be wanted again: let it stay
            try:
                loaded = await self._load(wanted, lineups)
            except BaseException:
                self._wanted = before
                raise
            self._turn_over(lineups, loaded)
            self._wanted = wanted
            going = tuple(sorted(self._floor.engines.keys() - wanted))
            for release in going:
                if release not in self._going:
                    self._going[release] = asyncio.create_task(self._retire(release))
            return Changed(tuple(sorted(loaded)), going)

    async def _load(self, wanted: set[str], lineups: Mapping[str, Lineup]) -> dict[str, Engine]:
        loaded: dict[str, Engine] = {}
        try:
            for release in sorted(wanted - self._floor.engines.keys()):
                loaded[release] = await self._stock.engine(release)
            for lineup in lineups.values():
                for offer in (lineup.offer, lineup.canary):
                    if offer is not None:
                        await self._publish(offer)
        except BaseException:
            for engine in loaded.values():
                await engine.close()
            raise
        return loaded

    def _turn_over(self, lineups: Mapping[str, Lineup], loaded: Mapping[str, Engine]) -> None:
        """Between two requests: nothing here waits."""
        floor = self._floor
        floor.engines.update(loaded)
        floor.offers.clear()
        floor.offers.update({name: each.offer for name, each in lineups.items()})
        floor.canaries.clear()
        for name, each in lineups.items():
            if each.canary is not None:
                floor.canaries[name] = Canary(each.canary, each.percent, each.by)

    async def _retire(self, release: str) -> None:
        """Closes an engine after its last request, unless it is wanted again by then."""
        try:
            while self._floor.serving[release]:
                await asyncio.sleep(IDLE_SECONDS)
                if release in self._wanted:
                    return
            if release in self._wanted:
                return
            engine = self._floor.engines.pop(release)
            del self._floor.serving[release]
            await engine.close()
            log.info("%s is closed: another version serves", release)
        except Exception:
            log.exception("the engine of %s did not close", release)
        finally:
            self._going.pop(release, None)

    async def close(self) -> None:
        """Stops waiting for engines that go; who owns the floor closes them all."""
        for task in list(self._going.values()):
            task.cancel()
        if self._going:
            await asyncio.wait(list(self._going.values()))


def refuse_missing(floor: Floor) -> None:
    """Raises Refused for an offer whose release has no engine."""
    for offer in floor.offers.values():
        if offer.release not in floor.engines:
            raise Refused(f"offer {offer.name!r} needs {offer.release}, which is not loaded")
