"""GRPO: answers by the engine that serves, judged, learnt from and resumed exactly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from avocado.data.chat import Chat, ChatTemplate
from avocado.data.example import Example
from avocado.data.problem import Problem
from avocado.engine.sampling import Sampling
from avocado.errors import Refused
from avocado.lineage import digest_folder
from avocado.seedling import PATH as SEEDLING
from avocado.train import losses, policy, run, weights
from avocado.train.assembly import Assembly, Work, assemble
from avocado.train.recipe import Recipe
from avocado.train.rollout import Rollout, rollouts
from avocado.train.run_folder import RunFolder

MakeRecipe = Callable[..., Recipe]
Untimed = Callable[[Path], list[dict[str, float]]]

LORA = 'weights = "lora"\nlora = {r = 8}'
DIGITS = '{kind = "regex", pattern = "[0-9]+"}'


def problems(count: int = 12) -> list[Problem]:
    return [
        Problem(
            ({"role": "user", "content": f"{'please ' * (number % 3)}say {number}"},),
            reference=str(number),
            file="rows.jsonl",
            row=number + 1,
        )
        for number in range(count)
    ]


def written(folder: Path, rows: Sequence[Problem]) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(each.to_json()) + "\n" for each in rows]
    (folder / "problems.jsonl").write_text("".join(lines), "utf-8")
    return folder


@pytest.fixture(scope="module")
def problems_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("problems"), problems())


@pytest.fixture
def grpo(make_recipe: MakeRecipe) -> MakeRecipe:
    def make(top: str = "", rewards: str = DIGITS, more: str = "", **training: Any) -> Recipe:
        table = f"grpo = {{rewards = [{rewards}], max_tokens = 6, {more or 'generations = 4'}}}"
        settings = {"batch": 4, "steps": 4, "schedule": "constant", "warmup": 0.0, **training}
        return make_recipe(f'method = "grpo"\n{table}\n{top}', **settings)

    return make


def assembled(
    recipe: Recipe, base: Path, corpus: Path, template: ChatTemplate, place: Path
) -> tuple[Assembly, list[dict[str, float]]]:
    logged: list[dict[str, float]] = []
    run_folder = RunFolder(place)
    run_folder.begin({}, restart=True)
    work = Work(
        recipe, base, corpus, template, run_folder, 0, lambda step, numbers: logged.append(numbers)
    )
    return assemble(work), logged


# What the engine writes is what the trainer scores.


@pytest.mark.parametrize("top", ["", LORA])
def test_the_engine_holds_the_trainers_probabilities(
    top: str, base: Path, template: ChatTemplate, make_recipe: MakeRecipe
) -> None:
    model = weights.load_model(base, make_recipe(top))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    asked = [
        (template.prompt(Chat(each.messages)), Sampling(8, seed=seed, logprobs=True))
        for each in problems(3)
        for seed in range(4)
    ]
    found = rollouts(model, template, asked)
    rows = [
        policy.answered(prompt.ids, each.ids)
        for (prompt, _), each in zip(asked, found, strict=True)
    ]
    assert len({each.ids for each in found}) == len(found), "each seed has its own answer"
    batch = policy.padded(rows, template.pad_id)
    logps = policy.token_logps(model, batch["ids"], batch["labels"])[batch["labels"][:, 1:] >= 0]
    held = torch.tensor([each for row in found for each in row.logprobs])
    torch.testing.assert_close(logps, held, rtol=0, atol=2e-5)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]), "writing answers changes no weight"

    halved = rollouts(model, template, asked, half=True)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])
    rows = [
        policy.answered(prompt.ids, each.ids)
        for (prompt, _), each in zip(asked, halved, strict=True)
    ]
    batch = policy.padded(rows, template.pad_id)
    logps = policy.token_logps(model, batch["ids"], batch["labels"])[batch["labels"][:, 1:] >= 0]
    half = torch.tensor([each for row in halved for each in row.logprobs])
    assert 1e-5 < (logps - half).abs().mean() < 0.05

    model.num_parameters = lambda *_: 10**9  # a large one is run as it is, its adapters beside it
    large = rollouts(model, template, asked)
    assert [each.ids for each in large] == [each.ids for each in found]
    alone = rollouts(model, template, asked[5:6])
    assert alone[0].ids == found[5].ids


def test_an_answer_is_what_the_model_emitted(
    base: Path, template: ChatTemplate, make_recipe: MakeRecipe
) -> None:
    model = weights.load_model(base, make_recipe())
    prompt = template.prompt(Chat(problems(1)[0].messages))
    asked = [
        (prompt, Sampling(40, temperature=2.0, seed=each, logprobs=True)) for each in range(64)
    ]
    found = rollouts(model, template, asked)
    for each in found:
        assert each.finished == (each.ids[-1] in template.stop_ids) == (len(each.ids) < 40)
        assert len(each.logprobs) == len(each.ids)
        assert not set(each.ids[:-1]) & template.stop_ids
        assert each.text.strip("�") in template.decode(each.ids)
    assert any(not each.finished for each in found)


# The loss, in plain numbers.


def test_advantages_are_within_a_group() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.3, 0.3, 0.3, 0.3], [0.0, 0.0, 0.0, 1.0]])
    scaled = losses.advantages(rewards, scaled=True)
    deviation = (1 / 3) ** 0.5
    assert scaled[0].tolist() == pytest.approx(
        [0.5 / (deviation + 1e-4) * s for s in (1, -1, -1, 1)]
    )
    assert scaled[1].tolist() == [0, 0, 0, 0]
    plain = losses.advantages(rewards, scaled=False)
    assert plain[2].tolist() == pytest.approx([-0.25, -0.25, -0.25, 0.75])


def test_the_divergence_is_without_bias() -> None:
    logits, others = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    p, q = logits.log_softmax(0), others.log_softmax(0)
    expected = (p.exp() * losses.divergence(p, q)).sum()
    assert expected == pytest.approx(float((p.exp() * (p - q)).sum()), abs=1e-6)
    assert (losses.divergence(p, q) >= 0).all()


@pytest.mark.parametrize(
    ("loss", "micro", "temperature"),
    [("dapo", 0, 1.2), ("dapo", 3, 1.0), ("grpo", 3, 1.2), ("dr_grpo", 0, 1.0)],
)
def test_a_step_is_the_policy_gradient(
    loss: str,
    micro: int,
    temperature: float,
    base: Path,
    problems_folder: Path,
    template: ChatTemplate,
    grpo: MakeRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """∇ Σ share · (A · π/π_engine · log π + β·KL), answer by answer over whole logits, from what
    was written; the engine is made to tell of another precision than it has."""
    written_down: list[tuple[list[Any], list[Rollout]]] = []

    def watched(model: Any, template: ChatTemplate, asked: Any, **how: Any) -> list[Rollout]:
        found = [
            replace(
                each,
                logprobs=tuple(
                    p - 0.2 + 0.3 * (place % 3) for place, p in enumerate(each.logprobs)
                ),
            )
            for each in rollouts(model, template, asked, **how)
        ]
        written_down.append((asked, found))
        return found

    monkeypatch.setattr("avocado.train.reinforce.rollouts", watched)
    rewards = f'{DIGITS}, {{kind = "function", function = "tests_reward:length"}}'
    (tmp_path / "tests_reward.py").write_text(
        "def length(answer, reference, row):\n    return min(1.0, len(answer) / 20)\n"
    )
    monkeypatch.chdir(tmp_path)
    recipe = grpo(
        rewards=rewards,
        more=f'generations = 4, loss = "{loss}", beta = 0.3, temperature = {temperature}',
        **{"steps": 2, "micro_batch": micro, "learning_rate": 0.003},
    )
    assembly, logged = assembled(recipe, base, problems_folder, template, tmp_path / "run")
    assembly.trainer.train()

    model, reference = weights.load_model(base, recipe), weights.load_model(base, recipe)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003, weight_decay=0.0)
    for number, (asked, found) in enumerate(written_down):
        judged = [
            0.5 * each.text.strip().isascii() * each.text.strip().isdigit()
            + 0.5 * min(1.0, len(each.text.strip()) / 20)
            for each in found
        ]
        assert logged[number]["reward"] == pytest.approx(sum(judged) / len(judged))
        groups = torch.tensor(judged, dtype=torch.float64).view(-1, 4)
        better = groups - groups.mean(dim=1, keepdim=True)
        if loss != "dr_grpo":
            better = better / (groups.std(dim=1, keepdim=True) + 1e-4)
        everything = sum(len(each.ids) for each in found)
        total: Any = 0.0
        for (prompt, _), each, advantage in zip(asked, found, better.flatten(), strict=True):
            ids = torch.tensor([[*prompt.ids, *each.ids]])
            p, q = (
                (policy_model(ids).logits[0, :-1] / temperature)
                .log_softmax(dim=-1)
                .gather(1, ids[0, 1:, None])[len(prompt.ids) - 1 :, 0]
                for policy_model in (model, reference)
            )
            apart = q.detach() - p
            drift = (p.detach() - torch.tensor(each.logprobs)).exp().clamp(max=2)
            drift = drift if temperature == 1 else torch.ones_like(p)
            costs = -float(advantage) * drift * p + 0.3 * (apart.exp() - apart - 1)
            share = {"dapo": everything, "grpo": len(each.ids) * 16, "dr_grpo": 16 * 6}[loss]
            total = total + costs.sum() / share
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.training.clip)
        optimizer.step()
        optimizer.zero_grad()
    for name, value in assembly.model.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-3, atol=3e-4)
    assert logged[1]["kl"] > 0
    assert {"reward_regex", "reward_length"} <= logged[0].keys()


# It learns; it is deterministic; it is resumed; it refuses.


@pytest.fixture(scope="module")
def opinionated(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base with larger embeddings: adapters alone hardly move logits that are all but equal."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("opinionated")
    shutil.copytree(base, folder, dirs_exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"] *= 20
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("top", ["", pytest.param(LORA, marks=pytest.mark.slow)])
def test_a_model_learns_what_is_rewarded(
    top: str,
    opinionated: Path,
    problems_folder: Path,
    template: ChatTemplate,
    grpo: MakeRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From random weights: the more vowels, the better."""
    (tmp_path / "tests_task.py").write_text(
        "def vowels(answer, reference, row):\n"
        "    return sum(each in 'aeiou' for each in answer) / max(1, len(answer))\n"
    )
    monkeypatch.chdir(tmp_path)
    recipe = grpo(
        top,
        rewards='{kind = "function", function = "tests_task:vowels"}',
        more="generations = 8",
        **{"steps": 30, "batch": 8, "learning_rate": 0.02},
    )
    assembly, logged = assembled(recipe, opinionated, problems_folder, template, tmp_path / "run")
    assembly.trainer.train()
    rewards = [each["reward"] for each in logged]
    assert rewards[0] < 0.1
    assert sum(rewards[-3:]) / 3 > 0.4
    assert all(each["engine_gap"] < 1e-4 for each in logged), "always on-policy"
    told = {"reward", "reward_std", "no_signal", "answer_length", "cut_off", "answer_tokens"}
    assert told <= logged[0].keys()
    assert 0 < logged[0]["answer_length"] <= 6
    assert 0 <= logged[0]["cut_off"] <= 1


