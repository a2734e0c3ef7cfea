"""Weights: what is loaded to be trained, in which precision, and what its parameters count."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from avocado.errors import Refused
from avocado.release.merge import merge_adapter
from avocado.train import preflight, weights
from avocado.train.recipe import Recipe
from avocado.train.run import run

MakeRecipe = Callable[..., Recipe]
QLORA = 'weights = "qlora"\nlora = {r = 4}'


def test_qlora_without_bitsandbytes_says_what_is_missing(
    base: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(Refused, match=r'weights = "qlora" needs bitsandbytes.*weights = "lora"'):
        weights.load_model(base, make_recipe(QLORA))
    with pytest.raises(Refused, match=r'optimizer = "adamw_8bit" needs bitsandbytes'):
        weights.require_bitsandbytes('optimizer = "adamw_8bit"', "adamw")


def test_qlora_freezes_four_bits_and_trains_adapters(base: Path, make_recipe: MakeRecipe) -> None:
    pytest.importorskip("bitsandbytes")
    model = weights.load_model(base, make_recipe(QLORA))
    preflight.check_adapter(model, make_recipe(QLORA))
    held = dict(model.named_parameters())
    quantised = [name for name, weight in held.items() if weight.dtype == torch.uint8]
    assert len(quantised) == 2 * 7, "every linear layer but the head"
    assert all("lora_" in name for name, weight in held.items() if weight.requires_grad)
    plain = weights.load_model(base, make_recipe('weights = "lora"\nlora = {r = 4}'))
    assert weights.count(model) == weights.count(plain), "a packed weight counts as what it holds"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_qlora_learns_and_merges_into_the_base_that_is_not_quantised(
    precision: str, base: Path, corpus_folder: Path, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    losses: list[float] = []
    run(
        make_recipe(QLORA, steps=8, precision=precision, learning_rate=0.02),
        base=base,
        corpus=corpus_folder,
        identity={},
        folder=tmp_path / "run",
        out=tmp_path / "out",
        save_every=0,
        progress=lambda step: losses.append(step.loss),
    )
    assert losses[-1] < losses[0] - 0.1
    assert merge_adapter(base, tmp_path / "out", tmp_path / "merged") < 1e-4
    from safetensors import safe_open

    with safe_open(tmp_path / "merged" / "model.safetensors", "pt") as stored:
        dtypes = {stored.get_tensor(name).dtype for name in stored.keys()}  # noqa: SIM118
    assert dtypes == {torch.bfloat16}, "the base's own, not four bits"
