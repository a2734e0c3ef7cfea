"""Server-sent events out of a stream of bytes, however it was cut. Pure.

Events end at an empty line; only their ``data`` matters here (WHATWG HTML, 9.2). Lines end with LF
or CRLF.
"""

from __future__ import annotations

from typing import Final

LONGEST: Final = 2**22
"""Bytes of one event. A server that sends more is broken."""


class EventTooLong(ValueError):
    """An event without end."""


class EventReader:
    """Fed with what arrives; gives back the data of whole events."""

    def __init__(self) -> None:
        self._left = b""

    def feed(self, part: bytes) -> list[bytes]:
        """The data of each event that ``part`` completes.

        Raises:
            EventTooLong: more than ``LONGEST`` bytes came without an event's end.
        """
        came = self._left + part
        if b"\r" in came:
            came = came.replace(b"\r\n", b"\n")
        end = came.rfind(b"\n\n")
        self._left = came[end + 2 :] if end >= 0 else came
        if len(self._left) > LONGEST:
            raise EventTooLong(f"an event of more than {LONGEST} bytes")
        if end < 0:
            return []
        whole = came[:end]
        if whole.startswith(b"data: "):
            # As nearly all are: of one line. A long mark is found much faster than a short one.
            events = whole[6:].split(b"\n\ndata: ")
            if b"\n" not in b"".join(events):
                return events
        return [data for event in whole.split(b"\n\n") if (data := _data(event)) is not None]

    def end(self) -> list[bytes]:
        """The stream is over. The last event counts even if its empty line is missing."""
        return self.feed(b"\n\n")


def _data(event: bytes) -> bytes | None:
    lines = [line[5:] for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(line.removeprefix(b" ") for line in lines) if lines else None
