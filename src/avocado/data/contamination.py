"""Contamination: training rows that hold what the evaluation asks.

A row is held against each item's questions (its user turns) in two ways.

1. **The very question**: a user turn of the row is the item's last user turn, but for case, width
   and white space.
2. **Overlap of word n-grams**, in any text of the row: 13 words, as GPT-3's authors did it (Brown
   et al. 2020, arXiv:2005.14165, appendix C); 8 for questions of fewer than 13. Scripts without
   spaces count characters: 20, and 12 for shorter questions. Even shorter ones are found by (1).

What is evidence?

- A row that holds the whole question, word by word, is contaminated whatever else holds.
- One 13-gram is evidence, if its words are the question's own; where an instruction leaves it fewer
  than 13 words of its own, 70% of those. Of a short question, 70% of its own 8-grams must be there
  (the share of Chowdhery et al. 2022, arXiv:2204.02311, section 8).
- **Template text is no evidence**: an n-gram that stands in several items (two, and more than 1% of
  them), or in more than ten training rows (GPT-3's rule: they "ignored" what was in more than ten
  documents). So train and evaluation rows of one task may share an instruction or a phrase; what
  they may not share is the facts. Answers are no evidence either: a label or a JSON frame is common
  to all. The system's turn is template text by its nature.

What it can't find: a translation, a paraphrase, a question of fewer than 8 words inside a longer
text. The cost is one look-up for each n-gram of a row; memory grows with the evaluation only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

from avocado.data.record import Record
from avocado.data.report import shortened
from avocado.data.texts import asked, said
from avocado.data.words import folded, grams, unspaced, words
from avocado.lineage import digest

LONG: Final = 13
SHORT: Final = 8
LONG_UNSPACED: Final = 20
SHORT_UNSPACED: Final = 12

SHARE: Final = 0.7
"""Of a question's own n-grams or words, what a row must hold where they are few."""

TEMPLATE_ITEMS: Final = 0.01
TEMPLATE_ROWS: Final = 10
"""An n-gram in more than this share of the items (and in two), or in more rows, is template."""

Messages = Sequence[Mapping[str, Any]]

Hits = list[tuple[str, list[str]]]
"""The texts of a row that share n-grams with questions: their words, joined, and the n-grams."""


@dataclass(frozen=True, slots=True)
class Question:
    """One item of an evaluation: the ``name`` that a report gives it, and its ``messages``."""

    name: str
    messages: Messages


@dataclass(frozen=True, slots=True)
class Overlap:
    """The item that a row holds, and the words of it that stand in the row."""

    item: str
    span: str
    whole: bool = False


@dataclass(frozen=True, slots=True)
class _Text:
    """One user turn of an item: its words, joined, and its n-grams in order."""

    item: int
    joined: str
    grams: tuple[str, ...]
    size: int
    short: bool

    def tells(self, matched: Sequence[bool], template: Sequence[bool]) -> bool:
        """Whether the n-grams that a row holds (``matched``) are enough, given which are template.

        Of a short question the n-grams count, of a long one the words that no template covers.
        """
        if self.short:
            return sum(matched) >= SHARE * (len(template) - sum(template))
        own = self._covered([True] * len(template)) - self._covered(template)
        return len(self._covered(matched) & own) >= min(self.size, max(1, SHARE * len(own)))

    def _covered(self, chosen: Sequence[bool]) -> set[int]:
        """The places of the words in the chosen n-grams."""
        starts = (place for place, each in enumerate(chosen) if each)
        return {word for start in starts for word in range(start, start + self.size)}

    def span(self, matched: Sequence[bool]) -> str:
        """The longest run of words that the matched n-grams cover without a gap."""
        runs = [(held, len(list(run))) for held, run in groupby(matched)]
        longest = max(range(len(runs)), key=lambda place: runs[place])
        start = sum(length for _, length in runs[:longest])
        end = start + runs[longest][1] + self.size - 1
        return " ".join(self.joined.split(" ")[start:end])


