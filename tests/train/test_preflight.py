"""Each check before the first step finds what it is for, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from avocado.data import corpus
from avocado.data.chat import IGNORED, ChatTemplate, Row
from avocado.data.example import Example
from avocado.errors import Refused
from avocado.lineage import digest_folder
from avocado.train import attention, preflight, sequences, sft, weights
from avocado.train.recipe import Recipe
from avocado.train.run import run
from avocado.train.run_folder import RunFolder

MakeRecipe = Callable[..., Recipe]
IM_END, PAD = 2041, 2039
EXPERTS = 'weights = "lora"\nlora = {r = 2}'


@pytest.fixture(scope="module")
def rows(corpus_folder: Path, template: ChatTemplate) -> sequences.Sequences:
    return sequences.render(corpus.read(corpus_folder), template, 128)


def assembled(
    recipe: Recipe, base: Path, template: ChatTemplate, rows: sequences.Sequences, folder: Path
) -> tuple[sft.RowsTrainer, sequences.Order]:
    run_folder = RunFolder(folder)
    run_folder.begin({}, restart=True)
    order = sequences.order(rows, recipe.training)
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
    return trainer, order


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Row((5, 6, 7, IM_END), (-100, -100, 7, IM_END)), None),
        (Row((5,) * 200 + (IM_END,), (-100,) * 200 + (IM_END,)), "201 tokens, over 128"),
        (Row((5, IM_END), (-100, -100)), "carries no loss"),
        (Row((5, 6, 7), (-100, 6, 7)), "does not end by teaching a stop token"),
        (Row((5, 6, IM_END), (-100, 6, -100)), "does not end by teaching a stop token"),
        (Row((5, 6, PAD), (-100, 6, PAD)), "padding token is the stop token"),
    ],
)
def test_rows(row: Row, said: str | None, template: ChatTemplate) -> None:
    made = sequences.collect([row])
    if said is None:
        preflight.check_rows(made, template, 128)
    else:
        with pytest.raises(Refused, match=said):
            preflight.check_rows(made, template, 128)


def test_documents_must_teach_their_end(template: ChatTemplate) -> None:
    end = sequences.end_of_text(template)
    preflight.check_rows(
        sequences.collect([Row((5, 6), (-100, 6)), Row((5, end), (-100, end))]),
        template,
        128,
        documents=True,
    )
    with pytest.raises(Refused, match="no document ends by teaching the end-of-text token"):
        preflight.check_rows(
            sequences.collect([Row((5, 6), (-100, 6))]), template, 128, documents=True
        )


class _Tampered:
    """A renderer whose training rows are not what it serves."""

    def __init__(self, template: ChatTemplate, change: Callable[[Row], Row]) -> None:
        self._template = template
        self._change = change

    def prompt(self, chat: Any) -> Any:
        return self._template.prompt(chat)

    def rows(self, messages: Any, tools: Any = ()) -> list[Row]:
        return [self._change(row) for row in self._template.rows(messages, tools)]


def test_a_row_of_another_prompt_than_servings_is_refused(
    corpus_folder: Path, template: ChatTemplate
) -> None:
    examples = [each for each in corpus.read(corpus_folder) if isinstance(each, Example)]
    preflight.check_parity(examples, template)

    def other(row: Row) -> Row:
        return Row((7, *row.ids), (IGNORED, *row.labels))

    def prompt_too(row: Row) -> Row:
        return Row(row.ids, row.ids)

    for change in (other, prompt_too):
        tampered: Any = _Tampered(template, change)
        with pytest.raises(Refused, match="turn 2 is not trained after the prompt"):
            preflight.check_parity(examples, tampered)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    folder = tmp_path_factory.mktemp("mixture")
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=2048,
        hidden_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_experts=4,
        num_experts_per_tok=2,
    )
    model: Any = Qwen3MoeForCausalLM(config)
    model.save_pretrained(folder)
    return folder


def test_an_adapter_reaches_the_experts_of_a_mixture(
    mixture: Path, make_recipe: MakeRecipe
) -> None:
    recipe = make_recipe(EXPERTS)
    model = weights.load_model(mixture, recipe)
    preflight.check_adapter(model, recipe)
    held = [weight for name, weight in model.named_parameters() if ".experts." in name]
    assert sum(weight.ndim == 3 for weight in held) == 4
    assert sum(weight.requires_grad for weight in held) == 8, "A and B of two weights in two layers"


def test_an_adapter_that_misses_a_layer_or_the_experts_is_refused(
    mixture: Path, base: Path, make_recipe: MakeRecipe
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    recipe = make_recipe(EXPERTS)
    plain: Any = AutoModelForCausalLM.from_pretrained(mixture)
    attention_only = get_peft_model(
        plain, LoraConfig(target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], r=2)
    )
    with pytest.raises(Refused, match=r"does not reach model\.layers\.0\.mlp\.experts\.gate_up"):
        preflight.check_adapter(attention_only, recipe)
    plain = AutoModelForCausalLM.from_pretrained(base)
    few = get_peft_model(plain, LoraConfig(target_modules=["q_proj"], r=2))
    with pytest.raises(Refused, match=r"does not reach .*k_proj.* and 7 more"):
        preflight.check_adapter(few, recipe)
    frozen = weights.load_model(base, recipe)
    for name, weight in frozen.named_parameters():
        if "layers.1.mlp.up_proj.lora_B" in name:
            weight.requires_grad_(False)
    with pytest.raises(Refused, match=r"does not reach model\.layers\.1\.mlp\.up_proj$"):
        preflight.check_adapter(frozen, recipe)


def test_experts_cannot_do_dora_or_dropout(mixture: Path, make_recipe: MakeRecipe) -> None:
    for setting in ("dora = true", "dropout = 0.1"):
        recipe = make_recipe(f'weights = "lora"\nlora = {{r = 2, {setting}}}')
        with pytest.raises(Refused, match="does not work on the experts of a mixture"):
            weights.load_model(mixture, recipe)
        recipe = make_recipe(
            f'weights = "lora"\nlora = {{r = 2, {setting}, targets = ["q_proj", "o_proj"]}}'
        )
        preflight.check_adapter(weights.load_model(mixture, recipe), recipe)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_rows_that_see_each_other_are_refused(
    packing: bool,
    precision: str,
    base: Path,
    template: ChatTemplate,
    rows: sequences.Sequences,
    make_recipe: MakeRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = make_recipe(packing=packing, precision=precision)
    trainer, order = assembled(recipe, base, template, rows, tmp_path / "run")
    preflight.check_apart(trainer, rows, order, precision)
    collate = trainer.data_collator

    def leaking(items: Any) -> dict[str, Any]:
        batch = dict(collate(items))
        if packing:  # positions and boundaries of one long row
            total = batch["input_ids"].shape[1]
            batch |= attention.boundaries([total])
            batch["cu_seq_lens_q"] = torch.tensor([0, total], dtype=torch.int32)
        else:  # every row begins with a token of another
            batch["input_ids"] = batch["input_ids"].roll(1, 0)
        return batch

    monkeypatch.setattr(trainer, "data_collator", leaking)
    with pytest.raises(Refused, match="says other things in a micro-batch than alone"):
        preflight.check_apart(trainer, rows, order, precision)


@pytest.mark.parametrize("top", ["", EXPERTS])
def test_one_batch_is_learnt_and_all_is_put_back(
    top: str,
    base: Path,
    template: ChatTemplate,
    rows: sequences.Sequences,
    make_recipe: MakeRecipe,
    tmp_path: Path,
) -> None:
    recipe = make_recipe(top, learning_rate=1e-5)
    trainer, order = assembled(recipe, base, template, rows, tmp_path / "run")
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    state = torch.get_rng_state()
    assert preflight.check_overfit(trainer, rows, order, 1e-5)
    assert torch.equal(state, torch.get_rng_state())
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(weight.grad is None for weight in trainer.model.parameters())


def test_what_cannot_be_learnt_is_refused(
    base: Path,
    template: ChatTemplate,
    rows: sequences.Sequences,
    make_recipe: MakeRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gradient is cut off from the loss: a constant part stays, whatever the steps."""
    trainer, order = assembled(make_recipe(), base, template, rows, tmp_path / "run")
    compute = trainer.compute_loss

    def cut(*arguments: Any, **more: Any) -> Any:
        loss = compute(*arguments, **more)
        return 7.6 + 0 * loss

    monkeypatch.setattr(trainer, "compute_loss", cut)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(Refused, match=r"one batch of \d+ rows is not learnt: .* from 7.6"):
        preflight.check_overfit(trainer, rows, order, 0.01)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_what_is_not_cheap_is_not_tried(
    base: Path,
    template: ChatTemplate,
    rows: sequences.Sequences,
    make_recipe: MakeRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer, order = assembled(make_recipe(), base, template, rows, tmp_path / "run")
    monkeypatch.setattr(preflight, "CHEAP", {"cpu": 1e6})
    assert not preflight.check_overfit(trainer, rows, order, 0.01)


@pytest.mark.parametrize(
    "top",
    [
        'weights = "lora"\nlora = {r = 2, dropout = 0.1}',
        pytest.param("", marks=pytest.mark.slow),
    ],
)
def test_the_checks_change_no_checkpoint(
    top: str, base: Path, corpus_folder: Path, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    made = []
    for check in (True, False):
        place = tmp_path / str(check)
        recipe = make_recipe(top, steps=4, overfit_check=check)
        done = run(
            recipe,
            base=base,
            corpus=corpus_folder,
            identity={},
            folder=place / "run",
            out=place / "out",
            save_every=0,
        )
        made.append((digest_folder(place / "out"), done.checkpoint))
    assert made[0] == made[1]
