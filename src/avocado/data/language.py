"""Language: what a text is written in, guessed offline, for counting and for a warning.

The guess is py3langid's (a naive Bayes over byte n-grams, Lui and Baldwin 2012). It is a floating
point number and so no part of a corpus' facts or hash: a row's stated language is what counts, and
a guess that clearly differs from it is counted as a mismatch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from avocado.data.provenance import UNDETERMINED

SURE: Final = 0.5
"""The least probability of a guess; below it a text's language is undetermined."""

IMPOSSIBLE: Final = 0.001
"""A stated language that is less probable is contradicted."""

LEAST_LETTERS: Final = 6
LEAST_CONTRADICTION: Final = 24
"""Letters without which there is no guess, or no contradiction; an unspaced script's count thrice.
"""

LOOKED_AT: Final = 300
"""Characters of a text that are looked at: more of them do not change the guess."""

_LEFT_OUT: Final = frozenset(
    ("la pcm vo eo zxx hbo grc ext an gcr lij vec fo lb se wuu yue arz ary nn").split()
)
"""Labels that win by accident in chats: dead or constructed languages, and those so near to a
larger one (Wu and Cantonese to Chinese, Ligurian to Italian) that a line does not tell them apart.
A row that states one of them is never contradicted."""

_ONE_OF: Final = {"nb": "no", "nn": "no", "cmn": "zh", "wuu": "zh", "yue": "zh"}
"""What a row may state for what the guess calls otherwise."""

_NO_LETTERS: Final = re.compile(r"[\W\d_]+")
_WIDE: Final = re.compile("[\u0e00-\u0fff\u3041-\u30ff\u3400-\u9fff\uac00-\ud7af]")


@cache
def _identifier() -> Any:
    from py3langid.langid import (  # type: ignore[import-untyped]
        MODEL_FILE,
        LanguageIdentifier,
    )

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([each for each in identifier.labels if each not in _LEFT_OUT])
    return identifier


@dataclass(frozen=True, slots=True)
class Guess:
    """A language (ISO 639; ``und`` where nothing is sure), its probability, on how many letters."""

    language: str
    probability: float
    letters: int


def guess(text: str) -> Guess:
    """What ``text`` is written in. Digits and signs say nothing and are left out."""
    looked = _looked_at(text)
    letters = _letters(looked)
    if letters < LEAST_LETTERS:
        return Guess(UNDETERMINED, 0.0, letters)
    label, probability = _identifier().classify(looked)
    if probability < SURE:
        return Guess(UNDETERMINED, 0.0, letters)
    return Guess(str(label), float(probability), letters)


def contradicts(found: Guess, stated: str, text: str) -> bool:
    """Whether ``text``, of which ``found`` is the guess, is surely not in the ``stated`` language.

    A row may state a language that the guess does not know: that is never contradicted.
    """
    primary = stated.lower().replace("_", "-").partition("-")[0]
    meant = _ONE_OF.get(primary, primary)
    if found.language in (UNDETERMINED, meant) or found.letters < LEAST_CONTRADICTION:
        return False
    probabilities: dict[str, float] = dict(_identifier().rank(_looked_at(text)))
    return probabilities.get(meant, 1.0) < IMPOSSIBLE


def _looked_at(text: str) -> str:
    return _NO_LETTERS.sub(" ", text[:LOOKED_AT])


def _letters(looked: str) -> int:
    letters = len(looked) - looked.count(" ")
    return letters if looked.isascii() else letters + 2 * len(_WIDE.findall(looked))
