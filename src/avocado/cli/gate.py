"""``avocado gate``: would this checkpoint be let out? What the gate is given, what it says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from avocado.cli.arguments import workspace_here
from avocado.cli.components import ground_of, of_checkpoint
from avocado.cli.evaluate import scorecards_of
from avocado.cli.output import Output, with_output
from avocado.cli.report import read_card, read_timings, write_report
from avocado.configuration import CONFIG
from avocado.errors import Refused, Undecided
from avocado.lineage import digest_folder, short
from avocado.release.rules import Gain, Guard, Rules, parse_rules
from avocado.terms.licence import Verdict, judge
from avocado.workspace import Artifact, Workspace

if TYPE_CHECKING:
    from avocado.evaluate.scorecard import Scorecard
    from avocado.release.gate import Decision, Evidence


@dataclass(frozen=True)
class Asked:
    """What the gate is asked by hand, in shares; None: nothing is said."""

    min_gain: float | None = None
    max_regression: float | None = None


UNASKED: Final = Asked()


def pick_scorecard(
    workspace: Workspace, checkpoint: Artifact, wanted: str | None
) -> Artifact | None:
    """The scorecard that was asked for, or the newest of this checkpoint, if there is one."""
    cards = scorecards_of(workspace, checkpoint.id)
    if wanted is None:
        return cards[-1] if cards else None
    chosen = workspace.store.resolve(wanted, "scorecard")
    for card in cards:
        if card.id == chosen:
            return card
    raise Refused(f"{short(chosen)} is not a scorecard of {short(checkpoint.id)}")


def rules_of(
    workspace: Workspace, checkpoint: Artifact, asked: Asked, card: Artifact | None
) -> Rules:
    """``[gate]`` of ``avocado.toml`` or of the recipe, or what was asked by hand, or what is
    understood.

    Raises:
        Refused: two of them, or a table that is no rules.
    """
    house, own = workspace.config.gate, checkpoint.manifest.facts["recipe"].get("gate")
    if house is not None and own is not None:
        raise Refused(
            f"{CONFIG} has a [gate] and so has the recipe of {short(checkpoint.id)}: which of them "
            f"holds? Take the one in {CONFIG} away, or train by a recipe without one"
        )
    table, where = (own, "the recipe") if house is None else (house, CONFIG)
    if table is not None:
        if asked != UNASKED:
            raise Refused(f"the rules stand in {where}, [gate]: leave out the options for them")
        return parse_rules(table, where)
    suites: Mapping[str, Any] = {} if card is None else card.manifest.facts.get("suites", {})
    targets = [name for name, each in suites.items() if each["role"] == "target"]
    gains = tuple(Gain(name, asked.min_gain) for name in targets) if asked.min_gain else ()
    if not asked.max_regression:
        return Rules(must_gain=gains)
    guards = tuple(Guard(name, asked.max_regression) for name in suites)
    return Rules(must_gain=gains, guards=guards)


def read_evidence(card: Artifact | None) -> tuple[Scorecard | None, Evidence | None]:
    """The scorecard, and what the gate judges: every answer behind it."""
    from avocado.release.gate import Evidence, SuiteEvidence

    if card is None:
        return None, None
    scorecard, scored = read_card(card)
    suites = {
        each.name: SuiteEvidence(
            each.role,
            each.pairs(),
            {language: each.pairs(language) for language in each.languages},
            scorecard.suites[each.name].cost,
        )
        for each in scored
    }
    timing = read_timings(card).get("checkpoint")
    evidence = Evidence(suites, scorecard.measured, timing, scorecard.resamples, scorecard.seed)
    return scorecard, evidence


def require_approval(decision: Decision) -> None:
    """Lets an approval pass.

    Raises:
        Undecided: too few items to know.
        Refused: every other reason.
    """
    from avocado.release import gate

    if isinstance(decision, gate.Undecided):
        asked = " and ".join(
            f"about {n:,} more items of {name}" for name, n in decision.more.items()
        )
        hint = (f"the gate needs {asked}: write them and evaluate again",) if asked else ()
        raise Undecided(*decision.reasons, *hint)
    if not decision.approved:
        raise Refused(*decision.reasons)


EVIDENCE = ("rule", "on", "items", "difference", "interval", "must exceed", "detects", "")


def show_evidence(out: Output, findings: Sequence[Mapping[str, Any]]) -> None:
    """The table of what the gate looked at, in points; ``findings`` as a manifest keeps them."""
    if not findings or out.json:
        return
    rows = []
    for each in findings:
        whole = each["language"] == "all"
        low, high = (f"{100 * each[name]:+.1f}" for name in ("low", "high"))
        rows.append(
            [
                each["kind"],
                each["suite"] if whole else f"{each['suite']} · {each['language']}",
                f"{each['items']:,}",
                f"{100 * (each['refined'] - each['base']):+.1f}",
                f"{low} … {high}",
                f"{100 * each['threshold']:+.1f}" if each["proof"] else "as seen",
                f"{100 * each['detectable']:.1f}",
                each["state"],
            ]
        )
    out.table(EVIDENCE, rows)


def rule_on_report(workspace: Workspace, card: Artifact | None, decision: Decision) -> Path | None:
    """Writes the decision onto the scorecard's page, where there is a scorecard."""
    from avocado.evaluate.page import Ruling

    if card is None:
        return None
    return write_report(workspace, card, Ruling(decision.word, decision.reasons))


