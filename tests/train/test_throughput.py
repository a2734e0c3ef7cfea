"""Rates, peaks and times as people say them."""

from __future__ import annotations

import time

import pytest

from avocado.train import throughput
from avocado.train.checkpoint import training_flops


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_the_peak_of_a_device_is_known_or_not_said(name: str, teraflops: int | None) -> None:
    assert throughput.peak(name) == (None if teraflops is None else teraflops * 1e12)


def test_a_published_rate_gives_the_published_share() -> None:
    """NeMo's Qwen2.5-7B with LoRA on an H100: 14,110 tokens/s are 43 % of the peak at 4N."""
    limit = throughput.peak("NVIDIA H100 80GB HBM3")
    assert limit is not None
    share = 14_110 * training_flops(7_500_000_000, 1, "lora") / limit
    assert share == pytest.approx(0.43, abs=0.01)


def test_the_clock_leaves_the_first_step_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 15.0, 16.0, 18.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    clock = throughput.Clock(tokens=100)
    first, second, third = clock.step(200), clock.step(260), clock.step(320)
    assert (first.seconds, first.tokens_per_second, first.rate) == (5.0, 20.0, 0.0)
    assert (second.seconds, second.tokens_per_second, second.rate) == (1.0, 60.0, 60.0)
    assert (third.seconds, third.tokens_per_second) == (2.0, 30.0)
    assert (third.rate, third.mean) == (40.0, 1.5)


@pytest.mark.parametrize(
    ("seconds", "said"), [(7.4, "7 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (0, "0 s")]
)
def test_times_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert throughput.spoken(seconds) == said
