"""Rows that decode together: join after a prefill, advance a token at a time, leave when done.

A decoder holds the model and the memory of the running rows, row ``i`` being the ``i``-th that a
caller keeps: a row that leaves is replaced by the last one. Knows nothing about requests, sampling
or text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from transformers import DynamicCache

from avocado.engine.kv_cache import LANES, Pair, Slots, is_plain, pairs, token_bytes
from avocado.engine.model import CausalModel
from avocado.engine.prefix import Piece, Prefixes

CHUNK: Final = 512
"""Prompt tokens computed in one go, so that a long prompt does not hold up the running rows."""

SHORT: Final = 128
"""Prompts up to this long are computed together, padded. Longer ones gain nothing from company, and
attention divides its work otherwise from 192 tokens on: alone, each always gets the same sums."""


PREFIX_SHARE: Final = 0.25
"""Memory for what prompts begin with, beside that of the running rows and as a part of it."""


class Prefill:
    """Prompts on their way in. Several at once only where all are short."""

    def __init__(
        self,
        model: CausalModel,
        prompts: Sequence[Sequence[int]],
        *,
        chunk: int = CHUNK,
        pad: bool = True,
        salt: str = "",
        known: Sequence[Piece] = (),
    ) -> None:
        """``known``: the leading pieces of the one prompt, which need not be computed; ``salt``
        says whose they are, and "" keeps none."""
        self.prompts, self.salt = prompts, salt
        self.pieces: list[Piece] = list(known)
        """Whole pieces of a prompt with a salt, up to the one under way."""
        self.cached = chunk * len(known)
        """Tokens that were not computed."""
        self._model = model
        self._chunk = chunk
        self.lengths = [len(prompt) for prompt in prompts]
        width = max(self.lengths)
        if pad:
            width = -(-width // LANES) * LANES
        # Padding stands on the right, where causal attention never looks from a real token.
        padded = [[*prompt, *[0] * (width - len(prompt))] for prompt in prompts]
        self._ids = torch.tensor(padded, device=model.device)
        self._done = self.cached
        self.cache = DynamicCache(config=model.config)
        for layer, sides in enumerate(zip(*known, strict=True)):
            keys, values = (torch.cat(side, dim=2) for side in zip(*sides, strict=True))
            self.cache.update(keys, values, layer)

    def advance(self) -> torch.Tensor | None:
        """One piece; the logits ``[prompts, vocabulary]`` after the last one, else None."""
        piece = self._ids[:, self._done : self._done + self._chunk]
        self._done += piece.shape[1]
        if self._done < self._ids.shape[1]:
            self._model(piece, self.cache)
            if self.salt:
                new = slice(self._done - self._chunk, self._done)
                self.pieces.append(
                    [(k[:, :, new].clone(), v[:, :, new].clone()) for k, v in pairs(self.cache)]
                )
            return None
        start = self._done - piece.shape[1]
        ends = sorted({length - 1 - start for length in self.lengths})
        logits = self._model(piece, self.cache, keep=torch.tensor(ends, device=piece.device))
        return torch.stack(
            [logits[row, ends.index(length - 1 - start)] for row, length in enumerate(self.lengths)]
        )


@dataclass(frozen=True, slots=True)
class Parked:
    """A row that stands aside, with all that it knows: ``length`` tokens."""

    length: int
    memory: Sequence[Pair]


class Decoder(Protocol):
    """What the scheduler needs. ``max_rows`` may run at once."""

    max_rows: int

    @property
    def rows(self) -> int: ...

    def fits(self, needs: Sequence[int]) -> bool:
        """Whether rows that may reach ``needs`` tokens can join the running ones now."""

    def prefill(self, prompts: Sequence[Sequence[int]], salts: Sequence[str]) -> Prefill:
        """Begins to compute ``prompts``; those of one salt may share what they begin with."""

    def join(self, prefill: Prefill, needs: Sequence[int]) -> None:
        """The rows of a finished ``prefill`` run from now on."""

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Gives each row its next token; returns the logits after it, ``[rows, vocabulary]``."""

    def drop(self, row: int) -> None:
        """``row`` leaves; the last row takes its number."""

    def extend(self, row: int, need: int, beside: Sequence[int] = ()) -> bool:
        """Lets ``row`` reach ``need`` tokens if memory allows, new rows of ``beside`` included."""

    def park(self, row: int) -> Parked:
        """``row`` leaves as with ``drop``, and can come back."""

    def resume(self, parked: Parked, need: int) -> None:
        """A parked row runs again, as the last one."""

    def clear(self) -> None:
        """Every row leaves."""


