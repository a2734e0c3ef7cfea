"""Calendar months, UTC, written as ``2026-10``: what an invoice is for. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final

_SECOND: Final = 1_000_000_000
_MONTH: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


def is_month(text: str) -> bool:
    return _MONTH.fullmatch(text) is not None


def month_at(at: int) -> str:
    """The month of a time in ns."""
    return datetime.fromtimestamp(at // _SECOND, UTC).strftime("%Y-%m")


def day_at(at: int) -> str:
    """The day (ISO) of a time in ns."""
    return datetime.fromtimestamp(at // _SECOND, UTC).date().isoformat()


def after(month: str, months: int = 1) -> str:
    """The month so many later, or earlier if negative."""
    year, number = divmod(int(month[:4]) * 12 + int(month[5:]) - 1 + months, 12)
    return f"{year:04d}-{number + 1:02d}"


def start(month: str) -> int:
    """Its first nanosecond."""
    first = datetime(int(month[:4]), int(month[5:]), 1, tzinfo=UTC)
    return int(first.timestamp()) * _SECOND


def end(month: str) -> int:
    """The first nanosecond after it."""
    return start(after(month))


def days(month: str) -> tuple[str, str]:
    """Its first and its last day."""
    following = after(month)
    last = date(int(following[:4]), int(following[5:]), 1) - timedelta(days=1)
    return f"{month}-01", last.isoformat()


def between(first: str, last: str) -> Iterator[str]:
    """The months from ``first`` to ``last``, both included."""
    while first <= last:
        yield first
        first = after(first)


def later_day(day: str, count: int) -> str:
    return (date.fromisoformat(day) + timedelta(days=count)).isoformat()
