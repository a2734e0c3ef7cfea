"""From nano-units to the smallest coin: once an invoice, half up; what is left is kept. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from avocado.terms.money import NANO, minor_digits


def unit_of(currency: str) -> int:
    """Nano-units of the smallest coin: 10_000_000 for EUR."""
    return int(NANO // 10 ** minor_digits(currency))


def nearest(nanos: int, unit: int) -> tuple[int, int]:
    """(coins, rest): the nearest whole number of coins, half up, and what it leaves: −unit/2 ≤ rest
    < unit/2, and coins × unit + rest = nanos."""
    coins = (2 * nanos + unit) // (2 * unit)
    return coins, nanos - coins * unit


def spread(parts: Sequence[int], coins: int, unit: int) -> list[int]:
    """Whole coins for each part (nano-units) that add up to ``coins``: each is its part rounded
    down or up, up where most was cut off (largest remainder; Hamilton's method).

    Raises:
        ValueError: ``coins`` is further from the parts' sum than such a rounding reaches.
    """
    floors = [part // unit for part in parts]
    cut = [part % unit for part in parts]
    left = coins - sum(floors)
    if not 0 <= left <= len(parts):
        raise ValueError(f"{coins} coins are no rounding of {sum(parts)} nano-units")
    for index in sorted(range(len(parts)), key=lambda i: (-cut[i], i))[:left]:
        floors[index] += 1
    return floors


def decimal(coins: int, digits: int) -> str:
    """Coins as a plain decimal: ``-12.05``."""
    whole, fraction = divmod(abs(coins), 10**digits)
    text = f"{whole}.{fraction:0{digits}d}" if digits else str(whole)
    return f"-{text}" if coins < 0 else text
