"""The gate: may this checkpoint go out? Pure; the answer carries every reason and its evidence.

Approved: every gain is proven, no guard is broken, the budgets hold, the licences allow it.
Refused: something of that is known to be false. Undecided: too few items to know; then nothing goes
out either, and the answer says about how many more would tell.

Errors are bounded so (docs/gate.md). *All* gains and guards have to be proven, each at its own
confidence, so a checkpoint that fails one of them is approved with no more than that one's error:
an intersection-union test needs no correction (Berger 1982, Technometrics 24:295). A refusal says
of *some* guard that it is broken, so these are corrected for their number (Holm 1979).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from avocado.evaluate.compare import Comparison, Estimate, Pairs, items_needed
from avocado.evaluate.intervals import RESAMPLES, SEED
from avocado.evaluate.scorecard import Cost, Measured
from avocado.evaluate.significance import holm
from avocado.evaluate.timing import Timing
from avocado.release.finding import ALL, Finding, State
from avocado.release.rules import Gain, Guard, Latency, Rules
from avocado.terms.licence import Verdict

TOO_MANY = 1_000_000
"""More items than anybody will write: no number is named then."""


@dataclass(frozen=True)
class SuiteEvidence:
    """Both models on one suite: all items, and each language's; what an answer costs."""

    role: Literal["target", "guard"]
    overall: Pairs
    languages: Mapping[str, Pairs]
    cost: Cost


@dataclass(frozen=True)
class Evidence:
    """What was measured, of exactly which weights. ``timing``: the checkpoint's."""

    suites: Mapping[str, SuiteEvidence]
    measured: Measured
    timing: Timing | None = None
    resamples: int = RESAMPLES
    seed: int = SEED


