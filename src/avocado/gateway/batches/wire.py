"""What OpenAI's clients send and expect of files and batches, and the lines of results. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from avocado.gateway.batches.rows import READY, BatchRow, FileRow, LineRow, request_id
from avocado.gateway.errors import ApiError
from avocado.gateway.exchange import Exchange
from avocado.gateway.wire import encode as encode
from avocado.gateway.wire import read_json
from avocado.terms.money import Money

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
MAX_CUSTOM_ID: Final = 512
MAX_PAIRS: Final = 16
NAME: Final = "^[A-Za-z0-9_-]+$"
CANCELLED_SHOWN: Final = ("cancelling", "cancelled")


class FileObject(Struct):
    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["batch", "batch_output"]
    expires_at: int
    status: Literal["processed"] = "processed"
    status_details: None = None
    object: Literal["file"] = "file"


class FileList(Struct):
    data: list[FileObject]
    has_more: bool
    first_id: str | None
    last_id: str | None
    object: Literal["list"] = "list"


class FileDeleted(Struct):
    id: str
    deleted: bool = True
    object: Literal["file"] = "file"


class LineError(Struct):
    """Why a batch was not begun. ``line`` counts from 1, as the file's lines do."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class ErrorList(Struct):
    data: list[LineError]
    object: Literal["list"] = "list"


class Counts(Struct):
    total: int
    completed: int
    failed: int


class InputDetails(Struct):
    cached_tokens: int


class OutputDetails(Struct):
    reasoning_tokens: int


class BatchUsage(Struct):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class Batch(Struct):
    id: str
    endpoint: Endpoint
    input_file_id: str
    status: Literal[
        "validating",
        "failed",
        "in_progress",
        "finalizing",
        "completed",
        "expired",
        "cancelling",
        "cancelled",
    ]
    created_at: int
    expires_at: int
    request_counts: Counts
    usage: BatchUsage
    errors: ErrorList | None = None
    model: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    metadata: dict[str, str] | None = None
    paused: str | None = None
    """Ours: why it does not go on at the moment; it will by itself."""
    completion_window: Literal["24h"] = "24h"
    object: Literal["batch"] = "batch"


class BatchList(Struct):
    data: list[Batch]
    has_more: bool
    first_id: str | None
    last_id: str | None
    object: Literal["list"] = "list"


class ExpiresAfter(Struct, forbid_unknown_fields=True):
    anchor: Literal["created_at"]
    seconds: Annotated[int, Meta(ge=3600, le=2_592_000)]


MetaKey = Annotated[str, Meta(max_length=64)]
MetaValue = Annotated[str, Meta(max_length=512)]


class BatchRequest(Struct, forbid_unknown_fields=True):
    input_file_id: Annotated[str, Meta(pattern=NAME, max_length=200)]
    endpoint: Endpoint
    completion_window: Literal["24h"]
    metadata: Annotated[dict[MetaKey, MetaValue], Meta(max_length=MAX_PAIRS)] | None = None
    output_expires_after: ExpiresAfter | None = None


_read_request = msgspec.json.Decoder(BatchRequest).decode


def read_request(body: bytes) -> BatchRequest:
    """Raises ApiError: 400 that names the parameter."""
    request: BatchRequest = read_json(_read_request, body)
    return request


def file_shown(row: FileRow) -> FileObject:
    assert row.state == READY
    purpose: Any = row.purpose
    return FileObject(row.id, row.bytes, row.created, row.filename, purpose, row.expires)


def batch_shown(row: BatchRow, paused: str | None = None) -> Batch:
    """Result files are named once they are whole."""
    ended = row.ended
    has_results = row.status in ("completed", "expired", "cancelled")
    endpoint: Any = row.endpoint
    return Batch(
        id=row.id,
        endpoint=endpoint,
        input_file_id=row.input,
        status=row.status,
        created_at=row.created,
        expires_at=row.expires,
        request_counts=Counts(row.total, row.completed, row.failed),
        usage=BatchUsage(
            row.prompt,
            InputDetails(row.cached),
            row.completion,
            OutputDetails(row.reasoning),
            row.prompt + row.completion,
        ),
        errors=msgspec.json.decode(row.errors, type=ErrorList | None),
        model=row.model,
        output_file_id=row.output if has_results else None,
        error_file_id=row.error if has_results else None,
        in_progress_at=row.in_progress,
        finalizing_at=row.finalizing,
        completed_at=ended if row.status == "completed" else None,
        failed_at=ended if row.status == "failed" else None,
        expired_at=ended if row.status == "expired" else None,
        cancelling_at=row.cancelling if row.status in CANCELLED_SHOWN else None,
        cancelled_at=ended if row.status == "cancelled" else None,
        metadata=msgspec.json.decode(row.metadata, type=dict[str, str] | None),
        paused=(paused or row.note) if ended is None else None,
    )


# -- the lines of a result file --------------------------------------------------------------------


class Response(Struct):
    status_code: int
    request_id: str | None
    body: msgspec.Raw


class Failure(Struct):
    code: str
    message: str


class Envelope(Struct):
    """What stands around an answer."""

    id: str
    custom_id: str
    response: Response | None
    error: Failure | None


EXPIRED: Final = Failure(
    "batch_expired", "This request could not be executed before the completion window expired."
)
_encode_line = msgspec.json.Encoder().encode


def result_line(row: LineRow) -> bytes:
    """A line of the output or the error file. What never ran has no status."""
    if row.status and row.body is not None:
        response = Response(row.status, row.hold, msgspec.Raw(row.body))
        envelope = Envelope(request_id(row.batch, row.line), row.custom_id, response, None)
    else:
        envelope = Envelope(request_id(row.batch, row.line), row.custom_id, None, EXPIRED)
    return _encode_line(envelope) + b"\n"


def with_cost(body: bytes, cost: Money) -> bytes:
    """An answer that was kept before it was paid, with what the ledger charged for it."""
    answer = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    usage = msgspec.json.decode(answer["usage"], type=dict[str, msgspec.Raw])
    usage["cost"] = msgspec.Raw(cost.decimal().encode())
    usage["cost_currency"] = msgspec.Raw(encode(cost.currency))
    answer["usage"] = msgspec.Raw(encode(usage))
    return encode(answer)


# -- what is not there -----------------------------------------------------------------------------


def named(exchange: Exchange, before: str, after: str = "") -> str:
    """The id in a path; what cannot be one becomes one that nothing has."""
    found = exchange.path.removeprefix(before + "/").removesuffix(after)
    return found if len(found) <= 200 and re.fullmatch(NAME, found) else "unknown"


def no_file(name: str, param: str = "id") -> ApiError:
    return ApiError(404, f"No such File object: {name[:100]}", param=param)


def no_batch(name: str) -> ApiError:
    return ApiError(404, f"No batch found with id '{name[:100]}'", param="batch_id")
