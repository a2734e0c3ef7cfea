"""Report: what the checks found, counted, with examples, as a value for programs and for people.

Everything in :meth:`Report.to_json` follows from the rows alone and may stand in a manifest; the
:class:`Guesses` are floating point and may not. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

EXAMPLES_KEPT: Final = 5
"""Rejections of one reason that a report names; the rest are counted."""

PERCENTILES: Final = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many sequences have how many tokens. ``buckets`` holds (from, to, sequences), both ends
    included, without gaps; four of them from one power of two to the next."""

    buckets: Sequence[tuple[int, int, int]]
    percentiles: Mapping[int, int]

    @classmethod
    def of(cls, counts: Mapping[int, int]) -> Histogram:
        """From length → sequences of it."""
        if not counts:
            return cls((), {})
        bounds = [0]
        while bounds[-1] <= max(counts):
            last = bounds[-1]
            step = 8 if last < 16 else (1 << (last.bit_length() - 1)) // 4
            bounds.append(last + step)
        buckets = [(low, high - 1, 0) for low, high in pairwise(bounds)]
        place = 0
        for length in sorted(counts):
            while length > buckets[place][1]:
                place += 1
            low, high, count = buckets[place]
            buckets[place] = low, high, count + counts[length]
        first = next(place for place, bucket in enumerate(buckets) if bucket[2])
        return cls(buckets[first:], {share: _percentile(counts, share) for share in PERCENTILES})

    def to_json(self) -> dict[str, Any]:
        return {
            "buckets": [list(bucket) for bucket in self.buckets],
            "percentiles": {str(share): value for share, value in self.percentiles.items()},
        }


@dataclass(frozen=True, slots=True)
class Guesses:
    """What no one stated: ``languages`` counts accepted rows by the language that they seem to be
    in, ``mismatches`` those that clearly are in another one than they state; ``examples`` of them.
    """

    languages: Mapping[str, int]
    mismatches: int
    examples: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        return {
            "languages": dict(self.languages),
            "mismatches": self.mismatches,
            "examples": list(self.examples),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. ``rejected`` counts rows by reason; ``examples`` names some of each.

    ``refused`` counts the rejected rows that stop the corpus, ``dropped`` those left out.
    ``tokens`` counts the accepted sequences' tokens, ``trained`` those that carry loss, and
    ``longest`` is the longest sequence; ``lengths`` are histograms of both. ``languages``,
    ``licences``, ``sources``, ``shapes`` (kinds of record) and ``features`` count accepted rows.
    ``repeated`` names the rows that others repeat and how often, the most repeated first; ``alike``
    counts near duplicates that were kept. ``personal`` counts findings of secrets and personal data
    by kind, in ``personal_rows`` rows; those of the kinds in ``mask`` were replaced.
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
    lengths: Mapping[str, Histogram]
    languages: Mapping[str, int]
    licences: Mapping[str, int]
    sources: Mapping[str, int]
    shapes: Mapping[str, int]
    features: Mapping[str, int]
    repeated: Sequence[tuple[str, int]]
    alike: int
    personal: Mapping[str, int]
    personal_rows: int
    mask: Sequence[str]
    guesses: Guesses

    def to_json(self) -> dict[str, Any]:
        """All but the guesses: the same rows give the same value on any machine."""
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
            "lengths": {name: each.to_json() for name, each in self.lengths.items()},
            "languages": dict(self.languages),
            "licences": dict(self.licences),
            "sources": dict(self.sources),
            "shapes": dict(self.shapes),
            "features": dict(self.features),
            "repeated": [list(each) for each in self.repeated],
            "alike": self.alike,
            "personal": dict(self.personal),
            "personal_rows": self.personal_rows,
            "mask": list(self.mask),
        }

    def lines(self) -> list[str]:
        """The report for a terminal."""
        said = [
            f"{self.accepted:,} of {self.rows:,} rows accepted ({counted(self.shapes)})",
            f"{self.tokens:,} tokens in {self.sequences:,} sequences, {self.trained:,} trained, "
            f"longest {self.longest:,}{self._middle()}",
            f"languages: {counted(self.languages)}",
            f"licences: {counted(self.licences)}",
        ]
        if self.guesses.languages and set(self.guesses.languages) != set(self.languages):
            said.append(f"languages by their look: {counted(self.guesses.languages)}")
        if self.guesses.mismatches:
            said.append(
                f"in another language than stated, by its look: {self.guesses.mismatches:,}"
            )
            said += [f"  {named}" for named in self.guesses.examples]
        if self.alike:
            said.append(f"near duplicates kept: {self.alike:,}")
        if self.personal:
            done = self._masked()
            said.append(
                f"secrets and personal data in {self.personal_rows:,} rows: "
                f"{counted(self.personal)}{done}"
            )
        for reason, count in self.rejected.items():
            said.append(f"rejected, {reason}: {count:,}")
            said += [f"  {named}" for named in self.examples[reason]]
            if count > len(self.examples[reason]):
                said.append(f"  … and {count - len(self.examples[reason]):,} more")
        return said

    def _middle(self) -> str:
        total = self.lengths["total"].percentiles
        return f", half at most {total[50]:,}, 99% at most {total[99]:,}" if total else ""

    def _masked(self) -> str:
        left = [kind for kind in self.personal if kind not in self.mask]
        if not left:
            return " (masked)"
        return f" (not masked: {', '.join(left)})" if self.mask else " (not masked)"


def ranked(counts: Mapping[str, int]) -> dict[str, int]:
    """The largest count first, then by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def counted(counts: Mapping[str, int]) -> str:
    """``de 12, en 3``."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"


def _percentile(counts: Mapping[int, int], share: int) -> int:
    """The least length that ``share`` percent of the sequences do not exceed (nearest rank)."""
    wanted = -(-sum(counts.values()) * share // 100)
    seen = 0
    for length in sorted(counts):
        seen += counts[length]
        if seen >= wanted:
            return length
    return max(counts)


def shortened(text: str, width: int = 60) -> str:
    """One line of ``text``, quoted."""
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= width else flat[: width - 1] + "…")
