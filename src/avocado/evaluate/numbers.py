"""Numbers in a text, read as its language writes them. Pure.

Separators are CLDR's (number symbols of Unicode's Common Locale Data Repository): which languages
write a decimal comma, and which group thousands by spaces. Digits of every script count.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from functools import lru_cache
from typing import Final

Unit = tuple[str, Decimal]
"""A unit's name as written, and its factor."""

_SPACED: Final = frozenset(
    "be bg cs et fi fr hu hy ka kk ky lt lv mk nb nn no pl ru sk sq sv tg tk uk uz".split()
)
"""Decimal comma, thousands apart by a space."""

_DOTTED: Final = frozenset(
    "az bs ca da de el es eu fo gl hr id is it lb nl pt ro sl sr tr vi".split()
)
"""Decimal comma, thousands apart by a dot."""

_POINT_REGIONS: Final = frozenset({"es-mx", "de-ch", "de-li", "it-ch", "es-us", "es-pr", "es-419"})
"""Regions that write a decimal point though their language has a comma."""

_THIN: Final = "\u00a0\u202f\u2009'’"
"""Spaces that do not break, and apostrophes: they group thousands in any language."""


def numbers(text: str, language: str, units: tuple[Unit, ...] = ()) -> list[Decimal | None]:
    """Every number in ``text``, in order, times its unit's factor.

    None is a number whose unit is none of ``units``, where any are given. A number that the
    language cannot mean (``1.234,5`` in English) is not one.
    """
    plain = _digits(text)
    found: list[Decimal | None] = []
    factors = dict(units)
    for match in _pattern(language.lower()).finditer(plain):
        before = plain[: match.start()][-1:]
        if before.lower() != before.upper():  # A4, v2: a name, in a script that has case
            continue
        whole = re.sub(r"\D", "", match["whole"])
        value = Decimal(f"{whole}.{match['part'] or 0}")
        if match["power"]:
            value = value.scaleb(int(match["power"]))
        if match["sign"] in ("-", "−"):
            value = -value
        if not factors:
            found.append(value)
            continue
        factor = factors.get(_unit(plain[match.end() :], factors))
        found.append(None if factor is None else value * factor)
    return found


def _unit(rest: str, units: dict[str, Decimal]) -> str:
    """The longest unit that ``rest`` begins with; "" where it begins with none."""
    rest = rest.lstrip(" \u00a0\u202f")
    for name in sorted(filter(None, units), key=len, reverse=True):
        if rest.startswith(name) and not (
            name[-1:].isalnum() and rest[len(name) : len(name) + 1].isalnum()
        ):
            return name
    return ""


def _digits(text: str) -> str:
    """Digits of every script as ASCII, full-width signs as plain ones, Arabic separators as ours.

    Each character stays one character."""
    out = []
    for char in text:
        digit = unicodedata.decimal(char, None)
        if digit is not None:
            out.append(str(digit))
        else:
            out.append({"．": ".", "，": ",", "٫": ".", "٬": ",", "－": "-"}.get(char, char))
    return "".join(out)


@lru_cache(maxsize=256)
def _pattern(language: str) -> re.Pattern[str]:
    base = language.replace("_", "-").partition("-")[0]
    comma = base in _SPACED | _DOTTED and language.replace("_", "-") not in _POINT_REGIONS
    decimal, group = (",", ".") if comma else (".", ",")
    between = re.escape(group + _THIN + (" " if base in _SPACED else ""))
    grouped = rf"\d{{1,3}}(?:[{between}]\d{{3}})+|\d+"
    if not comma:  # the Indian way too: 12,34,567
        grouped = rf"\d{{1,2}}(?:,\d{{2}})+,\d{{3}}|{grouped}"
    return re.compile(
        rf"(?<![\d.,_])(?P<sign>[-−+])?(?P<whole>{grouped})(?:{re.escape(decimal)}(?P<part>\d+))?"
        r"(?:[eE](?P<power>[-+]?\d{1,3})(?!\w))?(?![.,]?\d)"
    )