@dataclass
class Evaluation:
    """Everything that training must not have seen. Remembers what was template in the rows so far.

    ``items`` are questions, or the messages of one each, which are then named by their place.
    """

    items: Iterable[Question | Messages]
    _names: list[str] = field(init=False, repr=False, default_factory=list)
    _questions: dict[str, str] = field(init=False, repr=False, default_factory=dict)
    _texts: list[_Text] = field(init=False, repr=False, default_factory=list)
    _places: dict[str, list[int]] = field(init=False, repr=False, default_factory=dict)
    _shared: frozenset[str] = field(init=False, repr=False, default=frozenset())
    _sizes: tuple[int, ...] = field(init=False, repr=False, default=())
    _met: Counter[str] = field(init=False, repr=False, default_factory=Counter)

    def __post_init__(self) -> None:
        for number, item in enumerate(self.items, 1):
            question = item if isinstance(item, Question) else Question(f"item {number}", item)
            self._take(question)
        items_of = {
            gram: {self._texts[place].item for place in places}
            for gram, places in self._places.items()
        }
        least = max(1, TEMPLATE_ITEMS * len(self._names))
        self._shared = frozenset(gram for gram, held in items_of.items() if len(held) > least)
        self._sizes = tuple(sorted({text.size for text in self._texts}))

    def _take(self, question: Question) -> None:
        self._names.append(question.name)
        users = [m["content"] for m in question.messages if m["role"] == "user"]
        if users:
            self._questions.setdefault(_same(users[-1]), question.name)
        for text in users:
            found = words(text)
            long, short = (LONG_UNSPACED, SHORT_UNSPACED) if unspaced(found) else (LONG, SHORT)
            size = long if len(found) >= long else short
            cut = tuple(grams(found, size))
            if cut:
                place = len(self._texts)
                self._texts.append(
                    _Text(len(self._names) - 1, " ".join(found), cut, size, size == short)
                )
                for gram in set(cut):
                    self._places.setdefault(gram, []).append(place)

    def __bool__(self) -> bool:
        return bool(self._names)

    def asked_by(self, user_texts: Iterable[str]) -> tuple[str, str] | None:
        """The first of ``user_texts`` that is a question itself, with the name of its item."""
        for text in user_texts:
            item = self._questions.get(_same(text)) if self._questions else None
            if item is not None:
                return text, item
        return None

    def hits(self, texts: Iterable[str]) -> Hits:
        """The texts of a row that share an n-gram with a question: their words, and which."""
        found: Hits = []
        for text in texts if self._places else ():
            cut = words(text)
            shared = [
                gram for size in self._sizes for gram in grams(cut, size) if gram in self._places
            ]
            if shared:
                found.append((" ".join(cut), shared))
        return found

    def learn_template(self, rows: Iterable[Hits]) -> None:
        """Looks at the hits of a block of rows that will be asked for next; each differs."""
        for hits in rows:
            self._met.update({gram for _, shared in hits for gram in shared})

    def evidence(self, user_texts: Iterable[str], hits: Hits) -> str | None:
        """What a row holds of the evaluation, in one sentence, or None."""
        question = self.asked_by(user_texts)
        if question is not None:
            text, item = question
            return f"the evaluation asks this very question ({item}): {shortened(text)}"
        overlap = self.overlap(hits)
        if overlap is None:
            return None
        what = "the whole question" if overlap.whole else "a part of the question"
        return f"it holds {what} of the evaluation's {overlap.item}: {shortened(overlap.span, 120)}"

    def _is_template(self, gram: str) -> bool:
        return gram in self._shared or self._met[gram] > TEMPLATE_ROWS

    def overlap(self, hits: Hits) -> Overlap | None:
        """What these hits of a row are evidence of, or None."""
        for joined, shared in hits:
            found = set(shared)
            for place in dict.fromkeys(p for gram in shared for p in self._places[gram]):
                text = self._texts[place]
                if f" {text.joined} " in f" {joined} ":
                    return Overlap(self._names[text.item], text.joined, whole=True)
                template = [self._is_template(gram) for gram in text.grams]
                matched = [
                    gram in found and not common
                    for gram, common in zip(text.grams, template, strict=True)
                ]
                if any(matched) and text.tells(matched, template):
                    return Overlap(self._names[text.item], text.span(matched))
        return None


def found_in(record: Record, evaluation: Evaluation) -> str | None:
    """What ``record`` holds of ``evaluation``, in one sentence, or None.

    Knows only the rows that ``evaluation`` has looked at (see :meth:`Evaluation.learn_template`).
    """
    return evaluation.evidence(asked(record), evaluation.hits(said(record)))


def _same(text: str) -> str:
    """The hash of a text as people compare texts: no case, no width, no runs of white space."""
    return digest(re.sub(r"\s+", " ", folded(text)).strip().encode())
