"""Uploads: a multipart form whose file is checked and stored while it arrives.

Whatever the size of the file, one chunk of it is in memory. What can never be a batch's input is
refused here, by its line: no JSON object, a line that is too long, too many of them. What a request
says is looked at when a batch is made of it. Knows nothing about money.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from avocado.gateway.batches.rows import CHUNK
from avocado.gateway.errors import ApiError, bad_request

MAX_FIELD: Final = 1000
"""Bytes of a form field that is not the file."""
AROUND: Final = 64 * 1024
"""Bytes that a form may have around its file."""
FIELDS: Final = ("purpose", "expires_after[anchor]", "expires_after[seconds]")
SUFFIX: Final = ".jsonl"
LEAST_LIFE, MOST_LIFE = 3600, 2_592_000
"""Seconds for which ``expires_after`` may keep a file."""

Write = Callable[[int, bytes], Awaitable[None]]
"""Checks and stores a chunk by its place."""
_whole = msgspec.json.Decoder(dict[str, msgspec.Raw])
# It warns of each form that a client got wrong, which is an answer of ours and no line in our log.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class Jsonl:
    """Checks lines as their bytes come. Blocking: for a thread."""

    def __init__(self, most_lines: int, most_bytes: int) -> None:
        self._most_lines = most_lines
        self._most_bytes = most_bytes
        self._rest = b""
        self.lines = 0
        """Lines of the file so far, blank ones included."""
        self.requests = 0

    def feed(self, piece: bytes) -> None:
        """Raises ApiError: 400 that names the line."""
        *whole, self._rest = (self._rest + piece).split(b"\n")
        for line in whole:
            self._check(line)
        self._bound(self._rest, self.lines + 1)

    def end(self) -> None:
        if self._rest:
            self._check(self._rest)
            self._rest = b""
        if not self.requests:
            raise bad_request("The file is empty: it needs a request a line", "file", "empty_file")

    def _check(self, line: bytes) -> None:
        self.lines += 1
        if not line.strip():
            return
        self._bound(line, self.lines)
        try:
            _whole.decode(line)
            line.decode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise bad_request(
                f"Line {self.lines} is not parseable as a JSON object: {error}",
                "file",
                "invalid_json_line",
            ) from None
        self.requests += 1
        if self.requests > self._most_lines:
            raise bad_request(
                f"The file has more than {self._most_lines} requests", "file", "too_many_tasks"
            )

    def _bound(self, line: bytes, number: int) -> None:
        if len(line) > self._most_bytes:
            raise bad_request(
                f"Line {number} is longer than {self._most_bytes} bytes", "file", "line_too_long"
            )


@dataclass(slots=True)
class Form:
    """What an upload said beside the file's bytes."""

    filename: str | None = None
    size: int = 0
    fields: dict[str, str] = field(default_factory=dict)

    def lifetime(self, usual: int) -> int:
        """Seconds that the file is kept.

        Raises:
            ApiError: 400, ``expires_after`` is not as OpenAI has it.
        """
        anchor = self.fields.get("expires_after[anchor]")
        seconds = self.fields.get("expires_after[seconds]")
        if anchor is None and seconds is None:
            return usual
        if anchor != "created_at":
            raise bad_request("expires_after[anchor] must be created_at", "expires_after[anchor]")
        number = seconds or ""
        digits = number.isascii() and number.isdigit() and len(number) < 9
        if not digits or not LEAST_LIFE <= int(number) <= MOST_LIFE:
            raise bad_request(
                f"expires_after[seconds] is an integer from {LEAST_LIFE} to {MOST_LIFE}",
                "expires_after[seconds]",
            )
        return int(number)


class _Parts:
    """Callbacks of the parser: collects fields and the file's next bytes."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.file = bytearray()
        self.over = False
        self._name = ""
        self._value = bytearray()
        self._header = bytearray()
        self._said = bytearray()
        self._disposition = b""
        self._is_file = False

    def on_part_begin(self) -> None:
        self._disposition = b""
        self._value.clear()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._said += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._said)
        self._header.clear()
        self._said.clear()

    def on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition)
        name = options.get(b"name")
        if kind != b"form-data" or name is None:
            raise bad_request("A part of the form has no name")
        self._name = name.decode("utf-8", "replace")
        self._is_file = self._name == "file"
        seen = self.form.filename is not None if self._is_file else self._name in self.form.fields
        if seen:
            raise bad_request(f"{self._name[:50]} stands there twice", self._name)
        if self._is_file:
            self.form.filename = _clean(options.get(b"filename", b"").decode("utf-8", "replace"))
        elif self._name not in FIELDS:
            raise bad_request(
                f"Unknown parameter: {self._name[:100]!r}", self._name, "unknown_parameter"
            )

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.file += data[start:end]
            return
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD:
            raise bad_request(f"Invalid value for {self._name}: it is too long", self._name)

    def on_part_end(self) -> None:
        if not self._is_file:
            self.form.fields[self._name] = self._value.decode("utf-8", "replace")

    def on_end(self) -> None:
        self.over = True


def boundary_of(content_type: bytes) -> bytes:
    """Raises ApiError: 415 for what is no multipart form."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 200:
        raise ApiError(
            415, "Send Content-Type: multipart/form-data with a boundary", code="unsupported_media"
        )
    return boundary


async def take_form(pieces: AsyncIterator[bytes], boundary: bytes, most: int, write: Write) -> Form:
    """Reads a form as it arrives and hands its file on, a chunk at a time.

    Raises:
        ApiError: 400 for a form that is not one, 413 for a file above ``most`` bytes; and what
            ``write`` raises.
    """
    form = Form()
    parts = _Parts(form)
    names = [name for name in dir(parts) if name.startswith("on_")]
    callbacks: Any = {name: getattr(parts, name) for name in names}
    parser = MultipartParser(boundary, callbacks)
    place = around = 0
    async for piece in pieces:
        around += len(piece)
        try:
            parser.write(piece)
        except FormParserError as error:
            raise bad_request(f"The form cannot be read: {error}") from None
        while len(parts.file) >= CHUNK:
            chunk = bytes(parts.file[:CHUNK])
            del parts.file[:CHUNK]
            form.size += CHUNK
            around -= CHUNK
            _bound(form.size, most)
            await write(place, chunk)
            place += 1
        if around - len(parts.file) > AROUND:
            raise bad_request("There is too much around the file")
    if not parts.over:
        raise bad_request("The form is not complete")
    if parts.file:
        form.size += len(parts.file)
        _bound(form.size, most)
        await write(place, bytes(parts.file))
    return form


def _bound(size: int, most: int) -> None:
    if size > most:
        raise ApiError(413, f"The file is larger than {most} bytes", code="request_too_large")


def check_form(form: Form) -> None:
    """Raises ApiError: 400, it is not for a batch."""
    if form.filename is None:
        raise bad_request("Missing required parameter: 'file'", "file", "missing_parameter")
    purpose = form.fields.get("purpose")
    if purpose is None:
        raise bad_request("Missing required parameter: 'purpose'", "purpose", "missing_parameter")
    if purpose != "batch":
        raise bad_request(
            f"Invalid value for purpose: {purpose[:50]!r}; files are kept for 'batch' only",
            "purpose",
        )
    if not form.filename.lower().endswith(SUFFIX):
        raise bad_request("Invalid file format for Batch API. Must be .jsonl", "file")


def _clean(name: str) -> str:
    """A file's name as it may be stored and shown: its last part, printable."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(each for each in last if each.isprintable())[:200]
