"""Runs: the same recipe gives the same weights, also after a kill; half a run leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avocado.errors import Refused
from avocado.lineage import digest_folder
from avocado.train.checkpoint import Checkpoint, training_flops
from avocado.train.recipe import Recipe
from avocado.train.run import Finished, Progress, run

MakeRecipe = Callable[..., Recipe]
Untimed = Callable[[Path], list[dict[str, float]]]
IDENTITY = {"base": "base-1", "corpus": "corpus-1"}


class Killed(BaseException):
    """Stands for a kill inside one process: nothing of ours catches it."""


def train(
    recipe: Recipe,
    base: Path,
    corpus_folder: Path,
    place: Path,
    *,
    kill_after: int = 0,
    **settings: Any,
) -> Finished:
    def progress(seen: Progress) -> None:
        if seen.step == kill_after:
            raise Killed

    return run(
        recipe,
        base=base,
        corpus=corpus_folder,
        folder=place / "run",
        out=place / "out",
        **{"identity": IDENTITY, "save_every": 4, "progress": progress, **settings},
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_learns_and_leaves_a_model_that_loads(
    base: Path, corpus_folder: Path, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    seen: list[Progress] = []
    recipe = make_recipe(steps=30)
    finished = train(recipe, base, corpus_folder, tmp_path, progress=seen.append)
    assert [each.step for each in seen] == list(range(1, 31))
    assert seen[-1].loss < 0.6 * seen[0].loss
    assert seen[-1].seconds_left == 0
    assert seen[10].tokens_per_second > 0

    checkpoint = finished.checkpoint
    assert (checkpoint.steps, checkpoint.weights, checkpoint.dtype) == (30, "full", "bfloat16")
    assert checkpoint.tokens == seen[-1].tokens
    assert checkpoint.flops == 6 * checkpoint.parameters * checkpoint.tokens
    assert Checkpoint.from_facts(json.loads(json.dumps(checkpoint.facts()))) == checkpoint
    assert str(tmp_path) not in json.dumps(checkpoint.facts())

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert str(model.dtype) == "torch.bfloat16"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template
    for name in ("tokenizer.json", "generation_config.json", "config.json", "LICENSE"):
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()
    assert not {".bin", ".pt", ".py"} & {path.suffix for path in (tmp_path / "out").rglob("*")}
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 31))
    assert names(tmp_path / "run") == ["metrics.jsonl", "run.json"]


ADAPTERS = 'weights = "lora"\nlora = {r = 4, dropout = 0.1}'


@pytest.mark.parametrize(
    ("top", "precision"),
    [
        ("", "fp32"),
        pytest.param(ADAPTERS, "bf16", marks=pytest.mark.slow),
        pytest.param("", "bf16", marks=pytest.mark.slow),
        pytest.param(ADAPTERS, "fp32", marks=pytest.mark.slow),
    ],
)
def test_fault_42_killed_at_any_step_resume_ends_with_the_same_weights(
    top: str,
    precision: str,
    base: Path,
    corpus_folder: Path,
    make_recipe: MakeRecipe,
    tmp_path: Path,
    untimed: Untimed,
) -> None:
    recipe = make_recipe(top, steps=10, precision=precision, micro_batch=4, batch=7)
    whole = train(recipe, base, corpus_folder, tmp_path / "whole", save_every=0)
    again = train(recipe, base, corpus_folder, tmp_path / "again", save_every=3)
    for kill_after in (5, 7, 10):
        place = tmp_path / f"killed-{kill_after}"
        with pytest.raises(Killed):
            train(recipe, base, corpus_folder, place, kill_after=kill_after)
        assert not (place / "out").exists()
        resumed = train(recipe, base, corpus_folder, place, start="resume")
        assert digest_folder(place / "out") == digest_folder(tmp_path / "whole" / "out")
        assert resumed.checkpoint == whole.checkpoint == again.checkpoint
        assert resumed.note["resumed_from_step"] == (8 if kill_after == 10 else 4)
        metrics = [folder / "run" / "metrics.jsonl" for folder in (place, tmp_path / "whole")]
        assert untimed(metrics[0]) == untimed(metrics[1])


SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import msgspec
from avocado.train.recipe import Recipe
from avocado.train.run import run
settings = json.loads(sys.argv[1])
def progress(seen):
    if seen.step == settings["kill_after"]:
        os.kill(os.getpid(), signal.SIGKILL)
recipe = msgspec.convert(settings["recipe"], Recipe)
run(recipe, base=Path(settings["base"]), corpus=Path(settings["corpus"]),
    identity=settings["identity"], folder=Path(settings["folder"]), out=Path(settings["out"]),
    save_every=settings["save_every"], start=settings["start"], progress=progress)
"""


