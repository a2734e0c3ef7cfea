"""A model's folder: which files may be in it, looked at by name and kind before any is opened.

Safetensors only. No code, no pickles under any name, no links that leave the folder, no pipes, no
configuration that asks for code of its own. Every reason names its file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from avocado.errors import Refused
from avocado.intake.document import read_object
from avocado.intake.template import check_templates
from avocado.intake.weights import check_weights

CODE: Final = frozenset((".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".exe"))
PICKLES: Final = frozenset(
    (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".nemo")
)
FOREIGN: Final = frozenset((".gguf", ".ggml", ".onnx", ".h5", ".msgpack", ".tflite", ".keras"))

MAX_FILES: Final = 10_000
MAX_CONFIG: Final = 1024 * 1024
MAX_JSON: Final = 128 * 1024 * 1024
"""Bytes of any other JSON; the largest known tokenizer.json has 34 million."""

_ASKS_FOR_CODE: Final = ("auto_map", "auto_mapping", "custom_pipelines", "custom_generate")
_ZIP: Final = b"PK\x03\x04"
_HEADER_PROBE: Final = 4


def check_folder(folder: Path) -> Mapping[str, Any]:
    """Checks that ``folder`` holds a model and nothing that runs; returns its ``config.json``.

    Raises:
        Refused: with each file that may not come in, or the first that is not what it says.
    """
    reasons = [reason for path in _files(folder) for reason in _wrong(path, folder)]
    if not any(path.is_file() for path in folder.glob("*.safetensors")):
        reasons.append(f"{folder.name} has no *.safetensors weights")
    for path in [] if reasons else sorted(folder.glob("*config.json")):
        reasons += _asks_for_code(path)
    if reasons:
        raise Refused(*reasons)
    config = read_object(folder / "config.json", MAX_CONFIG)
    check_weights(folder, config)
    check_templates(folder)
    return config


def _files(folder: Path) -> Iterator[Path]:
    """Everything below ``folder`` that is no folder, links unfollowed, in order."""
    count = 0
    for root, folders, names in os.walk(folder):
        folders.sort()
        links = [each for each in folders if (Path(root) / each).is_symlink()]
        for name in sorted([*names, *links]):
            count += 1
            if count > MAX_FILES:
                raise Refused(f"{folder.name} holds more than {MAX_FILES:,} files")
            yield Path(root) / name


def _wrong(path: Path, folder: Path) -> Iterator[str]:
    name = path.relative_to(folder).as_posix()
    suffix = path.suffix.lower()
    if suffix in CODE:
        yield f"{name} is code: a model that needs its own code is not accepted"
    elif suffix in PICKLES:
        yield f"{name} can run code when it is loaded: only safetensors are accepted"
    elif suffix in FOREIGN:
        yield f"{name} is a model in another format: only safetensors are accepted"
    elif path.is_symlink() and not _stays(path, folder):
        yield f"{name} is a link that leaves the folder or leads nowhere"
    elif not stat.S_ISREG(path.stat().st_mode):
        yield f"{name} is no plain file"
    elif suffix == ".json" and path.stat().st_size > MAX_JSON:
        size = path.stat().st_size
        yield f"{name} holds {size:,} bytes; at most {MAX_JSON:,} are accepted"
    elif suffix != ".safetensors" and _is_pickle(path):
        yield f"{name} is a pickle or an archive under another name: not accepted"


def _stays(link: Path, folder: Path) -> bool:
    """Whether a link ends at a plain file of the folder, or of the hub's cache around it: there a
    snapshot is links to ``blobs``, two folders up."""
    allowed = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":
        allowed.append(folder.resolve().parents[1] / "blobs")
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return False
    return target.is_file() and any(target.is_relative_to(each) for each in allowed)


def _is_pickle(path: Path) -> bool:
    """Whether it begins as a zip archive or as a binary pickle (protocols 2 to 5)."""
    with path.open("rb") as handle:
        head = handle.read(_HEADER_PROBE)
    return head == _ZIP or (len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5)


def _asks_for_code(path: Path) -> Iterator[str]:
    stack: list[Any] = [read_object(path, MAX_CONFIG if path.name == "config.json" else MAX_JSON)]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            for key in _ASKS_FOR_CODE:
                if value.get(key):
                    yield f"{path.name} asks for code of its own ({key}): not accepted"
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
