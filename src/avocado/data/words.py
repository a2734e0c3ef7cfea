"""Words: how a text is cut for comparison, in every script.

What people compare as equal is equal here: no case, no width, no runs of white space. A number with
its separators is one word, because it is one fact. Scripts that are written without spaces give a
word a character. Knows nothing about examples or what is compared.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final

_UNSPACED: Final = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u0f00-\u0fff"  # Tibetan
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u3041-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_SIGNS: Final = (
    "\\x00-\\x2f\\x3a-\\x40\\x5b-\\x60\\x7b-\\xa9\\xab-\\xb4\\xb6-\\xb9\\xbb-\\xbf\\xd7\\xf7"
    "\u060c\u061b\u061f\u0964\u0965\u2000-\u206f\u20a0-\u20cf\u2190-\u2bff\u3000-\u303f"
)
_WORD: Final = re.compile(
    rf"\d+(?:[.,:/'\u2019-]\d+)*|[{_UNSPACED}]|[^\s\d{_SIGNS}{_UNSPACED}]+|\S"
)
_UNSPACED_ONE: Final = re.compile(f"[{_UNSPACED}]")
_A_SIGN: Final = re.compile(f"[{_SIGNS}]")


def folded(text: str) -> str:
    """``text`` without case and width (NFKC, Unicode's case folding)."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", text).casefold()


def tokens(text: str) -> list[str]:
    """Every word and every sign of ``text``, folded: ``a->b`` and ``a-b`` stay apart."""
    return _WORD.findall(folded(text))


def words(text: str) -> list[str]:
    """The words of ``text``, folded, without its signs."""
    return [each for each in tokens(text) if not _A_SIGN.match(each)]


def unspaced(found: Sequence[str]) -> bool:
    """Whether most of these words are characters of a script without spaces."""
    return 2 * sum(1 for each in found if _UNSPACED_ONE.match(each)) > len(found)


def grams(found: Sequence[str], size: int) -> Iterator[str]:
    """Every run of ``size`` words, as one text each; none where there are fewer words."""
    return (" ".join(found[start : start + size]) for start in range(len(found) - size + 1))
