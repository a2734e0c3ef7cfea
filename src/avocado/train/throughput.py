"""Throughput: how fast a run goes, and what share of the device's peak that is.

Knows nothing of what is trained: tokens and seconds come in, rates come out.
"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from typing import Final

MFU_FORMULA: Final = (
    "MFU = FLOPs a token (6N, or 4N where weights are frozen) × tokens a second ÷ "
    "(the device's bf16 dense peak × devices); attention's quadratic part is not counted"
)

PEAKS: Final = (
    ("H200 NVL", 835e12),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("A100", 312e12),
)
"""bf16 dense FLOP/s of a device by what its name contains, the first that fits, as NVIDIA's data
sheets state them (halved where they count sparsity)."""


def peak(device: str) -> float | None:
    """The bf16 dense peak of the device of this name in FLOP/s, or None where it isn't known."""
    return next((flops for name, flops in PEAKS if name in device), None)


def device_name() -> str | None:
    """What the GPU is called, or None where there is none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


@dataclass(frozen=True, slots=True)
class Pace:
    """A step's own ``seconds`` and ``tokens_per_second``, and the run's so far: ``rate`` in tokens
    a second and ``mean`` seconds a step, of this process from its first step on, 0 before that."""

    seconds: float
    tokens_per_second: float
    rate: float
    mean: float


class Clock:
    """Times the steps of one process. The first one warms up: the run's rate leaves it out."""

    def __init__(self, tokens: int = 0) -> None:
        """``tokens`` have passed before; the first step begins now."""
        self._last = (time.perf_counter(), tokens)
        self._first: tuple[float, int] | None = None
        self._steps = 0

    def step(self, tokens: int) -> Pace:
        """A step has just ended; ``tokens`` have passed the model in all."""
        now = time.perf_counter()
        seconds = now - self._last[0]
        own = (tokens - self._last[1]) / seconds
        self._last = (now, tokens)
        if self._first is None:
            self._first = self._last
            return Pace(seconds, own, 0.0, 0.0)
        self._steps += 1
        began, before = self._first
        return Pace(seconds, own, (tokens - before) / (now - began), (now - began) / self._steps)


def memory_peak() -> int:
    """Bytes that this process has held at most: of the GPU's memory, else of the machine's."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used  # kilobytes, but on macOS


def spoken(seconds: float) -> str:
    """``seconds`` as people say it: ``2 h 5 min``, ``3 min 20 s``, ``7 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
