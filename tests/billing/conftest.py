"""What tests of payments share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.billing.stripe_stand_in import StandIn


@pytest.fixture(scope="module")
def stripe() -> Iterator[StandIn]:
    server = StandIn()
    yield server
    server.close()
