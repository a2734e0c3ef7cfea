"""Packed rows: the same loss, gradients and weights as rows one by one, on every path."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import Qwen2Config, Qwen3_5TextConfig, Qwen3Config

from avocado.data import corpus
from avocado.data.chat import ChatTemplate
from avocado.train import attention, sequences, sft, weights
from avocado.train.recipe import Recipe
from avocado.train.run_folder import RunFolder

MakeRecipe = Callable[..., Recipe]


@pytest.fixture(scope="module")
def rows(corpus_folder: Path, template: ChatTemplate) -> sequences.Sequences:
    return sequences.render(corpus.read(corpus_folder), template, 128)


Heads = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def heads(lengths: list[int], seed: int = 0) -> Heads:
    """A query of six heads and keys and values of two, each (1, heads, tokens, 8)."""
    made = torch.Generator().manual_seed(seed)
    query, key, value = (
        torch.randn((1, count, sum(lengths), 8), generator=made, requires_grad=True)
        for count in (6, 2, 2)
    )
    return query, key, value


def one_by_one(parts: Heads, lengths: list[int]) -> torch.Tensor:
    """Each row by itself, its keys repeated and its mask written out."""
    done = []
    begin = 0
    for length in lengths:
        query, key, value = (each[:, :, begin : begin + length] for each in parts)
        key, value = key.repeat_interleave(3, 1), value.repeat_interleave(3, 1)
        scores = query @ key.transpose(2, 3) * 8**-0.5
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
        done.append((scores.softmax(-1) @ value).transpose(1, 2))
        begin += length
    return torch.cat(done, 1)


@pytest.mark.parametrize(
    "lengths",
    [[5], [9, 2, 1, 30, 29, 8], [1] * 7, [600, 40, 550]],
    ids=["one", "mixed", "1", "long"],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_attention_equals_rows_one_by_one(lengths: list[int], precision: str) -> None:
    packed, apart = heads(lengths), heads(lengths)
    query, key, value = packed
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        mixed, _ = attention.attend(
            torch.nn.Module(),
            query,
            key,
            value,
            None,
            scaling=8**-0.5,
            cu_seq_lens_q=attention.boundaries(lengths)["cu_seq_lens_q"],
        )
    expected = one_by_one(apart, lengths)
    slack = 1e-5 if precision == "fp32" else 0.03
    torch.testing.assert_close(mixed.float(), expected, rtol=slack, atol=slack)
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad((mixed.float() * weight).sum(), packed)
    theirs = torch.autograd.grad((expected * weight).sum(), apart)
    for our, their in zip(ours, theirs, strict=True):
        assert float((our - their).abs().max()) <= slack * float(their.abs().max()) + 1e-6


def test_the_variable_length_kernel_gets_what_it_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the GPU's kernel, written from its documentation: (tokens, heads, size)."""
    lengths = [9, 2, 1, 30]
    parts = heads(lengths)

    def kernel(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        ends: torch.Tensor,
        ends_k: torch.Tensor,
        longest: int,
        longest_k: int,
        *,
        scale: float,
        window_size: tuple[int, int],
        enable_gqa: bool,
    ) -> torch.Tensor:
        assert (ends.dtype, longest, longest_k) == (torch.int32, 30, 30)
        assert torch.equal(ends, ends_k)
        assert window_size == (-1, 0)
        assert enable_gqa
        done = []
        for begin, end in pairwise(ends.tolist()):
            q, k, v = (each[begin:end].transpose(0, 1)[None] for each in (query, key, value))
            mixed = functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, scale=scale, enable_gqa=True
            )
            done.append(mixed[0].transpose(0, 1))
        return torch.cat(done)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    monkeypatch.setattr(attention, "_varlen_runs", lambda query: True)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: torch.float32)
    around = attention.boundaries(lengths)
    query, key, value = parts
    mixed, _ = attention.attend(
        torch.nn.Module(), query, key, value, None, scaling=8**-0.5, **around
    )
    torch.testing.assert_close(mixed, one_by_one(parts, lengths), rtol=1e-4, atol=1e-5)


def trained(
    recipe: Recipe, base: Path, template: ChatTemplate, rows: sequences.Sequences, folder: Path
) -> tuple[list[float], dict[str, torch.Tensor]]:
    losses: list[float] = []
    run_folder = RunFolder(folder)
    run_folder.begin({}, restart=True)
    trainer = sft.trainer(
        weights.load_model(base, recipe),
        template,
        rows,
        sequences.order(rows, recipe.training),
        recipe,
        run_folder=run_folder,
        save_every=0,
        log=lambda _, numbers: losses.append(numbers["loss"]),
    )
    trainer.train()
    return losses, dict(trainer.model.state_dict())


@pytest.mark.parametrize(("precision", "slack"), [("fp32", 1e-5), ("bf16", 2e-3)])
@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_packing_changes_no_loss_and_no_weight(
    precision: str,
    slack: float,
    checkpointing: bool,
    base: Path,
    template: ChatTemplate,
    rows: sequences.Sequences,
    make_recipe: MakeRecipe,
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {
        "steps": 6,
        "batch": 7,
        "learning_rate": 0.003,
        "max_length": 96,
        "precision": precision,
        "gradient_checkpointing": checkpointing,
    }
    whole = trained(
        make_recipe(packing=False, **settings), base, template, rows, tmp_path / "padded"
    )
    for micro in (0, 1, 2):
        recipe = make_recipe(micro_batch=micro, **settings)
        packed = trained(recipe, base, template, rows, tmp_path / f"packed-{micro}")
        assert packed[0] == pytest.approx(whole[0], rel=slack)
        if precision == "fp32":
            for name, weight in whole[1].items():
                torch.testing.assert_close(packed[1][name], weight, rtol=1e-3, atol=2e-5)


def test_one_row_sees_no_other(
    base: Path,
    template: ChatTemplate,
    rows: sequences.Sequences,
    make_recipe: MakeRecipe,
    tmp_path: Path,
) -> None:
    """Another first row changes no logit of the second, to the last bit."""
    model = weights.load_model(base, make_recipe()).eval()
    attention.install(model)
    lengths = [12, 20]
    ids = torch.arange(32)[None] + 5
    other = ids.clone()
    other[:, :12] += 100
    around = attention.boundaries(lengths)
    with torch.inference_mode():
        logits = [model(input_ids=each, use_cache=False, **around).logits for each in (ids, other)]
    assert torch.equal(logits[0][:, 12:], logits[1][:, 12:])
    assert not torch.equal(logits[0][:, :12], logits[1][:, :12])


def test_what_cannot_be_packed_is_said() -> None:
    assert attention.obstacle(Qwen3Config(), 4096) is None
    hybrid = Qwen3_5TextConfig()
    assert "linear_attention layers carry a state" in str(attention.obstacle(hybrid, 8))
    window = Qwen2Config(
        use_sliding_window=True, sliding_window=64, max_window_layers=1, num_hidden_layers=2
    )
    assert attention.obstacle(window, 64) is None
    assert "sliding window of 64 tokens" in str(attention.obstacle(window, 65))
