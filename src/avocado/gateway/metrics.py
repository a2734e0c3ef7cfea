"""Metrics: what the gateway counts about itself, in Prometheus's text form (version 0.0.4).

Counting is dictionary additions on the event loop; the text is made when somebody asks for it.
Labels are bounded: models that are offered, releases that serve them, outcomes that we name.
Never a customer, a key or a word of a prompt.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from avocado.engine.engine import Occupancy
from avocado.gateway.exchange import Exchange
from avocado.ledger import metrics as ledger_metrics
from avocado.ledger.operation import AnyOperation, AnyResult, Book, Held, Hold, Settled, Voided
from avocado.terms.usage import Usage

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
WAITS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
Labels = tuple[str, ...]


class Histogram:
    """Counts by upper bound, one series a set of labels."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.series: dict[Labels, list[int]] = {}
        self.sums: dict[Labels, float] = defaultdict(float)

    def add(self, labels: Labels, value: float) -> None:
        counts = self.series.get(labels)
        if counts is None:
            counts = self.series[labels] = [0] * (len(self.bounds) + 1)
        counts[bisect_left(self.bounds, value)] += 1
        self.sums[labels] += value


@dataclass(frozen=True, slots=True)
class Moment:
    """What is true right now: of each release its engine's occupancy, and of the server."""

    occupancy: Mapping[str, Occupancy]
    running: int
    capacity: int
    draining: bool
    ready: bool
    ledger: ledger_metrics.Metrics | None = None


@dataclass(slots=True)
class Metrics:
    """Since the start of the process."""

    requests: dict[Labels, int] = field(default_factory=lambda: defaultdict(int))
    tokens: dict[Labels, int] = field(default_factory=lambda: defaultdict(int))
    charged: dict[Labels, int] = field(default_factory=lambda: defaultdict(int))
    held: dict[Labels, int] = field(default_factory=lambda: defaultdict(int))
    held_now: dict[Labels, int] = field(default_factory=lambda: defaultdict(int))
    first: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    whole: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    waits: Histogram = field(default_factory=lambda: Histogram(WAITS))

    def over(self, exchange: Exchange, model: str) -> None:
        """Counts an exchange that has ended. ``model`` is an offer's name, or empty."""
        version = (model, exchange.release)
        outcome = exchange.outcome or "ok"
        self.requests[(*version, str(exchange.status or 499), outcome)] += 1
        if not model:
            return
        self.whole.add(version, time.monotonic() - exchange.began)
        if exchange.first is not None:
            self.first.add(version, exchange.first - exchange.began)
        if exchange.currency:
            self.tokens[(*version, "prompt")] += exchange.prompt
            self.tokens[(*version, "completion")] += exchange.completion
            self.charged[(*version, exchange.currency)] += exchange.charge

    def text(self, now: Moment) -> bytes:
        """The whole exposition."""
        version = ("model", "release")
        lines = [
            *_family("requests_total", "counter", "Requests that have ended.",
                     (*version, "status", "outcome"), self.requests),
            *_family("tokens_total", "counter", "Tokens that were charged.",
                     (*version, "kind"), self.tokens),
            *_money("charged_total", "counter", "Money that was charged.",
                    (*version, "currency"), self.charged),
            *_money("held_total", "counter", "Money that was held for requests.",
                    ("currency",), self.held),
            *_money("held", "gauge", "Money that running requests hold.",
                    ("currency",), self.held_now),
            *_histogram("first_token_seconds", "From the headers to a stream's first event.",
                        version, self.first),
            *_histogram("request_seconds", "From the headers to the settlement.",
                        version, self.whole),
            *_histogram("ledger_wait_seconds", "What a request waits for the ledger.",
                        ("operation",), self.waits),
            *_moment(now),
        ]  # fmt: skip
        return ("\n".join(lines) + "\n").encode()


class MeteredBook:
    """A book whose holds and settlements are counted. ``spans`` keeps their times by request, for
    whoever traces; it is None where nobody does."""

    def __init__(self, book: Book, metrics: Metrics) -> None:
        self._book = book
        self._metrics = metrics
        self._held: dict[str, tuple[int, Labels]] = {}
        self.spans: dict[str, list[tuple[str, float, float]]] | None = None

    async def hold(self, operation: Hold) -> Held:
        began = time.monotonic()
        held = await self._book.hold(operation)
        self._waited("hold", operation.id, began)
        labels = (held.currency,)
        self._held[operation.id] = (held.amount, labels)
        self._metrics.held[labels] += held.amount
        self._metrics.held_now[labels] += held.amount
        return held

    async def settle(self, hold: str, usage: Usage, finish: str = "stop") -> Settled:
        began = time.monotonic()
        settled = await self._book.settle(hold, usage, finish)
        self._waited("settle", hold, began)
        self._closed(hold)
        return settled

    async def void(self, hold: str, reason: str) -> Voided:
        began = time.monotonic()
        voided = await self._book.void(hold, reason)
        self._waited("void", hold, began)
        self._closed(hold)
        return voided

    def progress(self, hold: str, usage: Usage) -> None:
        self._book.progress(hold, usage)

    async def do(self, operation: AnyOperation) -> AnyResult:
        return await self._book.do(operation)

    def forget(self, hold: str) -> None:
        """The request is over; a hold that nobody closed is the ledger's now."""
        self._closed(hold)

    def _waited(self, operation: str, hold: str, began: float) -> None:
        now = time.monotonic()
        self._metrics.waits.add((operation,), now - began)
        if self.spans is not None:
            self.spans.setdefault(hold, []).append((operation, began, now))

    def _closed(self, hold: str) -> None:
        held = self._held.pop(hold, None)
        if held is not None:
            self._metrics.held_now[held[1]] -= held[0]


