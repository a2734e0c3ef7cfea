"""Server-sent events are the same however the bytes were cut: as a reader by lines finds them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.engine import sse
from avocado.engine.sse import EventReader, EventTooLong

LINES = st.sampled_from(
    (b"data: a", b"data: {}", b"data:b", b"data:  c", b"data", b"data: ", b": note", b"id: 1", b"x")
)
ENDS = st.sampled_from((b"\n", b"\r\n", b"\n\n", b"\r\n\r\n", b"\n\n\n"))


def by_lines(stream: bytes) -> list[bytes]:
    """The standard's algorithm, plainly."""
    events: list[bytes] = []
    data: list[bytes] = []
    for line in stream.replace(b"\r\n", b"\n").split(b"\n"):
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            events.append(b"\n".join(data))
            data = []
    return events


@given(st.lists(st.tuples(LINES, ENDS), max_size=12), st.lists(st.integers(0, 200), max_size=6))
def test_the_cut_changes_nothing(lines: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    stream = b"".join(line + end for line, end in lines)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    reader = EventReader()
    found: list[bytes] = []
    for start, stop in itertools.pairwise(places):
        found += reader.feed(stream[start:stop])
    found += reader.end()
    assert found == by_lines(stream + b"\n\n")


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "LONGEST", 1000)
    reader = EventReader()
    reader.feed(b"data: " + b"x" * 900)
    with pytest.raises(EventTooLong):
        reader.feed(b"x" * 200)
