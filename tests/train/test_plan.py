"""Plans: the numbers are those of the run that follows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from avocado.data import corpus
from avocado.data.chat import Chat, ChatTemplate
from avocado.data.preference import Label, Preference
from avocado.data.problem import Problem
from avocado.errors import Refused
from avocado.terms.money import Money
from avocado.train import budget, load, policy, sequences, sft, weights
from avocado.train.plan import Plan, Total, plan
from avocado.train.recipe import Budget, Compute, Recipe
from avocado.train.run import run
from avocado.train.run_folder import RunFolder

MakeRecipe = Callable[..., Recipe]
LORA = 'weights = "lora"\nlora = {r = 4}'


def kept(folder: Path, name: str, rows: Sequence[Preference | Label | Problem]) -> Path:
    folder.mkdir()
    (folder / name).write_text("".join(json.dumps(row.to_json()) + "\n" for row in rows), "utf-8")
    return folder


def prompt(number: int) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": f"{'please ' * (number % 4)}double {number}"},)


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    rows = [Problem(prompt(n), file="rows.jsonl", row=n + 1) for n in range(9)]
    return kept(tmp_path / "problems", "problems.jsonl", rows)


def lengths(template: ChatTemplate, problems: Path) -> list[int]:
    """Tokens of each prompt."""
    return [
        len(template.prompt(Chat(each.messages)).ids) for each in corpus.read(problems, Problem)
    ]


@pytest.mark.parametrize("top", ["", LORA])
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


@pytest.mark.parametrize("method", ["dpo", "kto"])
@pytest.mark.parametrize("top", ["", LORA])
def test_preferences_are_planned_with_their_reference_passes(
    method: str,
    top: str,
    base: Path,
    make_recipe: MakeRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if method == "dpo":
        pairs = [
            Preference(prompt(n), said(f"{2 * n}"), said(f"no, {n}"), file="a", row=n)
            for n in range(9)
        ]
        folder = kept(tmp_path / "rows", "preferences.jsonl", pairs)
    else:
        labels = [Label(prompt(n), said(f"{2 * n}"), n % 2 == 0, file="a", row=n) for n in range(9)]
        folder = kept(tmp_path / "rows", "labels.jsonl", labels)
    recipe = make_recipe(f'method = "{method}"\n{top}', batch=4, micro_batch=2, steps=3)
    planned = plan(recipe, base=base, corpus=folder)

    scored: list[int] = []
    answers = policy.Scoring.answers

    def counted(self: Any, rows: Any, **more: Any) -> Any:
        scored.append(sum(map(len, rows)))
        return answers(self, rows, **more)

    monkeypatch.setattr(policy.Scoring, "answers", counted)
    done = run(
        recipe,
        base=base,
        corpus=folder,
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
    assert planned.load.forward == sum(scored) > 0
    assert planned.flops == done.flops + 2 * planned.multiplying * sum(scored)
    assert "pass forward only" in planned.formula
    assert not planned.load.bound


def test_rollouts_are_bounded_and_the_plan_says_so(
    base: Path, problems: Path, template: ChatTemplate, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    table = "grpo = {rewards = [{kind = 'regex', pattern = '[0-9]+'}], generations = 3"
    recipe = make_recipe(f'method = "grpo"\n{table}, max_tokens = 5}}', batch=4, steps=9)
    planned = plan(recipe, base=base, corpus=problems)
    # Nine steps of four prompts are four times all nine.
    most = 3 * (4 * sum(lengths(template, problems)) + 36 * 5)
    assert planned.tokens == planned.load.forward == most
    assert planned.flops == (6 + 2) * planned.multiplying * most
    assert any(line.startswith(f"tokens: at most {most:,}") for line in planned.lines())
    held = plan(
        make_recipe(f'method = "grpo"\n{table}, max_tokens = 5, beta = 0.1}}', batch=4, steps=9),
        base=base,
        corpus=problems,
    )
    assert held.load.forward == 2 * most
    assert held.memory.weights == 2 * planned.memory.weights

    done = run(
        recipe,
        base=base,
        corpus=problems,
        identity={},
        folder=tmp_path / "run",
        out=tmp_path / "out",
        save_every=0,
    ).checkpoint
    metrics = list(RunFolder(tmp_path / "run").metrics())
    taken = budget.actual(planned, done.tokens, metrics, 0, None)
    written = 12 * sum(line["answer_length"] for line in metrics)
    prompts = 12 * sum(lengths(template, problems))
    assert taken.flops == planned.flops_of(done.tokens, round(prompts + written), 0)
    assert taken.flops <= planned.flops


def test_a_probe_of_rollouts_grows_to_answers_of_full_length(
    base: Path, problems: Path, make_recipe: MakeRecipe
) -> None:
    table = "grpo = {rewards = [{kind = 'regex', pattern = '[0-9]+'}], generations = 2"
    recipe = make_recipe(f'method = "grpo"\n{table}, max_tokens = 50}}', batch=2, steps=40)
    planned = plan(recipe, base=base, corpus=problems, probe_steps=4)
    assert planned.seconds is not None
    assert 0 < planned.seconds[0] <= planned.seconds[1]
    assert "a step, answers of" in planned.basis


def test_a_local_teachers_passes_are_counted(
    base: Path, problems: Path, template: ChatTemplate, make_recipe: MakeRecipe
) -> None:
    table = 'distillation = {model = "teacher", max_tokens = 6}'
    recipe = make_recipe(f'method = "distillation"\n{table}', batch=3, steps=3)
    planned = plan(recipe, base=base, corpus=problems, teacher=base, probe_steps=1)
    assert planned.seconds is not None, "its answers are timed as those of rewards are"
    most = sum(lengths(template, problems)) + 9 * 6
    assert planned.load.teacher == planned.tokens == most
    everything = planned.parameters
    assert planned.flops == (6 + 2) * planned.multiplying * most + 2 * everything * most
    assert planned.load.bound


def test_teachers_requests_are_counted_and_their_cost_is_bounded(
    base: Path, problems: Path, template: ChatTemplate, make_recipe: MakeRecipe
) -> None:
    recipe = make_recipe(
        'method = "distillation"\n'
        "[distillation]\n"
        "judge = {model = 'j', url = 'http://127.0.0.1:1/v1'}\n"
        "teachers = [{model = 'a', url = 'http://127.0.0.1:1/v1', license = 'MIT', samples = 3,"
        " price_input = '2', price_output = '10', max_tokens = 100},"
        " {model = 'b', url = 'http://127.0.0.1:1/v1', license = 'MIT', max_tokens = 40}]\n"
    )
    planned = plan(recipe, base=base, corpus=problems, probe_steps=5)
    teaching = planned.load.teaching
    assert teaching is not None
    prompts = sum(lengths(template, problems))
    assert (teaching.requests, teaching.grades) == (9 * 4, 9 * 4)
    assert teaching.prompt_tokens == 4 * prompts
    assert teaching.completion_tokens == 9 * (300 + 40)
    # Dollars a million tokens are thousands of nano-dollars a token.
    low, high = 3 * prompts * 2_000, 3 * prompts * 2_000 + 9 * 300 * 10_000
    assert [money.nanos for money in teaching.cost] == [low, high]
    assert planned.spent == teaching.cost
    assert any("36 requests, and 36 of the judge" in line for line in planned.lines())
    assert planned.seconds is None, "nothing can be probed before the teachers have answered"


def test_stages_add_up(base: Path, corpus_folder: Path, make_recipe: MakeRecipe) -> None:
    plans = tuple(
        plan(each, base=base, corpus=corpus_folder, tokens_per_second=100.0)
        for each in (make_recipe(steps=4), make_recipe(LORA, steps=2))
    )
    total = Total(plans)
    assert total.seconds is not None
    assert total.seconds[1] == pytest.approx(sum(each.tokens for each in plans) / 90)
    assert total.to_json()["total"]["flops"] == plans[0].flops + plans[1].flops
    assert total.to_json()["total"]["tokens"] == plans[0].tokens + plans[1].tokens
    assert [line for line in total.lines() if line.startswith("all stages: 6 steps")]


def test_a_budget_is_held_against_the_high_end(
    base: Path, corpus_folder: Path, make_recipe: MakeRecipe
) -> None:
    planned = plan(
        make_recipe(),
        base=base,
        corpus=corpus_folder,
        tokens_per_second=0.01,
        price_per_hour=Money.parse("36"),
    )
    assert planned.seconds is not None
    assert planned.cost is not None
    hours = planned.seconds[1] / 3600
    total = Total((planned,))
    assert not budget.excess(total, Budget(hours=1.001 * hours))
    (late,) = budget.excess(total, Budget(hours=hours - 2))
    assert "which is 2 h 0 min over the budget" in late
    dear = budget.excess(total, Budget(cost="1", price_per_hour="36"))
    assert dear == [
        f"this may cost {planned.cost[1]}, which is {planned.cost[1] - Money.parse('1')} over the "
        "budget of 1.00 USD"
    ]
    assert not budget.excess(total, Budget(cost="1000000", price_per_hour="36"))
    unknown = plan(make_recipe(), base=base, corpus=corpus_folder)
    (reason,) = budget.excess(Total((unknown,)), Budget(hours=1.0))
    assert "cannot be held" in reason


def test_devices_that_were_not_measured_are_believed_within_bounds(
    base: Path, corpus_folder: Path, make_recipe: MakeRecipe
) -> None:
    alone = make_recipe(steps=30)
    eight = msgspec.structs.replace(alone, compute=Compute(nodes=2, gpus=4))
    planned = plan(
        eight, base=base, corpus=corpus_folder, probe_steps=3, price_per_hour=Money.parse("1")
    )
    assert planned.devices == 8
    assert planned.tokens == plan(alone, base=base, corpus=corpus_folder).tokens
    assert "8 devices believed" in planned.basis
    assert planned.cost is not None
    assert planned.seconds is not None
    assert planned.cost[0].nanos == pytest.approx(2 * planned.seconds[0] / 3600 * 1e9, abs=2e6)


def test_a_batch_too_small_for_its_devices_is_refused_by_the_plan(
    base: Path, corpus_folder: Path, make_recipe: MakeRecipe
) -> None:
    recipe = msgspec.structs.replace(make_recipe(batch=3), compute=Compute(gpus=8))
    with pytest.raises(Refused, match="a step of batch = 3 cannot be shared by 8"):
        load.load_of(recipe, base, corpus_folder, ChatTemplate.load(base), 8)
