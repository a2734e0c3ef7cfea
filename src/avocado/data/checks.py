"""Checks: what is wrong with this data, counted, before a token of it is trained on.

A :class:`Checker` passes on the records that a corpus may hold and counts everything, so that
nothing is dropped in silence. Lengths are tokens of the very model that will be trained. Judges no
licence: it counts them, and the release gate decides.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar, cast

from avocado.data import secrets, texts
from avocado.data.chat import ChatTemplate, RenderError
from avocado.data.contamination import Evaluation, Hits, Messages, Question
from avocado.data.duplicates import Groups, NearDuplicates, Shingles, Sketch
from avocado.data.length import lengths
from avocado.data.record import Record
from avocado.data.rejection import Rejection
from avocado.data.report import EXAMPLES_KEPT, Report
from avocado.data.tally import Tally

__all__ = ["Checker", "Report", "Rules"]

Choice = Literal["refuse", "drop"]

DUPLICATE: Final = "duplicate"
NEAR_DUPLICATE: Final = "near duplicate"
CONTAMINATED: Final = "in the evaluation"
OVER_LENGTH: Final = "over length"
NOT_RENDERED: Final = "not renderable"

BLOCK_ROWS: Final = 512
BLOCK_CHARACTERS: Final = 2 * 1024 * 1024
"""Rows that are looked at together, to tell template text from text: at most both of these."""

AnyRecord = TypeVar("AnyRecord", bound=Record)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a corpus accepts. ``drop`` leaves such rows out and counts them; ``refuse`` stops.

    ``max_length`` is in tokens of one training sequence. An exact duplicate is always left out
    (the first stays) and counted; of near duplicates, those at least as alike as ``likeness`` (0 to
    1, see ``duplicates``), ``keep`` keeps all and counts them. ``mask`` names kinds of secrets and
    personal data (see ``secrets``) that are replaced in the rows.
    """

    max_length: int
    invalid: Choice = "refuse"
    over_length: Choice = "refuse"
    contaminated: Choice = "refuse"
    near_duplicates: Choice | Literal["keep"] = "drop"
    likeness: float = 0.8
    mask: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 < self.likeness <= 1.0:
            raise ValueError(f"likeness must be above 0 and at most 1, not {self.likeness}")
        secrets.kinds_of(self.mask)

    def of(self, reason: str) -> Choice:
        """What happens to a row that is rejected for ``reason``."""
        near: Choice = "refuse" if self.near_duplicates == "refuse" else "drop"
        special: Mapping[str, Choice] = {
            DUPLICATE: "drop",
            NEAR_DUPLICATE: near,
            OVER_LENGTH: self.over_length,
            CONTAMINATED: self.contaminated,
        }
        return special.get(reason, self.invalid)

    def remedies(self, reasons: Iterable[str]) -> str:
        """The settings of a recipe that leave out what stops for ``reasons``."""
        keys = {
            NEAR_DUPLICATE: ("near_duplicates", "checks"),
            OVER_LENGTH: ("over_length", "training"),
            CONTAMINATED: ("contaminated", "checks"),
        }
        named = dict.fromkeys(keys.get(reason, ("invalid", "checks")) for reason in reasons)
        return ", ".join(f'{key} = "drop" under [{table}]' for key, table in named)


@dataclass(frozen=True, slots=True)
class _Candidate(Generic[AnyRecord]):
    """A row of a block, with what the checks compare of it."""

    record: AnyRecord
    key: bytes
    shingles: Shingles
    hits: Hits


