"""Proration by day: how much of an amount belongs to the days gone by, and how much to the rest.

Integers only. The rest is rounded down and the days gone by get what is left, so the two parts are
the amount, to the last nano-unit: nothing is lost and nothing is made. Pure.
"""

from __future__ import annotations

from datetime import date


def split(amount: int, since: date, until: date, at: date) -> tuple[int, int]:
    """(part of the days from ``since`` to just before ``at``, part of ``at`` and the rest).

    The days are those of [since, until); ``at`` may lie outside, and then one part is nothing.

    Raises:
        ValueError: no days at all, or a negative amount.
    """
    days = (until - since).days
    if days < 1 or amount < 0:
        raise ValueError(f"{amount} over {days} days cannot be split")
    rest = amount * (until - min(max(at, since), until)).days // days
    return amount - rest, rest


def share(amount: int, left: int, whole: int) -> int:
    """``amount`` × left / whole, rounded down; all of it where there is no whole."""
    return amount if whole <= 0 else amount * min(max(left, 0), whole) // whole
