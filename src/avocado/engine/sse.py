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
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, part: bytes) -> list[bytes]:
        """The data of each event that ``part`` completes.

        Raises:
            EventTooLong: more than ``LONGEST`` bytes came without an event's end.
        """
        *lines, self._left = (self._left + part).split(b"\n")
        events = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
                self._size += len(line)
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data, self._size = [], 0
        if self._size + len(self._left) > LONGEST:
            raise EventTooLong(f"an event of more than {LONGEST} bytes")
        return events

    def end(self) -> list[bytes]:
        """The stream is over. The last event counts even if its empty line is missing."""
        return self.feed(b"\n\n")