class Killed(BaseException):
    """Stands for a kill inside one process: nothing of ours catches it."""


def trained(
    recipe: Recipe, base: Path, corpus: Path, place: Path, *, kill_after: int = 0, **more: Any
) -> run.Finished:
    def progress(seen: run.Progress) -> None:
        if seen.step == kill_after:
            raise Killed

    return run.run(
        recipe,
        base=base,
        corpus=corpus,
        identity={"base": "base-1", "corpus": "corpus-1"},
        folder=place / "run",
        out=place / "out",
        save_every=2,
        progress=progress,
        **more,
    )


@pytest.mark.parametrize(
    ("top", "precision", "more"),
    [
        ("", "bf16", ""),
        pytest.param(LORA, "fp32", "generations = 4, beta = 0.1", marks=pytest.mark.slow),
    ],
)
def test_fault_42_killed_and_resumed_ends_with_the_same_weights(
    top: str,
    precision: str,
    more: str,
    base: Path,
    problems_folder: Path,
    grpo: MakeRecipe,
    tmp_path: Path,
    untimed: Untimed,
) -> None:
    rewards = f'{DIGITS}, {{kind = "regex", pattern = "[a-z ]*"}}'
    recipe = grpo(top, rewards, more, precision=precision, micro_batch=3, steps=5)
    whole = trained(recipe, base, problems_folder, tmp_path / "whole")
    place = tmp_path / "killed"
    with pytest.raises(Killed):
        trained(recipe, base, problems_folder, place, kill_after=3)
    resumed = trained(recipe, base, problems_folder, place, start="resume")
    assert resumed.note["resumed_from_step"] == 2
    assert resumed.checkpoint == whole.checkpoint
    assert digest_folder(place / "out") == digest_folder(tmp_path / "whole" / "out")
    metrics = [folder / "run" / "metrics.jsonl" for folder in (place, tmp_path / "whole")]
    assert untimed(metrics[0]) == untimed(metrics[1])
    lines = [json.loads(line) for line in metrics[0].read_text().splitlines()]
    assert whole.checkpoint.trained_tokens == lines[-1]["answer_tokens"] > 0
    assert whole.checkpoint.tokens == lines[-1]["tokens"] > lines[0]["tokens"]


