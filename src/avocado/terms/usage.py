"""Usage: the tokens that one request consumed, as counted by the engine that served it."""

from __future__ import annotations

from dataclasses import dataclass

MAX_TOKENS = 2**53 - 1
"""No count beyond this is believed (JSON readers lose integers above it)."""


class UsageError(ValueError):
    """Token counts that contradict each other or are out of range."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts. ``cached`` is the part of ``prompt`` read from a cache; ``reasoning`` the part
    of ``completion`` that was thinking. All are counted once: prompt + completion is the total.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0

    def __post_init__(self) -> None:
        for name in ("prompt", "completion", "cached", "reasoning"):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= MAX_TOKENS:
                raise UsageError(f"usage.{name} must be a whole number of tokens, not {value!r}")
        if self.cached > self.prompt:
            raise UsageError(f"{self.cached} cached tokens of only {self.prompt} prompt tokens")
        if self.reasoning > self.completion:
            raise UsageError(
                f"{self.reasoning} reasoning tokens of only {self.completion} completion tokens"
            )

    @property
    def total(self) -> int:
        return self.prompt + self.completion
