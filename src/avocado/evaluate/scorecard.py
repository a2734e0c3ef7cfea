"""The scorecard: a checkpoint against its base on every suite, overall and per language.

A frozen value with a content hash; the same results give the same hash. The gate reads it. Imports
no model, and knows nothing about where it is stored: it takes results and folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from avocado.evaluate.compare import Comparison, Pairs, compare
from avocado.evaluate.intervals import CONFIDENCE, RESAMPLES, SEED
from avocado.evaluate.scored import Role, Scored, lines, read_lines
from avocado.evaluate.suite import SuiteError
from avocado.lineage import Json, canonical, digest

RESULTS: Final = "results.jsonl"
"""The file of a scorecard that holds every item's answers."""

_READ_AS: Final = ("config.json", "adapter_config.json")
"""Files that say how weights are read: shapes, activations, quantisation."""


def model_sha256(files: Mapping[str, str]) -> str:
    """The hash of a model's weights, from the SHA-256 of each of its files.

    Two folders have the same one only if they hold the same weights in the same form: a merged or
    quantised copy has another.
    """
    chosen = {
        name: sha
        for name, sha in files.items()
        if "/" not in name and (name.endswith(".safetensors") or name in _READ_AS)
    }
    return digest(canonical(chosen))


@dataclass(frozen=True, slots=True)
class Measured:
    """Exactly which weights answered: :func:`model_sha256` of base and checkpoint.

    ``form`` of the checkpoint: ``whole``, or ``adapters`` that the engine folded into the base.
    """

    base: str
    checkpoint: str
    form: Literal["whole", "adapters"] = "whole"


@dataclass(frozen=True, slots=True)
class Cost:
    """Completion tokens an answer, on average, of base and checkpoint: what an answer costs."""

    base: float
    other: float

    @property
    def ratio(self) -> float:
        """Of the checkpoint's to the base's."""
        return self.other / self.base if self.base else 1.0


@dataclass(frozen=True)
class SuiteScore:
    """One suite. ``metric`` says what a score is; ``languages`` in the suite's order."""

    role: Role
    metric: str
    sha256: str
    overall: Comparison
    languages: Mapping[str, Comparison]
    cost: Cost

    @classmethod
    def of(cls, scored: Scored, confidence: float, resamples: int, seed: int) -> SuiteScore:
        def compared(pairs: Pairs) -> Comparison:
            return compare(pairs, confidence=confidence, resamples=resamples, seed=seed)

        tokens = [(row.base.completion, row.other.completion) for row in scored.rows]
        return cls(
            scored.role,
            scored.metric,
            scored.sha256,
            compared(scored.pairs()),
            {language: compared(scored.pairs(language)) for language in scored.languages},
            Cost(*(sum(side) / len(tokens) for side in zip(*tokens, strict=True))),
        )

    def facts(self) -> dict[str, Json]:
        return {
            "role": self.role,
            "metric": self.metric,
            "sha256": self.sha256,
            "overall": _facts(self.overall),
            "languages": {name: _facts(each) for name, each in self.languages.items()},
            "completion_tokens": {"base": _six(self.cost.base), "other": _six(self.cost.other)},
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Json]) -> SuiteScore:
        return cls(
            facts["role"],
            facts["metric"],
            facts["sha256"],
            Comparison(**facts["overall"]),
            {name: Comparison(**each) for name, each in facts["languages"].items()},
            Cost(**facts["completion_tokens"]),
        )


@dataclass(frozen=True)
class Scorecard:
    """``parents``: the ids of ``checkpoint``, ``base`` and the suites. ``sampling``: how answers
    were asked for."""

    parents: Mapping[str, str]
    measured: Measured
    sampling: Mapping[str, Json]
    confidence: float
    resamples: int
    seed: int
    suites: Mapping[str, SuiteScore]
    """By name, in the order in which they were asked."""
    results_sha256: str

    @classmethod
    def of(
        cls,
        scored: Sequence[Scored],
        *,
        parents: Mapping[str, str],
        measured: Measured,
        sampling: Mapping[str, Json],
        confidence: float = CONFIDENCE,
        resamples: int = RESAMPLES,
        seed: int = SEED,
    ) -> Scorecard:
        """Compares the two models on each suite.

        Raises:
            SuiteError: no suite, or two of one name.
        """
        if not scored:
            raise SuiteError("a scorecard needs a suite")
        suites = {each.name: SuiteScore.of(each, confidence, resamples, seed) for each in scored}
        if len(suites) < len(scored):
            raise SuiteError("two suites have one name: rename one's file")
        hashed = digest(lines(scored))
        return cls(
            dict(parents), measured, dict(sampling), confidence, resamples, seed, suites, hashed
        )

    @property
    def target(self) -> SuiteScore:
        """The first suite that a gain is wanted on, else the first."""
        chosen = (each for each in self.suites.values() if each.role == "target")
        return next(chosen, next(iter(self.suites.values())))

    @property
    def overall(self) -> Comparison:
        return self.target.overall

    @property
    def languages(self) -> Mapping[str, Comparison]:
        return self.target.languages

    def facts(self) -> dict[str, Json]:
        """What its artifact's manifest says; :meth:`from_facts` reads it back."""
        return {
            "measured": asdict(self.measured),
            "sampling": dict(self.sampling),
            "statistics": {
                "interval": "widest of cluster bootstrap, Newcombe 10 and Student's t",
                "p": "exact McNemar or paired permutation, two-sided",
                "confidence": self.confidence,
                "resamples": self.resamples,
                "seed": self.seed,
            },
            "order": list(self.suites),
            "suites": {name: each.facts() for name, each in self.suites.items()},
            "results_sha256": self.results_sha256,
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Json], parents: Mapping[str, str]) -> Scorecard:
        """Raises:
        SuiteError: a scorecard of before suites had roles.
        """
        if "suites" not in facts:
            raise SuiteError("this scorecard is of an older form: run avocado evaluate again")
        statistics = facts["statistics"]
        return cls(
            dict(parents),
            Measured(**facts["measured"]),
            facts["sampling"],
            statistics["confidence"],
            statistics["resamples"],
            statistics["seed"],
            {name: SuiteScore.from_facts(facts["suites"][name]) for name in facts["order"]},
            facts["results_sha256"],
        )

    @property
    def sha256(self) -> str:
        return digest(canonical({"facts": self.facts(), "parents": dict(self.parents)}))


def _six(value: float) -> float:
    """Six significant digits: beyond them, two machines' arithmetic may differ."""
    return float(f"{value:.6g}")


def _facts(comparison: Comparison) -> dict[str, Json]:
    facts = asdict(comparison)
    return {
        name: _six(value) if isinstance(value, float) else value for name, value in facts.items()
    }


def write_results(folder: Path, scored: Sequence[Scored]) -> Path:
    """Keeps every answer beside the scorecard; :func:`read_results` gives them back."""
    path = folder / RESULTS
    path.write_bytes(lines(scored))
    return path


def read_results(folder: Path) -> tuple[Scored, ...]:
    return read_lines((folder / RESULTS).read_bytes())
