"""How often is the gate wrong? It decides on simulated pairs whose true difference is known.

    python benchmarks/gate.py [--runs 2000] [--write docs/gate.md]

The gate itself runs, not a model of it; only its bootstrap takes 1,000 resamples here instead of
10,000. Errors that are at most nominal, and power where it is planned, are printed as Markdown.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

import numpy

from avocado.evaluate.compare import Estimate, Pairs
from avocado.evaluate.intervals import resampled, student
from avocado.evaluate.scorecard import Cost, Measured
from avocado.release.gate import Evidence, SuiteEvidence, decide
from avocado.release.rules import Gain, Guard, Rules
from avocado.terms.licence import Component, judge

RESAMPLES = 1_000
CONTINUOUS = 5
"""Times the decisions, where nothing is gained, of suites of scores: close to nominal."""
VERDICT = judge([Component("base", "simulated", "Apache-2.0")], "sale")
BEGIN, END = "<!-- benchmarks/gate.py -->", "<!-- end -->"


@dataclass(frozen=True)
class World:
    """A suite of ``n`` items; ``gain`` is the true difference. ``base`` is the base's rate,
    ``churn`` the share of items on which the two models differ by chance alone. Items come in
    clusters of ``cluster``; each repeats its cluster's first with probability ``alike``."""

    n: int
    base: float = 0.5
    churn: float = 0.2
    gain: float = 0.0
    cluster: int = 1
    alike: float = 0.0
    scores: bool = False
    """Scores in 0..1, many near 0 and 1, instead of right and wrong."""

    @property
    def name(self) -> str:
        kind = "scores" if self.scores else f"{self.base:.0%} right"
        return f"{kind}, {self.churn:.0%} differ"

    @property
    def clusters(self) -> str:
        return f"{self.n // self.cluster} of {self.cluster}" if self.cluster > 1 else "–"

    def draw(self, random: numpy.random.Generator) -> Pairs:
        first = numpy.arange(self.n) // self.cluster * self.cluster
        repeats = random.random(self.n) < self.alike
        source = numpy.where(repeats, first, numpy.arange(self.n))
        base, other = self._sides(random)
        names = tuple(map(str, first)) if self.cluster > 1 else None
        return Pairs(tuple(base[source].tolist()), tuple(other[source].tolist()), names)

    def _sides(self, random: numpy.random.Generator) -> tuple[numpy.ndarray, numpy.ndarray]:
        if self.scores:
            base, fresh = random.beta(0.5, 0.7, (2, self.n))
            other = numpy.where(random.random(self.n) < self.churn, fresh, base)
            share = abs(self.gain) / (1 - 0.5 / 1.2 if self.gain > 0 else 0.5 / 1.2)
            return base, numpy.where(random.random(self.n) < share, float(self.gain > 0), other)
        lost = self.churn / 2 + max(0.0, -self.gain)
        won = self.churn / 2 + max(0.0, self.gain)
        both = self.base - lost
        assert both >= 0
        assert both + lost + won <= 1 + 1e-9
        kind = random.choice(4, self.n, p=[both, lost, won, max(0.0, 1 - both - lost - won)])
        return (kind < 2).astype(float), ((kind == 0) | (kind == 2)).astype(float)


GAINS = [
    *(World(n, 0.5, 0.2) for n in (50, 200, 800)),
    *(World(n, 0.9, 0.05) for n in (50, 200, 800)),
    *(World(n, 0.1, 0.1) for n in (50, 200, 800)),
    World(200, 0.5, 0.5),
    *(World(n, 0.5, 0.2, cluster=5, alike=0.7) for n in (100, 400)),
    World(400, 0.5, 0.2, cluster=20, alike=0.7),
    *(World(n, churn=0.3, scores=True) for n in (50, 200)),
    World(200, churn=0.3, scores=True, cluster=5, alike=0.7),
]
GUARDS = [
    *(World(n, 0.9, 0.05, gain=-0.02) for n in (100, 400, 1600)),
    World(400, 0.5, 0.2, gain=-0.05),
    World(400, 0.5, 0.2, gain=-0.05, cluster=5, alike=0.7),
    World(200, churn=0.3, gain=-0.05, scores=True),
]


