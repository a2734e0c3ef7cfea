"""``avocado licence``: what may be sold and what published, and what a person answers for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from avocado.cli.arguments import workspace_here
from avocado.cli.attestation import attest, in_words, shortened, to_json
from avocado.cli.components import PURPOSES, ground_of, log_of, parts_of, today
from avocado.cli.output import Output, with_output
from avocado.errors import Refused
from avocado.terms.attestation import Attestation
from avocado.terms.licence import Finding, Ground, Verdict, judge
from avocado.terms.licence_facts import Licence, Purpose, checkpoints, licences, services
from avocado.workspace import Workspace


@click.group()
def licence() -> None:
    """What may be sold and what published; facts, not legal advice."""


licence.add_command(attest)


@licence.command("list", short_help="What is known of licences, and what is attested here.")
@with_output
def list_(out: Output) -> None:
    """Show every licence that is known, whose checkpoints stand under it, and what is attested in
    this workspace."""
    attested = _attested_here()
    value = {
        "licences": [_facts(each) for each in licences().values()],
        "checkpoints": [{"repository": name, "licence": id_} for name, id_ in checkpoints()],
        "services": [{"pattern": name, "licence": id_} for name, id_ in services()],
        "attestations": [to_json(each) for each in attested],
    }
    if out.json:
        out.result(value)
        return
    rows = [
        [each.id, each.sale, each.publication, each.teaching, each.read]
        for each in licences().values()
    ]
    out.table(["licence", "sale", "publication", "teaching", "read"], rows)
    for id_ in licences():
        names = [name for name, under in (*checkpoints(), *services()) if under == id_]
        if names:
            out.say(f"{id_}: {', '.join(names)}")
    for each in attested:
        out.say(in_words(each))


def _attested_here() -> Sequence[Attestation]:
    try:
        workspace = workspace_here()
    except Refused:
        return ()
    return log_of(workspace).read()


def _facts(each: Licence) -> dict[str, Any]:
    return {
        "id": each.id,
        "name": each.name,
        "sale": each.sale,
        "publication": each.publication,
        "teaching": each.teaching,
        "clause": each.clause,
        "source": each.source,
        "read": each.read,
        "notices": list(each.notices),
        "name_prefix": each.name_prefix or None,
        "thresholds": [
            {
                "measure": threshold.measure,
                "over": threshold.over,
                "effect": threshold.effect,
                "clause": threshold.clause,
            }
            for threshold in each.thresholds
        ],
    }


@licence.command(short_help="What something is made of, and what that allows.")
@click.argument("target")
@click.option(
    "--purpose", type=click.Choice(PURPOSES), help="Only this one; exit code 1 if it is refused."
)
@click.option("--name", help="The public name, where a licence has a say in it.")
@with_output
def explain(out: Output, target: str, purpose: Purpose | None, name: str | None) -> None:
    """Say what TARGET is made of, under which licences, what they allow and what must be shown.

    TARGET is a checkpoint, a release, a corpus, or a base: an id, seedling, a folder or a hub id.
    The most restrictive licence wins. Sale and publication are judged apart.
    """
    workspace = _workspace()
    parts, named = parts_of(workspace, target)
    ground = ground_of(workspace, name or named) if workspace else Ground((), today(), name)
    purposes = PURPOSES if purpose is None else (purpose,)
    verdicts = [judge(parts, each, ground) for each in purposes]
    out.result(_value(target, verdicts), *_told(target, verdicts))
    if purpose is not None and not verdicts[0].allowed:
        raise click.exceptions.Exit(1)


def _workspace() -> Workspace | None:
    try:
        return workspace_here()
    except Refused:
        return None


def _value(target: str, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    parts = []
    for number, finding in enumerate(verdicts[0].findings):
        part = finding.component
        judged = {each.purpose: each.findings[number] for each in verdicts}
        parts.append(
            {
                "role": part.role,
                "name": part.name,
                "scope": part.scope,
                "text_sha256": part.text_sha256,
                "licence": part.licence,
                "licences": [_facts(each) for each in finding.licences],
                "notices": list(_all(each.notices for each in judged.values())),
                **_answers(judged),
            }
        )
    cited = {each.seq: to_json(each) for verdict in verdicts for each in verdict.cited}
    return {
        "target": target,
        **_answers({each.purpose: each for each in verdicts}),
        "components": parts,
        "attestations": list(cited.values()),
    }


def _answers(judged: Mapping[Purpose, Finding] | Mapping[Purpose, Verdict]) -> dict[str, Any]:
    return {
        purpose: {"allowed": each.allowed, "reasons": list(each.reasons)}
        for purpose, each in judged.items()
    }


def _all(several: Iterable[Sequence[str]]) -> dict[str, None]:
    return dict.fromkeys(each for notices in several for each in notices)


def _told(target: str, verdicts: Sequence[Verdict]) -> list[str]:
    lines = []
    told: set[tuple[str, str, str]] = set()
    for number, finding in enumerate(verdicts[0].findings):
        said = _part(finding, [(each.purpose, each.findings[number]) for each in verdicts])
        thing = (finding.component.name, finding.component.scope, finding.component.licence)
        lines += said[:1] if thing in told else said
        told.add(thing)
    cited = {each.seq: each for verdict in verdicts for each in verdict.cited}
    lines += [in_words(each) for each in cited.values()]
    for verdict in verdicts:
        lines += ["", f"{verdict.purpose}: {'allowed' if verdict.allowed else 'refused'}"]
        lines += [f"  {reason}" for reason in verdict.reasons]
    return [*lines, "", f"This is what {target} rests on as far as we know; it is no legal advice."]


def _part(finding: Finding, judged: Sequence[tuple[Purpose, Finding]]) -> list[str]:
    part = finding.component
    scope = f" ({shortened(part.scope)})" if part.scope else ""
    answers = ", ".join(f"{key} {'yes' if each.allowed else 'no'}" for key, each in judged)
    lines = [f"{part.role} {part.name}{scope}: {part.licence}; {answers}"]
    for each in finding.licences:
        lines += [f"    {each.name}: {each.clause}", f"    {each.source}, read {each.read}"]
    lines += [f"    to show: {notice}" for notice in _all(each.notices for _, each in judged)]
    return lines
