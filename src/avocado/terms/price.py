"""PriceSheet: what a million tokens of each kind cost. Integer arithmetic, rounded once, up.

A price is nano-units per million tokens; a charge is Σ tokens × price, divided by a million and
rounded up to a nano-unit. Because a sheet never changes, its hash is its version.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Final

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
    """

    prompt: int
    completion: int
    currency: str = "USD"
    cached: int | None = None
    reasoning: int | None = None
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
        text = json.dumps(self.terms(), sort_keys=True, separators=(",", ":"))
        object.__setattr__(self, "version", hashlib.sha256(text.encode()).hexdigest()[:16])

    def terms(self) -> dict[str, int | str | None]:
        """What was agreed, as plain values: the inverse of ``PriceSheet(**terms)``."""
        return {
            "prompt": self.prompt,
            "completion": self.completion,
            "currency": self.currency,
            "cached": self.cached,
            "reasoning": self.reasoning,
        }

    def price_of(self, kind: str) -> int:
        """Nano-units per million tokens of ``kind``, one of :data:`KINDS`."""
        if kind == "cached":
            return self.prompt if self.cached is None else self.cached
        if kind == "reasoning":
            return self.completion if self.reasoning is None else self.reasoning
        return self.prompt if kind == "prompt" else self.completion

    def ceiling(self, prompt_tokens: int, max_tokens: int, n: int = 1) -> Money:
        """The most that a request can cost: nothing cached, every allowed token generated.

        ``charge(usage) ≤ ceiling`` for each usage with ``prompt ≤ prompt_tokens`` and
        ``completion ≤ n × max_tokens`` (a property test holds this).
        """
        if min(prompt_tokens, max_tokens, n) < 0:
            raise ValueError("a ceiling needs counts of zero or more")
        total = prompt_tokens * self.prompt + n * max_tokens * self.completion
        return Money(ceil_div(total, MILLION), self.currency)

    def _parts(self, usage: Usage) -> list[tuple[str, int, int]]:
        counts = (
            usage.prompt - usage.cached,
            usage.cached,
            usage.completion - usage.reasoning,
            usage.reasoning,
        )
        return [
            (kind, tokens, self.price_of(kind))
            for kind, tokens in zip(KINDS, counts, strict=True)
            if tokens
        ]

    def charge(self, usage: Usage) -> Money:
        """The price of ``usage``. The only rounding of the product happens here, once, up."""
        total = sum(tokens * price for _, tokens, price in self._parts(usage))
        return Money(ceil_div(total, MILLION), self.currency)

    def lines(self, usage: Usage) -> list[Line]:
        """``charge(usage)`` split by token kind; the lines sum to the charge exactly.

        Each line is rounded down and the nano-units left over go to the lines that lost most
        (largest remainder), so that an invoice adds up without a second rounding.
        """
        parts = self._parts(usage)
        floors = [tokens * price // MILLION for _, tokens, price in parts]
        lost = [tokens * price % MILLION for _, tokens, price in parts]
        left = self.charge(usage).nanos - sum(floors)
        for index in sorted(range(len(parts)), key=lambda i: -lost[i])[:left]:
            floors[index] += 1
        return [
            Line(kind, tokens, price, nanos)
            for (kind, tokens, price), nanos in zip(parts, floors, strict=True)
        ]
