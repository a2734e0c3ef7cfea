"""Sequences: a corpus as token rows with labels, and the exact order in which a run sees them.

The rows come from ``data.chat``, which serving also renders with, so a label cannot differ from
what serving asks for. Nothing is cut: a row that is too long is an error. Knows no model.
"""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from avocado.data.chat import IGNORED, ChatTemplate, RenderError, Row
from avocado.data.example import Example
from avocado.errors import Refused
from avocado.train.recipe import Training

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Tokens: TypeAlias = "tuple[NDArray[np.int32], NDArray[np.int32]]"
"""The ids and labels of one row."""


@dataclass(frozen=True)
class Sequences:
    """Token rows end to end: row i is ``ids[starts[i]:starts[i + 1]]``, its labels likewise."""

    ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [int(length) for length in self.starts[1:] - self.starts[:-1]]

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def trained(self) -> int:
        """Tokens that carry loss."""
        return int((self.labels != IGNORED).sum())

    @property
    def trained_by_row(self) -> list[int]:
        """Tokens of each row that carry loss."""
        import numpy as np

        counts = np.add.reduceat((self.labels != IGNORED).astype(np.int64), self.starts[:-1])
        return [int(count) for count in counts]

    def row(self, index: int) -> Tokens:
        """The ids and labels of one row."""
        part = slice(self.starts[index], self.starts[index + 1])
        return self.ids[part], self.labels[part]


def render(examples: Iterable[Example], template: ChatTemplate, max_length: int) -> Sequences:
    """The training rows of ``examples``, in order.

    Raises:
        Refused: a row cannot be rendered right, is longer than ``max_length`` tokens, or none is.
    """
    return collect(_rows(examples, template, max_length))


def _rows(examples: Iterable[Example], template: ChatTemplate, max_length: int) -> Iterator[Row]:
    for example in examples:
        where = f"{example.file}, row {example.row}"
        try:
            rows = template.rows(example.messages, example.tools)
        except RenderError as error:
            raise Refused(f"{where}: {error}") from error
        for row in rows:
            if len(row.ids) > max_length:
                raise Refused(
                    f"{where}: {len(row.ids):,} tokens where max_length allows {max_length:,}; "
                    'raise max_length, or leave such rows out with over_length = "drop"'
                )
            yield row


def collect(rows: Iterable[Row]) -> Sequences:
    """Rows end to end in three arrays: eight bytes a token, however many rows.

    Raises:
        Refused: there is no row.
    """
    import numpy as np

    ids, labels, lengths = array("i"), array("i"), array("q", [0])
    for row in rows:
        ids.extend(row.ids)
        labels.extend(row.labels)
        lengths.append(len(row.ids))
    if len(lengths) == 1:
        raise Refused("the corpus holds no example, so there is nothing to train on")
    return Sequences(
        np.frombuffer(ids, np.int32), np.frombuffer(labels, np.int32), np.cumsum(lengths)
    )


@dataclass(frozen=True)
class Order:
    """The order of a run. ``micro_batches`` holds row numbers, equally many micro-batches a step;
    ``tokens`` counts what has passed the model after each step, ``trained`` the labels of all.
    ``packed``: the rows of a micro-batch lie end to end, else beside each other, padded.
    """

    steps: int
    micro_batches: Sequence[Sequence[int]]
    tokens: Sequence[int]
    trained: int
    packed: bool = False

    @property
    def per_step(self) -> int:
        """Micro-batches of one step."""
        return len(self.micro_batches) // self.steps

    def positions(self, lengths: Sequence[int]) -> list[int]:
        """What each micro-batch of rows of these ``lengths`` computes, padding included."""
        if self.packed:
            return [sum(lengths[row] for row in each) for each in self.micro_batches]
        return [len(each) * max(lengths[row] for row in each) for each in self.micro_batches]


def order(rows: Sequences, training: Training) -> Order:
    """The micro-batches of a run, equally many a step.

    Rows come in a fresh permutation each epoch, one after the other, so that a step holds exactly
    ``batch`` rows and no row comes twice before all came once. How a step is cut changes no
    gradient. Packed: a micro-batch holds up to ``micro_batch`` × ``max_length`` tokens, filled
    best fit decreasing. Else it holds ``micro_batch`` rows of like length, longest first. Pure:
    the same arguments give the same order on any machine.
    """
    steps = training.steps or max(1, math.ceil(len(rows) * (training.epochs or 0) / training.batch))
    micro = training.micro_batch or training.batch
    lengths, labelled = rows.lengths, rows.trained_by_row
    numbers = _permutations(len(rows), training.seed)
    taken: list[list[int]] = []
    tokens: list[int] = []
    total = trained = 0
    for _ in range(steps):
        step = [next(numbers) for _ in range(training.batch)]
        step.sort(key=lambda row: (-lengths[row], row))
        taken.append(step)
        total += sum(lengths[row] for row in step)
        trained += sum(labelled[row] for row in step)
        tokens.append(total)
    if training.packing:
        cut = _packed(taken, lengths, micro * training.max_length)
    else:
        cut = [step[at : at + micro] for step in taken for at in range(0, len(step), micro)]
    return Order(steps, cut, tokens, trained, training.packing)


def _packed(
    steps: Sequence[Sequence[int]], lengths: Sequence[int], capacity: int
) -> list[list[int]]:
    """Each step's rows, longest first, in bins of up to ``capacity`` tokens: best fit decreasing.

    Every step gets as many bins as the step that needs most, so that each is one accumulation of
    equally many micro-batches; where fewer would do, the fullest are halved.
    """
    bins = [_best_fit(step, lengths, capacity) for step in steps]
    most = max(map(len, bins))
    for each in bins:
        while len(each) < most:
            _halve(each, lengths)
    return [rows for each in bins for rows in each]


def _best_fit(rows: Sequence[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, bin), ascending
    for row in rows:
        place = bisect_left(room, (lengths[row], 0))
        left, number = room.pop(place) if place < len(room) else (capacity, len(bins))
        if number == len(bins):
            bins.append([])
        bins[number].append(row)
        insort(room, (left - lengths[row], number))
    return bins


def _halve(bins: list[list[int]], lengths: Sequence[int]) -> None:
    """Splits the fullest bin of several rows into two of about equal tokens."""
    several = [number for number, rows in enumerate(bins) if len(rows) > 1]
    fullest = max(several, key=lambda number: (sum(lengths[row] for row in bins[number]), -number))
    halves: tuple[list[int], list[int]] = ([], [])
    sums = [0, 0]
    for row in bins[fullest]:
        lighter = int(sums[1] < sums[0])
        halves[lighter].append(row)
        sums[lighter] += lengths[row]
    bins[fullest : fullest + 1] = halves


def _permutations(rows: int, seed: int) -> Iterator[int]:
    shuffle = random.Random(seed)
    while True:
        numbers = list(range(rows))
        shuffle.shuffle(numbers)
        yield from numbers
