"""Open weights: a release's folder, copied to where its maker hands it on."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from avocado.errors import Refused


def publish_folder(bundle: Path, target: Path) -> None:
    """Copies a bundle to ``target``, which must not exist; all of it appears, or nothing.

    Raises:
        Refused: ``target`` exists.
    """
    if target.exists():
        raise Refused(f"{target} exists: name a folder that does not, for the open weights")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        shutil.copytree(bundle, temporary)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