def test_fault_43_a_resume_names_the_reward_that_changed(
    base: Path,
    problems_folder: Path,
    grpo: MakeRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = tmp_path / "tests_drift.py"
    code.write_text("def rule(answer, reference, row):\n    return 1\n")
    monkeypatch.chdir(tmp_path)
    recipe = grpo(rewards='{kind = "function", function = "tests_drift:rule"}')
    with pytest.raises(Killed):
        trained(recipe, base, problems_folder, tmp_path, kill_after=3)
    code.write_text("def rule(answer, reference, row):\n    return 0\n")
    with pytest.raises(Refused, match="the code of tests_drift:rule changed since it began"):
        trained(recipe, base, problems_folder, tmp_path, start="resume")
    code.write_text("def rule(answer, reference, row):\n    return 1\n")
    assert trained(recipe, base, problems_folder, tmp_path, start="resume").checkpoint.steps == 4


def test_a_group_without_signal_teaches_nothing(
    base: Path, problems_folder: Path, template: ChatTemplate, grpo: MakeRecipe, tmp_path: Path
) -> None:
    recipe = grpo(rewards='{kind = "regex", pattern = "never"}', steps=2, micro_batch=3)
    assembly, logged = assembled(recipe, base, problems_folder, template, tmp_path / "run")
    before = {name: weight.clone() for name, weight in assembly.model.state_dict().items()}
    assembly.trainer.train()
    assert all(each["no_signal"] == 1 and each["reward"] == 0 for each in logged)
    for name, weight in assembly.model.state_dict().items():
        assert torch.equal(weight, before[name])


@pytest.mark.parametrize(
    ("top", "rewards", "more", "training", "reason"),
    [
        ('weights = "lora"\nlora = {dropout = 0.1}', DIGITS, "", {}, "set lora.dropout to 0"),
        (
            "",
            DIGITS,
            "",
            {"max_length": 16},
            r"row 1: \d+ tokens and 6 to answer exceed max_length",
        ),
        ("", '{kind = "regex", pattern = "("}', "", {}, "is no regular expression"),
        ("", '{kind = "exact"}', "", {}, "row 13 has no reference, which the reward exact needs"),
    ],
)
def test_what_cannot_be_learnt_is_refused_before_the_first_step(
    top: str,
    rewards: str,
    more: str,
    training: dict[str, Any],
    reason: str,
    base: Path,
    template: ChatTemplate,
    grpo: MakeRecipe,
    tmp_path: Path,
) -> None:
    without = Problem(problems(1)[0].messages, file="rows.jsonl", row=13)
    corpus = written(tmp_path / "corpus", [*problems(), without])
    with pytest.raises(Refused, match=reason):
        assembled(grpo(top, rewards, more, **training), base, corpus, template, tmp_path / "run")


def greedy(model_folder: Path, asked: Sequence[Problem], template: ChatTemplate) -> float:
    """The share of ``asked`` that the model in a folder answers exactly."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    sampling = Sampling(64, temperature=0.0, logprobs=True)
    prompts = [(template.prompt(Chat(each.messages)), sampling) for each in asked]
    found = rollouts(model, template, prompts)
    right = [each.text.strip() == row.reference for each, row in zip(found, asked, strict=True)]
    return sum(right) / len(right)


@pytest.mark.slow
def test_the_seedling_gets_better_at_what_it_half_knows(
    template: ChatTemplate, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """Dates and amounts, half learnt from examples; then the exact answer is rewarded. Three
    minutes of one core took it from 59.5% to 68% of 200 unseen questions."""
    from avocado.demo import task

    torch.set_num_threads(1)
    made = task.items(2400, 7)
    rows = [task.training_row(each) for each in made]
    asked = [
        Problem(tuple(row["messages"][:-1]), reference=each.answer, file="rows.jsonl", row=number)
        for number, (row, each) in enumerate(zip(rows, made, strict=True), 1)
    ]
    taught = [
        Example(tuple(row["messages"]), file="rows.jsonl", row=number)
        for number, row in enumerate(rows[:1200], 1)
    ]
    examples = tmp_path / "examples"
    examples.mkdir()
    lines = [json.dumps(each.to_json()) + "\n" for each in taught]
    (examples / "examples.jsonl").write_text("".join(lines), "utf-8")
    problems = written(tmp_path / "problems", asked[1200:2200])
    half = make_recipe(
        **{"learning_rate": 1.5e-3, "batch": 16, "steps": 120, "precision": "bf16"}, warmup=0.05
    )
    trained(half, SEEDLING, examples, tmp_path / "half")
    recipe = make_recipe(
        'method = "grpo"\ngrpo = {rewards = [{kind = "exact"}], max_tokens = 64}',
        **{"learning_rate": 1e-4, "batch": 16, "micro_batch": 32, "steps": 60},
        schedule="constant",
    )
    trained(recipe, tmp_path / "half" / "out", problems, tmp_path / "better")
    before, after = (
        greedy(tmp_path / name / "out", asked[2200:], template) for name in ("half", "better")
    )
    assert 0.3 < before < after
