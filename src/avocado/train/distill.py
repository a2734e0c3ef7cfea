"""Distill: the student writes, a larger model with its tokenizer says how likely each token was.

On-policy: the embedded engine writes the student's answers with its weights as they are, and both
models' full probabilities are compared at every token of them (Agarwal et al. 2024, "generalized
knowledge distillation", arXiv:2306.13649). Answers of teachers over HTTP are ``gathering``'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from avocado.data import corpus as corpora
from avocado.data.chat import IGNORED, ChatTemplate
from avocado.data.problem import Problem
from avocado.engine.sampling import Sampling
from avocado.errors import Refused
from avocado.train import policy, weights
from avocado.train.assembly import Assembly, Work
from avocado.train.losses import between
from avocado.train.methods import Distillation
from avocado.train.policy import Batch, PolicyTrainer
from avocado.train.recipe import Training
from avocado.train.reinforce import Asked, render
from avocado.train.rollout import rollouts, seeded

SCORED = 1024
"""Positions whose two distributions are in memory at once."""


def assemble(work: Work) -> Assembly:
    """On-policy distillation from the recipe's ``model``.

    Raises:
        Refused: the teacher splits text into other tokens than the student; a
            prompt cannot be rendered or leaves no room for an answer.
    """
    recipe, training = work.recipe, work.recipe.training
    settings = recipe.distillation
    assert settings is not None
    if recipe.adapter and recipe.adapter.dropout:
        raise Refused("distillation learns from answers written without dropout: set it to 0")
    assert work.teacher is not None
    rows = check_tokenizers(work.base, work.teacher)
    asked = render(
        corpora.read(work.corpus, Problem),
        work.template,
        settings.max_tokens,
        training.max_length,
    )
    student = policy.load(work, max(len(prompt.ids) for _, prompt in asked) + settings.max_tokens)
    teacher = weights.load_teacher(work.teacher, student.device, training.precision)
    before = {line["step"]: line for line in work.run_folder.metrics()}
    objective = _Distillation(
        asked,
        settings,
        training,
        student,
        work.template,
        {step: (line["tokens"], line["answer_tokens"]) for step, line in before.items()},
    )
    trainer = policy.trainer(work, student, objective, DistillationTrainer)
    assert isinstance(trainer, DistillationTrainer)
    trainer.learn_from(teacher, rows, settings.beta)
    return Assembly(
        trainer,
        objective.steps,
        lambda step: objective.passed[step][0],
        lambda: objective.passed[objective.steps][1],
    )


def check_tokenizers(student: Path, teacher: Path) -> int:
    """How many rows of the two vocabularies mean something, where both tokenizers are the same.

    A model's table may have more rows than its tokenizer has tokens, and Qwen's sizes differ in how
    many; those rows mean nothing and are left out of the comparison.

    Raises:
        Refused: a text would become other tokens in one than in the other; what differs is named.
    """
    ours, theirs = (_tokenizer(folder) for folder in (student, teacher))
    for part in ("model", "normalizer", "pre_tokenizer", "added_tokens"):
        if ours.get(part) != theirs.get(part):
            raise Refused(
                f"the teacher's tokenizer differs from the student's in its {part}: probabilities "
                "can be compared only between models with one tokenizer. Let it answer as one of "
                "[[distillation.teachers]] instead"
            )
    ids = [*ours["model"]["vocab"].values(), *(each["id"] for each in ours["added_tokens"])]
    return int(max(ids)) + 1


def _tokenizer(folder: Path) -> Mapping[str, Any]:
    path = folder / "tokenizer.json"
    try:
        found: Mapping[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read: distillation compares tokenizers by it") from error
    return found


class _Distillation:
    """One answer to each prompt of a step, and one update from all of them."""

    def __init__(
        self,
        asked: Sequence[Asked],
        settings: Distillation,
        training: Training,
        model: Any,
        template: ChatTemplate,
        passed: Mapping[int, tuple[int, int]],
    ) -> None:
        """``passed`` holds what an interrupted run had logged: tokens and answers' tokens."""
        self._asked, self._settings, self._training = asked, settings, training
        self._model, self._template = model, template
        self.temperature = settings.temperature
        self._order = policy.passes([len(prompt.ids) for _, prompt in asked], training)
        self.steps = len(self._order)
        self._micro = training.micro_batch or training.batch
        self.per_step = -(-training.batch // self._micro)
        self.passed = {0: (0, 0), **passed}
        """By step, from the beginning: tokens of the rows that passed, and those with loss."""
        self._said: dict[str, float] = {}

    def begin(self, step: int) -> list[Batch]:
        prompts = [self._asked[row][1] for row in self._order[step]]
        found = rollouts(
            self._model,
            self._template,
            [(prompt, self._sampling(step, place)) for place, prompt in enumerate(prompts)],
        )
        rows = [
            policy.answered(prompt.ids, each.ids)
            for prompt, each in zip(prompts, found, strict=True)
        ]
        rows.sort(key=lambda row: -len(row))
        answers = sum(row.answer for row in rows)
        tokens, before = self.passed[step]
        self.passed[step + 1] = (tokens + sum(map(len, rows)), before + answers)
        self._said = {
            "answer_length": answers / len(rows),
            "cut_off": sum(not each.finished for each in found) / len(found),
        }
        return [
            {**policy.padded(part, self._template.pad_id), "answers": answers}
            for part in policy.cut(rows, self._micro)
        ]

    def _sampling(self, step: int, place: int) -> Sampling:
        how = self._settings
        return seeded(self._training.seed, step, place, how.max_tokens, how.temperature)

    def loss(self, logps: Tensor, batch: Batch) -> Tensor:
        """``logps``: the divergence at each token of this micro-batch's answers."""
        loss: Tensor = logps.sum() / batch["answers"]
        return loss

    def metrics(self) -> dict[str, float]:
        """The answers' mean tokens, the share that was cut off, and all answers' tokens so far."""
        return {**self._said, "answer_tokens": max(each for _, each in self.passed.values())}


class DistillationTrainer(PolicyTrainer):
    """Compares whole distributions, where other methods compare single tokens."""

    def learn_from(self, teacher: Any, rows: int, beta: float) -> None:
        """``teacher`` is frozen; ``rows`` of both vocabularies count; ``beta`` as ``between``."""
        self._teacher, self._rows, self._beta = teacher, rows, beta

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        student = self.accelerator.unwrap_model(model)
        labelled = inputs["labels"][:, 1:] != IGNORED
        with self.accelerator.autocast():
            states, head = policy.answer_states(student, inputs["ids"], labelled)
            with torch.no_grad():
                wanted, teaching = policy.answer_states(self._teacher, inputs["ids"], labelled)

            def apart(ours: Tensor, theirs: Tensor) -> Tensor:
                with torch.no_grad():
                    goal = self._distribution(teaching(theirs))
                return between(self._distribution(head(ours)), goal, self._beta)

            found = [
                checkpoint(apart, *part, use_reentrant=False)
                for part in zip(
                    torch.split(states, SCORED), torch.split(wanted, SCORED), strict=True
                )
            ]
        return self._objective.loss(torch.cat(found), inputs)

    def _distribution(self, logits: Tensor) -> Tensor:
        """Log-probabilities of the tokens that mean something."""
        whole = logits[:, : self._rows].float() / self._objective.temperature
        return whole.log_softmax(dim=-1)
