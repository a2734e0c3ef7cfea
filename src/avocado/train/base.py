"""Base: the model that a recipe starts from, found, checked and described before it is loaded.

``"seedling"``, a folder or a Hugging Face id become a folder of safetensors. Nothing that could run
code comes in: no pickles, no Python, no ``auto_map``. A safetensors header is checked against the
file's size before anything is allocated. Knows nothing about training.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from avocado.errors import Refused
from avocado.lineage import digest_folder
from avocado.terms.licence import UNKNOWN, licence_of_checkpoint, licence_of_text

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

_CODE: Final = frozenset((".py", ".so", ".pyc"))
_PICKLES: Final = frozenset((".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".msgpack", ".h5"))
_HUB_ID: Final = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", re.ASCII)
_ITEM_BYTES: Final = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2}
_ITEM_BYTES_REST: Final = {"BF16": 2, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_MAX_HEADER: Final = 100_000_000
"""The longest header that the safetensors format allows, in bytes."""


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
        Refused: there is no such model, it can't be fetched, or :func:`check` refuses it.
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
    config = check(folder)
    shown = name if name == SEEDLING or revision else folder.resolve().name
    return Base(shown, folder, revision, _facts(shown, revision, folder, config))


def check(folder: Path) -> Mapping[str, Any]:
    """Checks that ``folder`` holds a model and nothing that runs; returns its ``config.json``.

    Raises:
        Refused: code, pickles, ``auto_map``, no safetensors, or weights whose header lies; each
            file is named.
    """
    reasons = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix in _CODE:
            reasons.append(f"{name} is code: a model that needs its own code is not accepted")
        if path.suffix in _PICKLES:
            reasons.append(f"{name} can run code when it is loaded: only safetensors are accepted")
    for path in sorted(folder.glob("*config.json")):
        if "auto_map" in _json(path):
            reasons.append(f"{path.name} asks for code of its own (auto_map): not accepted")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        reasons.append(f"{folder} has no *.safetensors weights")
    if reasons:
        raise Refused(*reasons)
    for path in weights:
        check_safetensors(path)
    for path in folder.glob("*.safetensors.index.json"):
        _check_index(path)
    return _json(folder / "config.json")


def check_safetensors(path: Path) -> None:
    """Checks a header against the file: its length, and that the tensors fill the rest exactly.

    Format: an eight-byte little-endian length, that many bytes of JSON, then the tensors' bytes.

    Raises:
        Refused: the header claims what the file does not hold.
    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER):
            raise Refused(f"{path.name} is no safetensors file: its header is longer than the file")
        try:
            header = json.loads(handle.read(length))
            spans = sorted(_span(entry) for key, entry in header.items() if key != "__metadata__")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Refused(f"{path.name} has a damaged header: {error}") from error
    position = 0
    for start, end in spans:
        if start != position:
            raise Refused(f"{path.name} has a lying header: its tensors overlap or leave gaps")
        position = end
    if position != size - 8 - length:
        raise Refused(f"{path.name} has a lying header: its tensors do not fill the file")


def _span(entry: Mapping[str, Any]) -> tuple[int, int]:
    start, end = entry["data_offsets"]
    items = 1
    for extent in entry["shape"]:
        if type(extent) is not int or extent < 0:
            raise ValueError(f"the shape {entry['shape']}")
        items *= extent
    width = {**_ITEM_BYTES, **_ITEM_BYTES_REST}.get(entry["dtype"])
    if width is not None and end - start != items * width:
        raise ValueError(f"{end - start} bytes for the shape {entry['shape']}")
    return start, end


def _check_index(path: Path) -> None:
    names = set(_json(path).get("weight_map", {}).values())
    for name in sorted(map(str, names)):
        if "/" in name or "\\" in name or not (path.parent / name).is_file():
            raise Refused(f"{path.name} names {name!r}, which is no file beside it")


def _json(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise Refused(f"{path.parent} has no {path.name}: it holds no model") from None
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path.name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Refused(f"{path.name} must hold an object")
    return value


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
    texts = sorted(folder.glob("LICENSE*"))
    text = texts[0].read_text("utf-8", errors="replace") if texts else None
    repository = name.partition("@")[0]
    if text is not None:
        licence = licence_of_text(text) or UNKNOWN
    else:
        licence = licence_of_checkpoint(repository) or UNKNOWN
    return {
        "name": repository,
        "revision": revision,
        "architecture": (config.get("architectures") or ["unknown"])[0],
        "dtype": config.get("dtype") or config.get("torch_dtype") or "float32",
        "licence": licence,
        "licence_sha256": hashlib.sha256(texts[0].read_bytes()).hexdigest() if texts else None,
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
