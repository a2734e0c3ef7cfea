"""On-policy distillation: the student's own answers, the teacher's whole distributions."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avocado.data.problem import Problem
from avocado.errors import Refused
from avocado.lineage import digest_folder
from avocado.train import distill, losses, run, weights
from avocado.train.recipe import Recipe

MakeRecipe = Callable[..., Recipe]


@pytest.fixture(scope="module")
def problems_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("problems")
    rows = [
        Problem(({"role": "user", "content": f"say {number}"},), file="rows.jsonl", row=number + 1)
        for number in range(8)
    ]
    lines = [json.dumps(each.to_json()) + "\n" for each in rows]
    (folder / "problems.jsonl").write_text("".join(lines), "utf-8")
    return folder


@pytest.fixture(scope="module")
def teacher(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twice as wide, other weights, and a table that is padded by 64 rows."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("teacher")
    for path in base.iterdir():
        if not path.name.startswith(("model", "config")):
            shutil.copyfile(path, folder / path.name)
    torch.manual_seed(7)
    config = Qwen3Config(
        vocab_size=2048 + 64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    model: Any = Qwen3ForCausalLM(config)
    generation = (folder / "generation_config.json").read_bytes()
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_bytes(generation)
    return folder


@pytest.fixture(scope="module")
def relative(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student with louder layers: near enough for adapters, which cannot change a table."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("relative")
    shutil.copytree(base, folder, dirs_exist_ok=True)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.mul_(30)
            layer.self_attn.o_proj.weight.mul_(30)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def make(make_recipe: MakeRecipe) -> MakeRecipe:
    def made(beta: float = 0.5, top: str = "", **training: Any) -> Recipe:
        table = f'distillation = {{model = "teacher", max_tokens = 6, beta = {beta}}}'
        settings = {"batch": 4, "steps": 4, "schedule": "constant", "warmup": 0.0, **training}
        return make_recipe(f'method = "distillation"\n{table}\n{top}', **settings)

    return made


def train(recipe: Recipe, base: Path, problems: Path, teacher: Path, folder: Path, **more: Any):  # type: ignore[no-untyped-def]
    return run.run(
        recipe,
        base=base,
        corpus=problems,
        identity={"base": "b", "corpus": "c", "teacher": "t"},
        folder=folder / "run",
        out=folder / "out",
        teacher=teacher,
        **more,
    )


def losses_of(folder: Path) -> list[float]:
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize(
    ("top", "whose"), [("", "teacher"), ('weights = "lora"\nlora = {r = 16}', "relative")]
)
def test_the_student_comes_nearer_to_its_teacher(
    make: MakeRecipe,
    base: Path,
    problems_folder: Path,
    tmp_path: Path,
    top: str,
    whose: str,
    request: pytest.FixtureRequest,
) -> None:
    teacher = request.getfixturevalue(whose)
    recipe = make(0.5, top, steps=30, learning_rate=0.02)
    finished = train(recipe, base, problems_folder, teacher, tmp_path)
    found = losses_of(tmp_path)
    assert sum(found[-5:]) < 0.8 * sum(found[:5])
    assert finished.checkpoint.method == "distillation"
    assert finished.checkpoint.trained_tokens > 0


def test_a_teacher_that_is_the_student_teaches_nothing(
    make: MakeRecipe, base: Path, problems_folder: Path, tmp_path: Path
) -> None:
    train(make(0.5, steps=1), base, problems_folder, base, tmp_path)
    assert losses_of(tmp_path) == [pytest.approx(0, abs=1e-5)]


def test_a_resumed_run_ends_with_the_same_weights(
    make: MakeRecipe, base: Path, problems_folder: Path, teacher: Path, tmp_path: Path
) -> None:
    recipe = make(steps=4)
    train(recipe, base, problems_folder, teacher, tmp_path / "whole", save_every=2)

    def die(progress: Any) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            recipe,
            base,
            problems_folder,
            teacher,
            tmp_path / "cut",
            save_every=2,
            progress=die,
        )
    train(recipe, base, problems_folder, teacher, tmp_path / "cut", save_every=2, start="resume")
    assert digest_folder(tmp_path / "cut" / "out") == digest_folder(tmp_path / "whole" / "out")


def test_another_tokenizer_is_refused(teacher: Path, base: Path, tmp_path: Path) -> None:
    assert distill.check_tokenizers(base, teacher) == distill.check_tokenizers(base, base)
    other = tmp_path / "other"
    shutil.copytree(teacher, other)
    path = other / "tokenizer.json"
    tokenizer = json.loads(path.read_bytes())
    word = next(iter(tokenizer["model"]["vocab"]))
    tokenizer["model"]["vocab"][f"{word}x"] = tokenizer["model"]["vocab"].pop(word)
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(Refused, match="differs from the student's in its model"):
        distill.check_tokenizers(base, other)
    path.unlink()
    with pytest.raises(Refused, match="cannot be read"):
        distill.check_tokenizers(base, other)


def test_the_teacher_is_frozen(teacher: Path) -> None:
    loaded = weights.load_teacher(teacher, torch.device("cpu"), "bf16")
    assert not any(weight.requires_grad for weight in loaded.parameters())
    assert not loaded.training


@given(st.integers(0, 2**31), st.floats(0, 1))
def test_the_divergence_is_the_papers(seed: int, beta: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = (
        torch.randn(3, 7, generator=generator, dtype=torch.float64).log_softmax(-1) for _ in "ab"
    )
    found = losses.between(ours, theirs, beta)
    for row in range(3):
        q, p = (each[row].exp().tolist() for each in (ours, theirs))
        if beta in (0, 1):
            first, second = (p, q) if beta == 0 else (q, p)
            wanted = sum(a * math.log(a / b) for a, b in zip(first, second, strict=True))
        else:
            m = [beta * a + (1 - beta) * b for a, b in zip(p, q, strict=True)]
            wanted = beta * sum(a * math.log(a / c) for a, c in zip(p, m, strict=True))
            wanted += (1 - beta) * sum(b * math.log(b / c) for b, c in zip(q, m, strict=True))
        assert found[row].item() == pytest.approx(wanted, abs=1e-9)
    assert (losses.between(ours, ours, beta).abs() < 1e-12).all()
