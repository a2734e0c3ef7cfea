"""Near duplicates: rows that say almost the same, found in one pass by MinHash and LSH.

Two rows are alike as far as their sets of word 5-grams overlap (Jaccard), the measure of Lee et al.
2021, "Deduplicating training data makes language models better" (arXiv:2107.06499). MinHash
(Broder 1997) estimates it from 50 permutations, with a standard error of 0.06 at 0.8, and 10 bands
of 5 look at a pair of 0.8 with probability 0.98. A change of one word touches five 5-grams: in a
short row that is another fact and no repetition, in a long one it is noise.

**Both must be alike, the whole and what is learnt of it.** Five questions on one long passage are
five facts, and so are a good and a bad answer to one prompt.

**Template text is no likeness.** Rows of one task share an instruction and differ in their facts.
A 5-gram that stands in a tenth of the rows around (and in more than ten of them) is left out of the
comparison; rows that hold nothing else are not compared. So is the system's turn.

Memory: about 1.6 KB for each row that is new, 1.6 GB for a million. Rows that repeat cost nothing.
The hashes are integers of fixed seeds: the same rows give the same answer on any machine.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from avocado.data.words import grams, tokens

SIZE: Final = 5
PERMUTATIONS: Final = 50
LEARNT_PERMUTATIONS: Final = 32
BANDS: Final = 10
SEED: Final = 20_240_305

LOOKED_AT: Final = 1_000_000
"""Characters of one text that are compared: who repeats so many repeats the text."""

COMMON_SHARE: Final = 0.1
COMMON_ROWS: Final = 10
"""A 5-gram in more rows of a block than both of these is template text."""


def shingles(text: str) -> list[str]:
    """The word 5-grams of ``text``; a shorter text is one by itself."""
    cut = tokens(text[:LOOKED_AT])
    return list(grams(cut, SIZE)) if len(cut) >= SIZE else [" ".join(cut)] if cut else []


@dataclass(frozen=True, slots=True)
class Shingles:
    """The 5-grams of a row: of its whole text, and of what is learnt, each with its mark."""

    whole: frozenset[str]
    learnt: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, said: Iterable[str], learnt: Iterable[tuple[str, str]]) -> Shingles:
        """From all texts of a row, and those to learn with a mark (good or bad) each."""
        return cls(
            frozenset(shingle for text in said for shingle in shingles(text)),
            frozenset((mark, shingle) for mark, text in learnt for shingle in shingles(text)),
        )


@dataclass(frozen=True, slots=True)
class Sketch:
    """The MinHash of a row's own shingles: as rensa's object, and as the values that are kept."""

    whole: Any
    values: bytes

    def share(self, values: bytes) -> float:
        """The likeness to the row of these values: the lesser of the whole and what is learnt."""
        ours, theirs = array("I", self.values), array("I", values)
        if len(ours) != len(theirs):
            return 0.0  # only one of the two has something to learn
        equal = [one == other for one, other in zip(ours, theirs, strict=True)]
        whole, learnt = equal[:PERMUTATIONS], equal[PERMUTATIONS:]
        return min(sum(part) / len(part) for part in (whole, learnt) if part)


def common(rows: Sequence[Shingles]) -> set[str]:
    """The shingles that are template text in this block of rows."""
    least = max(COMMON_ROWS, COMMON_SHARE * len(rows))
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(row.whole)
    return {shingle for shingle, count in counts.items() if count > least}


@dataclass(frozen=True, slots=True)
class Likeness:
    """The row that another one repeats (its number in the index), and how much of it, 0 to 1."""

    row: int
    share: float


@dataclass
class NearDuplicates:
    """An index of the rows so far. Use it once, in the order of the rows.

    ``threshold`` is the least estimated Jaccard likeness of a repetition, above 0 and at most 1.
    """

    threshold: float
    _index: Any = field(init=False, repr=False)
    _sketches: dict[int, bytes] = field(init=False, repr=False, default_factory=dict)
    _template: set[str] = field(init=False, repr=False, default_factory=set)

    def __post_init__(self) -> None:
        from rensa import RMinHashLSH  # type: ignore[import-untyped]

        self._index = RMinHashLSH(self.threshold, PERMUTATIONS, BANDS)

    def learn_template(self, rows: Sequence[Shingles]) -> None:
        """Looks at a block of rows that will be asked for next."""
        self._template |= common(rows)

    def sketch(self, row: Shingles) -> Sketch | None:
        """The MinHashes of what is the row's own, or None where it has nothing of its own."""
        own = row.whole - self._template
        if not own:
            return None
        kept = [mark + each for mark, each in row.learnt if each not in self._template]
        learnt = kept or [mark + each for mark, each in row.learnt]
        whole = _minhash(list(own), PERMUTATIONS)
        values = array("I", whole.digest())
        if learnt:
            values.extend(_minhash(learnt, LEARNT_PERMUTATIONS).digest())
        return Sketch(whole, values.tobytes())

    def alike(self, sketch: Sketch) -> list[Likeness]:
        """The rows in the index that this one repeats, the closest first."""
        found = [
            Likeness(row, share)
            for row in self._index.query(sketch.whole)
            if (share := sketch.share(self._sketches[row])) >= self.threshold
        ]
        return sorted(found, key=lambda each: (-each.share, each.row))

    def add(self, row: int, sketch: Sketch) -> None:
        """Remembers ``row``, so that later rows are held against it."""
        self._index.insert(row, sketch.whole)
        self._sketches[row] = sketch.values


def _minhash(shingles: list[str], permutations: int) -> Any:
    from rensa import RMinHash

    sketch = RMinHash(permutations, SEED)
    sketch.update(shingles)
    return sketch


@dataclass
class Groups:
    """Which accepted rows belong together, so that a split keeps them on one side (union-find)."""

    _parent: list[int] = field(default_factory=list)

    def add(self) -> int:
        """A new row in a group of its own; its number."""
        self._parent.append(len(self._parent))
        return len(self._parent) - 1

    def join(self, one: int, other: int) -> None:
        """Both rows, and all that belong to either, are one group."""
        low, high = sorted((self.of(one), self.of(other)))
        self._parent[high] = low

    def of(self, row: int) -> int:
        """The group of ``row``: the number of its first row."""
        while self._parent[row] != row:
            self._parent[row] = self._parent[self._parent[row]]
            row = self._parent[row]
        return row

    def all(self) -> list[int]:
        """The group of every row, in order."""
        return [self.of(row) for row in range(len(self._parent))]
