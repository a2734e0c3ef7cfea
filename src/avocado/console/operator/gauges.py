"""Gauges: what the running servers say of themselves at ``/metrics``: errors, waits, load.

The text is Prometheus's (``gateway.metrics``). ``parse`` and ``sum_up`` are pure; only ``ask``
speaks HTTP, with servers of this machine. What is counted is counted since each server's start.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from avocado.console.console import Console

TIMEOUT: Final = 0.5
"""Seconds that a page waits for a server."""
MOST_BYTES: Final = 4 * 1024 * 1024
_SAMPLE: Final = re.compile(r"([a-z_]+)(?:\{(.*)\})? ([0-9.e+-]+|\+Inf|NaN)")
_LABEL: Final = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Model:
    """One model and release since its servers started. Times in seconds; None where none ended."""

    model: str
    release: str
    requests: int
    errors: int
    first_p50: float | None
    first_p95: float | None


@dataclass(frozen=True)
class Gauges:
    """Of all servers together. ``errors`` are answers of 500 and above, ``refused`` of 400 to 499;
    ``first_*`` the time to the first token in seconds, between the bounds of a histogram."""

    servers: int
    requests: int
    errors: int
    refused: int
    first_p50: float | None
    first_p95: float | None
    running: int
    capacity: int
    waiting: int
    ready: bool
    models: tuple[Model, ...]

    @property
    def error_share(self) -> float | None:
        return self.errors / self.requests if self.requests else None

    @property
    def load(self) -> float:
        return self.running / self.capacity if self.capacity else 0.0


def parse(text: str) -> list[Sample]:
    """The samples of a text; lines that are none are passed over."""
    found = []
    for line in text.splitlines():
        match = _SAMPLE.fullmatch(line)
        if match is not None:
            labels = dict(_LABEL.findall(match[2] or ""))
            found.append(Sample(match[1], labels, float(match[3])))
    return found


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """A quantile of a histogram of cumulative counts by upper bound, linear within a bucket as
    Prometheus's ``histogram_quantile`` has it; the last finite bound for what lies beyond it."""
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    wanted = share * buckets[bounds[-1]]
    below, seen = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= wanted:
            if bound == float("inf"):
                return below
            inside = buckets[bound] - seen
            return below + (bound - below) * ((wanted - seen) / inside if inside else 1.0)
        below, seen = bound, buckets[bound]
    return below


def sum_up(texts: Sequence[str]) -> Gauges | None:
    """All servers' texts as one; None where no server answered."""
    if not texts:
        return None
    samples = [sample for text in texts for sample in parse(text)]
    requests = [each for each in samples if each.name == "avocado_requests_total"]
    first = [each for each in samples if each.name == "avocado_first_token_seconds_bucket"]
    every = _buckets(first)
    pairs = sorted(
        {
            (each.labels.get("model", ""), each.labels.get("release", ""))
            for each in requests
            if each.labels.get("model")
        }
    )
    return Gauges(
        servers=len(texts),
        requests=_total(requests),
        errors=_total(each for each in requests if _status(each) >= 500),
        refused=_total(each for each in requests if 400 <= _status(each) < 499),
        first_p50=quantile(every, 0.5),
        first_p95=quantile(every, 0.95),
        running=_total(each for each in samples if each.name == "avocado_running"),
        capacity=_total(each for each in samples if each.name == "avocado_capacity"),
        waiting=_total(each for each in samples if each.name == "avocado_engine_queue"),
        ready=all(each.value for each in samples if each.name == "avocado_ready"),
        models=tuple(_model(*pair, requests, first) for pair in pairs),
    )


def _model(model: str, release: str, requests: Sequence[Sample], first: Sequence[Sample]) -> Model:
    mine = [each for each in requests if _is(each, model, release)]
    buckets = _buckets(each for each in first if _is(each, model, release))
    return Model(
        model,
        release,
        _total(mine),
        _total(each for each in mine if _status(each) >= 500),
        quantile(buckets, 0.5),
        quantile(buckets, 0.95),
    )


def _is(sample: Sample, model: str, release: str) -> bool:
    return (sample.labels.get("model"), sample.labels.get("release")) == (model, release)


def _total(samples: Iterable[Sample]) -> int:
    return int(sum(each.value for each in samples))


def _status(sample: Sample) -> int:
    text = sample.labels.get("status", "")
    return int(text) if text.isdigit() else 0


def _buckets(samples: Iterable[Sample]) -> dict[float, float]:
    found: dict[float, float] = {}
    for each in samples:
        bound = float(each.labels.get("le", "inf").replace("+Inf", "inf"))
        found[bound] = found.get(bound, 0.0) + each.value
    return found


def ask(console: Console) -> Gauges | None:
    """What the running servers say; None where none runs. One that did not tell where it listens
    may be where avocado.toml has it."""
    told = [text for url in console.server_urls() if (text := _fetch(url)) is not None]
    if not told and (text := _fetch(console.configured_url)) is not None:
        told.append(text)
    return sum_up(told)


def _fetch(url: str) -> str | None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        body = answer.read(MOST_BYTES)
        return body.decode("utf-8", "replace") if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
