"""The scorecard: a checkpoint against its base on one suite, overall and per language.

A frozen value with a content hash; the same results give the same hash. The gate reads it. Imports
no model, and knows nothing about where it is stored: it takes results and folders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from avocado.evaluate.compare import CONFIDENCE, RESAMPLES, SEED, Comparison, compare
from avocado.evaluate.run import Result
from avocado.evaluate.suite import Suite, SuiteError
from avocado.lineage import Json, canonical, digest

RESULTS: Final = "results.jsonl"
"""The file of a scorecard that holds every item's answers."""


@dataclass(frozen=True)
class Scorecard:
    """``parents``: the ids of ``checkpoint``, ``base`` and ``suite``."""

    parents: Mapping[str, str]
    suite_sha256: str
    max_tokens: int
    """The bound of an answer. Sampling is greedy."""
    confidence: float
    resamples: int
    seed: int
    overall: Comparison
    languages: Mapping[str, Comparison]
    results_sha256: str

    @classmethod
    def of(
        cls,
        suite: Suite,
        base: Sequence[Result],
        other: Sequence[Result],
        *,
        parents: Mapping[str, str],
        max_tokens: int,
        confidence: float = CONFIDENCE,
        resamples: int = RESAMPLES,
        seed: int = SEED,
    ) -> Scorecard:
        """Compares two runs of ``suite``.

        Raises:
            SuiteError: the results are not those of the suite's items, in its order.
        """
        for results in (base, other):
            if [result.item for result in results] != [item.id for item in suite.items]:
                raise SuiteError(f"these results are not those of the suite {suite.name!r}")

        def compared(language: str | None = None) -> Comparison:
            wanted = suite.languages if language is None else (language,)
            return compare(
                [result.correct for result in base if result.language in wanted],
                [result.correct for result in other if result.language in wanted],
                confidence=confidence,
                resamples=resamples,
                seed=seed,
            )

        return cls(
            dict(parents),
            suite.sha256,
            max_tokens,
            confidence,
            resamples,
            seed,
            compared(),
            {language: compared(language) for language in suite.languages},
            digest(results_lines(base, other)),
        )

    def facts(self) -> dict[str, Json]:
        """What its artifact's manifest says; :meth:`from_facts` reads it back."""
        return {
            "suite_sha256": self.suite_sha256,
            "sampling": {"temperature": 0, "max_tokens": self.max_tokens},
            "statistics": {
                "interval": "wider of paired bootstrap and Newcombe",
                "p": "exact McNemar, two-sided",
                "confidence": self.confidence,
                "resamples": self.resamples,
                "seed": self.seed,
            },
            "overall": _facts(self.overall),
            "languages": {name: _facts(each) for name, each in self.languages.items()},
            "results_sha256": self.results_sha256,
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Json], parents: Mapping[str, str]) -> Scorecard:
        statistics = facts["statistics"]
        return cls(
            dict(parents),
            facts["suite_sha256"],
            facts["sampling"]["max_tokens"],
            statistics["confidence"],
            statistics["resamples"],
            statistics["seed"],
            Comparison(**facts["overall"]),
            {name: Comparison(**each) for name, each in facts["languages"].items()},
            facts["results_sha256"],
        )

    @property
    def sha256(self) -> str:
        return digest(canonical({"facts": self.facts(), "parents": dict(self.parents)}))


def _facts(comparison: Comparison) -> dict[str, Json]:
    """Six significant digits: beyond them, two machines' arithmetic may differ."""
    facts = asdict(comparison)
    for name in ("low", "high", "p"):
        facts[name] = float(f"{facts[name]:.6g}")
    return facts


def results_lines(base: Sequence[Result], other: Sequence[Result]) -> bytes:
    """Both models' answers, a line an item."""
    rows = (
        {"base": left.to_json(), "checkpoint": right.to_json()}
        for left, right in zip(base, other, strict=True)
    )
    return b"".join(canonical(row) + b"\n" for row in rows)


def write_results(folder: Path, base: Sequence[Result], other: Sequence[Result]) -> Path:
    path = folder / RESULTS
    path.write_bytes(results_lines(base, other))
    return path


def read_results(folder: Path) -> tuple[tuple[Result, ...], tuple[Result, ...]]:
    """The base's and the checkpoint's results."""
    rows = [json.loads(line) for line in (folder / RESULTS).read_bytes().splitlines()]
    return (
        tuple(Result(**row["base"]) for row in rows),
        tuple(Result(**row["checkpoint"]) for row in rows),
    )
