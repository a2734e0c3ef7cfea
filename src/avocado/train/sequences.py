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
from typing import TYPE_CHECKING, Final, TypeAlias

from avocado.data.chat import IGNORED, ChatTemplate, RenderError, Row
from avocado.data.document import Document
from avocado.data.example import Example
from avocado.errors import Refused
from avocado.train.recipe import Training

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

END_OF_TEXT: Final = "<|endoftext|>"

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


def end_of_text(template: ChatTemplate) -> int:
    """The token that follows a document: Qwen's ``<|endoftext|>``, else the tokenizer's own end."""
    vocabulary = template.tokenizer.get_vocab()
    return int(vocabulary.get(END_OF_TEXT, template.tokenizer.eos_token_id))


def render_documents(
    documents: Iterable[Document], template: ChatTemplate, max_length: int
) -> tuple[Sequences, int]:
    """The training rows of raw text, in order, and how many documents were cut.

    Every token is trained but a document's first, which nothing precedes; the end-of-text token is
    appended. A document of more than ``max_length`` tokens becomes several rows, each of which
    begins with the token that the one before ended with, so that no token is trained twice or not.

    Raises:
        Refused: a text holds a control token, or there is no document.
    """
    end = end_of_text(template)
    cut = 0

    def rows() -> Iterator[Row]:
        nonlocal cut
        for document in documents:
            control = [
                mark for mark in template.tokenizer.all_special_tokens if mark in document.text
            ]
            if control:
                raise Refused(
                    f"{document.file}, row {document.row}: its text contains the control token "
                    f"{control[0]}"
                )
            ids = (*template.encode(document.text), end)
            cut += len(ids) > max_length
            for begin in range(0, max(1, len(ids) - 1), max_length - 1):
                window = ids[begin : begin + max_length]
                yield Row(window, (IGNORED, *window[1:]))

    return collect(rows()), cut


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


def order(rows: Sequences, training: Training, processes: int = 1) -> Order:
    """The micro-batches of a run, equally many a step, and as many for each of ``processes``.

    Rows come in a fresh permutation each epoch, one after the other, so that a step holds exactly
    ``batch`` rows and no row comes twice before all came once. How a step is cut changes no
    gradient. Packed: a micro-batch holds up to ``micro_batch`` × ``max_length`` tokens, filled
    best fit decreasing. Else it holds ``micro_batch`` rows of like length, longest first. Of a
    step's micro-batches, process p of n takes every n-th from the p-th on. Pure: the same arguments
    give the same order on any machine.

    Raises:
        Refused: a step has too few rows to be shared by so many processes.
    """
    steps = training.steps or max(1, math.ceil(len(rows) * (training.epochs or 0) / training.batch))
    micro = training.micro_batch or training.batch
    lengths, labelled = rows.lengths, rows.trained_by_row
    taken = draw(lengths, training, steps)
    tokens: list[int] = []
    total = trained = 0
    for step in taken:
        total += sum(lengths[row] for row in step)
        trained += sum(labelled[row] for row in step)
        tokens.append(total)
    if training.packing:
        bins = [_best_fit(step, lengths, micro * training.max_length) for step in taken]
    else:
        bins = [[step[at : at + micro] for at in range(0, len(step), micro)] for step in taken]
    cut = _evened(bins, lengths, processes)
    return Order(steps, cut, tokens, trained, training.packing)


def draw(lengths: Sequence[int], training: Training, steps: int) -> list[list[int]]:
    """The rows of each step: a fresh permutation each epoch, one after the other; a step's rows
    are sorted by length, longest first."""
    numbers = _permutations(len(lengths), training.seed)
    drawn = ([next(numbers) for _ in range(training.batch)] for _ in range(steps))
    return [sorted(step, key=lambda row: (-lengths[row], row)) for step in drawn]


def _evened(bins: list[list[list[int]]], lengths: Sequence[int], processes: int) -> list[list[int]]:
    """Every step gets as many bins as the step that needs most, so that each is one accumulation of
    equally many micro-batches in each process; where fewer would do, the fullest are halved."""
    most = -(-max(map(len, bins)) // processes) * processes
    rows = sum(map(len, bins[0]))
    if most > rows:
        raise Refused(
            f"a step of batch = {rows} cannot be shared by {processes} processes: make batch a "
            f"multiple of {processes}"
        )
    for each in bins:
        while len(each) < most:
            _halve(each, lengths)
    return [micro_batch for each in bins for micro_batch in each]


def _best_fit(rows: Sequence[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """``rows``, longest first, in bins of up to ``capacity`` tokens: best fit decreasing."""
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
