"""What is stored of files and batches, and how much of it there may be. Pure.

All of it lies in a database: contents too, in chunks of one size, so that a file and its row cannot
disagree, many machines see the same, and a full disk is a transaction that fails.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

CHUNK: Final = 256 * 1024
"""Bytes of each chunk of a file but its last."""
DAY: Final = 86_400
WINDOW: Final = DAY
"""Seconds that a batch may take: ``completion_window`` "24h"."""
NANO: Final = 1_000_000_000

Status = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
ENDED: Final = ("failed", "completed", "expired", "cancelled")
ALIVE: Final = ("validating", "in_progress", "finalizing", "cancelling")

UPLOADING, READY, GONE = "uploading", "processed", "gone"
"""States of a file. A file that is gone is seen by nobody; its chunks are deleted bit by bit."""

PENDING, ANSWERED, DONE, FAILED = "pending", "answered", "done", "failed"
"""States of a line. An answered one has its answer and waits to hear whether it was paid."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of files and batches. Sizes in bytes, times in seconds."""

    file_bytes: int = 200 * 1024 * 1024
    lines: int = 50_000
    embedding_inputs: int = 50_000
    """Over all lines of a batch of embeddings."""
    customer_bytes: int = 10 * 1024 * 1024 * 1024
    """All files of one customer. What a batch writes is not refused; the next upload is."""
    customer_batches: int = 100
    """Batches of one customer that have not ended."""
    uploads: int = 32
    """At once, over all customers."""
    uploads_per_customer: int = 4
    upload_seconds: float = 3600.0
    """How long one upload may take in all; between two pieces it may rest as any body may."""
    lifetime: int = 30 * DAY
    window: int = WINDOW
    running: int = 64
    """Lines of batches that one process runs at once, at most."""
    lease: float = 15.0
    """How long a process that died keeps its batches from the others."""
    tick: float = 0.5
    """How often a process looks for batches."""


class FileRow(msgspec.Struct, frozen=True):
    """A file. ``at`` (ns) orders files; ``created`` and ``expires`` are Unix seconds."""

    id: str
    tenant: str
    purpose: str
    filename: str
    bytes: int
    at: int
    created: int
    expires: int
    state: str


class BatchRow(msgspec.Struct, frozen=True):
    """A batch. Times are Unix seconds; ``at`` and ``lease`` are nanoseconds since 1970.

    ``epoch`` counts the processes that have taken it: only the last of them may write to it.
    """

    id: str
    tenant: str
    key_id: str
    endpoint: str
    input: str
    status: Status
    at: int
    created: int
    expires: int
    keep: int
    """Seconds that its output and error files are kept."""
    metadata: str = "null"
    errors: str = "null"
    """JSON, as ``wire`` shows them."""
    model: str | None = None
    """The model of its first line, as OpenAI shows it."""
    output: str | None = None
    error: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0
    in_progress: int | None = None
    finalizing: int | None = None
    ended: int | None = None
    cancelling: int | None = None
    note: str | None = None
    """Why it does not go on now, for a person."""
    epoch: int = 0
    owner: str | None = None
    lease: int = 0


class LineRow(msgspec.Struct, frozen=True):
    """One request: line ``line`` (from 1) of the input file, ``size`` bytes at ``start``.

    ``body`` is the answer of the API without its envelope; of an answered line it lacks the cost.
    """

    batch: str
    line: int
    custom_id: str
    model: str
    start: int
    size: int
    state: str = PENDING
    tries: int = 0
    hold: str | None = None
    """The request id under which it was answered."""
    status: int = 0
    body: bytes | None = None


def columns(kind: type[msgspec.Struct]) -> str:
    return ", ".join(kind.__struct_fields__)


def new_id(prefix: str) -> str:
    """``file-…`` or ``batch_…``: 125 random bits."""
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    return prefix + "".join(secrets.choice(alphabet) for _ in range(21))


def result_id(batch: str, kind: str) -> str:
    """The id of a batch's output or error file: the same in each process that writes it."""
    return "file-" + hashlib.sha256(f"{kind}/{batch}".encode()).hexdigest()[:24]


def request_id(batch: str, line: int) -> str:
    """The id of a line in the files of results."""
    return "batch_req_" + hashlib.sha256(f"{batch}/{line}".encode()).hexdigest()[:32]


def idempotency_key(batch: str, line: int) -> str:
    """What makes the ledger charge a line once, whoever runs it."""
    return f"batch/{batch}/{line}"


def values(row: msgspec.Struct) -> tuple[Any, ...]:
    return msgspec.structs.astuple(row)
