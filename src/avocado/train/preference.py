"""Preference: DPO on pairs and KTO on labelled answers, from the very prompts that serving renders.

The reference is the base. Its log-probabilities are computed once, before the first step, so that
no second model stays in memory. Knows nothing of files of rows or of ids of artifacts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

import numpy as np
import torch

from avocado.data import corpus as corpora
from avocado.data.chat import ChatTemplate
from avocado.data.preference import Label, Preference
from avocado.errors import Refused
from avocado.train import policy
from avocado.train.assembly import Assembly, Work
from avocado.train.losses import dpo, kto
from avocado.train.methods import Dpo, Kto
from avocado.train.policy import Answered, Batch, Scoring
from avocado.train.recipe import Training

Pair = tuple[Answered, Answered]
"""The better answer to a prompt, and the worse one."""


def assemble(work: Work) -> Assembly:
    """DPO or KTO, as the recipe says.

    Raises:
        Refused: a row cannot be rendered right or is too long, two answers to a prompt do not make
            a pair, or a batch is too small for KTO's baseline.
    """
    recipe, training, template = work.recipe, work.recipe.training, work.template
    longest = training.max_length
    objective: _Pairs | _Labels
    if recipe.method == "dpo":
        pairs = render_pairs(corpora.read(work.corpus, Preference), template, longest)
        scoring = _scoring(work, [side for each in pairs for side in each])
        objective = _Pairs(pairs, recipe.dpo or Dpo(), training, scoring)
    else:
        if training.batch < 2:
            raise Refused("kto needs a batch of 2 or more: its baseline mismatches the answers")
        answers, desirable = render_labels(corpora.read(work.corpus, Label), template, longest)
        scoring = _scoring(work, answers)
        objective = _Labels(answers, desirable, recipe.kto or Kto(), training, scoring)
    trainer = policy.trainer(work, scoring.model, objective)
    tokens = list(
        accumulate(sum(objective.lengths[row] for row in step) for step in objective.order)
    )
    trained = sum(objective.answers[row] for step in objective.order for row in step)
    return Assembly(
        trainer, objective.steps, lambda step: tokens[step - 1], lambda: trained, tokens[-1]
    )


def render_pairs(rows: Iterable[Preference], template: ChatTemplate, max_length: int) -> list[Pair]:
    """The pairs of ``rows``, in order.

    Raises:
        Refused: a row cannot be rendered right or is too long, its two answers are the same or
            follow different prompts (one of them thinks), or there is none.
    """
    pairs: list[Pair] = []
    for row in rows:
        chosen, rejected = (
            policy.rendered(row, row.prompt, turn, row.tools, template, max_length)
            for turn in (row.chosen, row.rejected)
        )
        where = f"{row.file}, row {row.row}"
        start = chosen.start
        if rejected.start != start or (chosen.ids[:start] != rejected.ids[:start]).any():
            raise Refused(
                f"{where}: one answer thinks and the other does not, so serving would ask for "
                "them by different prompts"
            )
        if chosen.ids.tolist() == rejected.ids.tolist():
            raise Refused(f"{where}: the chosen and the rejected answer are the same")
        pairs.append((chosen, rejected))
    if not pairs:
        raise Refused("the corpus holds no pair, so there is nothing to train on")
    return pairs


def render_labels(
    rows: Iterable[Label], template: ChatTemplate, max_length: int
) -> tuple[list[Answered], list[bool]]:
    """The answers of ``rows`` and whether each is desirable, in order.

    Raises:
        Refused: a row cannot be rendered right or is too long, or there is none.
    """
    answers: list[Answered] = []
    desirable: list[bool] = []
    for row in rows:
        answers.append(
            policy.rendered(row, row.prompt, row.answer, row.tools, template, max_length)
        )
        desirable.append(row.desirable)
    if not answers:
        raise Refused("the corpus holds no labelled answer, so there is nothing to train on")
    return answers, desirable


def _scoring(work: Work, rows: Sequence[Answered]) -> Scoring:
    bf16 = work.recipe.training.precision == "bf16"
    return Scoring(policy.load(work, max(map(len, rows))), work.template.pad_id, bf16)


class _Pairs:
    """DPO. A step's loss is the mean over its pairs, however they are cut into micro-batches."""

    temperature = 1.0

    def __init__(
        self, pairs: Sequence[Pair], settings: Dpo, training: Training, scoring: Scoring
    ) -> None:
        self._pairs, self._settings, self._training = pairs, settings, training
        self._pad_id = scoring.pad_id
        self.lengths = [len(chosen) + len(rejected) for chosen, rejected in pairs]
        self.answers = [chosen.answer + rejected.answer for chosen, rejected in pairs]
        self.order = policy.passes(self.lengths, training)
        self.steps = len(self.order)
        self.per_step = len(policy.cut(self.order[0], training.micro_batch))
        self._reference = self._referenced(scoring)
        self._said: list[torch.Tensor] = []

    def _referenced(self, scoring: Scoring) -> torch.Tensor:
        """The base's log-probabilities, ``[pairs, 2]``; of pairs that no step uses, zeros."""
        used = sorted({row for step in self.order for row in step})
        flat = [each for row in used for each in self._pairs[row]]
        micro = 2 * (self._training.micro_batch or self._training.batch)
        found = torch.zeros(len(self._pairs), 2)
        found[used] = scoring.answers(flat, reference=True, micro=micro).view(-1, 2)
        return found

    def begin(self, step: int) -> list[Batch]:
        self._said = []
        return [
            self._batch(rows) for rows in policy.cut(self.order[step], self._training.micro_batch)
        ]

    def _batch(self, rows: Sequence[int]) -> Batch:
        pairs = [self._pairs[row] for row in rows]
        both = [chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs]
        return {
            **policy.padded(both, self._pad_id),
            "reference": self._reference[list(rows)].T.flatten(),
            "lengths": torch.tensor([float(each.answer) for each in both]),
        }

    def loss(self, logps: torch.Tensor, batch: Batch) -> torch.Tensor:
        ratios = logps.sum(dim=1) - batch["reference"]
        chosen, rejected = ratios.chunk(2)
        losses = dpo(self._settings, chosen, rejected, *batch["lengths"].chunk(2))
        self._said.append(self._settings.beta * ratios.detach().view(2, -1).cpu())
        return losses.sum() / self._training.batch

    def metrics(self) -> dict[str, float]:
        """Implicit rewards, β·log-ratio: of chosen and rejected answers, the margin between them,
        and the share of pairs that the model has the right way round."""
        chosen, rejected = torch.cat(self._said, dim=1)
        return {
            "margin": float((chosen - rejected).mean()),
            "accuracy": float((chosen > rejected).float().mean()),
            "chosen_reward": float(chosen.mean()),
            "rejected_reward": float(rejected.mean()),
        }


