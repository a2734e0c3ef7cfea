"""Base: the model that a recipe starts from, found, checked and described before it is loaded.

``"seedling"``, a folder or a Hugging Face id become a folder that ``intake`` has looked through:
safetensors that are what they say, and nothing that runs. Knows nothing about training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from avocado.errors import Refused
from avocado.intake.folder import check_folder
from avocado.lineage import digest_file, digest_folder
from avocado.terms.licence_facts import licence_of_files

SEEDLING: Final = "seedling"

WANTED: Final = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "LICENSE*",
    "NOTICE*",
    "README.md",
)
"""What is fetched from a hub: weights as safetensors, the tokenizer, the licence, the card."""

_HUB_ID: Final = re.compile(r"\w[\w.-]*/\w[\w.-]*(@\w[\w./-]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Base:
    """A checked base: its ``folder``, the recipe's ``name`` for it, the hub's ``revision``."""

    name: str
    folder: Path
    revision: str | None
    facts: Mapping[str, Any]
    """For the manifest: name, revision, architecture, dtype, licence and what it rests on."""

    def files(self) -> dict[str, str]:
        """Relative path → SHA-256 of every file of the folder, for the manifest."""
        return digest_folder(self.folder)


def resolve(name: str, relative_to: Path = Path()) -> Base:
    """Finds and checks the base that a recipe names: a folder before a hub id.

    ``name`` is ``"seedling"``, a path (relative to ``relative_to``) or ``owner/model[@revision]``.

    Raises:
        Refused: there is no such model, it can't be fetched, or ``intake`` refuses it.
    """
    revision = None
    if name == SEEDLING:
        folder = Path(str(files("avocado") / "seedling" / "model"))
    elif (relative_to / name).is_dir():
        folder = relative_to / name
    elif _HUB_ID.fullmatch(name):
        folder, revision = _fetch(name)
    else:
        raise Refused(
            f"there is no base {name!r}: give {SEEDLING!r}, a folder with a model, or a Hugging "
            "Face id such as Qwen/Qwen3-0.6B"
        )
    config = check_folder(folder)
    shown = name if name == SEEDLING or revision else folder.resolve().name
    return Base(shown, folder, revision, _facts(shown, revision, folder, config))


def _fetch(name: str) -> tuple[Path, str]:
    """A hub's snapshot of ``owner/model[@revision]``; its folder is named for the commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        folder = Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=list(WANTED))
        )
    except LocalEntryNotFoundError:
        raise Refused(
            f"{repository} is not on this machine and the hub cannot be reached: connect, or give "
            "the folder of a downloaded copy"
        ) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise Refused(f"{repository} cannot be fetched: {str(error).splitlines()[0]}") from error
    return folder, folder.name


def _facts(
    name: str, revision: str | None, folder: Path, config: Mapping[str, Any]
) -> dict[str, Any]:
    paths = [path for path in sorted(folder.glob("LICEN[CS]E*")) if path.is_file()]
    texts = {path.name: path.read_text("utf-8", errors="replace") for path in paths}
    repository = name.partition("@")[0]
    licence = licence_of_files(texts, repository if revision else None)
    return {
        "name": repository,
        "revision": revision,
        "architecture": (config.get("architectures") or ["unknown"])[0],
        "dtype": config.get("dtype") or config.get("torch_dtype") or "float32",
        "licence": licence,
        "licence_sha256": digest_file(paths[0]) if paths else None,
        "licence_declared": _declared(folder),
    }


def _declared(folder: Path) -> str | None:
    """The ``license`` in a model card's front matter: what its author says, not what we found."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    parts = card.read_text("utf-8", errors="replace").split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    found = re.search(r"^license:\s*(\S+)\s*$", parts[1], re.MULTILINE)
    return found.group(1).strip("\"'") if found else None
