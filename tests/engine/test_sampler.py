"""Choices against a plain loop over one row, and against the probabilities themselves."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avocado.engine import sampler
from avocado.engine.engine import Sampling
from avocado.engine.sampler import Choice, NotFinite, choose


def allowed(logits: list[float], temperature: float, top_p: float, top_k: int) -> dict[int, float]:
    """Probabilities left by the filters, likeliest first, from their definition."""
    weights = [math.exp((value - max(logits)) / temperature) for value in logits]
    order = sorted(range(len(logits)), key=lambda token: -weights[token])
    if top_k:
        order = order[:top_k]
    total = sum(weights[token] for token in order)
    kept, reached = {}, 0.0
    for token in order:
        if reached >= top_p:
            break
        kept[token] = weights[token] / total
        reached += weights[token] / total
    share = sum(kept.values())
    return {token: weight / share for token, weight in kept.items()}


rows = st.lists(
    st.tuples(
        st.floats(0.2, 3), st.sampled_from([1.0, 0.9, 0.5, 0.05]), st.sampled_from([0, 1, 3, 50])
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=150)
@given(rows, st.integers(0, 2**32), st.sampled_from([4, 1024]))
def test_a_batch_chooses_what_each_row_alone_would(
    settings_: list[tuple[float, float, int]], seed: int, candidates: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(settings_), 40, generator=generator) * 3
    numbers = random.Random(seed)

    def choices() -> list[Choice]:
        return [
            Choice.of(Sampling(1, temperature, top_p, top_k, seed=seed + row))
            for row, (temperature, top_p, top_k) in enumerate(settings_)
        ]

    before = sampler.CANDIDATES
    sampler.CANDIDATES = candidates  # type: ignore[misc]
    try:
        together = choose(logits, choices())
        order = list(range(len(settings_)))
        numbers.shuffle(order)
        shuffled = choose(logits[order], [choices()[row] for row in order])
        alone = [choose(logits[row : row + 1], [choices()[row]])[0] for row in order]
    finally:
        sampler.CANDIDATES = before  # type: ignore[misc]
    assert shuffled == alone == [together[row] for row in order]
    for row, (temperature, top_p, top_k) in enumerate(settings_):
        draw = random.Random(seed + row).random()
        kept = allowed(logits[row].tolist(), temperature, top_p, top_k)
        assert together[row] in kept
        if top_p < 1 or top_k:  # in order of likelihood the draw can be followed
            reached = 0.0
            for token, share in kept.items():
                if abs(reached - draw) < 1e-4 or abs(reached + share - draw) < 1e-4:
                    break  # a draw on the border may fall to either side
                if reached <= draw < reached + share:
                    assert together[row] == token
                reached += share


@pytest.mark.parametrize(("top_p", "top_k"), [(1.0, 0), (0.8, 0), (1.0, 3), (0.7, 4)])
def test_tokens_come_as_often_as_their_probability_says(top_p: float, top_k: int) -> None:
    values = [2.0, 1.5, 1.0, 0.3, 0.0, -1.0]
    expected = allowed(values, 0.8, top_p, top_k)
    n = 20_000
    choice = Choice.of(Sampling(1, 0.8, top_p, top_k, seed=1))
    tokens = choose(torch.tensor([values]).expand(n, -1), [choice] * n)
    for token in range(len(values)):
        share = expected.get(token, 0.0)
        spread = 5 * math.sqrt(max(share * (1 - share), 1e-9) / n)
        assert tokens.count(token) / n == pytest.approx(share, abs=spread)


def test_greedy_and_drawing_rows_stand_side_by_side() -> None:
    logits = torch.tensor([[0.0, 9.0, 0.0], [9.0, 0.0, 0.0], [0.0, 0.0, 9.0]])
    cold = Choice.of(Sampling(1, temperature=0))
    picky = Choice.of(Sampling(1, 1.0, top_k=1))
    warm = Choice.of(Sampling(1, 0.01))
    assert choose(logits, [cold, picky, warm]) == [1, 0, 2]


@pytest.mark.parametrize("temperature", [1e-4, 1e-5, 1e-9, 1e9])
def test_extreme_temperatures_are_safe(temperature: float) -> None:
    logits = torch.tensor([[1.0, 3.0e4, -3.0e4]])
    token = choose(logits, [Choice.of(Sampling(1, temperature, 0.9, seed=0))])[0]
    assert token == 1 or temperature == 1e9


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_an_error(bad: float, temperature: float) -> None:
    logits = torch.tensor([[0.0, 1.0], [bad, 1.0]])
    with pytest.raises(NotFinite):
        choose(logits, [Choice.of(Sampling(1, temperature))] * 2)
    with pytest.raises(NotFinite):
        choose(torch.full((1, 3), -float("inf")), [Choice.of(Sampling(1, temperature))])


def test_ruled_out_tokens_are_never_drawn() -> None:
    logits = torch.tensor([[-float("inf"), 0.0, -float("inf"), 0.0]])
    for seed in range(200):
        assert choose(logits, [Choice.of(Sampling(1, 5.0, seed=seed))])[0] in (1, 3)
        assert choose(logits, [Choice.of(Sampling(1, 5.0, 0.9, seed=seed))])[0] in (1, 3)
