"""What a checkpoint is made of, gathered from the artifacts behind it: each part with its licence.

Adapters and weights that were trained here are the operator's own and no component. What was found
when an artifact was recorded is judged again by what is known of it today.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from avocado.data.record import FILE
from avocado.errors import Refused
from avocado.lineage import KINDS, canonical, digest
from avocado.release.attestations import NAME, Log
from avocado.terms.licence import Component, Ground
from avocado.terms.licence_facts import Purpose, licence_of_checkpoint
from avocado.workspace import Artifact, Workspace

PURPOSES: Final[tuple[Purpose, ...]] = ("sale", "publication")


def log_of(workspace: Workspace) -> Log:
    """The workspace's attestations."""
    return Log(workspace.state / NAME)


def today() -> str:
    """The date, UTC, in ISO form."""
    return datetime.now(UTC).date().isoformat()


def ground_of(workspace: Workspace, name: str | None = None) -> Ground:
    """What a judgement of today rests on; ``name`` is the public name, if there is one yet."""
    return Ground(log_of(workspace).read(), today(), name)


def components(
    base: Artifact, corpora: Sequence[Artifact], checkpoints: Sequence[Artifact] = ()
) -> list[Component]:
    """Everything that a checkpoint is made of, with its licence; each once."""
    found = [*of_base(base.manifest.facts, base.manifest.files)]
    for corpus in corpora:
        found += of_corpus(corpus)
    for checkpoint in checkpoints:
        found += of_recipe(checkpoint.manifest.facts["recipe"])
    return list(dict.fromkeys(found))


def of_base(
    facts: Mapping[str, Any], files: Mapping[str, str], roles: Iterable[str] = ()
) -> Iterator[Component]:
    """A base; tokenizer and chat template come with it, under its licence."""
    scope = facts["revision"] or f"sha256:{digest(canonical(dict(files)))}"
    for role in roles or ("base", "tokenizer", "chat template"):
        yield Component(role, facts["name"], facts["licence"], facts["licence_sha256"], scope)


def of_corpus(corpus: Artifact) -> Iterator[Component]:
    """Each source with each licence that its rows state, and the teachers who wrote rows."""
    facts = corpus.manifest.facts
    hashes = {each["name"]: each["sha256"] for each in facts["files"]}
    files: dict[tuple[str, str], set[str]] = {}
    for source, licence, file in sorted(_origins(corpus)):
        files.setdefault((source, licence), set()).add(hashes.get(file, ""))
    for (source, licence), found in files.items():
        scope = min(found) if len(found) == 1 else digest(canonical(sorted(found)))
        yield Component("data", source or "training data", licence, None, f"sha256:{scope}")
    for each in facts.get("teachers", ()):
        revision = each["revision"]
        scope = "" if revision == "unknown" else revision
        yield Component("teacher", each["model"], each["license"], None, scope)


def _origins(corpus: Artifact) -> set[tuple[str, str, str]]:
    """(source, licence, file) of the rows of a frozen corpus."""
    from avocado.data.corpus import HELD_OUT

    found: set[tuple[str, str, str]] = set()
    for name in (*sorted(FILE.values()), HELD_OUT):
        if (corpus.files / name).is_file():
            with (corpus.files / name).open("rb") as handle:
                for number, line in enumerate(handle, 1):
                    try:
                        row = json.loads(line)
                        found.add((row["source"], row["license"], row["file"]))
                    except (ValueError, KeyError, TypeError) as error:
                        raise Refused(f"{name}, row {number} is damaged: {error}") from error
    return found


def of_recipe(recipe: Mapping[str, Any]) -> Iterator[Component]:
    """A judge that graded training answers, where its name says under whose terms it stands."""
    judge = (recipe.get("distillation") or {}).get("judge") or {}
    model = judge.get("model")
    licence = licence_of_checkpoint(model) if model else None
    if licence is not None:
        yield Component("judge", str(model), licence)


def of_checkpoint(workspace: Workspace, checkpoint: Artifact) -> list[Component]:
    """The components of a checkpoint, local teachers included."""
    store = workspace.store
    base = store.load(checkpoint.manifest.parents["base"])
    corpora = store.ancestors(checkpoint.id, "corpus")
    checkpoints = [checkpoint, *store.ancestors(checkpoint.id, "checkpoint")]
    found = components(base, corpora, checkpoints)
    for each in checkpoints:
        if (teacher := each.manifest.parents.get("teacher")) is not None:
            manifest = store.load(teacher).manifest
            found += of_base(manifest.facts, manifest.files, ["teacher"])
    return list(dict.fromkeys(found))


def known_components(workspace: Workspace) -> list[Component]:
    """Every base, data source and teacher that this workspace has recorded."""
    store = workspace.store
    found: list[Component] = []
    for each in store.ids("base"):
        manifest = store.load(each).manifest
        found += of_base(manifest.facts, manifest.files, ["base"])
    for each in store.ids("corpus"):
        found += of_corpus(store.load(each))
    return list(dict.fromkeys(found))


def parts_of(workspace: Workspace | None, target: str) -> tuple[Sequence[Component], str | None]:
    """(components, public name if it has one) of what a person named."""
    kind = target.partition("-")[0]
    if workspace is not None and kind in KINDS and "-" in target and "/" not in target:
        store = workspace.store
        found = store.load(store.resolve(target))
        if kind == "release":
            name = str(found.manifest.facts["name"])
            return of_checkpoint(workspace, store.load(found.manifest.parents["checkpoint"])), name
        if kind == "checkpoint":
            return of_checkpoint(workspace, found), None
        if kind == "corpus":
            return list(of_corpus(found)), None
        if kind == "base":
            return list(of_base(found.manifest.facts, found.manifest.files)), None
        raise Refused(f"a {kind} has no licence of its own: give a checkpoint, release or base")
    return found_base(target) or _by_name(workspace, target), None


def found_base(target: str) -> list[Component]:
    """A base that nobody has recorded here yet: seedling or a folder; else nothing. What is at a
    hub is not fetched for the sake of its licence."""
    from avocado.train.base import SEEDLING, resolve

    if target != SEEDLING and not Path(target).is_dir():
        return []
    base = resolve(target, Path.cwd())
    return list(of_base(base.facts, base.files()))


def _by_name(workspace: Workspace | None, target: str) -> list[Component]:
    """What is recorded here under that name, or else what is known of the repository."""
    known = known_components(workspace) if workspace else []
    if found := [each for each in known if each.name == target]:
        return found
    name, _, revision = target.partition("@")
    licence = licence_of_checkpoint(name)
    if licence is None:
        raise Refused(
            f"there is no base {target!r}, and nothing of that name is recorded here or known: "
            "give an id, seedling, the folder of a downloaded model, or a repository that avocado "
            "licence list names"
        )
    roles = ("base", "tokenizer", "chat template")
    return [Component(role, name, licence, None, revision) for role in roles]
