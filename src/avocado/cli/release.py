"""``avocado release``: the gate, the bundle and the offer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from avocado.cli.arguments import EXISTING, Amount, workspace_here
from avocado.cli.gate import (
    UNASKED,
    Asked,
    judged,
    pick_scorecard,
    read_evidence,
    require_approval,
    require_same_weights,
    rule_on_report,
    rules_of,
    show_evidence,
)
from avocado.cli.keeping import Made, card_of, keep_signed
from avocado.cli.output import Output, with_output
from avocado.cli.provenance import duties
from avocado.cli.vaults import kept_line, vault_of
from avocado.errors import Refused
from avocado.lineage import short
from avocado.release.offer import Offer
from avocado.terms.money import Money
from avocado.terms.price import PriceSheet
from avocado.workspace import Artifact, Workspace

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Request:
    """What the operator asks for. ``folder`` gets a copy of an open release."""

    name: str
    purpose: Literal["sale", "publication"]
    price: PriceSheet
    asked: Asked = UNASKED
    scorecard: str | None = None
    folder: Path | None = None


def make_release(
    workspace: Workspace, checkpoint: Artifact, ask: Request
) -> tuple[Artifact, Offer]:
    """Gate, bundle, signature, offer; Refused with every reason, and then nothing is left."""
    from avocado.release import gate
    from avocado.release.bundle import write_papers, write_weights
    from avocado.release.signature import signing_key

    store = workspace.store
    private, _ = signing_key(workspace.state)  # a key that is missing is told before the work
    vault = vault_of(workspace) if ask.purpose == "sale" else None
    base = store.load(checkpoint.manifest.parents["base"])
    corpora = store.ancestors(checkpoint.id, "corpus")
    checkpoints = [checkpoint, *store.ancestors(checkpoint.id, "checkpoint")]
    for artifact in (base, *corpora, *checkpoints):
        if changed := store.changed_files(artifact):
            raise Refused(*(f"{short(artifact.id)}: {name} was changed" for name in changed))
    verdict = judged(workspace, checkpoint, ask.purpose, ask.name)
    card = pick_scorecard(workspace, checkpoint, ask.scorecard)
    rules = rules_of(workspace, checkpoint, ask.asked, card)
    scorecard, evidence = read_evidence(card)
    decision = gate.decide(evidence, verdict, rules)
    rule_on_report(workspace, card, decision)
    require_approval(decision)
    gain = None if scorecard is None else gate.group("all", scorecard.overall).difference
    parents = {"checkpoint": checkpoint.id}
    if card is not None:
        parents["scorecard"] = card.id
    with store.stage() as staging:
        difference = write_weights(checkpoint.files, base.files, staging.folder)
        shipped = require_same_weights(scorecard, checkpoint, staging.folder, difference)
        chain = [*parents.items(), ("base", base.id), *(("corpus", each.id) for each in corpora)]
        made = Made(base, checkpoints, corpora, chain, merged=difference is not None)
        write_papers(
            base.files, staging.folder, card_of(ask.name, made, staging.folder, verdict, scorecard)
        )
        facts = {
            "name": ask.name,
            "template_sha256": checkpoint.manifest.facts["template_sha256"],
            "merge_difference": None if difference is None else float(f"{difference:.3g}"),
            "weights_sha256": shipped,
            "gate": gate.decision_facts(decision, gain, verdict, rules),
            "attestations": [each.cited() for each in verdict.cited],
        }
        release = keep_signed(workspace, staging, facts, parents, private, vault)
    return release, make_offer(workspace, release, ask)


def make_offer(workspace: Workspace, release: Artifact, ask: Request) -> Offer:
    """Offers ``release`` under its name from now on; an equal offer stays what it is. Servers of
    this workspace that run swap to it.

    Raises:
        Refused: a server cannot load it; then the name means what it meant before.
    """
    from avocado.cli.lineups import declare, line_up, place_offer

    before = line_up(workspace, ask.name)
    if before is not None and (before.offer.release, before.offer.price) == (release.id, ask.price):
        return before.offer
    like = None if before is None else before.offer
    offer = place_offer(workspace, ask.name, release.id, ask.price, like)
    declare(workspace, ask.name, offer)
    return offer


def release_lines(release: Artifact, offer: Offer, verdict_facts: dict[str, Any]) -> list[str]:
    price = offer.price
    per_million = (
        f"{Money(price.prompt, price.currency).decimal()} and "
        f"{Money(price.completion, price.currency).decimal()} {price.currency} per million tokens"
    )
    licences = sorted({each["licence"] for each in verdict_facts["licences"]})
    return [
        f"approved: {100 * verdict_facts['gain']:+.1f} points, licences {', '.join(licences)}"
        if verdict_facts["gain"] is not None
        else f"approved: licences {', '.join(licences)}; not scored",
        *(f"to observe: {duty}" for duty in duties(verdict_facts["notices"])),
        f"made {short(release.id)} and {short(offer.id)}: {offer.name} at {per_million}",
    ]


def parse_price(
    paid: bool, open_: bool, prompt: Money | None, completion: Money | None, currency: str
) -> PriceSheet:
    """The price of a paid release, or of an open one, which is free.

    Raises:
        click.UsageError: neither or both ways out, or a price that is missing or out of place.
    """
    if paid == open_:
        raise click.UsageError("say --paid with both prices, or --open")
    if open_:
        if prompt is not None or completion is not None:
            raise click.UsageError("an open release has no price: leave the prices out")
        return PriceSheet(0, 0, currency)
    if prompt is None or completion is None:
        raise click.UsageError("--paid needs --price-input and --price-output")
    return PriceSheet(prompt.nanos, completion.nanos, currency)


def _share(value: float | None) -> float | None:
    return None if value is None else value / 100


@click.command()
@click.argument("checkpoint")
@click.option("--name", required=True, help="The public name: what customers write as model.")
@click.option("--paid", is_flag=True, help="Sell it by the token; its weights stay here.")
@click.option("--open", "open_", is_flag=True, help="Open weights; free of charge at the API.")
@click.option("--price-input", type=Amount(), help="Per million prompt tokens, such as 0.20.")
@click.option("--price-output", type=Amount(), help="Per million completion tokens.")
@click.option("--to", "folder", type=EXISTING, help="With --open: a new folder for the weights.")
@click.option("--push", "repository", help="With --open: a Hugging Face repository, owner/name.")
@click.option("--private", is_flag=True, help="With --push: only who is let in sees it there.")
@click.option("--scorecard", help="The newest of this checkpoint if left out.")
@click.option(
    "--min-gain",
    type=click.FloatRange(0, 100, max_open=True),
    help="Points that the gain's interval must lie above; 0 if left out.",
)
@click.option(
    "--max-regression",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    help="Points that a language may lose, and that it loses no more has to be proven. If left "
    "out, no loss may be seen.",
)
@with_output
def release(
    out: Output,
    checkpoint: str,
    name: str,
    paid: bool,
    open_: bool,
    price_input: Money | None,
    price_output: Money | None,
    folder: Path | None,
    repository: str | None,
    private: bool,
    scorecard: str | None,
    min_gain: float | None,
    max_regression: float | None,
) -> None:
    """Let CHECKPOINT out under a public name, if the gate approves.

    A paid release needs a scorecard that proves a gain over the base, no language that lost, and
    licences of base and data that let it be sold; [gate] in avocado.toml or in the recipe asks for
    more. Each reason against it is printed. Undecided: too few items to know; the answer says how
    many would tell.
    """
    from avocado.release.hub import check_destination, push
    from avocado.release.publish import publish_folder
    from avocado.release.signature import SIGNATURE, fingerprint, signing_key
    from avocado.release.vault import is_sealed

    workspace = workspace_here()
    price = parse_price(paid, open_, price_input, price_output, workspace.config.currency)
    if not _NAME.fullmatch(name):
        raise Refused(f"{name!r} is no model name: letters, digits, '.', '_' and '-', at most 64")
    if folder is not None and (paid or folder.exists()):
        why = "a paid release keeps its weights" if paid else f"{folder} exists"
        raise Refused(f"{why}: --to names a new folder for an open release")
    if repository is not None:
        if paid:
            raise Refused("a paid release keeps its weights: --push is for an open release")
        check_destination(repository)
    elif private:
        raise click.UsageError("--private goes with --push")
    found = workspace.store.load(workspace.store.resolve(checkpoint, "checkpoint"))
    asked = Asked(_share(min_gain), _share(max_regression))
    ask = Request(name, "sale" if paid else "publication", price, asked, scorecard, folder)
    released, offer = make_release(workspace, found, ask)
    if folder is not None:
        publish_folder(released.files, folder, released.files.parent / SIGNATURE)
    pushed = None
    if repository is not None:
        signature = released.files.parent / SIGNATURE
        pushed = push(released.files, signature, repository, private=private)
    facts = dict(released.manifest.facts)
    show_evidence(out, facts["gate"]["findings"])
    lines: Sequence[str] = release_lines(released, offer, facts["gate"])
    out.result(
        {
            "release": released.id,
            "offer": offer.id,
            "pushed": None if pushed is None else {"url": pushed.url, "commit": pushed.commit},
            **facts,
        },
        *lines,
        *([f"wrote the open weights to {folder}"] if folder is not None else []),
        *([f"pushed to {pushed.url} at {pushed.commit[:12]}"] if pushed is not None else []),
        f"signed by the key {fingerprint(signing_key(workspace.state)[1])[:16]}…",
        *([kept_line(is_sealed(released.files))] if paid else []),
        "Next: avocado serve",
    )
