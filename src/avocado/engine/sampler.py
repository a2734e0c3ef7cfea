"""Chooses the next token of each row of a batch from its logits. Pure but for each row's own random
numbers.

A row draws one number per token from a generator of its own, seeded by its request, so what it gets
does not depend on the rows beside it. The order of filters is Hugging Face's and vLLM's:
temperature, then top-k, then top-p on what top-k left (Holtzman et al. 2020, nucleus sampling: the
smallest set of the likeliest tokens whose probability reaches p).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from avocado.engine.constraint import Constraint
from avocado.engine.engine import Sampling
from avocado.engine.logprobs import Told

if TYPE_CHECKING:
    import torch

GREEDY_BELOW: Final = 1e-5
"""Temperatures below this are greedy: dividing by them would only lose the logits' digits."""

CANDIDATES: Final = 1024
"""Top-p looks at this many of the likeliest tokens first, and sorts the vocabulary only if these do
not reach p: a full sort of 150,000 logits costs more than a step of a small model."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How one row chooses. ``draws`` gives its random numbers, None is greedy. ``top`` is how many
    of the likeliest tokens are told with each, None tells nothing."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    draws: random.Random | None = None
    constraint: Constraint | None = None
    top: int | None = None

    @classmethod
    def of(cls, sampling: Sampling, constraint: Constraint | None = None) -> Choice:
        return cls(
            sampling.temperature,
            sampling.top_p,
            sampling.top_k,
            None if sampling.temperature < GREEDY_BELOW else random.Random(sampling.seed),
            constraint,
            sampling.top_logprobs if sampling.logprobs else None,
        )

    @property
    def narrow(self) -> bool:
        """Whether tokens are ruled out before drawing."""
        return self.top_k > 0 or self.top_p < 1


class NotFinite(ArithmeticError):
    """The model's logits hold NaN or are all infinite: no choice is possible."""


def decide(logits: torch.Tensor, choices: Sequence[Choice]) -> tuple[list[int], dict[int, Told]]:
    """One token per row, and what is told of it for the rows that ask. May change ``logits``,
    float ``[rows, vocabulary]``.

    Raises:
        NotFinite: a row has no finite greatest logit.
    """
    told = [row for row, choice in enumerate(choices) if choice.top is not None]
    # The model's own, before anything is changed: what a bias or a grammar does is no opinion.
    scores = logits[told].float().log_softmax(dim=-1) if told else None
    bound = [row for row, choice in enumerate(choices) if choice.constraint is not None]
    if bound:
        logits = logits.float()
        for row in bound:
            constraint = choices[row].constraint
            assert constraint is not None
            constraint.apply(logits[row])
    tokens = choose(logits, choices)
    if scores is None:
        return tokens, {}
    return tokens, _tell(scores, tokens, told, choices)


def _tell(
    scores: torch.Tensor, tokens: list[int], rows: list[int], choices: Sequence[Choice]
) -> dict[int, Told]:
    """``scores``: log-probabilities ``[len(rows), vocabulary]``."""
    import torch

    chosen = torch.tensor([tokens[row] for row in rows], device=scores.device).unsqueeze(1)
    values = scores.gather(1, chosen).flatten().tolist()
    most = max(choices[row].top or 0 for row in rows)
    best, places = scores.topk(most, dim=-1)
    likeliest = [
        list(zip(*each, strict=True)) for each in zip(places.tolist(), best.tolist(), strict=True)
    ]
    return {
        row: Told(values[index], tuple(likeliest[index][: choices[row].top]))
        for index, row in enumerate(rows)
    }


def choose(logits: torch.Tensor, choices: Sequence[Choice]) -> list[int]:
    """One token per row. ``logits``: float ``[rows, vocabulary]``.

    Raises:
        NotFinite: a row has no finite greatest logit.
    """
    import torch

    top, tokens = logits.max(dim=-1)
    if not torch.isfinite(top).all():
        raise NotFinite("the model's logits are not finite")
    chosen: list[int] = tokens.tolist()
    for narrow in (False, True):
        # Apart, because a row's draw must not depend on whether its neighbours sort.
        rows = [
            row
            for row, choice in enumerate(choices)
            if choice.draws is not None and choice.narrow == narrow
        ]
        if rows:
            part = logits if len(rows) == len(choices) else logits[rows]
            for row, token in zip(rows, _draw(part, [choices[row] for row in rows]), strict=True):
                chosen[row] = token
    return chosen


def _draw(logits: torch.Tensor, choices: Sequence[Choice]) -> list[int]:
    """Inverse transform sampling: the token in whose share of the total the row's number falls."""
    import torch

    numbers = _column([choice.draws.random() for choice in choices if choice.draws], logits)
    temperatures = _column([choice.temperature for choice in choices], logits).float()
    scaled = (logits.float() - logits.float().amax(dim=-1, keepdim=True)) / temperatures
    weights = scaled.exp()
    if not choices[0].narrow:
        picked = _pick(weights.double(), numbers)
    else:
        kept, tokens = _narrowed(weights, choices)
        picked = tokens.gather(1, _pick(kept, numbers))
    chosen: list[int] = torch.flatten(picked).tolist()
    return chosen


def _narrowed(
    weights: torch.Tensor, choices: Sequence[Choice]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest tokens of each row and their weights, zero for those that top-k or top-p drop.

    Both results are ``[rows, n]``, likeliest first.
    """
    import torch

    size = weights.shape[-1]
    limits = [min(choice.top_k or size, size) for choice in choices]
    ranks = _column(limits, weights)
    shares = _column([choice.top_p for choice in choices], weights)
    mass = weights.double().sum(dim=-1, keepdim=True)
    first = max([CANDIDATES, *(limit for limit in limits if limit < size)])
    for count in (min(first, size), size):
        best, tokens = weights.topk(count, dim=-1)
        places = torch.arange(count, device=weights.device)
        kept = best.double().masked_fill(places >= ranks, 0.0)
        total = torch.where(ranks < size, kept.sum(dim=-1, keepdim=True), mass)
        sums = kept.cumsum(dim=-1)
        if count == size or bool((sums[:, -1:] >= shares * total).all()):
            break
    return kept.masked_fill(sums - kept >= shares * total, 0.0), tokens


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.tensor(values, dtype=torch.float64, device=like.device).unsqueeze(1)


def _pick(weights: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Column index ``[rows, 1]`` where the running sum of ``weights`` passes ``numbers`` of it."""
    import torch

    sums = weights.cumsum(dim=-1)
    places = torch.searchsorted(sums, numbers * sums[:, -1:], right=True)
    # Rounding can put the number at the very end, and weightless columns may lie there.
    last = (weights > 0).long().cumsum(dim=-1).argmax(dim=-1, keepdim=True)
    return torch.minimum(places, last)
