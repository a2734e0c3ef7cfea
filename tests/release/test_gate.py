"""The gate refuses what is not better, what is worse somewhere, and what may not be sold."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.release.gate import Group, Rules, decide
from avocado.terms.licence import Component, Verdict, judge


def group(base: float, refined: float, low: float, name: str = "all") -> Group:
    return Group(name, 100, base, refined, low, refined - base + 0.05)


def verdict(
    purpose: Literal["sale", "publication"] = "sale", licence: str = "Apache-2.0"
) -> Verdict:
    return judge([Component("base", "seedling", licence)], purpose)


GAIN = group(0.0, 0.9, 0.8)


def test_a_proven_gain_under_a_free_licence_is_approved() -> None:
    assert decide(GAIN, [group(0.0, 0.9, 0.8, "de")], verdict(), Rules()).approved


def test_a_paid_release_needs_a_scorecard_an_open_one_does_not() -> None:
    refused = decide(None, [], verdict(), Rules())
    assert "avocado evaluate" in refused.reasons[0]
    assert decide(None, [], verdict("publication"), Rules()).approved


def test_a_gain_within_the_noise_is_refused_for_sale() -> None:
    noise = group(0.5, 0.52, -0.03)
    assert "no proven gain" in decide(noise, [], verdict(), Rules()).reasons[0]
    assert decide(noise, [], verdict("publication"), Rules()).approved


def test_a_loser_is_refused_either_way() -> None:
    lost = group(0.5, 0.4, -0.2)
    assert not decide(lost, [], verdict(), Rules()).approved
    assert not decide(lost, [], verdict("publication"), Rules()).approved


def test_one_language_that_got_worse_is_named() -> None:
    worse = group(0.5, 0.45, -0.1, "fr")
    refused = decide(GAIN, [group(0.1, 0.9, 0.7, "de"), worse], verdict(), Rules())
    assert len(refused.reasons) == 1
    assert "worse in fr" in refused.reasons[0]
    assert decide(GAIN, [worse], verdict(), Rules(max_regression=0.06)).approved


def test_every_reason_is_told_at_once() -> None:
    worse = group(0.5, 0.3, -0.3, "fr")
    reasons = decide(worse, [worse], verdict(licence="CC-BY-NC-4.0"), Rules()).reasons
    assert len(reasons) == 3


shares = st.floats(0, 1)


@given(shares, shares, st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_paid_approval_always_means_an_interval_above_the_margin(
    base: float, refined: float, width: float, margin: float
) -> None:
    overall = Group("all", 50, base, refined, refined - base - width, refined - base + width)
    decision = decide(overall, [], verdict(), Rules(min_gain=margin))
    assert decision.approved == (overall.low > margin)


@pytest.mark.parametrize("licence", ["unknown", "CC-BY-NC-4.0", "CC-BY-SA-4.0"])
def test_a_licence_that_does_not_allow_it_stops_a_winner(licence: str) -> None:
    assert not decide(GAIN, [], verdict(licence=licence), Rules()).approved
