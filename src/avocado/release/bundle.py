"""The bundle: everything that a release ships, in one folder that others can load.

Weights (adapters folded in), tokenizer, chat template, what sentence-transformers needs beside an
embedding model, licence text, NOTICE, model card and bill of materials. The same inputs give the
same files. The template's hash is a fact of the release; serving checks it.
"""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Final

from avocado.errors import Refused
from avocado.lineage import digest_folder
from avocado.release.bom import BOM, bill
from avocado.release.card import Card, Relation, Task, notice
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
VECTOR_FILES: Final = (
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
)
"""What sentence-transformers reads at the root; each of its modules has a folder beside them."""
POOLING: Final = "1_Pooling"
CARD: Final = "README.md"
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
    _copy_modules(checkpoint, base, out)
    if not list(out.glob("*.safetensors")):
        raise Refused(f"{checkpoint} holds no safetensors weights to release")
    return difference


def _copy_modules(checkpoint: Path, base: Path, out: Path) -> None:
    """What makes an embedding model of the weights, from the checkpoint or else from the base."""
    origin = checkpoint if (checkpoint / POOLING).is_dir() else base
    if not (origin / POOLING).is_dir():
        return
    for name in VECTOR_FILES:
        source = checkpoint / name if (checkpoint / name).is_file() else base / name
        if source.is_file():
            shutil.copyfile(source, out / name)
    for folder in sorted(origin.glob("[0-9]_*")):
        for source in sorted(folder.rglob("*")):
            if source.suffix in (".json", ".safetensors") and source.is_file():
                target = out / source.relative_to(origin)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)


def task_of(bundle: Path) -> Task:
    """Whether a bundle makes text or vectors."""
    return "feature-extraction" if (bundle / POOLING).is_dir() else "text-generation"


def relation_of(bundle: Path) -> Relation:
    """What a bundle is to its base, in Hugging Face's words. Adapters that were folded in are no
    adapters any more; ``merge`` is theirs for several models made one."""
    if is_adapter(bundle):
        return "adapter"
    config = json.loads((bundle / "config.json").read_bytes())
    return "quantized" if "quantization_config" in config else "finetune"


def write_papers(base: Path, out: Path, card: Card) -> None:
    """Everything of a bundle that is to be read: licence, NOTICE, card, and the bill over all."""
    write_licences(base, out, notice(card), card.licence)
    (out / CARD).write_text(str(card), encoding="utf-8")
    (out / BOM).write_bytes(bill(card, digest_folder(out)))


def write_licences(base: Path, out: Path, notice: str, licence: str) -> None:
    """Ships the base's licence text, and NOTICE: what the base's own says, then ``notice``.

    Raises:
        Refused: no licence text lies beside the base, and we have none to add.
    """
    kept = ""
    texts = [path for path in sorted(base.glob("LICEN[CS]E*")) if path.is_file()]
    for number, source in enumerate(texts):
        shutil.copyfile(source, out / (source.name if number else "LICENSE"))
    for source in sorted(base.glob("NOTICE*")):
        kept += source.read_text("utf-8", errors="replace").rstrip() + "\n\n"
    if not (out / "LICENSE").is_file():
        if licence != "Apache-2.0":
            raise Refused(
                f"{base} holds no LICENSE: put the text of {licence} beside the base, since a "
                "release ships it"
            )
        text = resources.files("avocado").joinpath("seedling", "model", "LICENSE").read_bytes()
        (out / "LICENSE").write_bytes(text)
    (out / "NOTICE").write_text(kept + notice.rstrip() + "\n", encoding="utf-8")
