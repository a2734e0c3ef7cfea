"""What the writer measures about itself: commits, their latency, batch sizes, the queue."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

LATENCY_BOUNDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
"""Upper bounds of the latency buckets, in seconds; one more bucket is above them all."""
BATCH_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Upper bounds of the batch size buckets."""


@dataclass(slots=True)
class Metrics:
    """Counters since the start. One thread writes; readers may see a batch half counted."""

    commits: int = 0
    operations: int = 0
    failed: int = 0
    refused_full: int = 0
    waiting: int = 0
    commit_seconds: float = 0.0
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS) + 1))
    batches: list[int] = field(default_factory=lambda: [0] * (len(BATCH_BOUNDS) + 1))

    def committed(self, operations: int, nanoseconds: int) -> None:
        seconds = nanoseconds / 1e9
        self.commits += 1
        self.operations += operations
        self.commit_seconds += seconds
        self.latency[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        self.batches[bisect_left(BATCH_BOUNDS, operations)] += 1