def decisions(
    worlds: list[World], rules: Rules, runs: int, seed: int, names: tuple[str, ...] = ("s",)
) -> Counter[str]:
    """The gate's words over ``runs`` draws; each suite of ``names`` is drawn from one world."""
    random = numpy.random.default_rng(seed)
    words: Counter[str] = Counter()
    for _ in range(runs):
        suites = {
            name: SuiteEvidence("target", world.draw(random), {}, Cost(1, 1))
            for name, world in zip(names, worlds, strict=True)
        }
        evidence = Evidence(suites, Measured("b", "c"), resamples=RESAMPLES)
        words[decide(evidence, VERDICT, rules).word] += 1
    return words


def share(count: int, runs: int) -> str:
    return f"{count / runs:.1%}"


def printed(world: World, gain: float, seed: int, draws: int = 200) -> float:
    """The smallest detectable difference that a scorecard prints, where ``gain`` is true."""
    random, there = numpy.random.default_rng(seed), replace(world, gain=gain)
    drawn = (Estimate(there.draw(random), RESAMPLES) for _ in range(draws))
    return float(numpy.mean([estimate.detectable() for estimate in drawn]))


def gains(runs: int) -> Iterator[tuple[str, ...]]:
    """False approvals where nothing is gained; approvals where the printed difference is true."""
    yield (
        "suite",
        "items",
        "clusters",
        "approved, nothing gained",
        "detects, as printed",
        "approved, so much gained",
    )
    rules = Rules(must_gain=Gain("s"), guards=())
    for place, world in enumerate(GAINS):
        many = CONTINUOUS * runs if world.scores else runs
        wrong = decisions([world], rules, many, place)["approved"]
        power, small = "–", printed(world, 0.0, place)
        if world.scores or small + world.base + world.churn / 2 < 1:
            right = decisions([replace(world, gain=small)], rules, runs, 100 + place)["approved"]
            power = share(right, runs)
        yield (
            world.name,
            str(world.n),
            world.clusters,
            share(wrong, many),
            f"{100 * small:.1f}",
            power,
        )


def guards(runs: int) -> Iterator[tuple[str, ...]]:
    """A guard of which exactly the allowed loss is true must not be called kept; one that lost
    nothing should be."""
    yield (
        "suite",
        "items",
        "clusters",
        "allowed loss",
        "approved, just so much lost",
        "approved, nothing lost",
        "refused, nothing lost",
    )
    for place, world in enumerate(GUARDS):
        allowed = -world.gain
        rules = Rules(must_gain=Gain("g"), guards=(Guard("s", allowed),))
        winner = World(200, 0.3, 0.05, gain=0.5)
        both = ("g", "s")
        lost = decisions([winner, world], rules, runs, 200 + place, both)
        kept = decisions([winner, replace(world, gain=0.0)], rules, runs, 300 + place, both)
        yield (
            world.name,
            str(world.n),
            world.clusters,
            f"{100 * allowed:.0f} points",
            share(lost["approved"], runs),
            share(kept["approved"], runs),
            share(kept["refused"], runs),
        )


