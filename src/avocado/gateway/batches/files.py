"""``/v1/files``: what a customer uploads for a batch, and what batches wrote for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from avocado.gateway.batches import stored_files as stored
from avocado.gateway.batches.rows import CHUNK, UPLOADING, BatchLimits, FileRow, new_id
from avocado.gateway.batches.store import Store
from avocado.gateway.batches.upload import (
    AROUND,
    Form,
    Jsonl,
    boundary_of,
    check_form,
    take_form,
)
from avocado.gateway.batches.wire import FileDeleted, FileList, file_shown, named, no_file
from avocado.gateway.errors import ApiError, overloaded
from avocado.gateway.exchange import Exchange
from avocado.gateway.keys import Caller
from avocado.gateway.query import Given
from avocado.gateway.shelf import ShelfUnavailable
from avocado.gateway.wire import encode

FILES: Final = "/v1/files"
CONTENT: Final = "/content"
PURPOSES: Final = ("batch", "batch_output")
MOST: Final = 10_000
READ_AT_ONCE: Final = 4 * CHUNK

Identify = Callable[[Exchange, str], Awaitable[Caller]]


class Files:
    """The handlers of ``/v1/files``."""

    def __init__(
        self, kept: Store, limits: BatchLimits, identify: Identify, line_bytes: int, rest: float
    ) -> None:
        self._store = kept
        self._limits = limits
        self._identify = identify
        self._line_bytes = line_bytes
        self._rest = rest
        self._uploads: Counter[str] = Counter()

    async def upload(self, exchange: Exchange) -> None:
        """``POST /v1/files``."""
        caller = await self._identify(exchange, "inference")
        limits = self._limits
        boundary = boundary_of(exchange.headers.get(b"content-type", b""))
        declared = exchange.headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > limits.file_bytes + AROUND:
            raise ApiError(
                413,
                f"The file is larger than {limits.file_bytes} bytes",
                code="request_too_large",
            )
        self._enter(caller.tenant)
        try:
            async with asyncio.timeout(limits.upload_seconds):
                row = await self._take(exchange, caller, boundary)
        except TimeoutError:
            raise ApiError(408, f"The upload took over {limits.upload_seconds:g} s") from None
        finally:
            self._uploads[caller.tenant] -= 1
        await exchange.reply(200, encode(file_shown(row)))

    def _enter(self, tenant: str) -> None:
        if self._uploads.total() >= self._limits.uploads:
            raise overloaded("Too many uploads run; try again")
        if self._uploads[tenant] >= self._limits.uploads_per_customer:
            raise ApiError(
                429,
                f"You have {self._uploads[tenant]} uploads running, which is your limit",
                type="rate_limit_error",
                code="rate_limit_exceeded",
                retry_after=1,
            )
        self._uploads[tenant] += 1

    async def _take(self, exchange: Exchange, caller: Caller, boundary: bytes) -> FileRow:
        limits, now = self._limits, time.time_ns()
        row = FileRow(
            new_id("file-"), caller.tenant, "batch", "", 0, now, now // 10**9, 2**62, UPLOADING
        )
        await self._store.do(stored.add_file, row)
        checked = Jsonl(limits.lines, self._line_bytes)

        async def write(place: int, chunk: bytes) -> None:
            await asyncio.to_thread(checked.feed, chunk)
            await self._store.do(stored.append, row.id, place, chunk)
            if await self._store.look(stored.space_of, caller.tenant) > limits.customer_bytes:
                raise _no_room(limits.customer_bytes)

        try:
            form = await take_form(exchange.pieces(self._rest), boundary, limits.file_bytes, write)
            check_form(form)
            checked.end()
            return await self._finish(row, form)
        except BaseException:
            # Shielded: who hung up leaves nothing behind.
            with contextlib.suppress(ShelfUnavailable):  # then it is given up as abandoned
                await asyncio.shield(self._store.do(stored.forsake, row.id))
            raise

    async def _finish(self, row: FileRow, form: Form) -> FileRow:
        expires = row.created + form.lifetime(self._limits.lifetime)
        name = form.filename or ""
        return await self._store.do(stored.finish_file, row.id, "batch", name, expires)

    async def list(self, exchange: Exchange) -> None:
        """``GET /v1/files``."""
        caller = await self._identify(exchange, "read")
        given = Given(exchange.query)
        purpose = given.one("purpose")
        order = given.one_of("order", ("asc", "desc"), "desc")
        limit = given.number("limit", 1, MOST, MOST)
        after = given.one("after")
        given.end()
        found = await self._store.look(
            stored.files_of, caller.tenant, purpose, after, limit + 1, order == "desc"
        )
        if found is None:
            raise no_file(after, "after")
        shown = [file_shown(row) for row in found[:limit]]
        ends = (shown[0].id, shown[-1].id) if shown else (None, None)
        await exchange.reply(200, encode(FileList(shown, len(found) > limit, *ends)))

    async def show(self, exchange: Exchange) -> None:
        """``GET /v1/files/{file_id}``."""
        caller = await self._identify(exchange, "read")
        row = await self._find(caller, named(exchange, FILES))
        await exchange.reply(200, encode(file_shown(row)))

    async def delete(self, exchange: Exchange) -> None:
        """``DELETE /v1/files/{file_id}``. A batch's input stays until the batch has ended."""
        caller = await self._identify(exchange, "inference")
        name = named(exchange, FILES)
        done = await self._store.do(stored.remove_file, caller.tenant, name)
        if done is False:
            raise no_file(name)
        if done is not True:
            raise ApiError(
                409, f"{done} still reads this file; cancel it or wait for it", code="file_in_use"
            )
        await exchange.reply(200, encode(FileDeleted(name)))

    async def content(self, exchange: Exchange) -> None:
        """``GET /v1/files/{file_id}/content``: the bytes, as they were sent or written."""
        caller = await self._identify(exchange, "inference")
        name = named(exchange, FILES, CONTENT)
        row = await self._find(caller, name)
        await exchange.show_parts(
            b"application/octet-stream", row.bytes, pieces_of(self._store, row), self._rest
        )

    async def _find(self, caller: Caller, name: str) -> FileRow:
        row = await self._store.look(stored.file_of, caller.tenant, name)
        if row is None:
            raise no_file(name)
        return row


async def pieces_of(kept: Store, row: FileRow, size: int = READ_AT_ONCE) -> AsyncIterator[bytes]:
    """The whole content, a piece at a time."""
    for start in range(0, row.bytes, size):
        piece = await kept.look(stored.read, row.id, start, size)
        if not piece:
            return  # it was deleted meanwhile
        yield piece


def _no_room(most: int) -> ApiError:
    return ApiError(
        413,
        f"Your files would take more than {most} bytes; delete some (DELETE /v1/files/…)",
        code="storage_quota_exceeded",
    )
