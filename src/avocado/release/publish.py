"""Open weights: a release's folder, copied with its signature to where its maker hands it on."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from avocado.errors import Refused
from avocado.release.signature import SIGNATURE


def publish_folder(bundle: Path, target: Path, signature: Path | None = None) -> None:
    """Copies a bundle to ``target``, which must not exist; all of it appears, or nothing. In the
    store it is private; here everybody may read it.

    Raises:
        Refused: ``target`` exists.
    """
    if target.exists():
        raise Refused(f"{target} exists: name a folder that does not, for the open weights")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        shutil.copytree(bundle, temporary, symlinks=True)
        if signature is not None:
            shutil.copyfile(signature, temporary / SIGNATURE)
        for path in (temporary, *temporary.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
