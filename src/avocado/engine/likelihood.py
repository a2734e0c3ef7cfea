"""How likely a model finds texts that it did not write: log-probabilities of given tokens.

Computed by the weights that serve, a pass at a time, so that running requests keep their pace.
Knows nothing about requests, threads or event loops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from transformers import DynamicCache

from avocado.engine.engine import Likelihood, Measured
from avocado.engine.model import CausalModel

TOGETHER: Final = 2048
"""Tokens of one pass, padding included."""

PIECE: Final = 512
"""Texts up to so many tokens are computed in company, longer ones alone and in such pieces."""

LOGITS: Final = 2**26
"""Logits of one pass, at most (fp32: a quarter of a gigabyte)."""


@dataclass(frozen=True, slots=True)
class _Text:
    """``ids`` is all that the model reads; the logits at ``first`` are of the first token asked."""

    place: int
    ids: Sequence[int]
    first: int

    @property
    def asked(self) -> Sequence[int]:
        return self.ids[self.first + 1 :]


class Measuring:
    """Pairs of tokens before and tokens asked for, on their way.

    ``padded`` says whether rows of different length may be computed together, and a text in pieces:
    not so where a model's memory is more than keys and values.
    """

    def __init__(self, model: CausalModel, pairs: Sequence[Measured], *, padded: bool) -> None:
        self._model = model
        self._piece = max(1, min(PIECE, LOGITS // model.vocabulary))
        self._padded = padded
        self._found: dict[int, Likelihood] = {}
        self._texts = [
            _Text(place, (*before, *asked), len(before) - 1)
            for place, (before, asked) in enumerate(pairs)
        ]
        self._passes = self._plan()

    def advance(self) -> list[Likelihood] | None:
        """One pass; all likelihoods in order when it was the last, else None."""
        group = next(self._passes, None)
        if group is not None:
            self._compute(group)
        if len(self._found) < len(self._texts):
            return None
        return [self._found[place] for place in range(len(self._texts))]

    def _plan(self) -> Iterator[list[_Text]]:
        """Those of like length together."""
        group: list[_Text] = []
        kept = 0
        for text in sorted(self._texts, key=lambda each: (len(each.ids), each.first)):
            if not text.asked:
                self._found[text.place] = Likelihood((), True)
                continue
            width, rows = len(text.ids) - 1, len(group) + 1
            kept = width - min(each.first for each in (*group, text))
            fits = rows * width <= TOGETHER and rows * kept * self._model.vocabulary <= LOGITS
            if group and not (self._padded and width <= self._piece and fits):
                yield group
                group = []
            group.append(text)
        if group:
            yield group

    def _compute(self, group: list[_Text]) -> None:
        device = self._model.device
        width = max(len(text.ids) for text in group) - 1  # nothing is asked after the last token
        ids = torch.zeros(len(group), width, dtype=torch.long)
        for row, text in enumerate(group):
            # Padding stands on the right, where causal attention never looks from a real token.
            ids[row, : len(text.ids) - 1] = torch.tensor(text.ids[:-1])
        ids = ids.to(device)
        first = min(text.first for text in group)
        piece = self._piece if self._padded else width
        cache = DynamicCache(config=self._model.config)
        logprobs: list[list[float]] = [[] for _ in group]
        greedy = [True] * len(group)
        for start in range(0, width, piece):
            end = min(start + piece, width)
            begin = min(max(start, first), end)
            keep = torch.arange(begin - start, end - start, device=device)
            if not len(keep):
                self._model(ids[:, start:end], cache)
                continue
            logits = self._model(ids[:, start:end], cache, keep=keep).float()
            for row, text in enumerate(group):
                low, high = max(begin, text.first), min(end, len(text.ids) - 1)
                if low >= high:
                    continue
                mine = logits[row, low - begin : high - begin]
                asked = torch.tensor(text.ids[low + 1 : high + 1], device=device)
                chosen = mine.gather(-1, asked.unsqueeze(-1)).squeeze(-1)
                logprobs[row] += (chosen - mine.logsumexp(-1)).tolist()
                greedy[row] &= bool((mine.argmax(-1) == asked).all())
        for text, found, likeliest in zip(group, logprobs, greedy, strict=True):
            self._found[text.place] = Likelihood(tuple(found), likeliest)