class _Labels:
    """KTO. Its baseline is of the whole step, however that is cut into micro-batches.

    The baseline pairs each prompt of the step with its neighbour's answer: the mean log-ratio of
    such mismatches estimates how far the model has moved altogether. They are scored without
    gradient, and may be longer than any row (the longest prompt with the longest answer).
    """

    temperature = 1.0

    def __init__(
        self,
        answers: Sequence[Answered],
        desirable: Sequence[bool],
        settings: Kto,
        training: Training,
        scoring: Scoring,
    ) -> None:
        self._rows, self._desirable = answers, desirable
        self._settings, self._training, self._scoring = settings, training, scoring
        self.lengths = [len(each) for each in answers]
        self.answers = [each.answer for each in answers]
        self.order = policy.passes(self.lengths, training)
        self.steps = len(self.order)
        self.per_step = len(policy.cut(self.order[0], training.micro_batch))
        self._micro = training.micro_batch or training.batch
        used = sorted({row for step in self.order for row in step})
        self._reference = torch.zeros(len(answers))
        self._reference[used] = scoring.answers(
            [answers[row] for row in used], reference=True, micro=self._micro
        )
        self._mismatches = [
            scoring.answers(self._mismatched(step), reference=True, micro=self._micro)
            for step in self.order
        ]
        self._baseline = 0.0
        self._said: list[tuple[torch.Tensor, torch.Tensor]] = []

    def _mismatched(self, step: Sequence[int]) -> list[Answered]:
        rows = [self._rows[row] for row in step]
        return [
            Answered(np.concatenate((row.ids[: row.start], other.ids[other.start :])), row.start)
            for row, other in zip(rows, [rows[-1], *rows[:-1]], strict=True)
        ]

    def begin(self, step: int) -> list[Batch]:
        rows = self._mismatched(self.order[step])
        now = self._scoring.answers(rows, reference=False, micro=self._micro)
        self._baseline = max(0.0, float((now - self._mismatches[step]).mean()))
        self._said = []
        return [
            self._batch(part) for part in policy.cut(self.order[step], self._training.micro_batch)
        ]

    def _batch(self, rows: Sequence[int]) -> Batch:
        return {
            **policy.padded([self._rows[row] for row in rows], self._scoring.pad_id),
            "reference": self._reference[list(rows)],
            "desirable": torch.tensor([self._desirable[row] for row in rows]),
        }

    def loss(self, logps: torch.Tensor, batch: Batch) -> torch.Tensor:
        ratios = logps.sum(dim=1) - batch["reference"]
        losses = kto(self._settings, ratios, batch["desirable"], self._baseline)
        self._said.append((ratios.detach().cpu(), batch["desirable"].cpu()))
        return losses.sum() / self._training.batch

    def metrics(self) -> dict[str, float]:
        """Implicit rewards, β·log-ratio, of good and bad answers where the step has such, the
        margin between them where it has both, and ``kl``, the baseline."""
        ratios, good = (torch.cat(each) for each in zip(*self._said, strict=True))
        rewards = self._settings.beta * ratios
        said = {"kl": self._baseline}
        if good.any():
            said["chosen_reward"] = float(rewards[good].mean())
        if not good.all():
            said["rejected_reward"] = float(rewards[~good].mean())
        if len(said) == 3:
            said["margin"] = said["chosen_reward"] - said["rejected_reward"]
        return said
