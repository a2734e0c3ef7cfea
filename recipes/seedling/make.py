"""Remakes the seedling: ``python -m recipes.seedling.make --out DIR``, from this folder alone.

Text → tokenizer → pre-training → a folder that ``from_pretrained`` loads, with its model card and
``provenance.json``. Seeds are fixed; the last bits of the weights depend on the processor.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from recipes.seedling import card, pretrain, text, tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOKENIZER_DOCUMENTS: Final = 60_000
"""The tokenizer learns from the first documents of the stream."""

BATCH: Final = 1_000


def _stream(seed: int, digest: text.Digest) -> Iterator[str]:
    for document in text.documents(seed):
        digest.add(document)
        yield document


def _encoded(texts: Iterator[str], fast: PreTrainedTokenizerFast) -> Iterator[list[int]]:
    while batch := list(islice(texts, BATCH)):
        yield from fast(batch)["input_ids"]


def _name_the_old_class(path: Path) -> None:
    """Transformers 5 reads the name that transformers 4 knew; 4 doesn't read the name of 5."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def make(out: Path, plan: pretrain.Plan) -> dict[str, Any]:
    """Writes the whole model folder and gives back its provenance."""
    import torch

    torch.set_num_threads(min(2, torch.get_num_threads()))
    print("learning the tokenizer", flush=True)
    fast = tokenizer.train(text.take(plan.seed, TOKENIZER_DOCUMENTS), text.template())
    digest = text.Digest()
    model = pretrain.new_model(fast, tokenizer.CONTEXT, plan.seed)
    params = model.num_parameters()
    print(f"{params:,} parameters; writing {plan.tokens:,} tokens of text", flush=True)
    encoded = _encoded(_stream(plan.seed, digest), fast)
    rows = pretrain.pack(encoded, fast.pad_token_id, plan)
    result = pretrain.train(model, rows, plan)
    provenance = {
        "params": params,
        "tokens": plan.tokens,
        "flops": 6 * params * plan.tokens,
        "seed": plan.seed,
        "text_sha256": digest.hex(),
        "documents": digest.documents,
        "vocabulary": len(fast),
        "final_loss": round(result.loss, 4),
        "plan": asdict(plan),
        "made_with": {
            name: version(name) for name in ("babel", "tokenizers", "torch", "transformers")
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    model.bfloat16().save_pretrained(out)
    fast.save_pretrained(out)
    _name_the_old_class(out / "tokenizer_config.json")
    written = json.dumps(provenance, indent=2) + "\n"
    (out / "provenance.json").write_text(written, encoding="utf-8")
    (out / "README.md").write_text(card.write(provenance), encoding="utf-8")
    shutil.copyfile(Path(__file__).parents[2] / "LICENSE", out / "LICENSE")
    for path in out.iterdir():
        path.chmod(0o644)
    print(f"done: loss {result.loss:.4f}, {result.seconds:.0f} s", flush=True)
    return provenance


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the seedling from nothing.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--steps", type=int, default=pretrain.Plan.steps, help="for a quick try")
    asked = parser.parse_args()
    make(asked.out, replace(pretrain.Plan(), steps=asked.steps))


if __name__ == "__main__":
    main()
