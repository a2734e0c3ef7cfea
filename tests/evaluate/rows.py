"""Results of two models that nobody ran, for the tests of scorecard, report and page."""

from __future__ import annotations

import random
from collections.abc import Mapping

from avocado.evaluate.run import Result
from avocado.evaluate.scorecard import Measured, Scorecard
from avocado.evaluate.scored import Asked, Role, Scored

PARENTS = {"checkpoint": "checkpoint-" + "c" * 64, "base": "base-" + "b" * 64}
MEASURED = Measured("b" * 64, "c" * 64)
EVIL = "</pre><script>alert(1)</script>&\"'<img src=x onerror=alert(1)>"


def result(item: str, language: str, score: float, text: str = "{}", **more: object) -> Result:
    facts: dict[str, object] = {
        "item": item,
        "language": language,
        "cluster": None,
        "score": score,
        "correct": bool(score) if score in (0, 1) else None,
        "text": text,
        "reason": "stop",
        "prompt": 9,
        "completion": 3,
        "seconds": 0.5,
    }
    return Result(**{**facts, **more})  # type: ignore[arg-type]


def scored(
    rates: Mapping[str, tuple[float, float]],
    n: int = 40,
    seed: int = 1,
    name: str = "dates <b>",
    role: Role = "target",
) -> Scored:
    """Two models that are right at given rates per language."""
    draw = random.Random(seed)
    rows = []
    for language, pair in rates.items():
        for k in range(n):
            sides = []
            for rate in pair:
                right = draw.random() < rate
                sides.append(result(f"{language}-{k}", language, right, "{}" if right else EVIL))
            rows.append(Asked(EVIL, "{}", *sides))
    return Scored(name, role, "right answers", "a" * 64, tuple(rows))


def card(*suites: Scored) -> Scorecard:
    return Scorecard.of(
        suites, parents=PARENTS, measured=MEASURED, sampling={"temperature": 0, "max_tokens": 64}
    )
