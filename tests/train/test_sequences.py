"""Token rows, and the order of a run: every row once an epoch, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.data import corpus
from avocado.data.chat import ChatTemplate, Row
from avocado.errors import Refused
from avocado.train import sequences
from avocado.train.recipe import Recipe, Training


def rows_of(lengths: list[int]) -> sequences.Sequences:
    made = (Row(tuple(range(n)), (-100,) * (n - 1) + (n - 1,)) for n in lengths)
    return sequences.collect(made)


@given(
    lengths=st.lists(st.integers(2, 30), min_size=1, max_size=20),
    batch=st.integers(1, 12),
    micro=st.integers(0, 12),
    steps=st.integers(1, 15),
    seed=st.integers(0, 5),
    packing=st.booleans(),
)
def test_order(
    lengths: list[int], batch: int, micro: int, steps: int, seed: int, packing: bool
) -> None:
    micro = min(micro, batch)
    training = Training(
        learning_rate=0.1,
        batch=batch,
        micro_batch=micro,
        steps=steps,
        seed=seed,
        packing=packing,
        max_length=30,
    )
    order = sequences.order(rows_of(lengths), training)
    assert order == sequences.order(rows_of(lengths), training)
    assert (order.steps, len(order.tokens)) == (steps, steps)
    assert order.per_step * steps == len(order.micro_batches)
    cut = [
        [
            row
            for micro_batch in order.micro_batches[start : start + order.per_step]
            for row in micro_batch
        ]
        for start in range(0, len(order.micro_batches), order.per_step)
    ]
    assert all(len(step) == batch for step in cut)
    seen = [0] * len(lengths)
    for step in cut:
        for row in step:
            seen[row] += 1
    assert max(seen) - min(seen) <= 1, "no row comes twice before all came once"
    assert order.tokens[-1] == sum(lengths[row] for step in cut for row in step)
    assert order.trained == batch * steps
    assert all(order.micro_batches)
    positions = order.positions(lengths)
    if packing:
        assert sum(positions) == order.tokens[-1], "no padding"
        assert max(positions) <= 30 * (micro or batch)
    elif micro:
        assert all(len(each) <= micro for each in order.micro_batches)


@given(lengths=st.lists(st.integers(8, 100), min_size=1, max_size=60), seed=st.integers(0, 3))
def test_packing_fills_its_rows(lengths: list[int], seed: int) -> None:
    """No two of its rows would fit into one, and the rows of a step stay those of the step."""
    training = Training(
        learning_rate=0.1, batch=len(lengths), micro_batch=1, steps=1, max_length=100, seed=seed
    )
    order = sequences.order(rows_of(lengths), training)
    two = sorted(order.positions(lengths))[:2]
    assert len(two) < 2 or sum(two) > 100
    padded = msgspec.structs.replace(training, packing=False)
    steps = [sequences.order(rows_of(lengths), each) for each in (training, padded)]
    seen = [sorted(row for each in order.micro_batches for row in each) for order in steps]
    assert seen[0] == seen[1]


def test_epochs_become_steps_that_cover_every_row() -> None:
    training = Training(learning_rate=0.1, batch=4, epochs=2.0)
    order = sequences.order(rows_of([3] * 10), training)
    assert order.steps == 5
    assert sorted(row for each in order.micro_batches for row in each) == sorted([*range(10)] * 2)


def test_seeds_differ() -> None:
    one, two = (Training(learning_rate=0.1, batch=4, steps=5, seed=seed) for seed in (1, 2))
    rows = rows_of([3] * 10)
    assert sequences.order(rows, one).micro_batches != sequences.order(rows, two).micro_batches


def test_rows_are_what_the_template_renders(corpus_folder: Path, template: ChatTemplate) -> None:
    examples = list(corpus.read(corpus_folder))
    expected = [row for each in examples for row in template.rows(each.messages, each.tools)]
    made = sequences.render(examples, template, 128)
    assert len(made) == len(expected)
    for index, row in enumerate(expected):
        ids, labels = made.row(index)
        assert (tuple(ids), tuple(labels)) == (row.ids, row.labels)
    assert made.lengths == [len(row.ids) for row in expected]
    assert made.trained_by_row == [row.trained for row in expected]
    assert (made.tokens, made.trained) == (sum(made.lengths), sum(made.trained_by_row))


def test_a_long_row_is_an_error_and_is_never_cut(
    corpus_folder: Path, template: ChatTemplate
) -> None:
    with pytest.raises(
        Refused, match=r"rows\.jsonl, row \d+: \d+ tokens where max_length allows 20"
    ):
        sequences.render(corpus.read(corpus_folder), template, 20)


def test_no_row_is_refused(template: ChatTemplate, make_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(Refused, match="nothing to train on"):
        sequences.render([], template, make_recipe().training.max_length)
