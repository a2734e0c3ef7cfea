"""What holds for every test: nothing is fetched from a hub, and waiting threads do not spin."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before anything imports torch
os.environ["HF_HUB_OFFLINE"] = "1"

from hypothesis import settings

# No example is timed: a busy machine is not a fault of what is tested.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

LONG = (
    "tests/train/test_resume_kills.py",
    "tests/browser/test_console.py",
    "tests/cli/test_operation.py",
    "tests/train/test_distributed.py",
    "tests/cli/test_engines.py",
    "tests/cli/test_bad_input.py",
    "tests/train/",
    "tests/cli/",
)
"""Where few tests take long: workers begin with these, so none is left with them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        fits = (n for n, part in enumerate(LONG) if item.nodeid.startswith(part))
        return next(fits, len(LONG))

    items.sort(key=place)
