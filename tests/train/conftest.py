"""A base small enough to train in a second (random weights, the seedling's tokenizer), a corpus."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from avocado.data import corpus
from avocado.data.chat import ChatTemplate
from avocado.data.checks import Rules
from avocado.train.recipe import Recipe, parse

SEEDLING = Path(str(files("avocado") / "seedling" / "model"))
MakeRecipe = Callable[..., Recipe]
Untimed = Callable[[Path], list[dict[str, float]]]


@pytest.fixture(scope="session")
def template() -> ChatTemplate:
    return ChatTemplate.load(SEEDLING)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, hidden size 32: the architecture of Qwen3, stored in bfloat16."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("base")
    for path in SEEDLING.iterdir():
        if not path.name.startswith(("model", "config", "provenance")):
            shutil.copyfile(path, folder / path.name)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=2048,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        pad_token_id=2039,
        eos_token_id=2041,
        tie_word_embeddings=True,
    )
    model: Any = Qwen3ForCausalLM(config)
    generation = (folder / "generation_config.json").read_bytes()
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").write_bytes(generation)
    return folder


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory, template: ChatTemplate) -> Path:
    """Forty examples of unequal length, some with two answers."""
    folder = tmp_path_factory.mktemp("corpus")
    source = folder / "rows.jsonl"
    with source.open("w", encoding="utf-8") as handle:
        for number in range(40):
            turns = [
                {"role": "user", "content": f"{'please ' * (number % 5)}double {number}"},
                {"role": "assistant", "content": f"{2 * number}"},
            ]
            if number % 4 == 0:
                turns += [
                    {"role": "user", "content": "and once more"},
                    {"role": "assistant", "content": f"{4 * number}"},
                ]
            handle.write(json.dumps({"messages": turns}) + "\n")
    kept = folder / "kept"
    kept.mkdir()
    corpus.freeze([source], template, Rules(128), kept)
    return kept


@pytest.fixture
def make_recipe() -> MakeRecipe:
    def make(top: str = "", **training: object) -> Recipe:
        settings = {"learning_rate": 0.01, "batch": 8, "steps": 12, "precision": "fp32", **training}
        lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
        head = 'name = "tiny"\nbase = "base"\ndata = ["rows.jsonl"]\n'
        return parse(f"{head}{top}\n[training]\n{lines}\n")

    return make


@pytest.fixture
def untimed() -> Untimed:
    """What a ``metrics.jsonl`` says of each step, without how long it took."""

    def read(path: Path) -> list[dict[str, float]]:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for line in lines:
            assert line.pop("seconds") > 0
            assert line.pop("tokens_per_second") > 0
        return lines

    return read
