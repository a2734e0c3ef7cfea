"""A folder as sentence-transformers writes Qwen3-Embedding, with random weights: it loads in no
time, and its vectors mean nothing."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3Model

SEEDLING = Path(str(files("avocado") / "seedling" / "model"))
END = "<|endoftext|>"
"""What Qwen3-Embedding's tokenizer puts behind each text: its state stands for the text."""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def write_embedder(folder: Path, **config: Any) -> Path:
    """Makes ``folder``; ``config`` adds to the model's."""
    folder.mkdir(parents=True)
    for name in TOKENIZER:
        shutil.copyfile(SEEDLING / name, folder / name)
    _end_texts(folder / "tokenizer.json")
    torch.manual_seed(0)
    model = Qwen3Model(
        Qwen3Config(
            vocab_size=len(AutoTokenizer.from_pretrained(str(folder))),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=512,
            **config,
        )
    )
    model.save_pretrained(str(folder))
    (folder / "1_Pooling").mkdir()
    pooling = {
        "word_embedding_dimension": 32,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": False,
        "pooling_mode_lasttoken": True,
        "include_prompt": True,
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [{"idx": n, "type": f"sentence_transformers.models.{k}"} for n, k in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def _end_texts(tokenizer: Path) -> None:
    known = json.loads(tokenizer.read_bytes())
    end = next(each["id"] for each in known["added_tokens"] if each["content"] == END)
    known["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": END, "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {END: {"id": END, "ids": [end], "tokens": [END]}},
    }
    tokenizer.write_text(json.dumps(known))
