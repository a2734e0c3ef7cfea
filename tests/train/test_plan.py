"""Plans: the numbers are those of the run that follows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from avocado.data import corpus
from avocado.data.chat import ChatTemplate
from avocado.terms.money import Money
from avocado.train import sequences, sft, weights
from avocado.train.plan import Plan, plan
from avocado.train.recipe import Recipe
from avocado.train.run import run
from avocado.train.run_folder import RunFolder

MakeRecipe = Callable[..., Recipe]


@pytest.mark.parametrize("top", ["", 'weights = "lora"\nlora = {r = 4}'])
def test_a_plan_is_what_then_happens(
    top: str, base: Path, corpus_folder: Path, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe(top, steps=3, micro_batch=4)
    planned = plan(recipe, base=base, corpus=corpus_folder)
    done = run(
        recipe,
        base=base,
        corpus=corpus_folder,
        identity={},
        folder=tmp_path / "run",
        out=tmp_path / "out",
        save_every=0,
    ).checkpoint
    assert (planned.steps, planned.tokens, planned.trained) == (
        done.steps,
        done.tokens,
        done.trained_tokens,
    )
    assert (planned.parameters, planned.trainable, planned.flops) == (
        done.parameters,
        done.trainable,
        done.flops,
    )
    assert planned.seconds is None
    assert "time: not measured; a probe of real steps measures it" in planned.lines()


def test_a_probe_measures_real_steps_and_prices_them(
    base: Path, corpus_folder: Path, make_recipe: MakeRecipe
) -> None:
    planned = plan(
        make_recipe(steps=100),
        base=base,
        corpus=corpus_folder,
        probe_steps=2,
        price_per_hour=Money.parse("3.60"),
    )
    assert planned.seconds is not None
    assert planned.cost is not None
    low, high = planned.seconds
    assert 0 < low <= high < 600
    assert planned.cost[0].nanos == pytest.approx(low * 1e6, abs=1_001_000)
    assert json.loads(json.dumps(planned.to_json()))["cost"][0].endswith(" USD")
    assert planned.lines()[-1].startswith("cost: 0.")


def test_a_given_throughput_is_believed_within_a_tenth(
    base: Path, corpus_folder: Path, make_recipe: MakeRecipe
) -> None:
    planned = plan(make_recipe(), base=base, corpus=corpus_folder, tokens_per_second=100.0)
    assert planned.seconds == pytest.approx((planned.tokens / 110, planned.tokens / 90))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_memory_formula_holds_within_a_third(
    precision: str,
    template: ChatTemplate,
    corpus_folder: Path,
    make_recipe: MakeRecipe,
    tmp_path: Path,
    base: Path,
) -> None:
    """Against the bytes that autograd really keeps for the backward pass."""
    recipe = make_recipe(batch=40, precision=precision, steps=1)
    rows = sequences.render(corpus.read(corpus_folder), template, 128)
    order = sequences.order(rows, recipe.training)
    run_folder = RunFolder(tmp_path / "run")
    run_folder.begin({}, restart=True)
    trainer = sft.trainer(
        weights.load_model(base, recipe),
        template,
        rows,
        order,
        recipe,
        run_folder=run_folder,
        save_every=0,
        log=lambda *_: None,
    )
    owned = {weight.untyped_storage().data_ptr() for weight in trainer.model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    alive: list[Any] = []
    batch = trainer.data_collator([{"rows": list(order.micro_batches[0])}])
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        trainer.accelerator.autocast(),
    ):
        trainer.compute_loss(trainer.model, batch, num_items_in_batch=1)
    planned: Plan = plan(recipe, base=base, corpus=corpus_folder)
    assert planned.memory.activations == pytest.approx(sum(kept.values()), rel=1 / 3)
