"""PriceSheet: what a million tokens of each kind cost. Integer arithmetic, rounded once, up.

A price is nano-units per million tokens; a charge is Σ tokens × price, divided by a million and
rounded up to a nano-unit. Because a sheet never changes, its hash is its version.

A sheet may give a lower price to batch requests and to customers above a monthly volume. Both act
on the price list: the list price is multiplied and rounded up to a nano-unit per million tokens,
and money is still rounded once. Tokens that an allowance covers cost nothing; they count towards a
month's volume like all others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from avocado.terms.money import Money, MoneyError, ceil_div
from avocado.terms.usage import Usage

MILLION: Final = 1_000_000
KINDS: Final = ("prompt", "cached", "completion", "reasoning")
"""Token kinds that are priced, in the order in which an invoice lists them."""


@dataclass(frozen=True, slots=True)
class Line:
    """One token kind of a charge: ``tokens`` at ``price`` (per million) cost ``nanos``."""

    kind: str
    tokens: int
    price: int
    nanos: int


@dataclass(frozen=True, slots=True)
class PriceSheet:
    """Prices in nano-units of ``currency`` per million tokens.

    ``cached`` is the price of prompt tokens that came from a cache and ``reasoning`` that of
    thinking tokens; None means the price of the kind they are part of. Neither may cost more than
    that kind, or the ceiling would not bound the charge.

    ``batch`` multiplies the prices of batch requests, in millionths (500_000 is half price).
    ``tiers`` are (tokens, millionths): a request that begins when its customer has used at least
    so many tokens under this sheet in the calendar month (UTC) pays prices times the last tier
    that was reached. The sheet is in force from ``effective_from`` until just before
    ``effective_until`` (ns since 1970); None leaves a side open.
    """

    prompt: int
    completion: int
    currency: str = "USD"
    cached: int | None = None
    reasoning: int | None = None
    batch: int | None = None
    tiers: tuple[tuple[int, int], ...] = ()
    effective_from: int | None = None
    effective_until: int | None = None
    version: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        Money(0, self.currency)
        for kind in KINDS:
            price = getattr(self, kind)
            if price is not None and (type(price) is not int or price < 0):
                raise MoneyError(f"the price of {kind} tokens must not be negative: {price!r}")
        if self.cached is not None and self.cached > self.prompt:
            raise MoneyError("cached prompt tokens must not cost more than prompt tokens")
        if self.reasoning is not None and self.reasoning > self.completion:
            raise MoneyError("reasoning tokens must not cost more than completion tokens")
        object.__setattr__(self, "tiers", _checked_tiers(self.tiers))
        if self.batch is not None:
            _check_multiplier(self.batch)
        for name in ("effective_from", "effective_until"):
            time = getattr(self, name)
            if time is not None and type(time) is not int:
                raise MoneyError(f"{name} is a whole number of nanoseconds, not {time!r}")
        if (self.effective_until or 2**63) <= (self.effective_from or 0):
            raise MoneyError("a price sheet must end later than it begins")
        text = json.dumps(self.terms(), sort_keys=True, separators=(",", ":"))
        object.__setattr__(self, "version", hashlib.sha256(text.encode()).hexdigest()[:16])

    def terms(self) -> dict[str, Any]:
        """What was agreed, as plain values: the inverse of ``PriceSheet(**terms)``.

        What a sheet doesn't use is left out, so that older sheets keep their version.
        """
        terms: dict[str, Any] = {
            "prompt": self.prompt,
            "completion": self.completion,
            "currency": self.currency,
            "cached": self.cached,
            "reasoning": self.reasoning,
        }
        if self.tiers:
            terms["tiers"] = [list(tier) for tier in self.tiers]
        for name in ("batch", "effective_from", "effective_until"):
            if getattr(self, name) is not None:
                terms[name] = getattr(self, name)
        return terms

    def in_force(self, at: int) -> bool:
        """Whether a request may begin under this sheet at ``at`` (ns since 1970)."""
        return (self.effective_from or 0) <= at < (self.effective_until or 2**63)

    def list_price(self, kind: str) -> int:
        """Nano-units per million tokens of ``kind``, one of :data:`KINDS`, before multipliers."""
        if kind == "cached":
            return self.prompt if self.cached is None else self.cached
        if kind == "reasoning":
            return self.completion if self.reasoning is None else self.reasoning
        return self.prompt if kind == "prompt" else self.completion

    def price_of(self, kind: str, batch: bool = False, volume: int = 0) -> int:
        """Nano-units per million tokens of ``kind``, for a batch request, at a month's volume."""
        price = self.list_price(kind)
        if not self.tiers and (not batch or self.batch is None):
            return price
        rate = self.batch if batch and self.batch is not None else MILLION
        reached = [share for above, share in self.tiers if volume >= above]
        return ceil_div(price * rate * (reached[-1] if reached else MILLION), MILLION * MILLION)

    def ceiling(
        self,
        prompt_tokens: int,
        max_tokens: int,
        n: int = 1,
        batch: bool = False,
        volume: int = 0,
        covered: int = 0,
    ) -> Money:
        """The most that a request can cost: nothing cached, every allowed token generated.

        ``charge(usage, batch, volume, covered) ≤ ceiling`` for each usage with ``prompt ≤
        prompt_tokens`` and ``completion ≤ n × max_tokens`` (a property test holds this).
        """
        if min(prompt_tokens, max_tokens, n, covered) < 0:
            raise ValueError("a ceiling needs counts of zero or more")
        prompt = max(prompt_tokens - covered, 0)
        completion = n * max_tokens - max(covered - prompt_tokens, 0)
        total = prompt * self.price_of("prompt", batch, volume)
        total += max(completion, 0) * self.price_of("completion", batch, volume)
        return Money(ceil_div(total, MILLION), self.currency)

    def _parts(
        self, usage: Usage, batch: bool, volume: int, covered: int
    ) -> list[tuple[str, int, int]]:
        """(kind, tokens, price) of a usage; what is covered comes first in its kind, at zero."""
        if covered < 0:
            raise ValueError("covered tokens are zero or more")
        counts = (
            usage.prompt - usage.cached,
            usage.cached,
            usage.completion - usage.reasoning,
            usage.reasoning,
        )
        if not covered:
            return [
                (kind, tokens, self.price_of(kind, batch, volume))
                for kind, tokens in zip(KINDS, counts, strict=True)
                if tokens
            ]
        parts = []
        for kind, tokens in zip(KINDS, counts, strict=True):
            free = min(tokens, covered)
            if free:
                covered -= free
                parts.append((kind, free, 0))
            if tokens > free:
                parts.append((kind, tokens - free, self.price_of(kind, batch, volume)))
        return parts

    def charge(self, usage: Usage, batch: bool = False, volume: int = 0, covered: int = 0) -> Money:
        """The price of ``usage``. The only rounding of the product happens here, once, up.

        ``covered`` tokens of it were paid before: uncached prompt tokens first, then cached,
        completion and reasoning tokens. More than there are covers all.
        """
        parts = self._parts(usage, batch, volume, covered)
        total = sum(tokens * price for _, tokens, price in parts)
        return Money(ceil_div(total, MILLION), self.currency)

    def lines(
        self, usage: Usage, batch: bool = False, volume: int = 0, covered: int = 0
    ) -> list[Line]:
        """``charge(usage, batch, volume, covered)`` split by token kind; the lines sum to it.

        Covered tokens are lines of price zero. Each line is rounded down and the nano-units left
        over go to the lines that lost most (largest remainder), so that an invoice adds up without
        a second rounding.
        """
        parts = self._parts(usage, batch, volume, covered)
        floors = [tokens * price // MILLION for _, tokens, price in parts]
        lost = [tokens * price % MILLION for _, tokens, price in parts]
        left = ceil_div(sum(tokens * price for _, tokens, price in parts), MILLION) - sum(floors)
        for index in sorted(range(len(parts)), key=lambda i: -lost[i])[:left]:
            floors[index] += 1
        return [
            Line(kind, tokens, price, nanos)
            for (kind, tokens, price), nanos in zip(parts, floors, strict=True)
        ]


def _check_multiplier(millionths: int) -> None:
    if type(millionths) is not int or not 0 <= millionths <= MILLION:
        raise MoneyError(
            f"a price multiplier is 0 to 1,000,000 millionths of the list price, not {millionths!r}"
        )


def _checked_tiers(tiers: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    checked: list[tuple[int, int]] = []
    for tier in tiers:
        if len(tier) != 2 or type(tier[0]) is not int or tier[0] < 1:
            raise MoneyError(f"a tier is (tokens, millionths), not {tier!r}")
        if checked and tier[0] <= checked[-1][0]:
            raise MoneyError("tiers must begin at ever larger volumes")
        _check_multiplier(tier[1])
        checked.append((tier[0], tier[1]))
    return tuple(checked)
