"""Check: whether the lines of a file are requests that a batch can run. Pure.

What a request asks for in its body is looked at when it runs, as of any other, and an error of its
own stands in the error file. Here is what OpenAI fails a whole batch for, with the file's lines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Final, NoReturn

import msgspec

from avocado.gateway.batches.rows import BatchLimits, LineRow
from avocado.gateway.batches.wire import MAX_CUSTOM_ID, LineError

FIELDS: Final = ("custom_id", "method", "url", "body")
EMBEDDINGS: Final = "/v1/embeddings"
MAX_ERRORS: Final = 50
"""How many are told; the rest is more of the same."""

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_value = msgspec.json.Decoder()


class Checker:
    """Takes a batch's file piece by piece; ``rows`` of good lines come back, ``errors`` collect."""

    def __init__(
        self, batch: str, endpoint: str, models: Collection[str], limits: BatchLimits
    ) -> None:
        self._batch = batch
        self._endpoint = endpoint
        self._models = models
        self._limits = limits
        self._rest = b""
        self._start = 0
        self._line = 0
        self._seen: set[bytes] = set()
        self._inputs = 0
        self.errors: list[LineError] = []
        self.total = 0
        self.model: str | None = None
        """Of the first request."""

    def feed(self, piece: bytes) -> list[LineRow]:
        *whole, self._rest = (self._rest + piece).split(b"\n")
        return [row for line in whole if (row := self._take(line, len(line) + 1)) is not None]

    def end(self) -> list[LineRow]:
        """The last line, and what is wrong with the file as a whole."""
        rest, self._rest = self._rest, b""
        row = self._take(rest, len(rest)) if rest else None
        if not self.total and not self.errors:
            self._wrong(LineError("empty_file", "The input file has no requests"))
        return [] if row is None else [row]

    def _take(self, line: bytes, size: int) -> LineRow | None:
        self._line += 1
        start, self._start = self._start, self._start + size
        if not line.strip():
            return None
        self.total += 1
        if self.total == self._limits.lines + 1:
            self._wrong(
                LineError(
                    "too_many_tasks",
                    f"A batch has at most {self._limits.lines} requests",
                    self._line,
                )
            )
        try:
            custom_id, model = self._read(line)
        except _Wrong as wrong:
            self._wrong(wrong.error)
            return None
        self.model = self.model or model
        return LineRow(self._batch, self._line, custom_id, model, start, len(line))

    def _read(self, line: bytes) -> tuple[str, str]:
        try:
            given = _object.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._refuse("invalid_json_line", "This line is not parseable as a JSON object.")
        for name in FIELDS:
            if name not in given:
                self._refuse(
                    "missing_required_parameter", f"Missing required parameter: '{name}'.", name
                )
        for name in given:
            if name not in FIELDS:
                self._refuse("unknown_parameter", f"Unknown parameter: {name[:100]!r}.", name[:200])
        custom_id = self._custom_id(_decoded(given["custom_id"]))
        if _decoded(given["method"]) != "POST":
            self._refuse("invalid_method", "The method of a request must be 'POST'.", "method")
        if _decoded(given["url"]) != self._endpoint:
            self._refuse(
                "url_mismatch",
                "The URL provided for this request does not match the batch endpoint "
                f"{self._endpoint}.",
                "url",
            )
        return custom_id, self._body(given["body"])

    def _custom_id(self, given: object) -> str:
        if not isinstance(given, str) or not 0 < len(given) <= MAX_CUSTOM_ID or "\0" in given:
            self._refuse(
                "invalid_custom_id",
                f"custom_id is a string of 1 to {MAX_CUSTOM_ID} characters.",
                "custom_id",
            )
        mark = hashlib.blake2b(given.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if mark in self._seen:
            self._refuse(
                "duplicate_custom_id",
                f"The custom_id {given[:100]!r} for this request is a duplicate of another "
                "request. The custom_id parameter must be unique for each request in a batch.",
                "custom_id",
            )
        self._seen.add(mark)
        return given

    def _body(self, given: msgspec.Raw) -> str:
        try:
            body = _object.decode(given)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._refuse("invalid_body", "The body of a request is a JSON object.", "body")
        model = _decoded(body.get("model", msgspec.Raw(b"null")))
        if not isinstance(model, str):
            self._refuse(
                "missing_required_parameter", "Missing required parameter: 'model'.", "body.model"
            )
        if model not in self._models:
            self._refuse(
                "model_not_found",
                f"The model {model[:100]!r} does not exist or you have no access to it.",
                "body.model",
            )
        if bytes(body.get("stream", b"false")) not in (b"false", b"null"):
            self._refuse(
                "unsupported_parameter", "Answers in a batch are not streamed.", "body.stream"
            )
        if self._endpoint == EMBEDDINGS:
            self._count(_decoded(body.get("input", msgspec.Raw(b"null"))))
        return model

    def _count(self, given: object) -> None:
        several = isinstance(given, list) and not all(isinstance(each, int) for each in given)
        self._inputs += len(given) if several and isinstance(given, list) else 1
        if self._inputs > self._limits.embedding_inputs:
            self._refuse(
                "too_many_inputs",
                f"A batch has at most {self._limits.embedding_inputs} embedding inputs.",
                "body.input",
            )

    def _refuse(self, code: str, message: str, param: str | None = None) -> NoReturn:
        raise _Wrong(LineError(code, message, self._line, param))

    def _wrong(self, error: LineError) -> None:
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(error)


class _Wrong(Exception):
    def __init__(self, error: LineError) -> None:
        super().__init__(error.message)
        self.error = error


def _decoded(given: msgspec.Raw) -> object:
    """The value, or None where it is none that can be."""
    try:
        return _value.decode(given)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
