"""Traces: one span a request, with the waits for the ledger inside, sent over OTLP.

Needs the ``telemetry`` extra; without a configured endpoint nothing of OpenTelemetry is imported.
Spans are made when a request has ended, from the times that it left behind, so that a running one
pays nothing. They carry token counts and the charge, and never a word of a prompt.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from avocado.errors import Refused
from avocado.gateway.exchange import Exchange

Span = tuple[str, float, float]
"""(name, monotonic begin, monotonic end)."""


class Tracer:
    """Sends spans to the OTLP/HTTP collector at ``endpoint``, such as http://127.0.0.1:4318."""

    def __init__(self, endpoint: str, service: str = "avocado") -> None:
        """Raises Refused where the packages are not installed."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace import SpanKind, set_span_in_context
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise Refused(
                "avocado.toml asks for traces, which need: pip install 'avocado-llm[telemetry]'"
            ) from error
        self._provider = TracerProvider(resource=Resource.create({"service.name": service}))
        exporter = OTLPSpanExporter(endpoint.rstrip("/") + "/v1/traces", timeout=5)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("avocado.gateway")
        self._read = TraceContextTextMapPropagator().extract
        self._inside = set_span_in_context
        self._server = SpanKind.SERVER

    def over(self, exchange: Exchange, spans: Sequence[Span]) -> None:
        """Makes the spans of an exchange that has ended."""
        shift = time.time() - time.monotonic()

        def at(moment: float) -> int:
            return int((moment + shift) * 1e9)

        names = (b"traceparent", b"tracestate")
        carrier = {
            name.decode(): exchange.headers[name].decode("latin-1")
            for name in names
            if name in exchange.headers
        }
        root = self._tracer.start_span(
            f"{exchange.method} {exchange.path[:100]}",
            context=self._read(carrier),
            kind=self._server,
            start_time=at(exchange.began),
            attributes=attributes(exchange),
        )
        if exchange.first is not None:
            root.add_event("gen_ai.first_token", timestamp=at(exchange.first))
        inside = self._inside(root)
        for name, began, ended in spans:
            child = self._tracer.start_span(f"ledger {name}", context=inside, start_time=at(began))
            child.end(at(ended))
        if exchange.status >= 500:
            from opentelemetry.trace import Status, StatusCode

            root.set_status(Status(StatusCode.ERROR, exchange.outcome))
        root.end(at(time.monotonic()))

    def close(self) -> None:
        """Sends what waits."""
        self._provider.shutdown()


def attributes(exchange: Exchange) -> dict[str, Any]:
    """By OpenTelemetry's semantic conventions for HTTP and generative AI, and ours beside them."""
    found: dict[str, Any] = {
        "http.request.method": exchange.method,
        "url.path": exchange.path[:200],
        "http.response.status_code": exchange.status or 499,
        "avocado.request": exchange.id,
        "avocado.outcome": exchange.outcome or "ok",
    }
    if exchange.tenant:
        found["avocado.customer"] = exchange.tenant
        found["avocado.key"] = exchange.key_id
    if exchange.release:
        found["gen_ai.request.model"] = exchange.model
        found["avocado.release"] = exchange.release
    if exchange.currency:
        found["gen_ai.usage.input_tokens"] = exchange.prompt
        found["gen_ai.usage.output_tokens"] = exchange.completion
        found["avocado.charge_nanos"] = exchange.charge
        found["avocado.currency"] = exchange.currency
    return found
