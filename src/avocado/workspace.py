"""The workspace: ``avocado.toml`` (what a person writes) and ``.avocado/`` (what we keep).

Artifacts lie under ``.avocado/artifacts/<kind>/<hash>/``: ``manifest.json`` is what the id hashes,
``files/`` are its files, ``note.json`` holds what must not change the id (times, machine). They are
built in a staging folder and renamed into place, so a half-written artifact has no name. Names that
move (an offer's current version) are one-line files under ``.avocado/refs/``.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from avocado.configuration import CONFIG, Config, read_config
from avocado.errors import Refused
from avocado.lineage import KINDS, Json, Manifest, digest_folder, walk

STATE = ".avocado"
URL_SUFFIX = ".url"
"""Of the file beside a server's admin socket that says where it listens."""


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Writes to a temporary name, syncs, renames: readers see the old bytes or the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class Artifact:
    """A stored artifact: its id, its manifest, and where its files lie."""

    id: str
    manifest: Manifest
    files: Path
    note: Mapping[str, Json]


class Staging:
    """A folder under construction. ``keep`` hashes its files and gives it its name."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self.folder = folder
        """Where the artifact's files are written, before it has an id."""

    def keep(
        self,
        kind: str,
        facts: Mapping[str, Json],
        parents: Mapping[str, str] | None = None,
        note: Mapping[str, Json] | None = None,
    ) -> Artifact:
        manifest = Manifest(kind, facts, parents or {}, digest_folder(self.folder))
        return self._store.place(manifest, note or {}, files=self.folder)


@dataclass(frozen=True)
class Store:
    """Artifacts by hash, below ``root``."""

    root: Path

    @contextmanager
    def stage(self) -> Iterator[Staging]:
        """A fresh folder to build an artifact in; removed unless it was kept."""
        folder = self.root / "staging" / secrets.token_hex(8)
        folder.mkdir(parents=True)
        try:
            yield Staging(self, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, artifact: str) -> Path:
        kind, _, hash_ = artifact.partition("-")
        return self.root / "artifacts" / kind / hash_

    def place(
        self,
        manifest: Manifest,
        note: Mapping[str, Json],
        *,
        files: Path | None = None,
        location: Path | None = None,
    ) -> Artifact:
        """Names an artifact: its ``files`` are moved in, or stay at ``location`` (a base model).

        The same content again is the same artifact, and is left as it is.
        """
        target = self._folder(manifest.id)
        if not target.exists():
            with self.stage() as staging:
                building = staging.folder
                if files is not None:
                    files.rename(building / "files")
                if location is not None:
                    (building / "location").write_text(str(location.resolve()))
                (building / "manifest.json").write_text(
                    json.dumps(manifest.to_json(), indent=1, ensure_ascii=False)
                )
                created = {"created": int(time.time()), **note}
                (building / "note.json").write_text(json.dumps(created, indent=1))
                _sync_tree(building)
                target.parent.mkdir(parents=True, exist_ok=True)
                building.rename(target)
                _sync_folder(target.parent)
        return self.load(manifest.id)

    def load(self, artifact: str) -> Artifact:
        """Reads an artifact and checks that its manifest still hashes to its id.

        Raises:
            Refused: it isn't there, or its manifest was changed.
        """
        folder = self._folder(artifact)
        try:
            manifest = Manifest.from_json(json.loads((folder / "manifest.json").read_bytes()))
            note = json.loads((folder / "note.json").read_bytes())
        except FileNotFoundError:
            raise Refused(f"there is no {artifact} in this workspace") from None
        except (ValueError, KeyError) as error:
            raise Refused(f"{folder}/manifest.json is damaged: {error}") from error
        if manifest.id != artifact:
            raise Refused(f"{folder}/manifest.json was changed: it no longer hashes to its id")
        location = folder / "location"
        files = Path(location.read_text()) if location.exists() else folder / "files"
        return Artifact(artifact, manifest, files, note)

    def ancestors(self, artifact: str, kind: str) -> list[Artifact]:
        """What ``artifact`` came from, of one kind, nearest first, each once."""
        steps = walk(artifact, lambda each: self.load(each).manifest)
        found = [step for step in steps if step.manifest.kind == kind and step.id != artifact]
        return [self.load(step.id) for step in sorted(found, key=lambda step: step.depth)]

    def ids(self, kind: str) -> list[str]:
        """Ids of one kind, oldest first."""
        folder = self.root / "artifacts" / kind
        if not folder.is_dir():
            return []
        found = [(path / "note.json", path.name) for path in folder.iterdir()]
        found.sort(key=lambda item: (item[0].stat().st_mtime_ns, item[1]))
        return [f"{kind}-{name}" for _, name in found]

    def resolve(self, text: str, kind: str | None = None) -> str:
        """The full id of a unique prefix such as ``checkpoint-3f2a``.

        Raises:
            Refused: nothing or several match, or it is of another kind than ``kind``.
        """
        found_kind = text.partition("-")[0]
        if found_kind not in KINDS or (kind and found_kind != kind):
            wanted = f"a {kind} id" if kind else "an id"
            raise Refused(f"{text!r} is not {wanted} such as {kind or 'release'}-3f2a9c")
        matches = [each for each in self.ids(found_kind) if each.startswith(text)]
        if len(matches) != 1:
            problem = "no artifact" if not matches else f"{len(matches)} artifacts"
            raise Refused(f"{problem} in this workspace match {text!r}")
        return matches[0]

    def changed_files(self, artifact: Artifact) -> list[str]:
        """Files that no longer hash to what the manifest says, are missing, or were added."""
        now = digest_folder(artifact.files) if artifact.files.is_dir() else {}
        then = artifact.manifest.files
        return sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))

    def point(self, kind: str, name: str, artifact: str) -> None:
        """Makes ``name`` mean ``artifact`` from now on."""
        write_atomically(self.root / "refs" / kind / name, artifact.encode())

    def unpoint(self, kind: str, name: str) -> None:
        """Makes ``name`` mean nothing any more."""
        (self.root / "refs" / kind / name).unlink(missing_ok=True)

    def pointed(self, kind: str) -> dict[str, str]:
        """Every name of a kind and the artifact it means now."""
        folder = self.root / "refs" / kind
        if not folder.is_dir():
            return {}
        return {
            path.name: path.read_text()
            for path in sorted(folder.iterdir())
            if not path.name.startswith(".")
        }


