"""What holds for every test: nothing is fetched from a hub, and waiting threads do not spin."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before anything imports torch
os.environ["HF_HUB_OFFLINE"] = "1"

from hypothesis import settings

# No example is timed: a busy machine is not a fault of what is tested.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