def require_same_weights(
    scorecard: Scorecard | None, checkpoint: Artifact, bundle: Path, parity: float | None
) -> str:
    """The hash of the weights in ``bundle``, made from ``checkpoint``, if the scorecard is one of
    them (``parity``: of the merge that made them, where there was one).

    Raises:
        Refused: it measured others.
    """
    from avocado.evaluate.scorecard import model_sha256
    from avocado.release.gate import rests_on

    shipped = model_sha256(digest_folder(bundle))
    if scorecard is not None:
        config = json.loads((bundle / "config.json").read_bytes())
        quantised = "quantization_config" in config
        reason = rests_on(
            scorecard.measured,
            shipped,
            merged=model_sha256(checkpoint.manifest.files),
            parity=parity,
            quantised=quantised,
        )
        if reason is not None:
            raise Refused(reason)
    return shipped


@click.command()
@click.argument("checkpoint")
@click.option("--paid/--open", default=True, help="Decide on a sale, or on open weights.")
@click.option("--name", help="The release's public name, for what was attested of it.")
@click.option("--scorecard", help="The newest of this checkpoint if left out.")
@with_output
def gate(out: Output, checkpoint: str, paid: bool, name: str | None, scorecard: str | None) -> int:
    """Would the gate let CHECKPOINT out? Decides, shows the evidence, and releases nothing.

    The rules are those of [gate] in avocado.toml or in the recipe. Exit code 0: approved; 1:
    refused, or undecided, and then with the number of items that would tell. The decision also goes
    onto the report.
    """
    from avocado.release.gate import decide

    workspace = workspace_here()
    found = workspace.store.load(workspace.store.resolve(checkpoint, "checkpoint"))
    card = pick_scorecard(workspace, found, scorecard)
    rules = rules_of(workspace, found, UNASKED, card)
    scored, evidence = read_evidence(card)
    verdict = judged(workspace, found, "sale" if paid else "publication", name)
    decision = decide(evidence, verdict, rules)
    report = rule_on_report(workspace, card, decision)
    if out.json:
        more = dict(getattr(decision, "more", {}))
        out.result(
            {
                "decision": decision.word,
                "reasons": list(decision.reasons),
                "more_items": more,
                "rules": rules.to_json(),
                "findings": [each.to_json() for each in decision.findings],
                "scorecard": card and card.id,
                "measured": scored and scored.facts()["measured"],
                "report": report and str(report),
            }
        )
        return int(not decision.approved)
    show_evidence(out, [each.to_json() for each in decision.findings])
    if report is not None:
        out.say(f"report: {report}")
    require_approval(decision)
    out.say(f"approved for {verdict.purpose}: avocado release {short(found.id)} would let it out")
    return 0


def judged(
    workspace: Workspace,
    checkpoint: Artifact,
    purpose: Literal["sale", "publication"],
    name: str | None,
) -> Verdict:
    """What the licences say of everything that the checkpoint is made of."""
    return judge(of_checkpoint(workspace, checkpoint), purpose, ground_of(workspace, name))
