"""Each Qwen family takes steps of every policy method, and its engine agrees with its trainer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from avocado.data.chat import ChatTemplate
from avocado.data.preference import Label, Preference
from avocado.data.problem import Problem
from avocado.errors import Refused
from avocado.train import policy
from avocado.train.assembly import Work, assemble
from avocado.train.recipe import Recipe
from avocado.train.run_folder import RunFolder
from avocado.train.team import Team

MakeRecipe = Callable[..., Recipe]
SEEDLING = Path(str(files("avocado") / "seedling" / "model"))

MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
HYBRID = {
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen2.5": ("qwen2", {}),
    "Qwen3": ("qwen3", {}),
    "Qwen3-MoE": ("qwen3_moe", MIXTURE),
    "Qwen3.5": ("qwen3_5_text", HYBRID),
}
METHODS = {
    "dpo": 'method = "dpo"',
    "kto": 'method = "kto"',
    "grpo": 'method = "grpo"\ngrpo = {rewards = [{kind = "regex", pattern = "[^aeiou]*"}], '
    "max_tokens = 4, generations = 4, beta = 0.1}",
}


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("family")
    for path in SEEDLING.iterdir():
        if not path.name.startswith(("model", "config", "provenance")):
            shutil.copyfile(path, folder / path.name)
    kind, more = FAMILIES[request.param]
    torch.manual_seed(1)
    config = AutoConfig.for_model(
        kind,
        **{
            "vocab_size": 2048,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 512,
            "initializer_range": 0.1,
            "pad_token_id": None,
            "eos_token_id": 2041,
            **more,
        },
    )
    generation = (folder / "generation_config.json").read_bytes()
    build: Any = AutoModelForCausalLM.from_config
    build(config).to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").write_bytes(generation)
    return folder


def written(folder: Path) -> Path:
    """A corpus of each kind side by side: each method reads its own."""
    asked = [({"role": "user", "content": f"say {number}"},) for number in range(8)]
    good, bad = ({"role": "assistant", "content": text} for text in ("gladly", "no, never"))
    place: dict[str, Any] = {"file": "rows.jsonl", "row": 1}
    rows: dict[str, list[Any]] = {
        "preferences": [Preference(each, good, bad, **place) for each in asked],
        "labels": [Label(each, good, True, **place) for each in asked[:4]]
        + [Label(each, bad, False, **place) for each in asked[4:]],
        "problems": [Problem(each, **place) for each in asked],
    }
    for name, records in rows.items():
        lines = [json.dumps(each.to_json()) + "\n" for each in records]
        (folder / f"{name}.jsonl").write_text("".join(lines), "utf-8")
    return folder


def work(recipe: Recipe, base: Path, folder: Path, log: Any, team: Team | None = None) -> Work:
    run_folder = RunFolder(folder / "run")
    run_folder.begin({}, restart=True)
    template = ChatTemplate.load(base)
    return Work(recipe, base, written(folder), template, run_folder, 0, log, team or Team())


@pytest.mark.parametrize(
    "top", ["", pytest.param('weights = "lora"\nlora = {r = 4}', marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("method", list(METHODS))
def test_every_family_takes_steps(
    method: str, top: str, family: Path, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe(
        f"{METHODS[method]}\n{top}", steps=3, batch=4, micro_batch=2, schedule="constant"
    )
    logged: list[dict[str, float]] = []
    assembly = assemble(work(recipe, family, tmp_path, lambda _, said: logged.append(said)))
    before = {name: each.clone() for name, each in assembly.model.named_parameters()}
    assembly.trainer.train()
    moved = [
        name
        for name, each in assembly.model.named_parameters()
        if not torch.equal(each, before[name])
    ]
    assert moved
    assert all(("lora" in name) == bool(top) for name in moved)
    assert len(logged) == 3
    if method == "grpo":
        assert all(each["engine_gap"] < 1e-4 for each in logged if "engine_gap" in each)
        assert any("engine_gap" in each for each in logged)
    elif method == "dpo":
        assert logged[-1]["margin"] > logged[0]["margin"]


def test_a_team_is_refused_in_words(family: Path, make_recipe: MakeRecipe, tmp_path: Path) -> None:
    given = work(make_recipe(METHODS["dpo"]), family, tmp_path, print, Team(0, 2))
    with pytest.raises(Refused, match=r'method = "dpo" is trained by one process: set \[compute\]'):
        policy.load(given, 64)
