"""Days and billing periods, counted by the calendar in UTC. Pure.

A period begins on a day and ends just before its day next month or next year. It is always counted
from the anchor, never from the period before: 31 January → 28 February → 31 March.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal

Length = Literal["month", "year"]
_SECOND: Final = 1_000_000_000
_MONTHS: Final[dict[str, int]] = {"month": 1, "year": 12}


def day_of(at: int) -> date:
    """The day, UTC, of a time in ns since 1970."""
    return datetime.fromtimestamp(at // _SECOND, UTC).date()


def start_of(day: date) -> int:
    """The first nanosecond of a day, UTC."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * _SECOND


def later(day: date, days: int) -> date:
    return day + timedelta(days=days)


def shift(anchor: date, months: int) -> date:
    """The anchor's day so many months on, or the last day of that month if it is shorter."""
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    return date(year, month + 1, min(anchor.day, monthrange(year, month + 1)[1]))


def period(anchor: date, length: Length, number: int) -> tuple[date, date]:
    """First day of the period of that number, counted from 0 at the anchor, and of the next one."""
    step = _MONTHS[length]
    return shift(anchor, number * step), shift(anchor, (number + 1) * step)


def period_at(anchor: date, length: Length, day: date) -> int:
    """The number of the period that ``day`` lies in. A day before the anchor is in period 0."""
    months = (day.year - anchor.year) * 12 + day.month - anchor.month
    number = max(months // _MONTHS[length], 0)
    return number - 1 if number and period(anchor, length, number)[0] > day else number
