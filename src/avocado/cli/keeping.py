"""How a release is written up, signed and kept: from artifacts to a card, from a staging folder to
a private, signed artifact. Decides nothing about whether it may go out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avocado.lineage import Manifest, digest_folder
from avocado.terms.licence import Verdict
from avocado.workspace import Artifact, Staging, Workspace

if TYPE_CHECKING:
    from avocado.evaluate.scorecard import Scorecard
    from avocado.release.card import Card
    from avocado.release.vault import Vault


@dataclass(frozen=True)
class Made:
    """What a release was made of: ``checkpoints`` with the one that goes out first; ``chain`` is
    (role, id) of each artifact; ``merged``: adapters were folded in."""

    base: Artifact
    checkpoints: Sequence[Artifact]
    corpora: Sequence[Artifact]
    chain: Sequence[tuple[str, str]]
    merged: bool


def card_of(
    name: str, made: Made, bundle: Path, verdict: Verdict, scorecard: Scorecard | None
) -> Card:
    """The facts that the model card, the NOTICE and the bill of materials state."""
    from avocado.release import gate
    from avocado.release.bundle import relation_of, task_of
    from avocado.release.card import Card, Scores
    from avocado.release.compute import compute_of

    base, facts = made.base.manifest.facts, made.checkpoints[0].manifest.facts
    method = "{method}, {weights}".format_map(facts)
    scores = [
        Scores(
            suite,
            each.metric,
            gate.group("all", each.overall),
            [gate.group(language, row) for language, row in each.languages.items()],
        )
        for suite, each in (scorecard.suites if scorecard else {}).items()
    ]
    tested = [row.name for each in scores for row in each.languages]
    learnt = [word for each in made.corpora for word in each.manifest.facts.get("languages", ())]
    spent = sum(each.manifest.facts["flops"] for each in made.checkpoints)
    config = json.loads((bundle / "config.json").read_bytes())
    return Card(
        name=name,
        base=base["name"],
        revision=base["revision"],
        method=f"{method}, merged" if made.merged else method,
        licence=base["licence"],
        languages=list(dict.fromkeys(tested or sorted(learnt))),
        scores=scores,
        verdict=verdict,
        chain=made.chain,
        compute=compute_of(base["name"], facts["parameters"], spent),
        relation=relation_of(bundle),
        task=task_of(bundle),
        architecture=(config.get("architectures") or [base["architecture"]])[0],
        parameters=facts["parameters"],
        approach="reinforcement-learning" if facts["method"] == "grpo" else "supervised",
        base_files=made.base.manifest.files,
        data_facts=[each.manifest.facts for each in made.corpora],
    )


def keep_signed(
    workspace: Workspace,
    staging: Staging,
    facts: Mapping[str, Any],
    parents: Mapping[str, str],
    private: Path,
    vault: Vault | None,
) -> Artifact:
    """Signs what lies in ``staging`` and keeps it as a release that only its owner can read, its
    weights encrypted where there is a ``vault``.

    Hashes and signature are of what they decrypt to: the release is the same one, sealed or not.
    The same release again keeps the signature that it has.
    """
    from avocado.release.signature import SIGNATURE, sign

    signature = staging.folder.with_suffix(".sig")
    try:
        sign(staging.folder, private, signature)
        manifest = Manifest("release", facts, parents, digest_folder(staging.folder))
        if vault is not None:
            vault.seal_folder(staging.folder)
        make_private(staging.folder)
        release = workspace.store.place(manifest, {}, files=staging.folder)
        home = release.files.parent
        home.chmod(0o700)
        if vault is not None:  # the same release may have lain here in plain
            vault.seal_folder(release.files)
        if not (home / SIGNATURE).exists():
            signature.rename(home / SIGNATURE)
    finally:
        signature.unlink(missing_ok=True)
    return release


def make_private(folder: Path) -> None:
    """0600 for files, 0700 for folders: nobody else on this machine reads the weights."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