def families(runs: int) -> Iterator[tuple[str, ...]]:
    """Many guards at exactly the allowed loss: Holm keeps the chance of any false refusal."""
    yield "guards", "refused, each just at the allowed loss", "approved"
    for count in (1, 5, 20):
        world = World(200, 0.8, 0.1, gain=-0.05)
        names = ("g", *(f"s{k}" for k in range(count)))
        rules = Rules(must_gain=Gain("g"), guards=tuple(Guard(name, 0.05) for name in names[1:]))
        worlds = [World(200, 0.3, 0.05, gain=0.5), *[world] * count]
        words = decisions(worlds, rules, runs // (1 if count < 20 else 4), 400 + count, names)
        total = words.total()
        yield str(count), share(words["refused"], total), share(words["approved"], total)


def bca(values: numpy.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Bias-corrected and accelerated bounds of a mean (Efron 1987, JASA 82:171)."""
    means, normal = resampled(list(values), [1] * len(values), RESAMPLES), NormalDist()
    below = (means < values.mean()).mean() + (means == values.mean()).mean() / 2
    shift = normal.inv_cdf(min(max(below, 1e-4), 1 - 1e-4))
    away = values - values.mean()
    spread = float((away**2).sum()) ** 1.5
    skew = float((away**3).sum()) / (6 * spread) if spread else 0.0
    found = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = shift + normal.inv_cdf(tail)
        found.append(float(numpy.quantile(means, normal.cdf(shift + z / (1 - skew * z)))))
    return found[0], found[1]


def coverage(runs: int) -> Iterator[tuple[str, ...]]:
    """How often 95% bounds of a mean difference of scores hold the truth, by method."""
    yield "items", "churn", "true gain", "percentiles", "BCa", "Student's t", "ours (the widest)"
    cases = [(12, 0.3), (12, 0.05), (30, 0.05), (100, 0.05), (100, 0.3)]
    for place, (n, churn) in enumerate(cases):
        for gain in (0.0, 0.1):
            random = numpy.random.default_rng(500 + place)
            world = World(n, churn=churn, gain=gain, scores=True)
            held: Counter[str] = Counter()
            for _ in range(runs):
                pairs = world.draw(random)
                values = numpy.subtract(pairs.other, pairs.base)
                means = resampled(list(values), [1] * n, RESAMPLES)
                reach = student(0.95, n - 1) * float(values.std(ddof=1)) / n**0.5
                bounds = {
                    "percentiles": tuple(numpy.quantile(means, (0.025, 0.975))),
                    "bca": bca(values),
                    "t": (values.mean() - reach, values.mean() + reach),
                    "ours": Estimate(pairs, RESAMPLES).bounds(),
                }
                held.update(k for k, (low, high) in bounds.items() if low <= gain <= high)
            shares = (share(held[k], runs) for k in ("percentiles", "bca", "t", "ours"))
            yield str(n), f"{churn:.0%}", f"{100 * gain:.0f}", *shares


def blind(runs: int) -> Iterator[tuple[str, ...]]:
    """What happens where a suite does not say that its items come in clusters."""
    yield "clusters", "approved, nothing gained: clusters said", "clusters not said"
    rules = Rules(must_gain=Gain("s"), guards=())
    for world in (World(400, 0.5, 0.2, cluster=k, alike=0.7) for k in (5, 20)):
        said = decisions([world], rules, runs, 600)["approved"]
        random, unsaid = numpy.random.default_rng(600), 0
        for _ in range(runs):
            pairs = replace(world.draw(random), clusters=None)
            suite = SuiteEvidence("target", pairs, {}, Cost(1, 1))
            evidence = Evidence({"s": suite}, Measured("b", "c"), resamples=RESAMPLES)
            unsaid += decide(evidence, VERDICT, rules).approved
        yield world.clusters, share(said, runs), share(unsaid, runs)


def table(rows: Iterator[tuple[str, ...]]) -> list[str]:
    head, *body = rows
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in body),
    ]


def report(runs: int) -> list[str]:
    began = time.process_time()
    parts = (
        ("Gains, nominal 2.5%", gains(runs)),
        ("Guards, nominal 2.5%", guards(runs)),
        ("Many guards, nominal 2.5%", families(runs)),
        ("Clusters that a suite keeps to itself", blind(runs)),
        ("Bounds of mean scores, nominal 95%", coverage(runs)),
    )
    lines = []
    for title, rows in parts:
        lines += [f"### {title}", "", *table(rows), ""]
        print(f"done: {title}", flush=True)
    seconds = time.process_time() - began
    print(f"{seconds:.0f} s of processor time")
    return [
        *lines,
        f"{runs:,} decisions a cell; a quarter with 20 guards, {CONTINUOUS * runs:,} of scores "
        "where nothing is gained.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--write", type=Path, help="a document to put the tables into")
    arguments = parser.parse_args()
    lines = report(arguments.runs)
    if arguments.write is None:
        print("\n".join(lines))
        return
    before, _, rest = arguments.write.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    body = "\n".join([BEGIN, "", *lines, "", END])
    arguments.write.write_text(before + body + after, "utf-8")


if __name__ == "__main__":
    main()
