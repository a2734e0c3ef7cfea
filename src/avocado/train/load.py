"""Load: how many tokens pass a model over a run, counted from the very rows that it will see.

Exact for what learns from given rows. Where models write what is learnt, a bound: nobody writes
more than they may. Knows no device and no price.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from avocado.data import corpus as corpora
from avocado.data.chat import Chat, ChatTemplate, RenderError
from avocado.data.preference import Label, Preference
from avocado.data.problem import Problem
from avocado.errors import Refused
from avocado.terms.money import Money, ceil_div
from avocado.terms.price import MILLION
from avocado.train.methods import Distillation
from avocado.train.recipe import Recipe, Training


@dataclass(frozen=True, slots=True)
class Teaching:
    """What teachers are asked: ``requests``, whose prompts have ``prompt_tokens`` in all by our
    tokenizer, answered with up to ``completion_tokens``. ``grades`` more are asked of a judge,
    whose price is not known. ``cost`` is from the prompts alone to answers of full length."""

    requests: int
    grades: int
    prompt_tokens: int
    completion_tokens: int
    cost: tuple[Money, Money]


@dataclass(frozen=True, slots=True)
class Load:
    """``rows`` of ``row_tokens`` in all, in ``steps`` optimizer steps.

    ``tokens`` pass the trained model and are learnt from, ``trained`` of them carry loss.
    ``before`` the first step and ``during`` the steps others pass it forward only, and ``teacher``
    pass the model that is learnt from. ``answers`` are written in each step. ``computed`` is
    ``tokens`` with padding; ``widest`` and ``labelled`` are the positions and the labels of the
    largest micro-batch. ``bound``: no more than so many, since models write them.
    """

    rows: int
    row_tokens: int
    steps: int
    tokens: int
    trained: int
    computed: int
    widest: int
    labelled: int
    before: int = 0
    during: int = 0
    teacher: int = 0
    answers: int = 0
    bound: bool = False
    packed: bool = False
    teaching: Teaching | None = None
    notes: tuple[str, ...] = ()

    @property
    def forward(self) -> int:
        """Tokens that pass the trained model without being learnt from."""
        return self.before + self.during


def load_of(
    recipe: Recipe, base: Path, corpus: Path, template: ChatTemplate, processes: int = 1
) -> Load:
    """The load of ``recipe`` on the frozen corpus in ``corpus`` and the model in ``base``.

    Raises:
        Refused: for what would stop the run before its first step.
    """
    match recipe.method:
        case "supervised" | "pretraining":
            return _rows(recipe, base, corpus, template, processes)
        case "dpo":
            return _pairs(recipe, corpus, template)
        case "kto":
            return _labels(recipe, corpus, template)
        case "grpo":
            return _rollouts(recipe, corpus, template)
        case "distillation":
            assert recipe.distillation is not None
            if not recipe.distillation.teachers:
                return _on_policy(recipe, corpus, template)
            if corpora.kind_of(corpus) is not Problem:
                return _rows(recipe, base, corpus, template, processes)
            return _taught(recipe, corpus, template)


def _rows(recipe: Recipe, base: Path, corpus: Path, template: ChatTemplate, processes: int) -> Load:
    from avocado.train import sft

    prepared = sft.prepare(recipe, base, corpus, template, processes)
    rows, order = prepared.rows, prepared.order
    computed, labelled = order.positions(rows.lengths), rows.trained_by_row
    return Load(
        rows=len(rows),
        row_tokens=rows.tokens,
        steps=order.steps,
        tokens=order.tokens[-1],
        trained=order.trained,
        computed=sum(computed),
        widest=max(computed),
        labelled=max(sum(labelled[row] for row in each) for each in order.micro_batches),
        packed=order.packed,
        notes=prepared.notes,
    )


def _pairs(recipe: Recipe, corpus: Path, template: ChatTemplate) -> Load:
    from avocado.train import policy, preference

    pairs = preference.render_pairs(
        corpora.read(corpus, Preference), template, recipe.training.max_length
    )
    lengths = [len(chosen) + len(rejected) for chosen, rejected in pairs]
    longest = [max(len(chosen), len(rejected)) for chosen, rejected in pairs]
    answers = [chosen.answer + rejected.answer for chosen, rejected in pairs]
    steps = policy.passes(lengths, recipe.training)
    used = {row for step in steps for row in step}
    load = _padded(recipe.training, steps, lengths, longest, answers, beside=2)
    return replace(load, before=sum(lengths[row] for row in used))


def _labels(recipe: Recipe, corpus: Path, template: ChatTemplate) -> Load:
    """Each step scores its prompts with each other's answers: by the base, all before the first
    step, and by the model as it is then."""
    from avocado.train import policy, preference

    rows, _ = preference.render_labels(
        corpora.read(corpus, Label), template, recipe.training.max_length
    )
    lengths, answers = [len(row) for row in rows], [row.answer for row in rows]
    steps = policy.passes(lengths, recipe.training)
    used = {row for step in steps for row in step}
    # Every prompt and every answer of a step passes once, if in other company.
    mismatched = sum(lengths[row] for step in steps for row in step)
    load = _padded(recipe.training, steps, lengths, lengths, answers)
    before = sum(lengths[row] for row in used) + mismatched
    return replace(load, before=before, during=mismatched)


def _padded(
    training: Training,
    steps: Sequence[Sequence[int]],
    lengths: Sequence[int],
    longest: Sequence[int],
    answers: Sequence[int],
    beside: int = 1,
) -> Load:
    """Rows that lie ``beside`` each other in twos or alone, padded to the longest."""
    from avocado.train import policy

    parts = [part for step in steps for part in policy.cut(step, training.micro_batch)]
    computed = [beside * len(part) * max(longest[row] for row in part) for part in parts]
    return Load(
        rows=len(lengths),
        row_tokens=sum(lengths),
        steps=len(steps),
        tokens=sum(lengths[row] for step in steps for row in step),
        trained=sum(answers[row] for step in steps for row in step),
        computed=sum(computed),
        widest=max(computed),
        labelled=max(sum(answers[row] for row in part) for part in parts),
    )


def _rollouts(recipe: Recipe, corpus: Path, template: ChatTemplate) -> Load:
    """Every answer as long as it may be, and learnt from."""
    from avocado.train import reinforce

    settings = recipe.grpo
    assert settings is not None
    problems = corpora.read(corpus, Problem)
    asked = reinforce.render(
        problems,
        template,
        settings.max_tokens,
        recipe.training.max_length,
        thinking=settings.thinking,
    )
    prompts = [len(prompt.ids) for _, prompt in asked]
    load = _written(recipe.training, prompts, settings.max_tokens, settings.generations)
    reference = load.tokens if settings.beta else 0
    return replace(load, during=load.tokens + reference)


def _on_policy(recipe: Recipe, corpus: Path, template: ChatTemplate) -> Load:
    assert recipe.distillation is not None
    prompts = _prompts(corpus, template)
    load = _written(recipe.training, prompts, recipe.distillation.max_tokens, 1)
    return replace(load, during=load.tokens, teacher=load.tokens)


def _written(training: Training, prompts: Sequence[int], most: int, each: int) -> Load:
    """``each`` answers of up to ``most`` tokens to the prompts of every step."""
    from avocado.train import policy

    steps = policy.passes(prompts, training)
    answers = training.batch * each
    micro = training.micro_batch or answers
    tokens = each * sum(prompts[row] + most for step in steps for row in step)
    return Load(
        rows=len(prompts),
        row_tokens=sum(prompts),
        steps=len(steps),
        tokens=tokens,
        trained=answers * most * len(steps),
        computed=tokens,
        widest=micro * (max(prompts) + most),
        labelled=micro * most,
        answers=answers,
        bound=True,
    )


def _taught(recipe: Recipe, corpus: Path, template: ChatTemplate) -> Load:
    """Teachers have not answered yet: one answer of full length is kept of every prompt."""
    from avocado.train import policy

    distillation, training = recipe.distillation, recipe.training
    assert distillation is not None
    prompts = _prompts(corpus, template)
    most = max(teacher.max_tokens for teacher in distillation.teachers)
    lengths = [min(training.max_length, prompt + most) for prompt in prompts]
    answers = [
        length - min(length, prompt) for length, prompt in zip(lengths, prompts, strict=True)
    ]
    steps = policy.passes(lengths, training)
    load = _padded(training, steps, lengths, lengths, answers)
    return replace(load, bound=True, teaching=teaching_of(distillation, prompts))


def teaching_of(distillation: Distillation, prompts: Sequence[int]) -> Teaching:
    """What the teachers are asked about prompts of so many tokens each, and at most cost."""
    asked, written, requests = 0, 0, 0
    least, most = 0, 0
    for teacher in distillation.teachers:
        sent = teacher.samples * sum(prompts)
        come = teacher.samples * len(prompts) * teacher.max_tokens
        asked, written = asked + sent, written + come
        requests += teacher.samples * len(prompts)
        low = Money.parse(teacher.price_input).nanos * sent
        least += ceil_div(low, MILLION)
        most += ceil_div(low + Money.parse(teacher.price_output).nanos * come, MILLION)
    currency = distillation.teachers[0].currency
    grades = requests if distillation.judge else 0
    return Teaching(
        requests, grades, asked, written, (Money(least, currency), Money(most, currency))
    )


def _prompts(corpus: Path, template: ChatTemplate) -> list[int]:
    """Tokens of each prompt as serving renders it."""
    lengths = []
    for problem in corpora.read(corpus, Problem):
        try:
            prompt = template.prompt(Chat(problem.messages, problem.tools))
        except RenderError as error:
            raise Refused(f"{problem.file}, row {problem.row}: {error}") from error
        lengths.append(len(prompt.ids))
    if not lengths:
        raise Refused("the corpus holds no prompt, so there is nothing to train on")
    return lengths
