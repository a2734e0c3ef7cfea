"""Checks: what is wrong with this data, counted, before a token of it is trained on.

A :class:`Checker` passes on the examples that a corpus may hold and counts everything, so that
nothing is dropped in silence. Lengths are tokens of the very model that will be trained. Judges no
licence: it counts them, and the release gate decides.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from avocado.data.chat import ChatTemplate, RenderError
from avocado.data.example import Example
from avocado.data.rejection import Rejection
from avocado.lineage import digest

Choice = Literal["refuse", "drop"]

DUPLICATE: Final = "duplicate"
CONTAMINATED: Final = "in the evaluation"
OVER_LENGTH: Final = "over length"
NOT_RENDERED: Final = "not renderable"

EXAMPLES_KEPT: Final = 5
"""Rejections of one reason that a report names; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a corpus accepts. ``drop`` leaves such rows out and counts them; ``refuse`` stops.

    ``max_length`` is in tokens of one training sequence. An exact duplicate is always left out
    (the first stays) and counted.
    """

    max_length: int
    invalid: Choice = "refuse"
    over_length: Choice = "refuse"
    contaminated: Choice = "refuse"

    def of(self, reason: str) -> Choice:
        """What happens to a row that is rejected for ``reason``."""
        special: Mapping[str, Choice] = {
            DUPLICATE: "drop",
            OVER_LENGTH: self.over_length,
            CONTAMINATED: self.contaminated,
        }
        return special.get(reason, self.invalid)


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. ``rejected`` counts rows by reason; ``examples`` names some of each.

    ``refused`` counts the rejected rows that stop the corpus, ``dropped`` those left out.
    ``tokens`` counts the accepted sequences' tokens, ``trained`` those that carry loss, and
    ``longest`` is the longest sequence. ``languages`` and ``licences`` count accepted rows.
    """

    rows: int
    accepted: int
    refused: int
    dropped: int
    rejected: Mapping[str, int]
    examples: Mapping[str, Sequence[str]]
    sequences: int
    tokens: int
    trained: int
    longest: int
    languages: Mapping[str, int]
    licences: Mapping[str, int]
    sources: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "accepted": self.accepted,
            "refused": self.refused,
            "dropped": self.dropped,
            "rejected": dict(self.rejected),
            "examples": {reason: list(named) for reason, named in self.examples.items()},
            "sequences": self.sequences,
            "tokens": self.tokens,
            "trained": self.trained,
            "longest": self.longest,
            "languages": dict(self.languages),
            "licences": dict(self.licences),
            "sources": dict(self.sources),
        }

    def lines(self) -> list[str]:
        """The report for a terminal."""
        said = [
            f"{self.accepted:,} of {self.rows:,} rows accepted",
            f"{self.tokens:,} tokens in {self.sequences:,} sequences, {self.trained:,} trained, "
            f"longest {self.longest:,}",
            f"languages: {_counted(self.languages)}",
            f"licences: {_counted(self.licences)}",
        ]
        for reason, count in self.rejected.items():
            said.append(f"rejected, {reason}: {count:,}")
            said += [f"  {named}" for named in self.examples[reason]]
            if count > len(self.examples[reason]):
                said.append(f"  … and {count - len(self.examples[reason]):,} more")
        return said


@dataclass
class Checker:
    """Checks one stream of rows for one model. Use it once: it remembers what it has seen.

    ``evaluation`` holds the messages of each evaluation item: an example that asks the same is
    contamination.
    """

    template: ChatTemplate
    rules: Rules
    evaluation: Iterable[Sequence[Mapping[str, Any]]] = ()
    _held_out: frozenset[str] = field(init=False, repr=False)
    _seen: dict[str, str] = field(init=False, repr=False, default_factory=dict)
    _counts: Counter[str] = field(init=False, repr=False, default_factory=Counter)
    _rejected: Counter[str] = field(init=False, repr=False, default_factory=Counter)
    _named: dict[str, list[str]] = field(init=False, repr=False, default_factory=dict)
    _languages: Counter[str] = field(init=False, repr=False, default_factory=Counter)
    _licences: Counter[str] = field(init=False, repr=False, default_factory=Counter)
    _sources: Counter[str] = field(init=False, repr=False, default_factory=Counter)

    def __post_init__(self) -> None:
        self._held_out = questions_of(self.evaluation)

    def accept(self, items: Iterable[Example | Rejection]) -> Iterator[Example]:
        """Yields the examples that a corpus may hold, in order; counts all of ``items``."""
        for item in items:
            self._counts["rows"] += 1
            verdict = item if isinstance(item, Rejection) else self._judge(item)
            if isinstance(verdict, Example):
                self._counts["accepted"] += 1
                self._languages[verdict.language] += 1
                self._licences[verdict.licence] += 1
                self._sources[verdict.source] += 1
                yield verdict
            else:
                self._reject(verdict)

    def _reject(self, rejection: Rejection) -> None:
        self._rejected[rejection.reason] += 1
        self._counts["dropped" if self.rules.of(rejection.reason) == "drop" else "refused"] += 1
        named = self._named.setdefault(rejection.reason, [])
        if len(named) < EXAMPLES_KEPT:
            named.append(str(rejection))

    def _judge(self, example: Example) -> Example | Rejection:
        def reject(reason: str, detail: str) -> Rejection:
            return Rejection(example.file, example.row, reason, detail)

        text = asks(example, self._held_out)
        if text is not None:
            detail = f"the evaluation asks this very question: {_shown(text)}"
            return reject(CONTAMINATED, detail)
        content = example.sha256
        if content in self._seen:
            return reject(DUPLICATE, f"it repeats {self._seen[content]}")
        self._seen[content] = f"{example.file}, row {example.row}"
        try:
            rows = self.template.rows(example.messages, example.tools)
        except RenderError as error:
            return reject(NOT_RENDERED, str(error))
        longest = max(len(row.ids) for row in rows)
        if longest > self.rules.max_length:
            detail = f"{longest:,} tokens where max_length allows {self.rules.max_length:,}"
            return reject(OVER_LENGTH, detail)
        self._counts["sequences"] += len(rows)
        self._counts["tokens"] += sum(len(row.ids) for row in rows)
        self._counts["trained"] += sum(row.trained for row in rows)
        self._counts["longest"] = max(self._counts["longest"], longest)
        return example

    def report(self) -> Report:
        """What has been found so far."""
        names = ("rows", "accepted", "refused", "dropped", "sequences", "tokens", "trained")
        return Report(
            **{name: self._counts[name] for name in names},
            longest=self._counts["longest"],
            rejected=_sorted(self._rejected),
            examples={reason: tuple(named) for reason, named in sorted(self._named.items())},
            languages=_sorted(self._languages),
            licences=_sorted(self._licences),
            sources=_sorted(self._sources),
        )


def questions_of(evaluation: Iterable[Sequence[Mapping[str, Any]]]) -> frozenset[str]:
    """What each evaluation item asks (its last user turn), as hashes that :func:`asks` knows."""
    asked = ([m for m in messages if m["role"] == "user"] for messages in evaluation)
    return frozenset(_question(turns[-1]["content"]) for turns in asked if turns)


def asks(example: Example, questions: frozenset[str]) -> str | None:
    """The first user text of ``example`` that is one of ``questions``, or None."""
    return next((text for text in example.user_texts if _question(text) in questions), None)


def _question(text: str) -> str:
    """The hash of a text as people compare texts: no case, no width, no runs of white space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return digest(re.sub(r"\s+", " ", folded).strip().encode())


def _shown(text: str, width: int = 60) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= width else flat[: width - 1] + "…")


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"
