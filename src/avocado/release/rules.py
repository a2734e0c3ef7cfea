"""Rules of the gate: what the operator asks of a release, from ``[gate]`` of ``avocado.toml``.

Strict: an unknown key or a value out of range is refused by name. Margins are shares of the score,
0 to 1: 0.02 is two points.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from avocado.errors import Refused

Share = Annotated[float, Meta(ge=0.0, lt=1.0)]
Confidence = Annotated[float, Meta(gt=0.5, lt=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]


class Gain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``must_gain``: on this suite the difference to the base must be proven to exceed ``margin``:
    the low end of its two-sided interval lies above it."""

    suite: str
    margin: Share = 0.0
    confidence: Confidence = 0.95


class Guard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``guards``: on this suite no more than ``max_regression`` may be lost, and that is proven:
    the low end of the interval lies above minus that (non-inferiority). ``per_language`` asks the
    same of each language.

    Without a ``max_regression`` there is no proof to ask for: it must not be seen to be worse.
    """

    suite: str
    max_regression: Annotated[float, Meta(gt=0.0, lt=1.0)] | None = None
    per_language: bool = True


class Latency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[gate.latency]``: seconds an answer (half, 95 of 100) at most, tokens a second of one
    answer at least, as the evaluation measured them on its machine."""

    p50: Positive | None = None
    p95: Positive | None = None
    tokens_per_second: Positive | None = None


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[gate.cost]``: completion tokens an answer, at most ``max_ratio`` times the base's, and at
    most ``max_tokens``, on every suite."""

    max_ratio: Positive | None = None
    max_tokens: Positive | None = None


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[gate]``. What is left out: a gain is asked of each target suite of a paid release, and no
    suite or language may be seen to be worse. ``confidence`` is of the guards."""

    must_gain: Gain | tuple[Gain, ...] = ()
    guards: tuple[Guard, ...] | None = None
    latency: Latency | None = None
    cost: Cost | None = None
    confidence: Confidence = 0.95

    def __post_init__(self) -> None:
        for kind, named in (("must_gain", self.gains), ("guards", self.guards or ())):
            suites = [each.suite for each in named]
            if len(set(suites)) < len(suites):
                raise ValueError(f"{kind} names a suite twice")

    @property
    def gains(self) -> tuple[Gain, ...]:
        return (self.must_gain,) if isinstance(self.must_gain, Gain) else self.must_gain

    def to_json(self) -> dict[str, Any]:
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


def parse_rules(table: Mapping[str, Any], where: str) -> Rules:
    """Rules from a ``[gate]`` table; ``where`` is what a refusal calls it.

    Raises:
        Refused: an unknown key, a missing one, a wrong type or a value out of range.
    """
    try:
        return msgspec.convert(dict(table), Rules)
    except (msgspec.ValidationError, ValueError) as error:
        hint = ": margins are shares, 0.02 for two points" if "< 1.0" in str(error) else ""
        raise Refused(f"{where}, [gate]: {error}{hint}") from error
