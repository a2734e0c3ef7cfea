"""The loss is the loss: equal to the model's own, whatever the padding, micro-batch or adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avocado.data import corpus
from avocado.data.chat import ChatTemplate
from avocado.errors import Refused
from avocado.train import sequences, sft, weights
from avocado.train.recipe import Recipe
from avocado.train.run_folder import RunFolder

MakeRecipe = Callable[..., Recipe]
IM_END, PAD = 2041, 2039


@pytest.fixture(scope="module")
def rows(corpus_folder: Path, template: ChatTemplate) -> sequences.Sequences:
    return sequences.render(corpus.read(corpus_folder), template, 128)


def assemble(
    recipe: Recipe, base: Path, template: ChatTemplate, rows: sequences.Sequences, folder: Path
) -> tuple[sft.RowsTrainer, list[dict[str, float]]]:
    logged: list[dict[str, float]] = []
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
        log=lambda step, numbers: logged.append({"step": step, **numbers}),
    )
    return trainer, logged


def reference(
    recipe: Recipe, base: Path, rows: sequences.Sequences
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The same run as a plain loop: row by row, no padding, the model's full logits."""
    model = weights.load_model(base, recipe).train()
    order = sequences.order(rows, recipe.training)
    rate = recipe.training.learning_rate
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    losses = []
    for step in range(order.steps):
        cut = order.micro_batches[step * order.per_step : (step + 1) * order.per_step]
        chosen = [rows.row(index) for each in cut for index in each]
        count = sum(int((labels[1:] != -100).sum()) for _, labels in chosen)
        total = 0.0
        for ids, labels in chosen:
            logits = model(torch.tensor(np.array([ids]), dtype=torch.long)).logits[0, :-1]
            wanted = torch.tensor(labels[1:].astype("int64"))
            loss: Any = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum") / count
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.training.clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    return losses, model.state_dict()


@pytest.mark.parametrize("micro", [0, 1, 3])
def test_training_equals_the_plain_loop(
    micro: int,
    base: Path,
    template: ChatTemplate,
    rows: sequences.Sequences,
    make_recipe: MakeRecipe,
    tmp_path: Path,
) -> None:
    recipe = make_recipe(
        batch=6, micro_batch=micro, steps=4, schedule="constant", warmup=0.0, learning_rate=0.003
    )
    trainer, logged = assemble(recipe, base, template, rows, tmp_path / "run")
    trainer.train()
    losses, state = reference(recipe, base, rows)
    assert [line["loss"] for line in logged] == pytest.approx(losses, rel=1e-4)
    trained = trainer.model.state_dict()
    for name, weight in state.items():
        torch.testing.assert_close(trained[name], weight, rtol=1e-3, atol=2e-5)


def test_bfloat16_and_checkpointing_change_rounding_and_memory_only(
    base: Path,
    template: ChatTemplate,
    rows: sequences.Sequences,
    make_recipe: MakeRecipe,
    tmp_path: Path,
) -> None:
    settings: dict[str, dict[str, object]] = {
        "plain": {},
        "bf16": {"precision": "bf16"},
        "checkpointing": {"gradient_checkpointing": True},
    }
    losses = {}
    for name, more in settings.items():
        recipe = make_recipe(steps=8, **more)
        trainer, logged = assemble(recipe, base, template, rows, tmp_path / name)
        trainer.train()
        losses[name] = [line["loss"] for line in logged]
    assert losses["checkpointing"] == pytest.approx(losses["plain"], rel=1e-5)
    assert losses["bf16"] == pytest.approx(losses["plain"], rel=0.01)
    assert losses["bf16"] != losses["plain"]


def test_the_plain_loss_equals_trls_fused_head(
    base: Path,
    template: ChatTemplate,
    rows: sequences.Sequences,
    make_recipe: MakeRecipe,
    tmp_path: Path,
) -> None:
    recipe = make_recipe(batch=6, steps=1)
    trainer, _ = assemble(recipe, base, template, rows, tmp_path / "run")
    batch = trainer.data_collator([{"rows": [0, 1, 2, 3]}])
    count = int((batch["labels"][:, 1:] != -100).sum())
    ours = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=count)
    fresh, _ = assemble(recipe, base, template, rows, tmp_path / "run")
    del fresh.model.forward  # back to the model's own class, then as TRL patches it
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(fresh.model, outputs=("log_probs", "entropy", "is_top1"))
    fresh._plain_loss = False
    theirs = fresh.compute_loss(fresh.model, dict(batch), num_items_in_batch=count)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_a_mixture_of_experts_keeps_trls_loss_with_its_router_part(
    template: ChatTemplate, rows: sequences.Sequences, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(
        vocab_size=2048,
        hidden_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_experts=4,
        num_experts_per_tok=2,
        pad_token_id=PAD,
        eos_token_id=IM_END,
    )
    torch.manual_seed(0)
    model: Any = Qwen3MoeForCausalLM(config)
    model.save_pretrained(tmp_path / "moe")
    recipe = make_recipe(steps=6, batch=8, micro_batch=4)
    trainer, logged = assemble(recipe, tmp_path / "moe", template, rows, tmp_path / "run")
    assert not trainer._plain_loss
    trainer.train()
    assert logged[-1]["loss"] < logged[0]["loss"]


def test_lora_trains_adapters_on_every_linear_layer_and_nothing_else(
    base: Path, make_recipe: MakeRecipe
) -> None:
    model = weights.load_model(base, make_recipe('weights = "lora"\nlora = {r = 2}'))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert all("lora_" in name for name in trained)
    linear = {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "lora_" not in name and "lm_head" not in name
    }
    assert len(trained) == 2 * len(linear) == 2 * 2 * 7
    counts = weights.count(model)
    assert counts.trainable == sum(
        weight.numel() for weight in model.parameters() if weight.requires_grad
    )
    assert counts.trainable < counts.all == counts.multiplying


def test_lora_that_attaches_to_nothing_is_refused(base: Path, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe('weights = "lora"\nlora = {targets = ["q_proj", "query_key_value"]}')
    with pytest.raises(Refused, match="no module 'query_key_value'"):
        weights.load_model(base, recipe)


def test_a_loss_that_is_no_number_stops_the_run(
    base: Path,
    template: ChatTemplate,
    rows: sequences.Sequences,
    make_recipe: MakeRecipe,
    tmp_path: Path,
) -> None:
    recipe = make_recipe(steps=3)
    trainer, logged = assemble(recipe, base, template, rows, tmp_path / "run")
    with torch.no_grad():
        trainer.model.get_input_embeddings().weight.fill_(float("inf"))
    with pytest.raises(Refused, match="the loss is nan at step 1: lower learning_rate"):
        trainer.train()
    assert not logged


def test_nothing_is_sent_anywhere(
    base: Path,
    template: ChatTemplate,
    rows: sequences.Sequences,
    make_recipe: MakeRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import socket

    def refuse(*_: Any) -> None:
        raise AssertionError("training must not open a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("CI", raising=False)
    trainer, _ = assemble(make_recipe(steps=1), base, template, rows, tmp_path / "run")
    trainer.train()
    assert not trainer.args.report_to
