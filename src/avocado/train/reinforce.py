"""Reinforce: GRPO. The model answers, rules judge, and what did better than its group is learnt.

The embedded engine writes the answers, with the weights as they are at each step, and one update
follows: always on-policy. Answers are seeded by step, prompt and place, so a resume writes the same
ones again. An answer that the maximum of tokens cuts off is judged as it stands, and learnt from.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from avocado.data import corpus as corpora
from avocado.data.chat import IGNORED, Chat, ChatTemplate, Prompt, RenderError
from avocado.data.problem import Problem
from avocado.engine.reply import Thinking, thinking_after
from avocado.engine.sampling import Sampling
from avocado.errors import Refused
from avocado.rewards import Scored, Scorer
from avocado.train import policy
from avocado.train.assembly import Assembly, Work
from avocado.train.losses import advantages, divergence, drift, policy_gradient
from avocado.train.methods import Grpo
from avocado.train.policy import Answered, Batch, Scoring
from avocado.train.recipe import Training
from avocado.train.rollout import Rollout, rollouts, seeded
from avocado.train.run_folder import RunFolder

Asked = tuple[Problem, Prompt]


def assemble(work: Work) -> Assembly:
    """GRPO on the work's problems.

    Raises:
        Refused: a reward is invalid, has changed since the run began or needs a reference that a
            row lacks, a prompt cannot be rendered, it and its longest answer exceed ``max_length``,
            or the recipe asks for dropout.
    """
    recipe, training = work.recipe, work.recipe.training
    settings = recipe.grpo
    assert settings is not None
    if recipe.adapter and recipe.adapter.dropout:
        raise Refused("grpo learns from answers written without dropout: set lora.dropout to 0")
    scorer = Scorer(settings.rewards)
    _check_unchanged(scorer, work.run_folder)
    asked = render(
        corpora.read(work.corpus, Problem),
        work.template,
        settings.max_tokens,
        training.max_length,
        thinking=settings.thinking,
    )
    for problem, _ in asked:
        if scorer.needs_reference and problem.reference is None:
            raise Refused(
                f"{problem.file}, row {problem.row} has no reference, which the reward exact needs"
            )
    longest = max(len(prompt.ids) for _, prompt in asked) + settings.max_tokens
    model = policy.load(work, longest)
    scoring = Scoring(model, work.template.pad_id, training.precision == "bf16")
    before = {line["step"]: line for line in work.run_folder.metrics()}
    objective = _Grpo(
        asked,
        scorer,
        settings,
        training,
        scoring,
        work.template,
        {step: (line["tokens"], line["answer_tokens"]) for step, line in before.items()},
    )
    trainer = policy.trainer(work, scoring.model, objective)
    return Assembly(
        trainer,
        objective.steps,
        lambda step: objective.passed[step][0],
        lambda: objective.passed[objective.steps][1],
    )


def _check_unchanged(scorer: Scorer, run_folder: RunFolder) -> None:
    """A resumed run is judged by the code that it began with."""
    path = run_folder.path / "rewards.json"
    then = json.loads(path.read_bytes()) if path.exists() else scorer.sources
    changed = [function for function, sha256 in scorer.sources.items() if then[function] != sha256]
    if changed:
        raise Refused(
            f"the run cannot be resumed, because the code of {changed[0]} changed since it began; "
            "put it back, or begin anew with --restart"
        )
    path.write_text(json.dumps(scorer.sources), "utf-8")


def render(
    problems: Iterable[Problem],
    template: ChatTemplate,
    max_tokens: int,
    max_length: int,
    *,
    thinking: bool = False,
) -> list[Asked]:
    """The ``problems`` with the prompts that serving would send, in order; answers may have up to
    ``max_tokens``.

    Raises:
        Refused: one cannot be rendered, or leaves no room for an answer, or there is none.
    """
    asked: list[Asked] = []
    for problem in problems:
        where = f"{problem.file}, row {problem.row}"
        try:
            prompt = template.prompt(Chat(problem.messages, problem.tools, thinking))
        except RenderError as error:
            raise Refused(f"{where}: {error}") from error
        if len(prompt.ids) + max_tokens > max_length:
            raise Refused(
                f"{where}: {len(prompt.ids):,} tokens and {max_tokens:,} to answer exceed "
                f"max_length = {max_length:,}"
            )
        asked.append((problem, prompt))
    if not asked:
        raise Refused("the corpus holds no problem, so there is nothing to train on")
    return asked


@dataclass(frozen=True)
class _Answer:
    """One answer: ``logprobs`` are the engine's, ``better`` is its advantage, ``share`` how much
    each of its tokens weighs in the step."""

    row: Answered
    logprobs: tuple[float, ...]
    better: float
    share: float


class _Grpo:
    """One rollout and one update a step."""

    def __init__(
        self,
        asked: Sequence[Asked],
        scorer: Scorer,
        settings: Grpo,
        training: Training,
        scoring: Scoring,
        template: ChatTemplate,
        passed: Mapping[int, tuple[int, int]],
    ) -> None:
        """``passed`` holds what an interrupted run had logged: tokens and answers' tokens."""
        self._asked, self._scorer, self._template = asked, scorer, template
        self._settings, self._training, self._scoring = settings, training, scoring
        self.temperature = settings.temperature
        self._order = policy.passes([len(prompt.ids) for _, prompt in asked], training)
        self.steps = len(self._order)
        self._answers = training.batch * settings.generations
        self._micro = training.micro_batch or self._answers
        self.per_step = -(-self._answers // self._micro)
        self.passed = {0: (0, 0), **passed}
        """By step, from the beginning: tokens of the rows that passed, and those with loss."""
        self._reference: Scoring | None = None
        if settings.beta:
            self._reference = scoring
            if not hasattr(scoring.model, "peft_config"):
                frozen = copy.deepcopy(scoring.model).requires_grad_(False)
                self._reference = Scoring(frozen, scoring.pad_id, scoring.bf16)
        self._metrics: dict[str, float] = {}
        self._gaps: list[torch.Tensor] = []
        self._divergence: list[torch.Tensor] = []

    def begin(self, step: int) -> list[Batch]:
        asked = [self._asked[row] for row in self._order[step]]
        prompts = [prompt for _, prompt in asked for _ in range(self._settings.generations)]
        found = rollouts(
            self._scoring.model,
            self._template,
            [(prompt, self._sampling(step, place)) for place, prompt in enumerate(prompts)],
            half=self._scoring.bf16 and self._scoring.model.device.type == "cuda",
        )
        scored = self._judge(asked, found)
        groups = torch.tensor([each.total for each in scored], dtype=torch.float64)
        groups = groups.view(-1, self._settings.generations)
        self._metrics = self._describe(groups, scored, found)
        self._gaps, self._divergence = [], []
        return self._batches(step, self._weighed(prompts, found, groups))

    def _sampling(self, step: int, place: int) -> Sampling:
        how = self._settings
        return seeded(self._training.seed, step, place, how.max_tokens, how.temperature, how.top_p)

    def _judge(self, asked: Sequence[Asked], found: Sequence[Rollout]) -> list[Scored]:
        scored = []
        for place, rollout in enumerate(found):
            problem, prompt = asked[place // self._settings.generations]
            thinking = thinking_after(prompt.text) is Thinking.YES
            scored.append(
                self._scorer.score(
                    rollout.text, problem.reference, problem.fields, thinking=thinking
                )
            )
        return scored

    def _weighed(
        self, prompts: Sequence[Prompt], found: Sequence[Rollout], groups: torch.Tensor
    ) -> list[_Answer]:
        better = advantages(groups, scaled=self._settings.loss != "dr_grpo").flatten().tolist()
        everything = sum(len(each.ids) for each in found)
        return [
            _Answer(
                policy.answered(prompt.ids, rollout.ids),
                rollout.logprobs,
                above,
                self._share(len(rollout.ids), everything),
            )
            for prompt, rollout, above in zip(prompts, found, better, strict=True)
        ]

    def _share(self, tokens: int, everything: int) -> float:
        """How much each of an answer's ``tokens`` weighs, of ``everything`` in the step."""
        match self._settings.loss:
            case "dapo":
                return 1 / everything
            case "grpo":
                return 1 / (tokens * self._answers)
            case "dr_grpo":
                return 1 / (self._settings.max_tokens * self._answers)

    def _batches(self, step: int, answers: Sequence[_Answer]) -> list[Batch]:
        """Micro-batches of the answers that there is something to learn from: an answer no better
        and no worse than its group has no gradient, unless it is held to the reference."""
        useful = [each for each in answers if self._reference or each.better] or [answers[0]]
        useful.sort(key=lambda each: -len(each.row))
        size = -(-len(useful) // self.per_step)
        parts = [useful[start : start + size] for start in range(0, len(useful), size)]
        # A step always has as many; one more pass of the shortest, weighed by nothing, fills it up.
        parts += [[replace(useful[-1], share=0.0)]] * (self.per_step - len(parts))
        tokens, learnt = self.passed[step]
        self.passed[step + 1] = (
            tokens + sum(len(each.row) for part in parts for each in part),
            learnt + sum(each.row.answer for each in useful),
        )
        return [self._batch(part) for part in parts]

    def _batch(self, part: Sequence[_Answer]) -> Batch:
        rows = [each.row for each in part]
        batch = policy.padded(rows, self._scoring.pad_id)
        marked = batch["labels"][:, 1:] != IGNORED
        written = torch.tensor([each for answer in part for each in answer.logprobs])
        batch |= {
            "better": torch.tensor([each.better for each in part]),
            "share": torch.tensor([[each.share] for each in part]) * marked,
            "written": torch.zeros(marked.shape).masked_scatter(marked, written),
        }
        if self._reference is not None:
            batch["reference"] = self._reference.tokens(
                rows, reference=True, temperature=self.temperature
            )
        return batch

    def loss(self, logps: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Σ share · (−A·π/π_old · π/π_engine + β·KL) over the answers' tokens."""
        costs = policy_gradient(logps, batch["better"])
        learnt = batch["share"] > 0
        if self.temperature == 1:  # the engine tells log-probabilities before temperature
            costs = costs * drift(logps, batch["written"])
            self._gaps.append((logps.detach() - batch["written"]).abs()[learnt].cpu())
        if self._reference is not None:
            apart = divergence(logps, batch["reference"])
            costs = costs + self._settings.beta * apart
            self._divergence.append(apart.detach()[learnt].cpu())
        loss: torch.Tensor = (costs * batch["share"]).sum()
        return loss

    def _describe(
        self, groups: torch.Tensor, scored: Sequence[Scored], found: Sequence[Rollout]
    ) -> dict[str, float]:
        """The rewards' mean and mean deviation within a group, the share of groups whose answers
        are all equally good, the answers' mean tokens, and the share that was cut off."""
        parts = {
            f"reward_{name}": sum(each.parts[name] for each in scored) / len(scored)
            for name in self._scorer.names
            if len(self._scorer.names) > 1
        }
        flat = (groups.amax(dim=1) == groups.amin(dim=1)).double()
        return {
            "reward": float(groups.mean()),
            "reward_std": float(groups.std(dim=1).mean()),
            "no_signal": float(flat.mean()),
            "answer_length": sum(len(each.ids) for each in found) / len(found),
            "cut_off": sum(not each.finished for each in found) / len(found),
            **parts,
        }

    def metrics(self) -> dict[str, float]:
        """What was described, and the mean divergence from the base and mean gap between the
        engine's and the trainer's log-probabilities, a token, where they are known."""
        said = dict(self._metrics)
        if self._divergence:
            said["kl"] = float(torch.cat(self._divergence).mean())
        if self._gaps:
            said["engine_gap"] = float(torch.cat(self._gaps).mean())
        said["answer_tokens"] = max(answers for _, answers in self.passed.values())
        return said
