"""Methods: one table of settings for each way to learn, as a recipe writes them. Pure.

Supervised training and continued pretraining need none. Defaults are TRL's, or the paper's that is
named, unless a comment says why not.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

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

    ``beta`` holds the model to its reference; ``loss`` is one of the published variants;
    ``label_smoothing`` is the share of pairs that are believed to be the wrong way round.
    """

    beta: Annotated[float, Meta(gt=0.0, le=100.0)] = 0.1
    loss: Literal["sigmoid", "hinge", "ipo", "robust", "exo_pair", "apo_zero", "apo_down"] = (
        "sigmoid"
    )
    label_smoothing: Annotated[float, Meta(ge=0.0, lt=0.5)] = 0.0


class Kto(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[kto]``: Kahneman-Tversky optimization (Ethayarajh et al. 2024, arXiv:2402.01306)."""

    beta: Annotated[float, Meta(gt=0.0, le=100.0)] = 0.1
    desirable_weight: Weight = 1.0
    undesirable_weight: Weight = 1.0


class Reward(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[…rewards]]``: how an answer is judged, 0 to 1, times ``weight``.

    ``exact``: equal to the row's ``reference``; ``json_schema``: JSON that fits ``schema``;
    ``regex``: the whole answer matches ``pattern``; ``function``: what ``function``
    (``"module:name"``) returns for ``(answer, reference, row)``.
    """

    kind: Literal["exact", "json_schema", "regex", "function"]
    weight: Weight = 1.0
    pattern: str | None = None
    schema: dict[str, Any] | None = None
    function: str | None = None

    def __post_init__(self) -> None:
        needed = {"json_schema": "schema", "regex": "pattern", "function": "function"}
        for kind, key in needed.items():
            if (self.kind == kind) != (getattr(self, key) is not None):
                raise ValueError(f'{key} belongs to a reward of kind = "{kind}", which needs it')


class Grpo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[grpo]``: group relative policy optimization (Shao et al. 2024, arXiv:2402.03300).

    Each step the model answers ``batch`` prompts ``generations`` times, up to ``max_tokens``, and
    learns from how each answer's reward differs from its group's. ``beta`` weighs the divergence
    from the base; 0 keeps no reference in memory.
    """

    rewards: Annotated[tuple[Reward, ...], Meta(min_length=1)]
    generations: Annotated[int, Meta(ge=2, le=128)] = 8
    max_tokens: Positive = 256
    temperature: Annotated[float, Meta(gt=0.0, le=2.0)] = 1.0
    top_p: Share = 1.0
    beta: Annotated[float, Meta(ge=0.0, le=10.0)] = 0.0
    epsilon: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.2


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


class Distillation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[distillation]``: learn from better models. Give ``teachers`` or a local ``model``.

    From ``teachers``: each answers every prompt of the data; ``rewards`` and ``judge`` verify; the
    best answer of a prompt that reaches ``threshold`` is kept and learnt. From ``model`` (a folder
    or a hub id with the same tokenizer): on the student's own answers, by full probabilities.
    """

    teachers: tuple[Teacher, ...] = ()
    model: str | None = None
    rewards: tuple[Reward, ...] = ()
    judge: Judge | None = None
    threshold: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5
    max_tokens: Positive = 256
    temperature: Annotated[float, Meta(gt=0.0, le=2.0)] = 1.0
    beta: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5

    def __post_init__(self) -> None:
        if bool(self.teachers) == (self.model is not None):
            raise ValueError("give either teachers or a model to [distillation]")
