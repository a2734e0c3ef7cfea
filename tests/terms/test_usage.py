"""Usage: counts that can be true."""

from __future__ import annotations

import pytest

from avocado.terms.usage import MAX_TOKENS, Usage, UsageError


def test_cached_and_reasoning_are_parts_not_extras() -> None:
    assert Usage(prompt=10, completion=5, cached=4, reasoning=2).total == 15


@pytest.mark.parametrize(
    "counts",
    [
        {"prompt": -1},
        {"completion": 1.5},
        {"completion": float("nan")},
        {"completion": True},
        {"prompt": "1"},
        {"completion": 2**63},
        {"prompt": MAX_TOKENS + 1},
        {"prompt": 1, "cached": 2},
        {"completion": 1, "reasoning": 2},
    ],
)
def test_fault_23_impossible_counts_are_refused(counts: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        Usage(**counts)
