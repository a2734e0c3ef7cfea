"""Every Qwen family, from its real configuration class and its real chat template: rendered,
trained, adapted, merged, saved, loaded again, and served by the embedded engine."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from avocado.data import corpus
from avocado.data.chat import Chat, ChatTemplate
from avocado.data.checks import Rules
from avocado.engine.embedded import EmbeddedEngine
from avocado.engine.engine import Delta, Sampling
from avocado.engine.model import CausalModel
from avocado.release.merge import merge_adapter
from avocado.train import sft
from avocado.train.recipe import Recipe
from avocado.train.run import run

MakeRecipe = Callable[..., Recipe]
SEEDLING = Path(str(files("avocado") / "seedling" / "model"))

SMALL = {
    "vocab_size": 2048,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
    "pad_token_id": None,
    "eos_token_id": 2041,
}
MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
HYBRID = {
    "num_hidden_layers": 4,
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}


@dataclass(frozen=True)
class Family:
    """``kind`` is transformers' name, ``chat`` the file of the family's template in TRL."""

    kind: str
    chat: str
    config: dict[str, Any] = field(default_factory=dict)
    packed: bool = True
    variants: bool = False


FAMILIES = {
    "Qwen2": Family("qwen2", "qwen2_5", {"use_sliding_window": False}),
    "Qwen2.5": Family(
        "qwen2", "qwen2_5", {"rope_theta": 1e6, "rms_norm_eps": 1e-6, "tie_word_embeddings": True}
    ),
    "Qwen3": Family("qwen3", "qwen3", {"head_dim": 16, "tie_word_embeddings": True}, variants=True),
    "Qwen3-MoE": Family("qwen3_moe", "qwen3", {"head_dim": 16, **MIXTURE}, variants=True),
    "Qwen3.5": Family("qwen3_5_text", "qwen3_5_think", HYBRID, packed=False),
    "Qwen3.5-MoE": Family(
        "qwen3_5_moe_text",
        "qwen3_5_think",
        {**HYBRID, **MIXTURE, "shared_expert_intermediate_size": 16},
        packed=False,
    ),
}


@dataclass(frozen=True)
class Ground:
    """A family's tiny base, its template, and a frozen corpus rendered with it."""

    family: Family
    base: Path
    template: ChatTemplate
    corpus: Path


@pytest.fixture(scope="module", params=list(FAMILIES))
def ground(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    torch.set_num_threads(1)
    family = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(family.kind)
    base = folder / "base"
    torch.manual_seed(1)
    config = AutoConfig.for_model(family.kind, **{**SMALL, **family.config})
    build: Any = AutoModelForCausalLM.from_config
    build(config).to(torch.bfloat16).save_pretrained(base)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(SEEDLING / name, base / name)
    template = files("trl") / "chat_templates" / f"{family.chat}.jinja"
    (base / "chat_template.jinja").write_text(template.read_text("utf-8"), "utf-8")
    source = folder / "rows.jsonl"
    with source.open("w", encoding="utf-8") as handle:
        for number in range(12):
            turns = [
                {"role": "user", "content": f"{'please ' * (number % 4)}double {number}"},
                {"role": "assistant", "content": f"{2 * number}"},
            ] * (1 + number % 2)
            handle.write(json.dumps({"messages": turns}) + "\n")
    kept = folder / "corpus"
    kept.mkdir()
    loaded = ChatTemplate.load(base)
    corpus.freeze([source], loaded, Rules(128), kept)
    return Ground(family, base, loaded, kept)


def trained(recipe: Recipe, ground: Ground, folder: Path) -> Any:
    losses: list[float] = []
    finished = run(
        recipe,
        base=ground.base,
        corpus=ground.corpus,
        identity={},
        folder=folder / "run",
        out=folder / "out",
        save_every=0,
        progress=lambda step: losses.append(step.loss),
    )
    assert losses[-1] < losses[0]
    return finished


def logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    """What transformers says, from the stored weights in float32."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        said: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return said


async def served(folder: Path, chat: Chat) -> tuple[str, tuple[int, ...]]:
    engine = EmbeddedEngine.load(folder, threads=1)
    try:
        prompt = engine.template.prompt(chat)
        text = ""
        async for event in engine.generate(prompt, Sampling(max_tokens=8, temperature=0.0)):
            text += event.text if isinstance(event, Delta) else ""
        return text, prompt.ids
    finally:
        await engine.close()


def check_serving(folder: Path) -> None:
    """The engine's logits and greedy text are transformers'."""
    chat = Chat(({"role": "user", "content": "double 7"},))
    text, prompt = asyncio.run(served(folder, chat))
    ids = torch.tensor([prompt])
    expected = logits(folder, ids)
    engine = CausalModel.load(folder, device="cpu")
    with torch.inference_mode():
        said = engine(ids, DynamicCache(config=engine.config), keep=ids.shape[1])
    torch.testing.assert_close(said, expected, rtol=1e-3, atol=1e-3)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    made = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=[2041])
    template = ChatTemplate.load(folder)
    expected_text = template.decode(made[0, ids.shape[1] :].tolist())
    assert text.rstrip("\ufffd") == expected_text.rstrip("\ufffd")  # the limit may cut a character


def test_full_training(ground: Ground, make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(steps=6, batch=4, learning_rate=0.003)
    prepared = sft.prepare(recipe, ground.base, ground.corpus, ground.template)
    assert prepared.order.packed == ground.family.packed
    assert len(prepared.notes) == (not ground.family.packed)
    assert all("carry a state" in note for note in prepared.notes)
    trained(recipe, ground, tmp_path)
    check_serving(tmp_path / "out")
    ids = torch.arange(40)[None] + 100
    assert not torch.allclose(logits(tmp_path / "out", ids), logits(ground.base, ids), atol=1e-2)


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_adapters(ground: Ground, kind: str, make_recipe: MakeRecipe, tmp_path: Path) -> None:
    if kind != "lora" and not ground.family.variants:
        pytest.skip("PEFT's variants of LoRA know no architecture: two stand for all")
    settings = "r = 4"
    if kind != "lora":
        settings += f", {kind} = true"
    if kind == "dora":
        settings += ', targets = ["q_proj", "v_proj", "o_proj"]'
    top = f'weights = "lora"\nlora = {{{settings}}}'
    recipe = make_recipe(top, steps=6, batch=4, learning_rate=0.02)
    trained(recipe, ground, tmp_path)
    merged = tmp_path / "merged"
    for path in ground.base.glob("*token*"):
        merged.mkdir(exist_ok=True)
        shutil.copyfile(path, merged / path.name)
    shutil.copyfile(ground.base / "chat_template.jinja", merged / "chat_template.jinja")
    assert merge_adapter(ground.base, tmp_path / "out", merged) < 1e-4
    if kind == "lora":
        check_serving(merged)
    ids = torch.arange(40)[None] + 100
    assert not torch.allclose(logits(merged, ids), logits(ground.base, ids), atol=1e-2)