def in_process(place: Path, base: Path, corpus_folder: Path, recipe: Recipe, **more: Any) -> int:
    settings = {
        "recipe": recipe.canonical(),
        "base": str(base),
        "corpus": str(corpus_folder),
        "identity": IDENTITY,
        "folder": str(place / "run"),
        "out": str(place / "out"),
        "save_every": 3,
        "start": "new",
        "kill_after": 0,
        **more,
    }
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(settings)], env=environment, check=False
    )
    return done.returncode


@pytest.mark.slow
def test_fault_42_a_process_killed_again_and_again(
    base: Path, corpus_folder: Path, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe(steps=12, micro_batch=4)
    assert in_process(tmp_path / "whole", base, corpus_folder, recipe) == 0
    place = tmp_path / "killed"
    start = "new"
    for kill_after in (4, 5, 8, 11):
        code = in_process(place, base, corpus_folder, recipe, start=start, kill_after=kill_after)
        assert code == -signal.SIGKILL
        assert not (place / "out").exists()
        start = "resume"
    assert in_process(place, base, corpus_folder, recipe, start="resume") == 0
    assert digest_folder(place / "out") == digest_folder(tmp_path / "whole" / "out")


def interrupted(
    recipe: Recipe, base: Path, corpus_folder: Path, place: Path, kill_after: int = 6
) -> None:
    with pytest.raises(Killed):
        train(recipe, base, corpus_folder, place, kill_after=kill_after)


def test_fault_43_a_resume_names_what_changed(
    base: Path, corpus_folder: Path, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    interrupted(make_recipe(), base, corpus_folder, tmp_path)
    before = digest_folder(tmp_path)
    with pytest.raises(Refused, match=r"changed since it began: recipe\.training\.batch;"):
        train(make_recipe(batch=9), base, corpus_folder, tmp_path, start="resume")
    moved = {**IDENTITY, "corpus": "corpus-2"}
    with pytest.raises(Refused, match="began: the data;"):
        train(make_recipe(), base, corpus_folder, tmp_path, start="resume", identity=moved)
    assert digest_folder(tmp_path) == before, "a refusal changes nothing"


def test_an_interrupted_run_is_not_overwritten_by_accident(
    base: Path, corpus_folder: Path, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    interrupted(make_recipe(), base, corpus_folder, tmp_path)
    with pytest.raises(Refused, match="interrupted after step 4: go on with --resume, or throw"):
        train(make_recipe(), base, corpus_folder, tmp_path)
    assert train(make_recipe(), base, corpus_folder, tmp_path, start="restart").checkpoint.steps
    with pytest.raises(Refused, match="no interrupted run to resume"):
        train(make_recipe(), base, corpus_folder, tmp_path / "other", start="resume")


def test_a_run_killed_before_it_saved_leaves_nothing_in_the_way(
    base: Path, corpus_folder: Path, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    interrupted(make_recipe(), base, corpus_folder, tmp_path, kill_after=2)
    assert names(tmp_path / "run") == ["metrics.jsonl", "run.json"]
    assert train(make_recipe(), base, corpus_folder, tmp_path).checkpoint.steps == 12


def test_half_a_training_checkpoint_is_never_taken_for_a_whole_one(
    base: Path,
    corpus_folder: Path,
    make_recipe: MakeRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The disk fills while the second training checkpoint is written: the first one stays good."""
    from transformers import Trainer

    whole = train(make_recipe(), base, corpus_folder, tmp_path / "whole")
    written = []
    save = Trainer._save_optimizer_and_scheduler

    def full(self: Any, folder: str) -> None:
        written.append(folder)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        save(self, folder)

    monkeypatch.setattr(Trainer, "_save_optimizer_and_scheduler", full)
    with pytest.raises(Refused, match=r"step 8 cannot be written \(.*No space left on device"):
        train(make_recipe(), base, corpus_folder, tmp_path)
    assert not (tmp_path / "out").exists()
    assert "checkpoint-4" in names(tmp_path / "run")
    assert "checkpoint-8" not in names(tmp_path / "run")
    resumed = train(make_recipe(), base, corpus_folder, tmp_path, start="resume")
    assert resumed.note["resumed_from_step"] == 4
    assert resumed.checkpoint == whole.checkpoint


def test_fault_42_killed_while_the_result_is_written(
    base: Path,
    corpus_folder: Path,
    make_recipe: MakeRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing that looks like a checkpoint is left, and no step is trained twice."""
    from avocado.train import weights

    whole = train(make_recipe(), base, corpus_folder, tmp_path / "whole")
    save = weights.save

    def killed(model: Any, folder: Path, *rest: Any, **more: Any) -> None:
        save(model, folder, *rest, **more)
        raise Killed

    monkeypatch.setattr(weights, "save", killed)
    with pytest.raises(Killed):
        train(make_recipe(), base, corpus_folder, tmp_path)
    monkeypatch.setattr(weights, "save", save)
    assert names(tmp_path) == ["run", "whole"]
    resumed = train(make_recipe(), base, corpus_folder, tmp_path, start="resume")
    assert resumed.note["resumed_from_step"] == 12
    assert digest_folder(tmp_path / "out") == digest_folder(tmp_path / "whole" / "out")
    assert resumed.checkpoint == whole.checkpoint


@pytest.mark.parametrize("error", [OSError(28, "No space left"), RuntimeError("write failed")])
def test_a_result_that_cannot_be_written_is_refused_and_resumed(
    error: Exception,
    base: Path,
    corpus_folder: Path,
    make_recipe: MakeRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from avocado.train import weights

    def full(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(weights, "save", full)
        with pytest.raises(Refused, match="the checkpoint cannot be written"):
            train(make_recipe(steps=4), base, corpus_folder, tmp_path)
    assert names(tmp_path) == ["run"]
    assert train(make_recipe(steps=4), base, corpus_folder, tmp_path, start="resume").note


def test_a_checkpoint_is_never_written_over_another(
    base: Path, corpus_folder: Path, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").touch()
    with pytest.raises(Refused, match="is not empty"):
        train(make_recipe(), base, corpus_folder, tmp_path)
    assert names(tmp_path) == ["out"]


def test_an_adapter_says_its_base_by_name_and_never_by_path(
    base: Path, corpus_folder: Path, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    finished = train(make_recipe('weights = "lora"', steps=4), base, corpus_folder, tmp_path)
    kept = names(tmp_path / "out")
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= set(kept)
    assert "model.safetensors" not in kept
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "base"
    for path in (tmp_path / "out").iterdir():
        assert str(base).encode() not in path.read_bytes()
    assert finished.checkpoint.trainable < finished.checkpoint.parameters
    assert finished.checkpoint.flops == 4 * finished.checkpoint.parameters * (
        finished.checkpoint.tokens
    )


def test_flops_are_six_or_four_a_parameter_and_token() -> None:
    assert training_flops(10, 7, "full") == 420
    assert training_flops(10, 7, "lora") == 280
