"""The audit of documents: revisions follow one another, numbers of a series have no gap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from avocado.ledger import entry as e
from avocado.ledger.allowance_audit import Fail


@dataclass
class Documents:
    """The newest revision of every document, and the last number of every series."""

    fail: Fail
    newest: dict[str, tuple[int, str | None, int | None]] = field(default_factory=dict)
    """(revision, series, number) by id."""
    series: dict[str, int] = field(default_factory=dict)

    def filed(self, seq: int, entry: e.DocumentFiled) -> None:
        revision, series, number = self.newest.get(entry.id, (0, None, None))
        if entry.revision != revision + 1:
            self.fail(2, seq, f"revision {entry.revision} of {entry.id} follows {revision}")
        if series is not None:
            if (entry.series, entry.number) != (series, number):
                self.fail(2, seq, f"document {entry.id} changes its number")
        elif entry.series is not None:
            due = self.series.get(entry.series, 0) + 1
            if entry.number != due:
                self.fail(2, seq, f"number {entry.number} of {entry.series}, {due} was due")
            self.series[entry.series] = due
        self.newest[entry.id] = (entry.revision, entry.series, entry.number)

    def compare(
        self,
        documents: Iterator[tuple[str, int, str | None, int | None]],
        series: Iterator[tuple[str, int]],
    ) -> None:
        """Against the tables: (id, revision, series, number) and (series, last number)."""
        left = dict(self.newest)
        for id_, *facts in documents:
            if left.pop(id_, None) != tuple(facts):
                self.fail(7, None, f"document {id_} is stored as {facts}")
        for id_ in left:
            self.fail(7, None, f"document {id_} is missing")
        if dict(series) != self.series:
            self.fail(7, None, "the counters of the series differ from the journal")
