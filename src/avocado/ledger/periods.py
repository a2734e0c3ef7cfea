"""Calendar months and the names of counters that run by them. UTC; times in ns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

TOTAL: Final = "total"
"""The period without an end."""


def month_of(at: int) -> str:
    """The calendar month, UTC, of a time in ns: ``2026-11``."""
    when = datetime.fromtimestamp(at // 1_000_000_000, UTC)
    return f"{when.year:04d}-{when.month:02d}"


def month_start(at: int) -> int:
    """The first nanosecond, UTC, of the month of ``at``."""
    when = datetime.fromtimestamp(at // 1_000_000_000, UTC)
    return int(datetime(when.year, when.month, 1, tzinfo=UTC).timestamp()) * 1_000_000_000


def volume_name(tenant: str, price_version: str, at: int) -> str:
    """The counter of the tokens that a tiered price counts."""
    return f"volume:{tenant}/{price_version}/{month_of(at)}"


def spent_names(tenant: str, key_id: str | None, period: str) -> list[str]:
    """The counters that a request of this customer and key, opened in ``period``, may count in."""
    names = [f"customer:{tenant}/{period}", f"customer:{tenant}/{TOTAL}"]
    if key_id is not None:
        names += [f"key:{key_id}/{period}", f"key:{key_id}/{TOTAL}"]
    return names
