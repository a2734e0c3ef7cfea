"""Tally: the counts that a checker keeps while rows pass, and the report that they become.

Decides nothing: what is rejected and why is said by ``checks``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from avocado.data import texts
from avocado.data.language import contradicts, guess
from avocado.data.length import Length
from avocado.data.record import SINGULAR, Record
from avocado.data.rejection import Rejection
from avocado.data.report import EXAMPLES_KEPT, Guesses, Histogram, Report, ranked, shortened


@dataclass
class Tally:
    """Counts of one stream of rows. ``total`` and ``trained`` are length in tokens → sequences."""

    rows: int = 0
    accepted: int = 0
    alike: int = 0
    personal_rows: int = 0
    choices: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[str]] = field(default_factory=dict)
    languages: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    shapes: Counter[str] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)
    personal: Counter[str] = field(default_factory=Counter)
    total: Counter[int] = field(default_factory=Counter)
    trained: Counter[int] = field(default_factory=Counter)
    guessed: Counter[str] = field(default_factory=Counter)
    mismatches: int = 0
    mismatched: list[str] = field(default_factory=list)

    def reject(self, rejection: Rejection, choice: str) -> None:
        self.rejected[rejection.reason] += 1
        self.choices[choice] += 1
        named = self.named.setdefault(rejection.reason, [])
        if len(named) < EXAMPLES_KEPT:
            named.append(str(rejection))

    def accept(self, record: Record) -> None:
        self.accepted += 1
        self.languages[record.language] += 1
        self.licences[record.licence] += 1
        self.sources[record.source] += 1
        self.shapes[SINGULAR[type(record)]] += 1
        self.features.update(texts.features(record))
        self._guess(record)

    def _guess(self, record: Record) -> None:
        text = texts.prose(record)
        found = guess(text)
        self.guessed[found.language] += 1
        if contradicts(found, record.language, text):
            self.mismatches += 1
            if len(self.mismatched) < EXAMPLES_KEPT:
                where = f"{record.file}, row {record.row}"
                both = f"states {record.language}, looks like {found.language}"
                self.mismatched.append(f"{where}: it {both}: {shortened(text)}")

    def measure(self, measured: Iterable[Length]) -> None:
        for each in measured:
            self.total[each.tokens] += 1
            self.trained[each.trained] += 1

    def report(self, repeated: Sequence[tuple[str, int]], mask: tuple[str, ...]) -> Report:
        """What has been counted; the arguments are what the checker knows of it besides."""
        return Report(
            rows=self.rows,
            accepted=self.accepted,
            refused=self.choices["refuse"],
            dropped=self.choices["drop"],
            rejected=ranked(self.rejected),
            examples={reason: tuple(each) for reason, each in sorted(self.named.items())},
            sequences=sum(self.total.values()),
            tokens=sum(length * count for length, count in self.total.items()),
            trained=sum(length * count for length, count in self.trained.items()),
            longest=max(self.total, default=0),
            lengths={
                "total": Histogram.of(self.total),
                "trained": Histogram.of(self.trained),
            },
            languages=ranked(self.languages),
            licences=ranked(self.licences),
            sources=ranked(self.sources),
            shapes=ranked(self.shapes),
            features=ranked(self.features),
            repeated=tuple(repeated),
            alike=self.alike,
            personal=ranked(self.personal),
            personal_rows=self.personal_rows,
            mask=mask,
            guesses=Guesses(
                ranked(self.guessed),
                self.mismatches,
                tuple(self.mismatched),
            ),
        )