class BatchDecoder:
    """One forward pass a step for all rows. For models whose memory is plain keys and values."""

    def __init__(self, model: CausalModel, sample: DynamicCache, max_rows: int, budget: int):
        self.max_rows = max_rows
        self._model = model
        self._slots = Slots(sample, max_rows, budget)
        self._prefixes = Prefixes(CHUNK, int(budget * PREFIX_SHARE))

    @property
    def rows(self) -> int:
        return self._slots.rows

    def fits(self, needs: Sequence[int]) -> bool:
        return self._slots.fits(needs)

    def prefill(self, prompts: Sequence[Sequence[int]], salts: Sequence[str]) -> Prefill:
        if len(prompts) > 1 or len(prompts[0]) <= CHUNK:
            return Prefill(self._model, prompts)
        known = self._prefixes.find(prompts[0], salts[0])
        return Prefill(self._model, prompts, salt=salts[0], known=known)

    def join(self, prefill: Prefill, needs: Sequence[int]) -> None:
        if prefill.pieces:  # only now: the logits after them were good
            self._prefixes.keep(prefill.prompts[0], prefill.salt, prefill.pieces)
        self._slots.join(pairs(prefill.cache), prefill.lengths, needs)

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        ids = torch.tensor(tokens, device=self._model.device).unsqueeze(1)
        positions, mask = self._slots.advance()
        logits = self._model(ids, self._slots.cache, positions=positions.unsqueeze(1), mask=mask)
        return logits[:, -1]

    def drop(self, row: int) -> None:
        self._slots.drop(row)

    def extend(self, row: int, need: int, beside: Sequence[int] = ()) -> bool:
        return self._slots.extend(row, need, beside)

    def park(self, row: int) -> Parked:
        parked = Parked(self._slots.length(row), self._slots.copy(row))
        self._slots.drop(row)
        return parked

    def resume(self, parked: Parked, need: int) -> None:
        self._slots.join(parked.memory, [parked.length], [need])

    def clear(self) -> None:
        self._slots.clear()
        self._prefixes.clear()


class RowDecoder:
    """One forward pass a step for each row, with transformers' own cache.

    Slow, and right for every model: state that is not keys and values (linear attention, sliding
    windows) stays with the row that made it. A prompt is computed in one piece, since such state
    can not always go on from the middle of a prompt.
    """

    def __init__(self, model: CausalModel, max_rows: int, budget: int) -> None:
        self._model = model
        self.max_rows = max_rows
        self._budget = budget
        self._rows: list[tuple[DynamicCache, int]] = []

    @property
    def rows(self) -> int:
        return len(self._rows)

    def fits(self, needs: Sequence[int]) -> bool:
        taken = sum(need for _, need in self._rows) + sum(needs)
        alone = len(needs) == 1  # its prefill takes one prompt
        return alone and self.rows < self.max_rows and taken <= self._budget

    def prefill(self, prompts: Sequence[Sequence[int]], salts: Sequence[str]) -> Prefill:
        return Prefill(self._model, prompts, chunk=len(prompts[0]), pad=False)

    def join(self, prefill: Prefill, needs: Sequence[int]) -> None:
        self._rows.append((prefill.cache, needs[0]))

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        ids = torch.tensor(tokens, device=self._model.device).view(-1, 1, 1)
        logits = [self._model(ids[row], cache)[:, -1] for row, (cache, _) in enumerate(self._rows)]
        return torch.cat(logits)

    def extend(self, row: int, need: int, beside: Sequence[int] = ()) -> bool:
        return True  # there is memory for every row's whole context

    def park(self, row: int) -> Parked:
        raise NotImplementedError("no row needs to stand aside here")

    def resume(self, parked: Parked, need: int) -> None:
        raise NotImplementedError("no row stood aside here")

    def drop(self, row: int) -> None:
        last = self._rows.pop()
        if row < len(self._rows):
            self._rows[row] = last

    def clear(self) -> None:
        self._rows.clear()


def decoder_for(model: CausalModel, max_rows: int, memory: int) -> tuple[Decoder, int]:
    """The decoder that suits ``model``, found out on a prompt of two tokens.

    Returns:
        The decoder, and how many tokens ``memory`` bytes hold.
    """
    with torch.inference_mode():
        probe = Prefill(model, [[0, 0]], pad=False)
        probe.advance()
    if not is_plain(probe.cache):
        budget = model.context_length * max_rows
        return RowDecoder(model, max_rows, budget), budget
    budget = memory // token_bytes(probe.cache) // LANES * LANES
    return BatchDecoder(model, probe.cache, max_rows, budget), budget
