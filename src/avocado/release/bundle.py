"""The bundle: everything that a release ships, in one folder that others can load.

Weights (adapters folded in), tokenizer, chat template, licence text, NOTICE and model card. The
same inputs give the same files. The template's hash is a fact of the release; serving checks it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from avocado.errors import Refused
from avocado.release.merge import is_adapter, merge_adapter

TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)
LICENCE_FILES: Final = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt")


def write_weights(checkpoint: Path, base: Path, out: Path) -> float | None:
    """Puts a loadable model into ``out``: a copy of a whole checkpoint, or adapters folded in.

    Returns the logit difference of the merge, or None where there was nothing to merge.

    Raises:
        Refused: no safetensors weights came of it, or the merge changed the model.
    """
    difference = None
    if is_adapter(checkpoint):
        difference = merge_adapter(base, checkpoint, out)
    else:
        for path in sorted(checkpoint.iterdir()):
            if path.suffix == ".safetensors" or path.name in (
                "config.json",
                "model.safetensors.index.json",
            ):
                shutil.copyfile(path, out / path.name)
    for name in TOKENIZER_FILES:
        source = checkpoint / name if (checkpoint / name).is_file() else base / name
        if source.is_file():
            shutil.copyfile(source, out / name)
    if not list(out.glob("*.safetensors")):
        raise Refused(f"{checkpoint} holds no safetensors weights to release")
    return difference


def write_licences(base: Path, out: Path, notice: str) -> None:
    """Ships the base's licence text, and NOTICE: what the base's own says, then ``notice``."""
    kept = ""
    for name in LICENCE_FILES:
        source = base / name
        if not source.is_file():
            continue
        if name.startswith("NOTICE"):
            kept = source.read_text(encoding="utf-8").rstrip() + "\n\n"
        else:
            shutil.copyfile(source, out / "LICENSE")
    (out / "NOTICE").write_text(kept + notice.rstrip() + "\n", encoding="utf-8")