@dataclass(frozen=True)
class Workspace:
    """A folder with ``avocado.toml``, its settings, and the state beside it."""

    folder: Path
    config: Config

    @classmethod
    def create(cls, folder: Path, name: str | None = None) -> Workspace:
        """Makes ``avocado.toml`` and ``.avocado/``; an existing workspace is refused."""
        config = folder / CONFIG
        if config.exists():
            raise Refused(f"{config} exists: this is a workspace already")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STATE).mkdir(mode=0o700, exist_ok=True)
        title = json.dumps(name or folder.resolve().name or "avocado", ensure_ascii=False)
        text = f'name = {title}\ncurrency = "USD"\n\n[serve]\nhost = "127.0.0.1"\nport = 8000\n'
        write_atomically(config, text.encode())
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Workspace:
        return cls(folder.resolve(), read_config(folder / CONFIG))

    @classmethod
    def find(cls, start: Path) -> Workspace:
        """The workspace of ``start`` or of a folder above it, as git finds its repository."""
        for folder in (start.resolve(), *start.resolve().parents):
            if (folder / CONFIG).is_file():
                return cls.open(folder)
        raise Refused(f"no {CONFIG} in {start} or above: make a workspace with: avocado init")

    @property
    def state(self) -> Path:
        return self.folder / STATE

    @property
    def store(self) -> Store:
        return Store(self.state)

    @property
    def ledger(self) -> Path | str:
        """The ledger's database file, or the address of its PostgreSQL database."""
        return self.config.ledger.url or self.state / "ledger.sqlite"

    @property
    def has_ledger(self) -> bool:
        """Whether there is a book to read; of a database only opening it can tell."""
        return not isinstance(self.ledger, Path) or self.ledger.exists()

    @property
    def shelf(self) -> Path | str:
        """Where the gateway's own tables lie: beside the ledger's file, or in its database."""
        return self.config.ledger.url or self.state / "gateway.sqlite"

    @property
    def admin_socket(self) -> Path:
        """Where a running server takes operations from other commands of this workspace."""
        return self.state / "admin.sock"

    def admin_socket_of(self, port: int) -> Path:
        """The same for one of several servers of this workspace, which share a database."""
        return self.state / f"admin-{port}.sock"

    def admin_sockets(self) -> list[Path]:
        """Of all servers that run here, or did not leave in good order."""
        return sorted(self.state.glob("admin*.sock"))

    def server_urls(self) -> list[str]:
        """Where servers of this workspace said that they listen; one that was killed says so too,
        until another one starts."""
        found = []
        for path in sorted(self.state.glob(f"admin*{URL_SUFFIX}")):
            with suppress(OSError):  # it has just stopped
                found.append(path.read_text("utf-8").strip())
        return found

    def pepper(self) -> bytes:
        """The secret under which keys are hashed: outside the database, 0600."""
        path = self.state / "pepper"
        if not path.exists():
            write_atomically(path, secrets.token_bytes(32), mode=0o600)
        return path.read_bytes()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
        else:
            _sync_folder(path)
    _sync_folder(folder)
