"""Holding out: whole groups, near the share, whatever the order of the rows."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.data.holdout import chosen
from avocado.errors import Refused

GROUPS = st.lists(st.integers(0, 30), min_size=2, max_size=200)


def first_rows(names: list[int]) -> list[int]:
    return [names.index(name) for name in names]


@given(names=GROUPS, share=st.floats(0.01, 0.5), seed=st.integers(0, 9))
def test_whole_groups_never_more_than_the_share(names: list[int], share: float, seed: int) -> None:
    keys = [name * 7919 for name in names]
    wanted = max(1, round(share * len(names)))
    try:
        held = chosen(first_rows(names), keys, [False] * len(names), share)
    except Refused:
        assert min(names.count(name) for name in names) > min(wanted, len(names) - 1)
        return
    rows = [name for name, group in zip(names, first_rows(names), strict=True) if group in held]
    assert 0 < len(rows) <= wanted < len(names)
    left = [name for name in names if name not in rows]
    assert all(names.count(name) > wanted - len(rows) for name in left)
    shuffled = names[:]
    random.Random(seed).shuffle(shuffled)
    again = chosen(
        first_rows(shuffled), [name * 7919 for name in shuffled], [False] * len(names), share
    )
    assert {shuffled[group] for group in again} == {names[group] for group in held}


@given(names=GROUPS, general=st.sets(st.integers(0, 30)))
def test_general_data_is_neither_held_out_nor_counted(names: list[int], general: set[int]) -> None:
    flags = [name in general for name in names]
    try:
        held = chosen(first_rows(names), [name * 7919 for name in names], flags, 0.2)
    except Refused:
        return
    assert not {names[group] for group in held} & general


def test_the_last_row_is_never_held_out() -> None:
    with pytest.raises(Refused, match="of 1 rows needs a group of at most 0 rows"):
        chosen([0], [5], [False], 0.5)
    with pytest.raises(Refused, match="there are none"):
        chosen([0, 1], [5, 6], [True, True], 0.5)
