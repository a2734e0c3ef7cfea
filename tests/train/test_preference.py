"""DPO and KTO: each loss is its paper's, a run is the plain loop, a kill changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from avocado.data.chat import Chat, ChatTemplate
from avocado.data.preference import Label, Preference
from avocado.errors import Refused
from avocado.lineage import digest_folder
from avocado.train import losses, policy, preference, run, weights
from avocado.train.assembly import Assembly, Work, assemble
from avocado.train.methods import Dpo, Kto
from avocado.train.recipe import Recipe
from avocado.train.run_folder import RunFolder

MakeRecipe = Callable[..., Recipe]
Untimed = Callable[[Path], list[dict[str, float]]]
Turn = dict[str, Any]

IM_END = 2041
LOSSES = ("sigmoid", "hinge", "ipo", "robust", "exo_pair", "apo_zero", "apo_down")


def user(text: str) -> Turn:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> Turn:
    return {"role": "assistant", "content": text, **more}


def pair(number: int) -> Preference:
    """A polite answer is better than a rude one, whatever is asked."""
    asked = user(f"{'well, ' * (number % 4)}say {number}")
    polite, rude = f"Gladly: {number}.", f"No! {'Never. ' * (number % 3)}{number}"
    turns = (asked,) if number % 5 else (user("hello"), assistant("hi"), asked)
    return Preference(turns, assistant(polite), assistant(rude), file="rows.jsonl", row=number + 1)


def label(number: int) -> Label:
    each = pair(number)
    good = number % 3 != 0
    answer = each.chosen if good else each.rejected
    return Label(each.prompt, answer, good, file="rows.jsonl", row=number + 1)


def written(folder: Path, rows: Sequence[Preference | Label]) -> Path:
    name = "preferences.jsonl" if isinstance(rows[0], Preference) else "labels.jsonl"
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(each.to_json()) + "\n" for each in rows]
    (folder / name).write_text("".join(lines), "utf-8")
    return folder


@pytest.fixture(scope="module")
def pairs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("pairs"), [pair(number) for number in range(24)])


@pytest.fixture(scope="module")
def labels_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("labels"), [label(number) for number in range(24)])


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


# The formulas, from the papers, in plain numbers.


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def by_hand(loss: str, c: float, r: float, nc: float, nr: float, b: float, e: float) -> float:
    """One pair's loss: log-ratios ``c``, ``r``, answers' tokens, beta, label smoothing."""
    p = sigma(b * (c - r))
    return {
        "sigmoid": -(1 - e) * math.log(p) - e * math.log(1 - p),
        "hinge": max(0.0, 1 - b * (c - r)),
        "ipo": (c / nc - r / nr - 1 / (2 * b)) ** 2,
        "robust": (-(1 - e) * math.log(p) + e * math.log(1 - p)) / (1 - 2 * e),
        "exo_pair": p * math.log(p / (1 - e)) + (1 - p) * math.log((1 - p) / e) if e else 0.0,
        "apo_zero": 1 - sigma(b * c) + sigma(b * r),
        "apo_down": sigma(b * c) + 1 - sigma(b * (c - r)),
    }[loss]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_is_its_papers(loss: str, smoothing: float) -> None:
    if (loss == "exo_pair") != bool(smoothing) and loss not in ("sigmoid", "robust"):
        with pytest.raises(ValueError, match="label_smoothing"):
            Dpo(loss=loss, label_smoothing=smoothing)  # type: ignore[arg-type]
        return
    settings = Dpo(beta=0.3, loss=loss, label_smoothing=smoothing)  # type: ignore[arg-type]
    rows = [(1.5, -0.5, 4, 7), (-2.0, 1.0, 3, 3), (0.0, 0.0, 1, 9), (12.0, -9.0, 5, 2)]
    c, r, nc, nr = torch.tensor(rows, dtype=torch.float64).T
    found = losses.dpo(settings, c, r, nc, nr)
    wanted = [by_hand(loss, *row, 0.3, smoothing) for row in rows]
    assert found.tolist() == pytest.approx(wanted, abs=1e-9)


def test_ktos_loss_is_its_papers() -> None:
    settings = Kto(beta=0.5, desirable_weight=2.0, undesirable_weight=3.0)
    found = losses.kto(
        settings, torch.tensor([1.0, 1.0, -4.0]), torch.tensor([True, False, False]), 0.25
    )
    wanted = [2 * (1 - sigma(0.375)), 3 * (1 - sigma(-0.375)), 3 * (1 - sigma(2.125))]
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)


# What is learnt from is what serving renders.


def test_prompts_are_servings_and_answers_end_with_the_stop_token(
    template: ChatTemplate, pairs_folder: Path
) -> None:
    rows = [pair(number) for number in range(24)]
    for row, made in zip(rows, preference.render_pairs(rows, template, 128), strict=True):
        prompt = template.prompt(Chat(row.prompt)).ids
        for turn, side in zip((row.chosen, row.rejected), made, strict=True):
            assert tuple(side.ids[: side.start]) == prompt
            assert template.decode(side.ids[side.start :].tolist()).strip() == turn["content"]
            assert side.ids[-1] == IM_END


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            replace(pair(1), rejected=pair(1).chosen),
            "row 2: the chosen and the rejected answer are",
        ),
        (
            replace(pair(1), chosen=assistant("two", reasoning_content="one and one")),
            "row 2: (one answer thinks|turn 2: the chat template leaves out its reasoning)",
        ),
        (replace(pair(1), rejected=assistant("no " * 200)), "row 2: .* tokens where max_length"),
        (replace(pair(1), rejected=assistant("<|im_end|>")), "control token"),
    ],
)
def test_a_pair_that_is_none_is_refused(
    row: Preference, reason: str, template: ChatTemplate
) -> None:
    with pytest.raises(Refused, match=reason):
        preference.render_pairs([row], template, 128)


def test_kto_needs_company(
    base: Path,
    labels_folder: Path,
    template: ChatTemplate,
    make_recipe: MakeRecipe,
    tmp_path: Path,
) -> None:
    with pytest.raises(Refused, match="batch of 2"):
        assembled(
            make_recipe('method = "kto"', batch=1), base, labels_folder, template, tmp_path / "run"
        )


# A run is the plain loop: row by row, whole logits, a reference model beside it.


def log_ratio(model: Any, reference: Any, prompt: Sequence[int], answer: Sequence[int]) -> Any:
    ids = torch.tensor([[*prompt, *answer]])
    sums = []
    for each in (model, reference):
        scores = each(ids).logits[0, :-1].log_softmax(dim=-1)
        sums.append(scores.gather(1, ids[0, 1:, None])[len(prompt) - 1 :].sum())
    return sums[0] - sums[1].detach()


def split(side: policy.Answered) -> tuple[list[int], list[int]]:
    ids = side.ids.tolist()
    return ids[: side.start], ids[side.start :]


def plain_loop(
    recipe: Recipe, base: Path, cost: Callable[[Any, Any, Sequence[int]], Any], lengths: list[int]
) -> tuple[list[float], dict[str, torch.Tensor]]:
    model, reference = weights.load_model(base, recipe), weights.load_model(base, recipe)
    training = recipe.training
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    told = []
    for step in policy.passes(lengths, training):
        loss = cost(model, reference, step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        optimizer.step()
        optimizer.zero_grad()
        told.append(loss.item())
    return told, model.state_dict()


def check_equal(assembly: Assembly, logged: list[dict[str, float]], wanted: Any) -> None:
    told, state = wanted
    assembly.trainer.train()
    assert [each["loss"] for each in logged] == pytest.approx(told, rel=1e-4, abs=2e-5)
    for name, value in assembly.model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=1e-3, atol=2e-4)


MORE_DPO = (("sigmoid", 1), ("sigmoid", 3), ("apo_down", 2))


@pytest.mark.parametrize(
    ("loss", "micro"),
    [
        ("sigmoid", 0),
        ("ipo", 3),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in MORE_DPO),
    ],
)
def test_dpo_is_the_plain_loop(
    loss: str,
    micro: int,
    base: Path,
    pairs_folder: Path,
    template: ChatTemplate,
    make_recipe: MakeRecipe,
    tmp_path: Path,
) -> None:
    recipe = make_recipe(
        f'method = "dpo"\ndpo = {{loss = "{loss}", beta = 0.2}}',
        **{"batch": 7, "micro_batch": micro, "steps": 4, "schedule": "constant", "warmup": 0.0},
        learning_rate=0.001,
    )
    pairs = preference.render_pairs([pair(each) for each in range(24)], template, 128)

    def cost(model: Any, reference: Any, step: Sequence[int]) -> Any:
        rows = []
        for c, r in (pairs[row] for row in step):
            ratios = [log_ratio(model, reference, *split(side)) for side in (c, r)]
            counts = [float(side.answer) for side in (c, r)]
            h = 0.2 * (ratios[0] - ratios[1])
            rows.append(
                {
                    "sigmoid": -torch.sigmoid(h).log(),
                    "ipo": (ratios[0] / counts[0] - ratios[1] / counts[1] - 2.5) ** 2,
                    "apo_down": torch.sigmoid(0.2 * ratios[0]) + 1 - torch.sigmoid(h),
                }[loss]
            )
        return torch.stack(rows).mean()

    lengths = [len(c) + len(r) for c, r in pairs]
    check_equal(
        *assembled(recipe, base, pairs_folder, template, tmp_path / "run"),
        plain_loop(recipe, base, cost, lengths),
    )


@pytest.mark.parametrize("micro", [0, 3])
def test_kto_is_the_plain_loop_whatever_the_micro_batch(
    micro: int,
    base: Path,
    labels_folder: Path,
    template: ChatTemplate,
    make_recipe: MakeRecipe,
    tmp_path: Path,
) -> None:
    recipe = make_recipe(
        'method = "kto"\nkto = {beta = 0.2, desirable_weight = 0.7}',
        **{"batch": 8, "micro_batch": micro, "steps": 4, "schedule": "constant", "warmup": 0.0},
        learning_rate=0.001,
    )
    answers, good = preference.render_labels([label(each) for each in range(24)], template, 128)
    baselines = []

    def cost(model: Any, reference: Any, step: Sequence[int]) -> Any:
        with torch.no_grad():
            others = [step[-1], *step[:-1]]
            apart = [
                log_ratio(model, reference, split(answers[row])[0], split(answers[other])[1])
                for row, other in zip(step, others, strict=True)
            ]
            baselines.append(max(0.0, float(torch.stack(apart).mean())))
        rows = []
        for row in step:
            away = 0.2 * (log_ratio(model, reference, *split(answers[row])) - baselines[-1])
            rows.append(0.7 * (1 - torch.sigmoid(away)) if good[row] else torch.sigmoid(away))
        return torch.stack(rows).mean()

    assembly, logged = assembled(recipe, base, labels_folder, template, tmp_path / "run")
    check_equal(assembly, logged, plain_loop(recipe, base, cost, [len(each) for each in answers]))
    assert [each["kl"] for each in logged] == pytest.approx(baselines, rel=1e-3, abs=1e-4)


# TRL, on the same tokens, says the same.


@pytest.mark.parametrize("loss", LOSSES)
def test_trl_computes_the_same_loss(
    loss: str,
    base: Path,
    pairs_folder: Path,
    template: ChatTemplate,
    make_recipe: MakeRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    smoothing = 0.1 if loss in ("robust", "exo_pair") else 0.0
    pairs = preference.render_pairs([pair(each) for each in range(6)], template, 128)
    model, reference = (weights.load_model(base, make_recipe()) for _ in range(2))
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(3)
    monkeypatch.setattr(DPOTrainer, "_prepare_dataset", lambda self, rows, *rest: rows)
    monkeypatch.setattr(DPOTrainer, "_send_telemetry", lambda self: None, raising=False)
    rows = [
        {"prompt_ids": split(c)[0], "chosen_ids": split(c)[1], "rejected_ids": split(r)[1]}
        for c, r in pairs
    ]
    theirs = DPOTrainer(
        model,
        reference,
        DPOConfig(
            output_dir=str(tmp_path),
            loss_type=[loss],
            beta=0.2,
            label_smoothing=smoothing,
            max_length=None,
            use_cpu=True,
            bf16=False,
            report_to="none",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=template.tokenizer,
    )
    with torch.no_grad():
        wanted = float(theirs._compute_loss(model, theirs.data_collator(rows), False))

    fresh, before = (weights.load_model(base, make_recipe()) for _ in range(2))
    fresh.load_state_dict(model.state_dict())
    flat = [side for each in pairs for side in each]
    now, then = (
        policy.Scoring(each, 2039, False).answers(flat, reference=True, micro=5)
        for each in (fresh, before)
    )
    ratios = (now - then).view(-1, 2).T
    counts = torch.tensor([float(side.answer) for side in flat]).view(-1, 2).T
    settings = Dpo(beta=0.2, loss=loss, label_smoothing=smoothing)  # type: ignore[arg-type]
    found = losses.dpo(settings, ratios[0], ratios[1], counts[0], counts[1])
    assert ratios.abs().max() > 0.01, "the two models differ, or this would prove nothing"
    assert float(found.mean()) == pytest.approx(wanted, rel=1e-4)


# It learns, it is resumed, it is cut in parts.


@pytest.mark.parametrize("top", ["", 'weights = "lora"\nlora = {r = 8}'])
@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_what_is_preferred_becomes_likelier_on_prompts_never_seen(
    method: str,
    top: str,
    base: Path,
    pairs_folder: Path,
    labels_folder: Path,
    template: ChatTemplate,
    make_recipe: MakeRecipe,
    tmp_path: Path,
) -> None:
    rate = 0.01 if top else 0.003
    recipe = make_recipe(f'method = "{method}"\n{top}', steps=20, learning_rate=rate)
    folder = pairs_folder if method == "dpo" else labels_folder
    assembly, logged = assembled(recipe, base, folder, template, tmp_path / "run")
    unseen = preference.render_pairs([pair(each) for each in range(100, 116)], template, 128)
    flat = [side for each in unseen for side in each]
    scoring = policy.Scoring(assembly.model, template.pad_id, False)
    before = scoring.answers(flat, reference=False, micro=8)
    assembly.trainer.train()
    moved = (scoring.answers(flat, reference=False, micro=8) - before).view(-1, 2)
    margins = moved[:, 0] - moved[:, 1]
    assert (margins > 1).all()
    assert logged[-1]["loss"] < 0.9 * logged[0]["loss"]
    seen = [each["margin"] for each in logged if "margin" in each]
    assert seen[0] == pytest.approx(0, abs=1e-4)
    assert seen[-1] > 0.3
    if top:
        torch.testing.assert_close(
            scoring.answers(flat, reference=True, micro=8), before, rtol=0, atol=1e-3
        )


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
        save_every=3,
        progress=progress,
        **more,
    )


LORA = 'weights = "lora"\nlora = {r = 4, dropout = 0.1}'


@pytest.mark.parametrize(
    ("method", "top", "precision"),
    [
        ("dpo", "", "bf16"),
        pytest.param("dpo", LORA, "fp32", marks=pytest.mark.slow),
        pytest.param("kto", "", "fp32", marks=pytest.mark.slow),
        pytest.param("kto", LORA, "bf16", marks=pytest.mark.slow),
    ],
)
def test_fault_42_killed_and_resumed_ends_with_the_same_weights(
    method: str,
    top: str,
    precision: str,
    base: Path,
    pairs_folder: Path,
    labels_folder: Path,
    make_recipe: MakeRecipe,
    tmp_path: Path,
    untimed: Untimed,
) -> None:
    recipe = make_recipe(
        f'method = "{method}"\n{top}', steps=7, batch=5, micro_batch=2, precision=precision
    )
    corpus = pairs_folder if method == "dpo" else labels_folder
    whole = trained(recipe, base, corpus, tmp_path / "whole")
    for kill_after in (4, 7):
        place = tmp_path / f"killed-{kill_after}"
        with pytest.raises(Killed):
            trained(recipe, base, corpus, place, kill_after=kill_after)
        resumed = trained(recipe, base, corpus, place, start="resume")
        assert resumed.note["resumed_from_step"] == (3 if kill_after == 4 else 6)
        assert resumed.checkpoint == whole.checkpoint
        assert digest_folder(place / "out") == digest_folder(tmp_path / "whole" / "out")
        metrics = [folder / "run" / "metrics.jsonl" for folder in (place, tmp_path / "whole")]
        assert untimed(metrics[0]) == untimed(metrics[1])
    assert whole.checkpoint.method == method
    assert 0 < whole.checkpoint.trained_tokens < whole.checkpoint.tokens


@pytest.mark.parametrize("top", ["", LORA.replace(", dropout = 0.1", "")])
def test_gradient_checkpointing_changes_nothing(
    top: str,
    base: Path,
    pairs_folder: Path,
    template: ChatTemplate,
    make_recipe: MakeRecipe,
    tmp_path: Path,
) -> None:
    told = []
    for checkpointed in (False, True):
        recipe = make_recipe(f'method = "dpo"\n{top}', steps=3, gradient_checkpointing=checkpointed)
        assembly, logged = assembled(recipe, base, pairs_folder, template, tmp_path / "run")
        assembly.trainer.train()
        assert assembly.model.is_gradient_checkpointing == checkpointed
        told.append([(each["loss"], each["grad_norm"]) for each in logged])
    assert told[0] == told[1]


def test_scoring_in_parts_with_checkpointing_is_the_same(
    base: Path, template: ChatTemplate, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = weights.load_model(base, make_recipe())
    sides = [
        side
        for each in range(6)
        for side in preference.render_pairs([pair(each)], template, 128)[0]
    ]
    batch = policy.padded(sides, template.pad_id)
    gradients = []
    for scored in (policy.SCORED, 10):
        monkeypatch.setattr(policy, "SCORED", scored)
        model.zero_grad()
        logps = policy.token_logps(model, batch["ids"], batch["labels"], temperature=0.7)
        torch.autograd.backward(logps.square().sum())
        gradients.append([weight.grad.clone() for weight in model.parameters()])
    whole = (model(batch["ids"]).logits[:, :-1] / 0.7).log_softmax(dim=-1)
    wanted = whole.gather(2, batch["ids"][:, 1:, None])[..., 0]
    wanted = wanted.masked_fill(batch["labels"][:, 1:] < 0, 0.0)
    torch.testing.assert_close(logps, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-4)
