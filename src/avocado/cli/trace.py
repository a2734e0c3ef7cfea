"""``avocado trace`` and ``verify``: where money came from, and whether all of it still holds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from avocado.cli.arguments import EXISTING, Month, this_month, workspace_here
from avocado.cli.book import shelf
from avocado.cli.links import trace_links
from avocado.cli.output import Output, with_output
from avocado.errors import Refused
from avocado.lineage import KINDS, digest_folder, short
from avocado.workspace import Artifact, Workspace

if TYPE_CHECKING:
    from avocado.ledger.proof import Check


@click.command()
@click.argument("id_", metavar="ID")
@click.option("--month", type=Month(), help="Of an invoice line; the current month if left out.")
@with_output
def trace(out: Output, id_: str, month: tuple[int, int] | None) -> None:
    """Show the chain behind ID, down to the hashes of the base and the data, to every licence text,
    the bill of materials, NOTICE, and who attested what.

    ID is an invoice or a line of one, a request, a release, a scorecard, a checkpoint, a corpus, or
    the public name of a model.
    """
    links = trace_links(workspace_here(), id_, month or this_month())
    out.result([link.value() for link in links], *(line for link in links for line in link.lines()))


def _prove(book: Path | str, deep: bool) -> list[Check]:
    from avocado.ledger.errors import LedgerError
    from avocado.ledger.proof import prove
    from avocado.ledger.reader import open_reader

    try:
        with open_reader(book) as reader:
            return prove(reader, time.time_ns(), deep)
    except LedgerError as error:
        raise Refused(str(error)) from error


@dataclass
class Found:
    """What ``verify`` found in the store: what is wrong, and how much was looked at. ``unread``:
    why signatures could not be checked, where they could not."""

    wrong: list[str]
    files: int = 0
    signatures: int = 0
    unread: str | None = None


def look_through(workspace: Workspace) -> Found:
    """Every file against its manifest, every release against its signature."""
    from importlib.util import find_spec

    store, found = workspace.store, Found([])
    if store.ids("release") and find_spec("cryptography") is None:
        found.unread = "signatures were not checked: pip install 'avocado-llm[release]'"
    for kind in KINDS:
        for each in store.ids(kind):
            try:
                artifact = store.load(each)
                found.files += len(artifact.manifest.files)
                if kind == "release":
                    wrong = _wrong_in_release(workspace, artifact, found)
                else:
                    wrong = [f"{name} was changed" for name in store.changed_files(artifact)]
            except Refused as refusal:
                found.wrong += refusal.reasons
            else:
                found.wrong += [f"{short(each)}: {reason}" for reason in wrong]
    return found


def _wrong_in_release(workspace: Workspace, release: Artifact, found: Found) -> list[str]:
    """What differs from manifest or signature, each file once. Encrypted weights are opened."""
    from avocado.cli.vaults import contents
    from avocado.release.signature import KEYS, PUBLIC, SIGNATURE, faults, oddities

    now = contents(workspace, release)
    if now is None:
        now = digest_folder(release.files) if release.files.is_dir() else {}
    then = release.manifest.files
    names = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
    wrong = {name: f"{name} was changed" for name in names}
    wrong |= {each.partition(" is ")[0]: each for each in oddities(release.files)}
    if found.unread is None:
        public = workspace.state / KEYS / PUBLIC
        for said in faults(release.files, release.files.parent / SIGNATURE, public, now):
            if not any(said.startswith(f"{name} ") for name in wrong):
                wrong[said] = said
        found.signatures += 1
    return list(wrong.values())


def _altered_policies(workspace: Workspace) -> tuple[list[str], int]:
    """What is wrong with the record of policies, and how many changes it has."""
    from avocado.gateway.changes import changes

    if isinstance(workspace.shelf, Path) and not workspace.shelf.exists():
        return [], 0
    with shelf(workspace) as database:
        try:
            return [], len(changes(database))
        except Refused as refused:
            return list(refused.reasons), 0


def _altered_attestations(workspace: Workspace) -> tuple[list[str], int]:
    """What is wrong with the log of attestations, and how many it holds."""
    from avocado.cli.components import log_of

    try:
        return [], len(log_of(workspace).read())
    except Refused as refused:
        return list(refused.reasons), 0


@click.command()
@click.option("--deep", is_flag=True, help="Replay the whole journal and compare every row.")
@click.option("--ledger", "book", type=EXISTING, help="Prove this ledger, a backup, instead.")
@with_output
def verify(out: Output, deep: bool, book: Path | None) -> None:
    """Prove the ledger's ten invariants, that no stored file was changed, that releases are as they
    were signed, that policies of keys and customers are what the record of their changes says, and
    that no attestation was changed.

    Exit code 1 if anything is wrong; the first bad journal entry and every changed file are named.
    """
    workspace = workspace_here()
    checks = _prove(book or workspace.ledger, deep) if book or workspace.has_ledger else []
    found = Found([]) if book else look_through(workspace)
    altered, policies = ([], 0) if book else _altered_policies(workspace)
    doubtful, attested = ([], 0) if book else _altered_attestations(workspace)
    for check in checks:
        mark = "ok " if check.ok else "BAD"
        where = "" if check.ok else f"; first at entry {check.seq}: {check.detail}"
        out.say(f"{mark} {check.number:2} {check.name} ({check.checked}){where}")
    if book is None:
        mark = "BAD" if found.wrong else "ok "
        out.say(f"{mark}    {found.files} files of artifacts hash to their manifests")
        out.say(found.unread or f"{mark}    {found.signatures} releases are as they were signed")
        mark = "BAD" if altered else "ok "
        out.say(f"{mark}    {policies} changes of policies are as they were written")
        mark = "BAD" if doubtful else "ok "
        out.say(f"{mark}    {attested} attestations are as they were written")
    reasons = [
        f"ledger invariant {check.number} is broken: {check.name} ({check.detail})"
        for check in checks
        if not check.ok
    ]
    reasons += found.wrong + altered + doubtful
    if reasons:
        raise Refused(*reasons)
    value = {
        "ok": True,
        "ledger": [
            {"number": check.number, "name": check.name, "checked": check.checked}
            for check in checks
        ],
        "files": found.files,
        "signatures": None if found.unread else found.signatures,
        "policies": policies,
        "attestations": attested,
    }
    if out.json:
        out.result(value)
