"""What customers read of their own account: OpenAI's usage and costs, OpenRouter's credits, key and
generation.

A customer is an "organization" here, and any of its keys with the ``read`` scope sees all of it.
Queries run in a thread of their own, so that a long one keeps no request waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeVar

import msgspec
from msgspec import Struct

from avocado.gateway import statement
from avocado.gateway.errors import ApiError, bad_request, of_ledger
from avocado.gateway.keys import Caller
from avocado.gateway.query import Given, read_page
from avocado.gateway.statement import NANO, Sum
from avocado.gateway.wire import Number, encode
from avocado.ledger.errors import LedgerError
from avocado.ledger.reader import Reader
from avocado.terms.money import Money

T = TypeVar("T")
Query = Mapping[str, list[str]]

WIDTHS: Final = {"1m": 60, "1h": 3600, "1d": 86_400}
# The default and the most of buckets on a page, as OpenAI has them.
PAGES: Final = {"1m": (60, 1440), "1h": (24, 168), "1d": (7, 31)}
COST_PAGE: Final = (7, 180)
PREFIXES: Final = ("chatcmpl-", "cmpl-", "msg_", "resp_", "gen-")
"""What stands before a request's id in an answer's id."""


class UsageResult(Struct):
    input_tokens: int
    output_tokens: int
    input_cached_tokens: int
    num_model_requests: int
    api_key_id: str | None
    model: str | None
    batch: bool | None
    object: Literal["organization.usage.completions.result"] = (
        "organization.usage.completions.result"
    )
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    project_id: None = None
    user_id: None = None
    service_tier: None = None


class Amount(Struct):
    value: Number
    currency: str


class CostResult(Struct):
    amount: Amount
    line_item: str | None
    api_key_id: str | None
    object: Literal["organization.costs.result"] = "organization.costs.result"
    project_id: None = None


class UsageBucket(Struct):
    start_time: int
    end_time: int
    results: list[UsageResult]
    object: Literal["bucket"] = "bucket"


class CostBucket(Struct):
    start_time: int
    end_time: int
    results: list[CostResult]
    object: Literal["bucket"] = "bucket"


class UsagePage(Struct):
    data: list[UsageBucket]
    has_more: bool
    next_page: str | None
    object: Literal["page"] = "page"


class CostPage(Struct):
    data: list[CostBucket]
    has_more: bool
    next_page: str | None
    object: Literal["page"] = "page"


class Credits(Struct):
    total_credits: Number
    total_usage: Number
    currency: str


class CreditsAnswer(Struct):
    data: Credits


class KeyFacts(Struct):
    label: str
    usage: Number
    usage_daily: Number
    usage_weekly: Number
    usage_monthly: Number
    limit: Number | None
    limit_remaining: Number | None
    limit_reset: Literal["monthly"] | None
    currency: str
    is_free_tier: bool = False
    is_provisioning_key: bool = False


class KeyAnswer(Struct):
    data: KeyFacts


class GenerationFacts(Struct):
    id: str
    model: str
    created_at: str
    total_cost: Number
    usage: Number
    currency: str
    finish_reason: str
    cancelled: bool
    generation_time: int
    tokens_prompt: int
    tokens_completion: int
    native_tokens_prompt: int
    native_tokens_completion: int
    native_tokens_reasoning: int
    native_tokens_cached: int
    release: str
    price_version: str
    provider_name: str = "avocado"
    is_byok: bool = False


class GenerationAnswer(Struct):
    data: GenerationFacts


class Accounts:
    """Answers from the book; ``open_book`` makes a reader, in the thread that will use it."""

    def __init__(self, open_book: Callable[[], Reader]) -> None:
        self._open_book = open_book
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="accounts")
        self._reader: Reader | None = None

    def close(self) -> None:
        self._pool.submit(self._close_reader)
        self._pool.shutdown()

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()

    async def _read(self, question: Callable[[Reader], T]) -> T:
        def ask() -> T:
            if self._reader is None:
                self._reader = self._open_book()
            return question(self._reader)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, ask)
        except LedgerError as error:
            raise of_ledger(error) from error

    async def usage(self, caller: Caller, query: bytes) -> bytes:
        """``GET /v1/organization/usage/completions``."""
        given = Given(query)
        width = given.one_of("bucket_width", tuple(WIDTHS), "1d")
        groups = given.groups(("api_key_id", "model", "batch"), ("project_id", "user_id"))
        keys, models = given.many("api_key_ids"), given.many("models")
        batch = given.one_of("batch", ("true", "false"), "")
        page = read_page(given, WIDTHS[width], *PAGES[width])
        names = {"api_key_id": "key_id", "model": "offer", "batch": "batch"}
        found = await self._read(
            lambda reader: statement.sums(
                reader,
                caller.tenant,
                page.span,
                [names[each] for each in groups],
                keys,
                models,
                None if not batch else batch == "true",
            )
        )
        data = [
            UsageBucket(start, end, [_usage(each) for each in inside])
            for start, end, inside in page.buckets(found)
        ]
        return encode(UsagePage(data, page.next is not None, page.next))

    async def costs(self, caller: Caller, query: bytes) -> bytes:
        """``GET /v1/organization/costs``."""
        given = Given(query)
        given.one_of("bucket_width", ("1d",), "1d")
        groups = given.groups(("line_item", "api_key_id"), ("project_id", "user_id"))
        keys, items = given.many("api_key_ids"), given.many("line_items")
        page = read_page(given, WIDTHS["1d"], *COST_PAGE)
        names = {"api_key_id": "key_id", "line_item": "offer"}
        by = [names[each] for each in groups]
        found = await self._read(
            lambda reader: statement.sums(reader, caller.tenant, page.span, by, keys, items)
        )
        data = [
            CostBucket(start, end, [_cost(each) for each in inside])
            for start, end, inside in page.buckets(found)
        ]
        return encode(CostPage(data, page.next is not None, page.next))

    async def credits(self, caller: Caller, query: bytes) -> bytes:
        """``GET /api/v1/credits``: all that was ever paid in and granted, and what was used."""
        Given(query).end()
        found = await self._read(lambda reader: statement.money(reader, caller.tenant))
        currency = found.balance.currency
        total = found.balance.posted + found.spent
        return encode(
            CreditsAnswer(
                Credits(_number(total, currency), _number(found.spent, currency), currency)
            )
        )

    async def key(self, caller: Caller, query: bytes) -> bytes:
        """``GET /api/v1/key``: the key that asks."""
        Given(query).end()
        times = _starts(time.time())
        found = await self._read(
            lambda reader: statement.key_use(reader, caller.tenant, caller.key_id, times)
        )
        if found is None:
            raise ApiError(404, "There is no such key", code="not_found")
        key, currency = found.key, found.currency
        day, week, month = found.since
        limits = [
            (limit - used, limit, monthly)
            for limit, used, monthly in (
                (key.total_limit, found.spent, False),
                (key.month_limit, month, True),
            )
            if limit is not None
        ]
        left, limit, monthly = min(limits) if limits else (None, None, False)  # the nearest one
        facts = KeyFacts(
            label=key.name,
            usage=_number(found.spent, currency),
            usage_daily=_number(day, currency),
            usage_weekly=_number(week, currency),
            usage_monthly=_number(month, currency),
            limit=None if limit is None else _number(limit, currency),
            limit_remaining=None if left is None else _number(max(0, left), currency),
            limit_reset="monthly" if monthly else None,
            currency=currency,
        )
        return encode(KeyAnswer(facts))

    async def generation(self, caller: Caller, query: bytes) -> bytes:
        """``GET /api/v1/generation?id=``: a request that was charged; the customer's own only."""
        given = Given(query)
        name = given.one("id")
        given.end()
        if not name:
            raise bad_request("Missing required parameter: 'id'", "id", "missing_parameter")
        request = next((name[len(p) :] for p in PREFIXES if name.startswith(p)), name)
        row = await self._read(lambda reader: statement.settled(reader, caller.tenant, request))
        if row is None:
            raise ApiError(404, f"No generation {name[:100]!r} was charged", code="not_found")
        cost = _number(row.charge - row.refunded, row.currency)
        finish = row.finish or ""
        facts = GenerationFacts(
            id=row.id,
            model=row.offer,
            created_at=datetime.fromtimestamp(row.opened / NANO, UTC).isoformat(),
            total_cost=cost,
            usage=cost,
            currency=row.currency,
            finish_reason=finish,
            cancelled=finish not in ("stop", "length"),
            generation_time=((row.closed or row.opened) - row.opened) // 1_000_000,
            tokens_prompt=row.prompt,
            tokens_completion=row.completion,
            native_tokens_prompt=row.prompt,
            native_tokens_completion=row.completion,
            native_tokens_reasoning=row.reasoning,
            native_tokens_cached=row.cached,
            release=row.release,
            price_version=row.price_version,
        )
        return encode(GenerationAnswer(facts))


def _number(nanos: int, currency: str) -> Any:
    return msgspec.Raw(Money(nanos, currency).decimal().encode())


def _usage(found: Sum) -> UsageResult:
    return UsageResult(
        found.prompt,
        found.completion,
        found.cached,
        found.requests,
        found.key_id,
        found.offer,
        found.batch,
    )


def _cost(found: Sum) -> CostResult:
    amount = Amount(_number(found.charge, found.currency), found.currency.lower())
    return CostResult(amount, found.offer, found.key_id)


def _starts(now: float) -> tuple[int, int, int]:
    """When this day, week and month began, UTC, in seconds."""
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    day = int(today.timestamp())
    return day, day - today.weekday() * 86_400, int(today.replace(day=1).timestamp())
