"""Stages: each starts from the weights of the one before, is whole, and is done once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from avocado.workspace import Workspace

from .conftest import RECIPE, Avocado

STAGES = """
[[stages]]
name = "adapt"
weights = "lora"
lora = {r = 4}

[[stages]]
name = "polish"
training = {learning_rate = 1e-6, batch = 4, steps = 1, max_length = 256}
"""


def checkpoints(folder: Path) -> list[Any]:
    store = Workspace.find(folder).store
    return [store.load(each) for each in store.ids("checkpoint")]


def test_a_stage_starts_where_the_one_before_ended(shop: Path, avocado: Avocado) -> None:
    (shop / "recipe.toml").write_text(RECIPE + STAGES)
    ran = avocado(shop, "train", "recipe.toml", "--json")
    assert ran.code == 0, ran.err
    first, second = checkpoints(shop)
    assert ran.json["checkpoint"] == second.id  # type: ignore[index]
    assert second.manifest.parents["previous"] == first.id
    assert second.manifest.parents["base"] == first.manifest.parents["base"]
    assert (first.manifest.facts["weights"], second.manifest.facts["weights"]) == ("lora", "full")
    assert (first.files / "adapter_model.safetensors").is_file()
    assert (second.files / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_later_stage_with_adapters_ends_with_whole_weights(shop: Path, avocado: Avocado) -> None:
    later = STAGES.replace('name = "polish"', 'name = "polish"\nweights = "lora"')
    (shop / "recipe.toml").write_text(RECIPE + later)
    assert avocado(shop, "train", "recipe.toml").code == 0
    _, second = checkpoints(shop)
    assert not (second.files / "adapter_model.safetensors").exists()
    assert (second.files / "model.safetensors").is_file()
    evaluated = avocado(shop, "evaluate", second.id)
    assert evaluated.code == 0, evaluated.err


@pytest.mark.slow
def test_a_finished_stage_is_not_trained_again(
    shop: Path, avocado: Avocado, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avocado.train import run as running

    (shop / "recipe.toml").write_text(RECIPE + STAGES)
    real, names = running.run, []

    def die_in_the_second(recipe: Any, **given: Any) -> Any:
        names.append(recipe.name)
        if recipe.name == "small.polish" and len(names) == 2:
            raise KeyboardInterrupt
        return real(recipe, **given)

    monkeypatch.setattr(running, "run", die_in_the_second)
    assert avocado(shop, "train", "recipe.toml").code != 0
    assert avocado(shop, "train", "recipe.toml", "--resume").code == 0
    assert names == ["small.adapt", "small.polish", "small.polish"]
    again = avocado(shop, "train", "recipe.toml", "--resume")
    assert again.code == 1
    assert "nothing to resume" in again.err


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (STAGES.replace('"polish"', '"adapt"'), "two stages have one name"),
        (STAGES.replace('weights = "lora"', 'wieghts = "lora"'), "wieghts"),
        (STAGES.replace('weights = "lora"\nlora = {r = 4}', 'method = "grpo"'), "[grpo]"),
    ],
)
def test_a_wrong_stage_is_named(shop: Path, avocado: Avocado, stages: str, said: str) -> None:
    (shop / "recipe.toml").write_text(RECIPE + stages)
    ran = avocado(shop, "train", "recipe.toml")
    assert ran.code == 1
    assert said in ran.err
