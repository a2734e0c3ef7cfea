"""Penalties and biases against their definition; log-probabilities against the logits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avocado.engine.constraint import Constraint
from avocado.engine.engine import Sampling, TokenLogprob
from avocado.engine.logprobs import Spelling, Telling, Told
from avocado.engine.sampler import Choice, decide

penalties = st.floats(-2, 2).map(lambda value: round(value, 3))
biases = st.dictionaries(st.integers(0, 19), st.floats(-100, 100).map(round), max_size=5)


@given(penalties, penalties, biases, st.lists(st.integers(0, 19), max_size=12), st.integers(0, 99))
def test_logits_change_as_openai_defines(
    presence: float, frequency: float, bias: dict[int, int], history: list[int], seed: int
) -> None:
    """mu[j] - c[j] * frequency - (c[j] > 0) * presence, and the bias."""
    sampling = Sampling(
        1,
        0.0,
        presence_penalty=presence,
        frequency_penalty=frequency,
        logit_bias=tuple(bias.items()),
    )
    logits = torch.randn(20, generator=torch.Generator().manual_seed(seed))
    constraint = Constraint.of(sampling)
    if constraint is None:
        assert (presence, frequency, bias) == (0, 0, {})
        return
    constraint.apply(logits.clone())
    for token in history:
        constraint.take(token)
    got = logits.clone()
    constraint.apply(got)
    counts = [history.count(token) for token in range(20)]
    expected = [
        float(logits[token])
        - counts[token] * frequency
        - (counts[token] > 0) * presence
        + bias.get(token, 0)
        for token in range(20)
    ]
    assert got.tolist() == pytest.approx(expected, abs=1e-4)


def test_rows_that_ask_do_not_touch_those_that_do_not() -> None:
    logits = torch.randn(4, 20, generator=torch.Generator().manual_seed(1))
    banned = int(logits[1].argmax())
    greedy = Sampling(1, 0.0)
    biased = Sampling(1, 0.0, logit_bias=((banned, -100.0),))
    told = Sampling(1, 0.0, logprobs=True, top_logprobs=3)
    choices = [Choice.of(each, Constraint.of(each)) for each in (greedy, biased, told, greedy)]
    plain = logits.argmax(dim=-1).tolist()
    second = logits[1].topk(2).indices[1].item()
    tokens, said = decide(logits.clone(), choices)
    assert tokens == [plain[0], second, plain[2], plain[3]]
    assert set(said) == {2}
    assert [token for token, _ in said[2].top] == logits[2].topk(3).indices.tolist()
    assert said[2].logprob == said[2].top[0][1]
    shares = logits[2].softmax(0)
    assert math.exp(said[2].logprob) == pytest.approx(float(shares.max()), rel=1e-5)


def test_what_is_told_is_the_models_own_opinion() -> None:
    """Temperature, penalties and filters change what is chosen and not what is told."""
    logits = torch.randn(1, 20, generator=torch.Generator().manual_seed(2))
    own = logits[0].log_softmax(0).tolist()
    for seed in range(30):
        sampling = Sampling(
            1, 5.0, 0.9, 7, seed=seed, presence_penalty=2, logprobs=True, top_logprobs=2
        )
        constraint = Constraint.of(sampling)
        (token,), said = decide(logits.clone(), [Choice.of(sampling, constraint)])
        assert said[0].logprob == pytest.approx(own[token], abs=1e-5)
        assert [value for _, value in said[0].top] == pytest.approx(
            sorted(own, reverse=True)[:2], abs=1e-5
        )


def test_no_alternatives_and_many_stand_side_by_side() -> None:
    logits = torch.randn(2, 20, generator=torch.Generator().manual_seed(3))
    none = Choice.of(Sampling(1, 0.0, logprobs=True))
    five = Choice.of(Sampling(1, 0.0, logprobs=True, top_logprobs=5))
    _, said = decide(logits, [none, five])
    assert [len(said[row].top) for row in (0, 1)] == [0, 5]


def test_a_spelling_gives_back_every_text(backend: Any) -> None:
    spelling = Spelling(backend)
    for text in ("la reunión 🥑 会议\n\x00é", "<|im_start|>user\n"):
        ids = backend.encode(text, add_special_tokens=False).ids
        assert b"".join(map(spelling.of, ids)) == text.encode()
    mark = backend.token_to_id("<|im_start|>")
    assert spelling.of(mark) == b"<|im_start|>"
    assert spelling.of(10**6) == b""


@given(text=st.text(max_size=30), data=st.data())
def test_each_token_is_told_once_with_the_text_it_begins(
    backend: Any, text: str, data: st.DataObject
) -> None:
    ids = backend.encode(text, add_special_tokens=False).ids
    telling = Telling(Spelling(backend))
    told: list[TokenLogprob] = []
    ready = shown = ""
    for place, token in enumerate(ids):
        telling.hear(token, Told(-float(place)), len(ready))
        ready = backend.decode(ids[: place + 1]).rstrip("\ufffd")
        more = ready[len(shown) : data.draw(st.integers(len(shown), len(ready)))]
        told += telling.tell(more)
        shown += more
        begun = b"".join(each.bytes for each in told)
        assert begun.startswith(shown.encode())
        if told:
            assert len(begun) - len(told[-1].bytes) <= len(shown.encode())
    told += telling.rest()
    assert [each.logprob for each in told] == [-float(place) for place in range(len(ids))]
    assert b"".join(each.bytes for each in told).decode() == text
