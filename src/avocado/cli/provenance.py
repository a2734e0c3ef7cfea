"""What an artifact is in a few lines, and the papers that say what may be done with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avocado.errors import Refused
from avocado.release.attestations import Log
from avocado.release.signature import SIGNATURE
from avocado.terms.licence_facts import find
from avocado.terms.money import Money
from avocado.workspace import Artifact

if TYPE_CHECKING:
    from avocado.lineage import Manifest

PAPERS = ("LICEN", "NOTICE", "README.md", "bom.cdx.json")
"""How the names of a model's papers begin."""


@dataclass(frozen=True)
class Paper:
    """A text: what it is, its SHA-256 by the manifest (or an attestation's seal), where it lies."""

    name: str
    sha256: str | None
    place: str

    def __str__(self) -> str:
        sha = f" sha256 {self.sha256}" if self.sha256 else ""
        return f"{self.name}{sha}" if self.folder else f"{self.name}{sha}, {self.place}"

    @property
    def folder(self) -> str | None:
        """Where it lies, if it is a file."""
        path = Path(self.place)
        return str(path.parent) if path.is_absolute() else None

    def value(self) -> dict[str, str | None]:
        return {"name": self.name, "sha256": self.sha256, "place": self.place}


def papers_of(artifact: Artifact, log: Log) -> Iterator[Paper]:
    """The licence texts, NOTICE, card and bill of a base or a release, its signature, and the
    attestations that a release rests on."""
    manifest = artifact.manifest
    if manifest.kind not in ("base", "release"):
        return
    for name, sha in sorted(manifest.files.items()):
        if name.startswith(PAPERS):
            yield Paper(name, sha, str(artifact.files / name))
    if manifest.kind == "base":
        return
    signature = artifact.files.parent / SIGNATURE
    if signature.exists():
        yield Paper("signature", None, str(signature))
    yield from _attestations(manifest.facts.get("attestations", ()), log)


def _attestations(cited: Any, log: Log) -> Iterator[Paper]:
    if not cited:
        return
    try:
        known = {each.seal: each.statement for each in log.read()}
    except Refused as refused:
        known = {}
        yield Paper("attestations", None, f"{log.path}: {refused.reasons[0]}")
    for each in cited:
        statement = known.get(each["seal"])
        said = "it is not in the log any more"
        if statement is not None:
            about = f"{statement.subject} is {statement.licence}" if statement.subject else "size"
            said = f"{about}: {statement.reason}"
        yield Paper(
            f"attestation {each['seq']} of {each['by']}, {each['date']}",
            each["seal"],
            f"{log.path.name}: {said}",
        )


def describe(manifest: Manifest) -> Iterator[str]:
    """What a person wants to know of an artifact, in a few lines."""
    facts = manifest.facts
    if manifest.kind == "base":
        revision = f" at {facts['revision']}" if facts["revision"] else ""
        yield f"{facts['name']}{revision}, {facts['architecture']}"
        yield f"licence {facts['licence']}, text sha256 {facts['licence_sha256'] or 'none'}"
    elif manifest.kind == "corpus":
        yield f"{facts['accepted']:,} examples, {facts['tokens']:,} tokens"
        yield from (f"source {each['name']} sha256 {each['sha256']}" for each in _files(facts))
        licences = ", ".join(f"{name} {count:,}" for name, count in facts["licences"].items())
        yield f"licences {licences}"
        for each in facts.get("teachers", ()):
            yield f"teacher {each['model']} at {each['revision']}, licence {each['license']}"
    elif manifest.kind == "checkpoint":
        learning = f"{facts['method']}, {facts['weights']}"
        yield f"{learning}, {facts['steps']:,} steps, seed {facts['seed']}"
        yield f"recipe sha256 {facts['recipe_sha256']}"
    elif manifest.kind == "suite":
        yield f"{facts['name']}, {sum(facts['items'].values()):,} items"
    elif manifest.kind == "scorecard":
        for name, suite in facts["suites"].items():
            overall = suite["overall"]
            yield (
                f"{name}: base {overall['base']:g} of {overall['n']}, refined "
                f"{overall['other']:g} ({suite['metric']}); difference in "
                f"[{overall['low']:+.1%}, {overall['high']:+.1%}]"
            )
        yield f"measured weights sha256 {facts['measured']['checkpoint']}"
    elif manifest.kind == "release":
        gate = facts["gate"]
        yield f"{facts['name']}: gate approved its {gate['purpose']}"
        for each in gate.get("licences", ()):
            known = find(each["licence"])
            text = f", text sha256 {each['text_sha256']}" if each.get("text_sha256") else ""
            source = f" <{known.source}>" if known else ""
            yield f"licence of {each['role']} {each['name']}: {each['licence']}{source}{text}"
        yield from (f"to observe: {each}" for each in duties(gate.get("notices", ())))
    elif manifest.kind == "offer":
        price = facts["price"]
        prices = [Money(price[kind], price["currency"]) for kind in ("prompt", "completion")]
        yield f"{facts['name']} at {prices[0]} and {prices[1]} per million tokens"
        if facts.get("audience"):
            yield f"for {', '.join(facts['audience'])}"


def _files(facts: Any) -> list[dict[str, str]]:
    return list(facts["files"])


def duties(notices: Sequence[str]) -> list[str]:
    """Each duty once, with all that it holds for: notices are ``name: duty``."""
    names: dict[str, list[str]] = {}
    for name, _, duty in (notice.partition(": ") for notice in notices):
        names.setdefault(duty, []).append(name)
    return [f"{duty}, for {' and '.join(whose)}" for duty, whose in names.items()]
