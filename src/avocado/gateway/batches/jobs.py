"""``/v1/batches``: what a customer asks to be run, looks at, and cancels."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

from avocado.gateway.batches import stored_batches, stored_files
from avocado.gateway.batches.rows import BatchLimits, BatchRow, new_id
from avocado.gateway.batches.runner import Runner
from avocado.gateway.batches.store import Store
from avocado.gateway.batches.wire import (
    BatchList,
    BatchRequest,
    batch_shown,
    named,
    no_batch,
    no_file,
    read_request,
)
from avocado.gateway.errors import ApiError, bad_request
from avocado.gateway.exchange import Exchange
from avocado.gateway.keys import Caller
from avocado.gateway.query import Given
from avocado.gateway.shelf import Database
from avocado.gateway.wire import encode

BATCHES: Final = "/v1/batches"
CANCEL: Final = "/cancel"
MOST: Final = 100
USUAL: Final = 20

Identify = Callable[[Exchange, str], Awaitable[Caller]]
AnsweredBefore = Callable[[Exchange, Caller, bytes], Awaitable[bool]]


class Jobs:
    """The handlers of ``/v1/batches``. ``runner`` says which do not go on here, and is told what
    is new."""

    def __init__(
        self,
        kept: Store,
        limits: BatchLimits,
        identify: Identify,
        answered_before: AnsweredBefore,
        runner: Runner,
        body_limits: tuple[int, float],
    ) -> None:
        self._store = kept
        self._limits = limits
        self._identify = identify
        self._answered_before = answered_before
        self._runner = runner
        self._body_limits = body_limits

    async def create(self, exchange: Exchange) -> None:
        """``POST /v1/batches``."""
        caller = await self._identify(exchange, "inference")
        body = await exchange.body(*self._body_limits)
        if await self._answered_before(exchange, caller, body):
            return
        request = read_request(body)
        row = self._new(caller, request)
        refused = await self._store.do(self._add, row)
        if refused is not None:
            raise refused
        self._runner.wake()
        await exchange.reply(200, self._shown(row))

    def _new(self, caller: Caller, request: BatchRequest) -> BatchRow:
        now = time.time_ns()
        created = now // 10**9
        keep = request.output_expires_after
        return BatchRow(
            id=new_id("batch_"),
            tenant=caller.tenant,
            key_id=caller.key_id,
            endpoint=request.endpoint,
            input=request.input_file_id,
            status="validating",
            at=now,
            created=created,
            expires=created + self._limits.window,
            keep=keep.seconds if keep else self._limits.lifetime,
            metadata=encode(request.metadata).decode(),
        )

    def _add(self, database: Database, row: BatchRow) -> ApiError | None:
        file = stored_files.file_of(database, row.tenant, row.input)
        if file is None:
            return no_file(row.input, "input_file_id")
        if file.purpose != "batch":
            return bad_request(
                f"File {row.input} was made for {file.purpose!r}, not for 'batch'",
                "input_file_id",
            )
        if stored_batches.alive_of(database, row.tenant) >= self._limits.customer_batches:
            return ApiError(
                429,
                f"You have {self._limits.customer_batches} batches that have not ended, which is "
                "your limit",
                type="rate_limit_error",
                code="rate_limit_exceeded",
                retry_after=60,
            )
        stored_batches.add_batch(database, row)
        return None

    async def list(self, exchange: Exchange) -> None:
        """``GET /v1/batches``."""
        caller = await self._identify(exchange, "read")
        given = Given(exchange.query)
        limit = given.number("limit", 1, MOST, USUAL)
        after = given.one("after")
        given.end()
        found = await self._store.look(stored_batches.batches_of, caller.tenant, after, limit + 1)
        if found is None:
            raise no_batch(after)
        shown = [batch_shown(row, self._runner.paused.get(row.id)) for row in found[:limit]]
        ends = (shown[0].id, shown[-1].id) if shown else (None, None)
        await exchange.reply(200, encode(BatchList(shown, len(found) > limit, *ends)))

    async def show(self, exchange: Exchange) -> None:
        """``GET /v1/batches/{batch_id}``."""
        caller = await self._identify(exchange, "read")
        name = named(exchange, BATCHES)
        row = await self._store.look(stored_batches.batch_of, name, caller.tenant)
        if row is None:
            raise no_batch(name)
        await exchange.reply(200, self._shown(row))

    async def cancel(self, exchange: Exchange) -> None:
        """``POST /v1/batches/{batch_id}/cancel``: what runs ends and is paid, nothing starts."""
        caller = await self._identify(exchange, "inference")
        name = named(exchange, BATCHES, CANCEL)
        before = await self._store.look(stored_batches.batch_of, name, caller.tenant)
        if before is None:
            raise no_batch(name)
        if before.ended is not None:
            raise ApiError(
                409, f"Cannot cancel a batch with status '{before.status}'", code="batch_ended"
            )
        row = await self._store.do(stored_batches.cancel, name)
        self._runner.wake()
        await exchange.reply(200, self._shown(row or before))

    def _shown(self, row: BatchRow) -> bytes:
        return encode(batch_shown(row, self._runner.paused.get(row.id)))
