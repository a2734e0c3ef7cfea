"""The keys and values of the running rows: one rectangle of memory, a row a request.

Rows ``0..B-1`` are always the running ones: where a row leaves, the last one moves into the hole,
so that a step works on plain views ``[:B, :longest]``. A layer's rectangle is ``[slots, capacity,
heads, dim]``, with time before heads: a step then writes all rows of a layer with one
``index_copy_`` of whole vectors. Knows nothing about tokens, models or requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

GRAIN: Final = 128
"""Capacity grows in steps of this many tokens, so that it seldom grows."""

LANES: Final = 16
"""Lengths are rounded up to a multiple of this: attention sums as many numbers at a time, and a
row's sum then does not depend on how far its neighbours reach."""

_NEVER: Final = float("-inf")


Pair = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, ``[rows, heads, time, dim]``."""


def is_plain(cache: DynamicCache) -> bool:
    """Whether every layer keeps all keys and values of all tokens, and nothing else."""
    return all(type(layer) is DynamicLayer for layer in cache.layers)


def token_bytes(cache: DynamicCache) -> int:
    """Bytes that one token of one row takes, measured on a filled ``cache``."""
    sides = [side for pair in pairs(cache) for side in pair]
    return sum(int(side[0, :, 0].numel()) * int(side.itemsize) for side in sides)


def pairs(cache: DynamicCache) -> list[Pair]:
    """Keys and values of each layer, ``[rows, heads, time, dim]``."""
    layers: list[Any] = list(cache.layers)
    return [(layer.keys, layer.values) for layer in layers]


def _rounded(length: int, grain: int) -> int:
    return -(-length // grain) * grain


@dataclass(slots=True)
class _Row:
    length: int
    need: int


class Slots:
    """All layers' rectangles, each row's length, and the attention mask that follows from them."""

    def __init__(self, sample: DynamicCache, max_rows: int, budget: int) -> None:
        """``sample``: a filled cache, for shapes, types and devices; ``budget``: tokens of memory,
        rows × capacity.
        """
        self._sample = [(keys[:1, :, :1], values[:1, :, :1]) for keys, values in pairs(sample)]
        self._max_rows = max_rows
        self._budget = budget
        self.clear()

    def clear(self) -> None:
        """Drops all rows and frees the memory."""
        self._rows: list[_Row] = []
        self.longest = 0
        """Length of the longest row in the step under way, its newest token included, rounded."""
        self._allocate(0, 0)

    @property
    def rows(self) -> int:
        return len(self._rows)

    def fits(self, needs: Sequence[int]) -> bool:
        """Whether new rows that may reach ``needs`` tokens fit beside the running ones."""
        columns = max([row.need for row in self._rows] + [_rounded(need, LANES) for need in needs])
        rows = self.rows + len(needs)
        return rows <= self._max_rows and rows * columns <= self._budget

    def join(self, prefilled: Sequence[Pair], lengths: Sequence[int], needs: Sequence[int]) -> None:
        """Row i of each layer, of ``lengths[i]`` tokens, joins; it may reach ``needs[i]``."""
        needs = [_rounded(need, LANES) for need in needs]
        self._reserve(needs)
        for index, (length, need) in enumerate(zip(lengths, needs, strict=True)):
            slot = self.rows
            for layer, (keys, values) in enumerate(prefilled):
                self.keys[layer][slot, :length] = keys[index, :, :length].transpose(0, 1)
                self.values[layer][slot, :length] = values[index, :, :length].transpose(0, 1)
            self._mask[slot, :length] = 0.0
            self._mask[slot, length:] = _NEVER
            self._lengths[slot] = length
            self._rows.append(_Row(length, need))

    def extend(self, slot: int, need: int, beside: Sequence[int] = ()) -> bool:
        """Lets a row reach ``need`` tokens, if that leaves room for new rows of ``beside``."""
        need = _rounded(need, LANES)
        columns = max(need, *(row.need for row in self._rows), *beside)
        if (self.rows + len(beside)) * _rounded(columns, LANES) > self._budget:
            return False
        self._rows[slot].need = max(need, self._rows[slot].need)
        self._reserve(())
        return True

    def copy(self, slot: int) -> list[Pair]:
        """A row's keys and values as ``join`` takes them, in the machine's own memory."""
        length = self._rows[slot].length

        def out(side: torch.Tensor) -> torch.Tensor:
            return side[slot, :length].transpose(0, 1).unsqueeze(0).to("cpu", copy=True)

        return [(out(k), out(v)) for k, v in zip(self.keys, self.values, strict=True)]

    def length(self, slot: int) -> int:
        return self._rows[slot].length

    def advance(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Makes room for one more token in each row, for the step that now runs.

        Returns:
            The new tokens' positions, ``[rows]``, and the mask to add to the attention scores,
            ``[rows, 1, 1, longest]``.
        """
        rows = self.rows
        positions = self._lengths[:rows].clone()
        self._targets = positions + self._starts[:rows]
        self._mask.view(-1).index_fill_(0, self._targets, 0.0)
        self._lengths[:rows] += 1
        for row in self._rows:
            row.length += 1
        self.longest = _rounded(max(row.length for row in self._rows), LANES)
        return positions, self._mask[:rows, None, None, : self.longest]

    def write(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keeps each row's newest key and value, ``[rows, heads, dim]``; returns all of them as
        ``[rows, heads, longest, dim]``.
        """
        rows, longest = self.rows, self.longest
        self._flat_keys[layer].index_copy_(0, self._targets, keys)
        self._flat_values[layer].index_copy_(0, self._targets, values)
        return (
            self.keys[layer][:rows, :longest].transpose(1, 2),
            self.values[layer][:rows, :longest].transpose(1, 2),
        )

    def drop(self, slot: int) -> None:
        """Removes a row; the last one takes its place."""
        last = self._rows.pop()
        hole = self.rows
        if slot == hole:
            return
        for side in (*self.keys, *self.values):
            side[slot, : last.length] = side[hole, : last.length]
        self._mask[slot] = self._mask[hole]
        self._lengths[slot] = last.length
        self._rows[slot] = last

    def _reserve(self, needs: Sequence[int]) -> None:
        """Grows the rectangles so that rows with ``needs`` can join."""
        rows = self.rows + len(needs)
        columns = max([row.need for row in self._rows] + list(needs))
        slots, capacity = self._mask.shape
        if rows <= slots and columns <= capacity:
            return
        rounded = _rounded(columns, GRAIN)
        if rows * rounded <= self._budget:
            columns = rounded
        live, old_keys, old_values, old_mask = self.rows, self.keys, self.values, self._mask
        self._allocate(max(rows, min(self._max_rows, self._budget // columns)), columns)
        width = min(capacity, columns)
        for new, old in zip((*self.keys, *self.values), (*old_keys, *old_values), strict=True):
            new[:live, :width] = old[:live, :width]
        self._mask[:live, :width] = old_mask[:live, :width]
        for slot, row in enumerate(self._rows):
            self._lengths[slot] = row.length

    def _allocate(self, slots: int, capacity: int) -> None:
        """Zeroed, because what is masked is still multiplied, and memory may hold NaN."""
        self.keys = [k.new_zeros((slots, capacity, *k.shape[1::2])) for k, _ in self._sample]
        self.values = [v.new_zeros((slots, capacity, *v.shape[1::2])) for _, v in self._sample]
        self._flat_keys = [side.flatten(0, 1) for side in self.keys]
        self._flat_values = [side.flatten(0, 1) for side in self.values]
        sample = self._sample[0][0]
        self._mask = sample.new_full((slots, capacity), _NEVER)
        self._lengths = torch.zeros(slots, dtype=torch.long, device=sample.device)
        self._starts = torch.arange(slots, device=sample.device) * capacity
        self.cache = Cache(layers=[SlotLayer(self, index) for index in range(len(self._sample))])
        """What a model's ``forward`` is given in a step."""


class SlotLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer as transformers sees it: takes each row's newest key and value, gives all back."""

    def __init__(self, slots: Slots, layer: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._slots, self._layer = slots, layer

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``key_states`` and ``value_states``: ``[rows, heads, 1, dim]``."""
        return self._slots.write(self._layer, key_states[:, :, 0], value_states[:, :, 0])
