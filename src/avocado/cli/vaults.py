"""How a workspace's releases are read where their weights may lie encrypted."""

from __future__ import annotations

import atexit
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from avocado.configuration import CONFIG
from avocado.errors import Refused
from avocado.lineage import short
from avocado.release.vault import Vault, is_sealed, key_of
from avocado.workspace import Artifact, Workspace

if TYPE_CHECKING:
    from avocado.engine.model import Weights


def kept_line(sealed: bool) -> str:
    """What guards the weights of a paid release, and what does not, in one sentence."""
    if sealed:
        return (
            "its weights lie encrypted: that guards disks and backups that are lost without the "
            "key, not against whoever rules this machine, and not the checkpoint, which lies in "
            "plain"
        )
    return (
        "its weights lie in plain, readable by you alone: whoever gets the disk or a backup can "
        f"read them ([vault] in {CONFIG} encrypts them)"
    )


def vault_of(workspace: Workspace) -> Vault | None:
    """The vault of ``[vault]`` in avocado.toml, where there is one.

    Raises:
        Refused: its key cannot be had.
    """
    config = workspace.config.vault
    if not config.used:
        return None
    file = Path(config.key_file).expanduser() if config.key_file else None
    return Vault(key_of(file and workspace.folder / file, config.key_variable))


def _opener(workspace: Workspace, release: Artifact) -> Vault:
    vault = vault_of(workspace)
    if vault is None:
        raise Refused(
            f"the weights of {short(release.id)} lie encrypted: name the vault's key in {CONFIG}, "
            "[vault] key_file or key_variable"
        )
    return vault


def contents(workspace: Workspace, artifact: Artifact) -> Mapping[str, str] | None:
    """Name → SHA-256 of what a sealed release's files decrypt to; None where none is sealed.

    Raises:
        Refused: the key is not there.
    """
    if artifact.manifest.kind != "release" or not is_sealed(artifact.files):
        return None
    return _opener(workspace, artifact).digests(artifact.files)


def changed_files(workspace: Workspace, artifact: Artifact) -> list[str]:
    """Files that are not what the manifest says, are missing or were added, encrypted ones too.

    Raises:
        Refused: weights lie encrypted and the key is not there.
    """
    now = contents(workspace, artifact)
    if now is None:
        return workspace.store.changed_files(artifact)
    then = artifact.manifest.files
    return sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))


def weights_of(workspace: Workspace, release: Artifact) -> Weights | None:
    """What decrypts a release's weights into memory; None where they lie in plain."""
    if not is_sealed(release.files):
        return None
    vault = _opener(workspace, release)
    return partial(vault.weights, release.files)


def plain_files(workspace: Workspace, release: Artifact) -> Path:
    """A folder with the plain files of a release, for engines that read no other: where they lie,
    or a copy in memory that goes when this process ends.

    Raises:
        Refused: weights lie encrypted and there is no place in memory for them.
    """
    if not is_sealed(release.files):
        return release.files
    wanted = workspace.config.vault.plain_folder
    if wanted is None:
        raise Refused(
            f"the weights of {short(release.id)} lie encrypted and vLLM reads plain files: name a "
            f"folder in memory in {CONFIG}, [vault] plain_folder, such as /dev/shm/avocado, or "
            "serve with the embedded engine"
        )
    folder = Path(wanted).expanduser()
    if not in_memory(folder):
        raise Refused(f"{folder} is on a disk: [vault] plain_folder names one on a tmpfs")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in folder.glob(f"{release.id}.*"):  # by servers that were killed
        if not _runs(left.suffix[1:]):
            shutil.rmtree(left, ignore_errors=True)
    target = folder / f"{release.id}.{os.getpid()}"
    shutil.rmtree(target, ignore_errors=True)
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    _opener(workspace, release).open_into(release.files, target)
    return target


def _runs(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, PermissionError):
        pass
    return True


def in_memory(folder: Path, mounts: Path = Path("/proc/mounts")) -> bool:
    """Whether a folder, there already or not, lies on a tmpfs, or a ramfs."""
    where = folder.resolve()
    best, kind = Path("/"), ""
    try:
        lines = mounts.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return False
    for line in lines:
        _, point, found, *_ = line.split(" ")
        if where.is_relative_to(point) and len(point) >= len(str(best)):
            best, kind = Path(point), found
    return kind in ("tmpfs", "ramfs")