@dataclass
class Checker:
    """Checks one stream of rows for one model. Use it once: it remembers what it has seen.

    ``evaluation`` holds the items that must not be in the data, as questions or as the messages of
    each. Memory: about 200 bytes a row, 1.6 KB more of each that is new.
    """

    template: ChatTemplate
    rules: Rules
    evaluation: Iterable[Question | Messages] = ()
    groups: Groups = field(init=False, default_factory=Groups)
    """Which accepted rows, by their number from 0, are near duplicates of each other."""

    _held_out: Evaluation = field(init=False, repr=False)
    _near: NearDuplicates = field(init=False, repr=False)
    _mask: tuple[str, ...] = field(init=False, repr=False)
    _seen: dict[bytes, int] = field(init=False, repr=False, default_factory=dict)
    _files: dict[str, int] = field(init=False, repr=False, default_factory=dict)
    _places: tuple[array[int], array[int]] = field(init=False, repr=False)
    _group_of: dict[int, int] = field(init=False, repr=False, default_factory=dict)
    _repeated: Counter[int] = field(init=False, repr=False, default_factory=Counter)
    _tally: Tally = field(init=False, repr=False, default_factory=Tally)

    def __post_init__(self) -> None:
        self._held_out = Evaluation(self.evaluation)
        self._near = NearDuplicates(self.rules.likeness)
        self._mask = secrets.kinds_of(self.rules.mask)
        self._places = array("q"), array("q")

    def accept(self, items: Iterable[AnyRecord | Rejection]) -> Iterator[AnyRecord]:
        """Yields the records that a corpus may hold, in order; counts all of ``items``.

        Reads up to 512 rows ahead.
        """
        for block in _blocks(items):
            judged = [
                item if isinstance(item, Rejection) else self._prepare(item) for item in block
            ]
            fresh = {
                each.key: each
                for each in judged
                if isinstance(each, _Candidate) and each.key not in self._seen
            }.values()
            self._near.learn_template([each.shingles for each in fresh])
            self._held_out.learn_template(each.hits for each in fresh)
            for each in judged:
                self._tally.rows += 1
                verdict = each if isinstance(each, Rejection) else self._judge(each)
                if isinstance(verdict, Rejection):
                    self._tally.reject(verdict, self.rules.of(verdict.reason))
                else:
                    self._tally.accept(verdict)
                    yield verdict

    def _prepare(self, record: AnyRecord) -> _Candidate[AnyRecord]:
        said = texts.said(record)
        found = Counter(each.kind for text in said for each in secrets.find(text))
        if found:
            self._tally.personal.update(found)
            self._tally.personal_rows += 1
        if self._mask and any(kind in found for kind in self._mask):
            record = _masked(record, self._mask)
            said = texts.said(record)
        return _Candidate(
            record,
            bytes.fromhex(record.sha256)[:16],
            Shingles.of(said, texts.learnt(record)),
            self._held_out.hits(said),
        )

    def _judge(self, candidate: _Candidate[AnyRecord]) -> AnyRecord | Rejection:
        record = candidate.record

        def reject(reason: str, detail: str) -> Rejection:
            return Rejection(record.file, record.row, reason, detail)

        evidence = self._held_out.evidence(texts.asked(record), candidate.hits)
        if evidence is not None:
            return reject(CONTAMINATED, evidence)
        if candidate.key in self._seen:
            first = self._seen[candidate.key]
            self._repeated[first] += 1
            return reject(DUPLICATE, f"it repeats {self._place(first)}")
        number = self._remember(record, candidate.key)
        sketch = self._near.sketch(candidate.shingles)
        alike = [] if sketch is None else self._near.alike(sketch)
        if alike:
            self._repeated[alike[0].row] += 1
            if self.rules.near_duplicates != "keep":
                detail = f"it repeats {self._place(alike[0].row)} to {alike[0].share:.0%}"
                return reject(NEAR_DUPLICATE, detail)
            self._tally.alike += 1
        try:
            measured = lengths(record, self.template)
        except RenderError as error:
            return reject(NOT_RENDERED, str(error))
        longest = max(each.tokens for each in measured)
        if longest > self.rules.max_length:
            detail = f"{longest:,} tokens where max_length allows {self.rules.max_length:,}"
            return reject(OVER_LENGTH, detail)
        self._tally.measure(measured)
        self._group(number, sketch, [each.row for each in alike])
        return record

    def _remember(self, record: Record, key: bytes) -> int:
        number = len(self._seen)
        self._seen[key] = number
        files, rows = self._places
        files.append(self._files.setdefault(record.file, len(self._files)))
        rows.append(record.row)
        return number

    def _place(self, number: int) -> str:
        files, rows = self._places
        return f"{list(self._files)[files[number]]}, row {rows[number]}"

    def _group(self, number: int, sketch: Sketch | None, alike: list[int]) -> None:
        """The accepted row joins the groups of those that it is like, or starts one."""
        accepted = self.groups.add()
        for other in alike:
            self.groups.join(accepted, self._group_of[other])
        if sketch is not None and not alike:
            self._near.add(number, sketch)
            self._group_of[number] = accepted

    def report(self) -> Report:
        """What has been found so far."""
        most = sorted(self._repeated.items(), key=lambda item: (-item[1], item[0]))
        repeated = [(self._place(number), count) for number, count in most[:EXAMPLES_KEPT]]
        return self._tally.report(repeated, self._mask)


def _blocks(items: Iterable[AnyRecord | Rejection]) -> Iterator[list[AnyRecord | Rejection]]:
    block: list[AnyRecord | Rejection] = []
    characters = 0
    for item in items:
        block.append(item)
        characters += 0 if isinstance(item, Rejection) else sum(map(len, texts.said(item)))
        if len(block) >= BLOCK_ROWS or characters >= BLOCK_CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


def _masked(record: AnyRecord, kinds: tuple[str, ...]) -> AnyRecord:
    """The record with these kinds of data replaced in what is learnt from, not in its origin."""
    row = record.to_json()
    origin = record.provenance().keys()
    content, _ = secrets.mask({k: v for k, v in row.items() if k not in origin}, kinds)
    masked: Any = type(record).from_json({**row, **content})
    return cast(AnyRecord, masked)