@dataclass(frozen=True, slots=True)
class Approved:
    """It may go out."""

    approved: bool = field(default=True, init=False)
    reasons: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    word: str = field(default="approved", init=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """It stays in, for these reasons."""

    reasons: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    approved: bool = field(default=False, init=False)
    word: str = field(default="refused", init=False)


@dataclass(frozen=True, slots=True)
class Undecided:
    """It stays in until more is known. ``more``: suite → about so many more items."""

    reasons: tuple[str, ...]
    more: Mapping[str, int]
    findings: tuple[Finding, ...] = ()
    approved: bool = field(default=False, init=False)
    word: str = field(default="undecided", init=False)


Decision = Approved | Refused | Undecided


def decide(evidence: Evidence | None, verdict: Verdict, rules: Rules) -> Decision:
    """Approved, refused or undecided, with every reason. ``evidence`` None: no scorecard."""
    paid = verdict.purpose == "sale"
    if evidence is None:
        wanted = paid or rules != Rules()
        missing = ["there is no scorecard of this checkpoint: run avocado evaluate first"]
        reasons = [*(missing if wanted else []), *verdict.reasons]
        return Refused(tuple(reasons)) if reasons else Approved()
    gains, guards = _asked(evidence, rules, paid)
    named = {*(gain.suite for gain in gains), *(guard.suite for guard in guards)}
    unknown = sorted(named - evidence.suites.keys())
    findings = (
        *(_gain(gain, evidence) for gain in gains if gain.suite not in unknown),
        *_guarded(guards, evidence, rules.confidence, {gain.suite for gain in gains}),
    )
    failed = [
        *(f"the scorecard has no suite {name!r}: evaluate with it" for name in unknown),
        *(str(each) for each in findings if each.state == "failed"),
        *_budgets(evidence, rules),
        *verdict.reasons,
    ]
    open_questions = [each for each in findings if each.state == "undecided"]
    if failed:
        return Refused((*failed, *map(str, open_questions)), findings)
    if open_questions:
        return Undecided(tuple(map(str, open_questions)), _more(open_questions), findings)
    return Approved(findings=findings)


def _asked(
    evidence: Evidence, rules: Rules, paid: bool
) -> tuple[tuple[Gain, ...], tuple[Guard, ...]]:
    """The rules, with what is understood where they say nothing."""
    gains, guards = rules.gains, rules.guards
    if not gains and paid:
        targets = [name for name, each in evidence.suites.items() if each.role == "target"]
        gains = tuple(Gain(name) for name in targets or list(evidence.suites)[:1])
    if guards is None:
        guards = tuple(Guard(name) for name in evidence.suites)
    return gains, guards


def _gain(gain: Gain, evidence: Evidence) -> Finding:
    """A gain is proven, or it was not even seen, or more items would tell."""
    pairs = evidence.suites[gain.suite].overall
    seen = _seen("gain", gain.suite, ALL, pairs, gain.margin, gain.confidence, evidence)
    if seen.low > gain.margin:
        return seen
    gap = seen.difference - gain.margin
    if not gap > 0:
        return replace(seen, state="failed")
    more = _missing(seen, seen.difference - seen.low, gap)
    return replace(seen, state="undecided", more=more)


def _guarded(
    guards: Sequence[Guard], evidence: Evidence, confidence: float, gained: set[str]
) -> Iterator[Finding]:
    """Every guard's rows; those that are broken are so after Holm's correction for all of them."""
    rows: list[Finding] = []
    for guard in guards:
        if guard.suite not in evidence.suites:
            continue
        suite = evidence.suites[guard.suite]
        chosen = dict(suite.languages) if guard.per_language else {}
        if guard.suite not in gained:  # where a gain is asked, that asks more of the whole
            chosen = {ALL: suite.overall, **chosen}
        for language, pairs in chosen.items():
            rows.append(_guard(guard, language, pairs, confidence, evidence))
    proven = [row for row in rows if row.proof]
    adjusted = iter(holm([row.p or 0.0 for row in proven]))
    for row in rows:
        yield _judged(replace(row, p=next(adjusted))) if row.proof else row


def _guard(
    guard: Guard, language: str, pairs: Pairs, confidence: float, evidence: Evidence
) -> Finding:
    """One row; ``p`` is not corrected yet."""
    proof = guard.max_regression is not None
    threshold = -(guard.max_regression or 0.0)
    seen = _seen("guard", guard.suite, language, pairs, threshold, confidence, evidence)
    if not proof:
        state: State = "met" if seen.difference >= 0 else "failed"
        return replace(seen, proof=False, state=state)
    if seen.difference >= threshold:
        return replace(seen, p=1.0)
    estimate = Estimate(pairs, evidence.resamples, evidence.seed)
    return replace(seen, p=estimate.chance_of_more(threshold))


def _judged(row: Finding) -> Finding:
    if row.low > row.threshold:
        return replace(row, state="met")
    if row.p is not None and row.p <= (1 - row.confidence) / 2:
        return replace(row, state="failed")
    above = row.difference > row.threshold
    reach = row.difference - row.low if above else row.high - row.difference
    more = _missing(row, reach, abs(row.difference - row.threshold))
    return replace(row, state="undecided", more=more)


def _seen(
    kind: Literal["gain", "guard"],
    suite: str,
    language: str,
    pairs: Pairs,
    threshold: float,
    confidence: float,
    evidence: Evidence,
) -> Finding:
    estimate = Estimate(pairs, evidence.resamples, evidence.seed)
    low, high = estimate.bounds(confidence)
    return Finding(
        kind=kind,
        suite=suite,
        language=language,
        threshold=threshold,
        proof=True,
        confidence=confidence,
        items=pairs.n,
        clusters=len(pairs.totals[0]),
        base=math.fsum(pairs.base) / pairs.n,
        refined=math.fsum(pairs.other) / pairs.n,
        low=low,
        high=high,
        detectable=estimate.detectable(confidence),
        state="met",
    )


def _missing(row: Finding, reach: float, gap: float) -> int | None:
    """Items that are missing, rounded up to two digits: it is a plan, not a promise."""
    needed = items_needed(row.items, reach, gap, row.confidence)
    if needed is None or needed > TOO_MANY:
        return None
    return _two_digits(max(1, needed - row.items))


def _two_digits(value: int) -> int:
    unit = int("1" + "0" * max(0, len(str(value)) - 2))
    return -(-value // unit) * unit


def _more(rows: Sequence[Finding]) -> dict[str, int]:
    """Per suite: what its whole needs, or its languages together, if that is more."""
    more: dict[str, int] = {}
    for suite in dict.fromkeys(row.suite for row in rows):
        mine = [row for row in rows if row.suite == suite and row.more is not None]
        whole = sum(row.more or 0 for row in mine if row.language == ALL)
        apart = sum(row.more or 0 for row in mine if row.language != ALL)
        if mine:
            more[suite] = _two_digits(max(whole, apart))
    return more


def _budgets(evidence: Evidence, rules: Rules) -> Iterator[str]:
    if rules.latency is not None:
        yield from _latency(evidence.timing, rules.latency)
    if rules.cost is None:
        return
    for name, suite in evidence.suites.items():
        tokens, ratio = suite.cost.other, suite.cost.ratio
        if rules.cost.max_ratio is not None and ratio > rules.cost.max_ratio:
            yield (
                f"answers to {name} cost {ratio:.2f} times the base's completion tokens "
                f"({tokens:.1f} against {suite.cost.base:.1f}); allowed is {rules.cost.max_ratio:g}"
            )
        if rules.cost.max_tokens is not None and tokens > rules.cost.max_tokens:
            yield (
                f"answers to {name} take {tokens:.1f} completion tokens on average; allowed is "
                f"{rules.cost.max_tokens:g}"
            )


def _latency(timing: Timing | None, budget: Latency) -> Iterator[str]:
    if timing is None:
        yield "there is a latency budget and no time was measured: evaluate again without the cache"
        return
    for name, took, most in (("p50", timing.p50, budget.p50), ("p95", timing.p95, budget.p95)):
        if most is not None and took > most:
            yield f"answers take {took:.3g} s ({name}); allowed is {most:g} s"
    least = budget.tokens_per_second
    if least is not None and timing.tokens_per_second < least:
        seen = timing.tokens_per_second
        yield f"an answer comes at {seen:.3g} tokens a second; asked are {least:g} at least"


def rests_on(
    measured: Measured,
    shipped: str,
    *,
    merged: str | None = None,
    parity: float | None = None,
    quantised: bool = False,
) -> str | None:
    """Why a bundle may not rest on a scorecard; None where it may.

    ``shipped`` is :func:`~avocado.evaluate.scorecard.model_sha256` of the bundle. The scorecard
    must have measured these very weights, or the adapters (their hash: ``merged``) whose merge into
    them was proved to say the same (``parity``: the difference of logits that ``release.merge``
    found and let pass). What is ``quantised`` computes other numbers, so it needs a scorecard of
    its own, always.
    """
    if measured.checkpoint == shipped:
        return None
    if quantised:
        return (
            f"the bundle is quantised (weights {shipped[:12]}) and its scorecard measured other "
            f"weights ({measured.checkpoint[:12]}): evaluate the quantised form itself"
        )
    if measured.form == "adapters" and measured.checkpoint == merged and parity is not None:
        return None
    return (
        f"the scorecard measured other weights ({measured.checkpoint[:12]}) than the bundle ships "
        f"({shipped[:12]}): evaluate these"
    )


@dataclass(frozen=True, slots=True)
class Group:
    """A row of a scorecard, for the model card: one language, or all of them (``name`` "all").

    ``base`` and ``refined`` are mean scores in 0..1; ``low`` and ``high`` bound their difference at
    the scorecard's confidence.
    """

    name: str
    items: int
    base: float
    refined: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        return self.refined - self.base


def group(name: str, compared: Comparison) -> Group:
    n = compared.n
    return Group(name, n, compared.base / n, compared.other / n, compared.low, compared.high)


def decision_facts(
    decision: Decision, gain: float | None, verdict: Verdict, rules: Rules
) -> dict[str, Any]:
    """What a release's manifest says of the gate: the rules, the evidence, and who may be told.

    ``gain`` is the difference on the target suite, None where nothing was scored."""
    return {
        "approved": decision.approved,
        "purpose": verdict.purpose,
        "rules": rules.to_json(),
        "findings": [each.to_json() for each in decision.findings],
        "gain": None if gain is None else round(gain, 6),
        "licences": [
            {
                "role": part.role,
                "name": part.name,
                "licence": part.licence,
                "text_sha256": part.text_sha256,
            }
            for part in verdict.components
        ],
        "notices": list(verdict.notices),
    }
