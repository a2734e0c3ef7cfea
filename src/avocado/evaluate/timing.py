"""How long answers took. Never hashed: the same weights answer as right on a slower machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from avocado.evaluate.run import Result
from avocado.lineage import Json


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds an answer, half and 95 of 100 of them at most; completion tokens a second of one
    answer, on average. Measured while other items were answered beside it."""

    answers: int
    p50: float
    p95: float
    tokens_per_second: float

    @classmethod
    def of(cls, results: Sequence[Result]) -> Timing | None:
        """None where no answer was timed (all of them came from a cache)."""
        timed = sorted((r.seconds, r.completion) for r in results if r.seconds > 0)
        if not timed:
            return None
        seconds = [each for each, _ in timed]
        return cls(
            len(timed),
            _rank(seconds, 0.50),
            _rank(seconds, 0.95),
            sum(tokens for _, tokens in timed) / sum(seconds),
        )

    def to_json(self) -> dict[str, Json]:
        return {name: float(f"{value:.4g}") for name, value in asdict(self).items()} | {
            "answers": self.answers
        }


def _rank(ordered: Sequence[float], share: float) -> float:
    """The nearest rank: a value that was seen, and no fewer than ``share`` are at most it."""
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]