# -- the text --------------------------------------------------------------------------------------


def _head(name: str, kind: str, said: str) -> str:
    return f"# HELP avocado_{name} {said}\n# TYPE avocado_{name} {kind}"


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    pairs = zip(names, values, strict=True)
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs)
    return f"{{{inner}}}" if inner else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _family(
    name: str, kind: str, said: str, names: Sequence[str], values: Mapping[Labels, int]
) -> Iterator[str]:
    yield _head(name, kind, said)
    for labels, value in sorted(values.items()):
        yield f"avocado_{name}{_labels(names, labels)} {value}"


def _money(
    name: str, kind: str, said: str, names: Sequence[str], nanos: Mapping[Labels, int]
) -> Iterator[str]:
    """In units of the currency: exact decimals of the integers that we count."""
    yield _head(name, kind, said)
    for labels, value in sorted(nanos.items()):
        whole, rest = divmod(abs(value), 1_000_000_000)
        sign = "-" if value < 0 else ""
        yield f"avocado_{name}{_labels(names, labels)} {sign}{whole}.{rest:09d}"


def _histogram(name: str, said: str, names: Sequence[str], found: Histogram) -> Iterator[str]:
    yield _head(name, "histogram", said)
    for labels, counts in sorted(found.series.items()):
        yield from _buckets(name, names, labels, found.bounds, counts, found.sums[labels])


def _buckets(
    name: str,
    names: Sequence[str],
    labels: Labels,
    bounds: Sequence[float],
    counts: Sequence[int],
    total: float,
) -> Iterator[str]:
    seen = 0
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        seen += count
        yield f"avocado_{name}_bucket{_labels((*names, 'le'), (*labels, bound))} {seen}"
    yield f"avocado_{name}_sum{_labels(names, labels)} {total:.9g}"
    yield f"avocado_{name}_count{_labels(names, labels)} {seen}"


def _moment(now: Moment) -> Iterator[str]:
    for name, said, value in (
        ("running", "Requests past the gate.", now.running),
        ("capacity", "Requests that may be past the gate at once.", now.capacity),
        ("draining", "Whether the server shuts down.", int(now.draining)),
        ("ready", "Whether the ledger takes writes.", int(now.ready)),
    ):
        yield _head(name, "gauge", said)
        yield f"avocado_{name} {value}"
    for name, said, pick in (
        ("engine_batch", "Sequences that an engine generates for now.", "running"),
        ("engine_queue", "Sequences that wait for an engine.", "waiting"),
    ):
        yield _head(name, "gauge", said)
        for release, occupancy in sorted(now.occupancy.items()):
            yield f"avocado_{name}{_labels(('release',), (release,))} {getattr(occupancy, pick)}"
    if now.ledger is not None:
        yield from _ledger(now.ledger)


def _ledger(found: ledger_metrics.Metrics) -> Iterator[str]:
    for name, said, value in (
        ("operations_total", "Operations that were committed.", found.operations),
        ("failed_total", "Commits that failed and were tried again.", found.failed),
        ("refused_total", "Operations refused because too many waited.", found.refused_full),
    ):
        yield _head(f"ledger_{name}", "counter", said)
        yield f"avocado_ledger_{name} {value}"
    yield _head("ledger_waiting", "gauge", "Operations that wait for a commit.")
    yield f"avocado_ledger_waiting {found.waiting}"
    yield _head("ledger_commit_seconds", "histogram", "How long a commit takes.")
    yield from _buckets(
        "ledger_commit_seconds",
        (),
        (),
        ledger_metrics.LATENCY_BOUNDS,
        list(found.latency),
        found.commit_seconds,
    )
    yield _head("ledger_batch", "histogram", "Operations in one commit.")
    yield from _buckets(
        "ledger_batch",
        (),
        (),
        ledger_metrics.BATCH_BOUNDS,
        list(found.batches),
        found.operations,
    )
