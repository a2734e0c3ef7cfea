"""Methods: one table of settings for each way to learn, as a recipe writes them. Pure.

Supervised training and continued pretraining need none. Defaults are TRL's, or the paper's that is
named, unless a comment says why not.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from avocado.rewards import Reward

Positive = Annotated[int, Meta(ge=1)]
Fraction = Annotated[float, Meta(ge=0.0, lt=1.0)]
Share = Annotated[float, Meta(gt=0.0, le=1.0)]
Rate = Annotated[float, Meta(gt=0.0, le=1.0)]
Weight = Annotated[float, Meta(ge=0.0, le=1000.0)]

Method = Literal["supervised", "pretraining", "dpo", "kto", "grpo", "distillation"]
"""``supervised``: answers of conversations; ``pretraining``: every token of raw text; ``dpo``:
pairs of a better and a worse answer; ``kto``: answers labelled good or bad; ``grpo``: the model's
own answers, rewarded; ``distillation``: answers of teachers, or a larger model's probabilities."""


class Dpo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[dpo]``: direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290).

    ``beta`` holds the model to its reference, the base; ``loss`` is one of the published variants
    (``train.losses`` has their formulas); ``label_smoothing`` is the share of pairs that are
    believed to be the wrong way round: for ``sigmoid``, ``robust``, and ``exo_pair``, which needs
    it (its paper's is 0.001).
    """

    beta: Annotated[float, Meta(gt=0.0, le=100.0)] = 0.1
    loss: Literal["sigmoid", "hinge", "ipo", "robust", "exo_pair", "apo_zero", "apo_down"] = (
        "sigmoid"
    )
    label_smoothing: Annotated[float, Meta(ge=0.0, lt=0.5)] = 0.0

    def __post_init__(self) -> None:
        if self.loss == "exo_pair" and not self.label_smoothing:
            raise ValueError('loss = "exo_pair" needs a label_smoothing above 0, such as 0.001')
        if self.label_smoothing and self.loss not in ("sigmoid", "robust", "exo_pair"):
            raise ValueError(f'loss = "{self.loss}" knows no label_smoothing')


class Kto(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[kto]``: Kahneman-Tversky optimization (Ethayarajh et al. 2024, arXiv:2402.01306).

    Where good and bad answers are not equally many, its authors weigh them so that
    ``desirable_weight`` × good is 1 to 4/3 of ``undesirable_weight`` × bad.
    """

    beta: Annotated[float, Meta(gt=0.0, le=100.0)] = 0.1
    desirable_weight: Weight = 1.0
    undesirable_weight: Weight = 1.0


class Grpo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[grpo]``: group relative policy optimization (Shao et al. 2024, arXiv:2402.03300).

    Each step the model answers ``batch`` prompts ``generations`` times, in up to ``max_tokens``,
    and learns once from how each answer's reward differs from its group's. An answer that
    ``max_tokens`` cuts off is judged as it stands. ``micro_batch`` counts answers. ``thinking``
    asks for thought before the answer. ``beta`` weighs the divergence from the base; 0 keeps no
    reference in memory. ``top_p`` below 1 draws from another distribution than is learnt.

    ``loss`` is how tokens are weighed: ``dapo`` all alike (Yu et al. 2025, arXiv:2503.14476, eq.
    8), ``grpo`` all answers alike, ``dr_grpo`` by ``max_tokens`` and without dividing by the
    group's deviation (Liu et al. 2025, arXiv:2503.20783).
    """

    rewards: Annotated[tuple[Reward, ...], Meta(min_length=1)]
    generations: Annotated[int, Meta(ge=2, le=128)] = 8
    max_tokens: Positive = 256
    temperature: Annotated[float, Meta(gt=0.0, le=2.0)] = 1.0
    top_p: Share = 1.0
    thinking: bool = False
    beta: Annotated[float, Meta(ge=0.0, le=10.0)] = 0.0
    loss: Literal["dapo", "grpo", "dr_grpo"] = "dapo"


class Teacher(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[distillation.teachers]]``: a model behind an OpenAI-compatible ``url``.

    ``revision`` and ``license`` go with each row that it writes. Prices are decimals for a million
    tokens, in ``currency``. The key is read from the environment variable ``key_env``.
    """

    model: Annotated[str, Meta(min_length=1)]
    url: Annotated[str, Meta(pattern=r"^https?://")]
    license: Annotated[str, Meta(min_length=1)]
    revision: str = "unknown"
    key_env: str | None = None
    price_input: Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)?$")] = "0"
    price_output: Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)?$")] = "0"
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}$")] = "USD"
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] = 0.7
    top_p: Share = 1.0
    max_tokens: Positive = 1024
    samples: Annotated[int, Meta(ge=1, le=64)] = 1
    at_once: Annotated[int, Meta(ge=1, le=1024)] = 8


class Judge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[distillation.judge]``: a model that grades an answer from 0 to 10 by ``instruction``."""

    model: Annotated[str, Meta(min_length=1)]
    url: Annotated[str, Meta(pattern=r"^https?://")]
    key_env: str | None = None
    instruction: str = "Grade how well the answer serves the request."
    max_tokens: Positive = 512
    at_once: Annotated[int, Meta(ge=1, le=1024)] = 8


class Distillation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[distillation]``: learn from better models. Give ``teachers`` or a local ``model``.

    From ``teachers``: each answers every prompt of the data; ``rewards`` and ``judge`` verify; the
    best answer of a prompt that reaches ``threshold`` is kept and learnt, with its thoughts where
    ``reasoning`` says so. From ``model`` (a folder or a hub id with the same tokenizer): on the
    student's own answers, by full probabilities.
    """

    teachers: tuple[Teacher, ...] = ()
    model: str | None = None
    rewards: tuple[Reward, ...] = ()
    judge: Judge | None = None
    threshold: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5
    reasoning: Literal["drop", "keep"] = "drop"
    max_tokens: Positive = 256
    temperature: Annotated[float, Meta(gt=0.0, le=2.0)] = 1.0
    beta: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5

    def __post_init__(self) -> None:
        if bool(self.teachers) == (self.model is not None):
            raise ValueError("give either teachers or a model to [distillation]")
        if len({each.model for each in self.teachers}) < len(self.teachers):
            raise ValueError("two teachers have one model name")
        if len({each.currency for each in self.teachers}) > 1:
            raise ValueError("the teachers' prices are in different currencies")
