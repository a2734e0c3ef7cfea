"""/metrics as Prometheus's own parser reads it, and traces as a real OTLP receiver gets them."""

from __future__ import annotations

import gzip
import http.server
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from avocado.engine.scripted import Script
from avocado.gateway.limits import Limits
from avocado.gateway.metrics import Histogram, Metrics, Moment

MakeStand = Callable[..., Any]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(stand: Any) -> Samples:
    """Every sample of ``/metrics``, through Prometheus's reference parser."""
    from prometheus_client import parser

    answer = stand.call("GET", "/metrics", headers={"Authorization": None})
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: Samples = {}
    for family in parser.text_string_to_metric_families(answer.body.decode()):
        assert family.documentation
        assert family.type in {"counter", "gauge", "histogram"}
        for sample in family.samples:
            name = (sample.name, tuple(sorted(sample.labels.items())))
            assert name not in found, f"{name} stands there twice"
            found[name] = sample.value
    return found


def total(samples: Samples, name: str, **labels: str) -> float:
    wanted = set(labels.items())
    return sum(
        value for (found, pairs), value in samples.items() if found == name and wanted <= set(pairs)
    )


def test_requests_tokens_and_money_are_counted(make_stand: MakeStand) -> None:
    stand = make_stand()
    stand.ask()
    stand.ask(stream=True)
    stand.ask(model="nobody")
    stand.call("GET", "/v1/models")
    stand.idle()
    samples = scrape(stand)
    ours = {"model": "avocado-1", "release": stand.offers["avocado-1"].release[:20]}
    assert total(samples, "avocado_requests_total", status="200", outcome="stop", **ours) == 2
    assert total(samples, "avocado_requests_total", status="404", model="") == 1
    charges = stand.charges
    prompt = sum(charge.usage.prompt for charge in charges)
    completion = sum(charge.usage.completion for charge in charges)
    assert total(samples, "avocado_tokens_total", kind="prompt", **ours) == prompt
    assert total(samples, "avocado_tokens_total", kind="completion", **ours) == completion
    charged = sum(charge.charge for charge in charges)
    assert total(samples, "avocado_charged_total", currency="USD", **ours) == charged / 1e9
    assert total(samples, "avocado_held_total", currency="USD") > charged / 1e9
    assert total(samples, "avocado_held", currency="USD") == 0
    assert total(samples, "avocado_first_token_seconds_count", **ours) == 1
    assert total(samples, "avocado_request_seconds_count", **ours) == 2
    assert total(samples, "avocado_ledger_wait_seconds_count", operation="settle") == 2
    assert total(samples, "avocado_ledger_operations_total") >= 4
    assert total(samples, "avocado_ledger_commit_seconds_count") >= 2
    assert total(samples, "avocado_ready") == 1


def test_what_runs_is_seen_while_it_runs(make_stand: MakeStand, ask_body: Any) -> None:
    stand = make_stand(Script(reply="a b c d e f", delay=0.2))
    link = stand.raw(ask_body(stream=True))
    stand.until(lambda: total(scrape(stand), "avocado_held") > 0)
    samples = scrape(stand)
    assert total(samples, "avocado_running") == 1
    assert total(samples, "avocado_engine_batch") == 1
    link.close()
    stand.idle()
    assert total(scrape(stand), "avocado_held") == 0


def test_labels_are_bounded_by_us(make_stand: MakeStand) -> None:
    stand = make_stand()
    for number in range(30):
        stand.ask(model=f"made-up-{number}")
        stand.call("GET", f"/nothing/{number}")
    samples = scrape(stand)
    assert len([name for name, _ in samples if name == "avocado_requests_total"]) <= 3


def test_a_stranger_needs_the_scope(make_stand: MakeStand) -> None:
    stand = make_stand(proxies=["127.0.0.1"])
    away = {"X-Forwarded-For": "203.0.113.9"}
    assert stand.call("GET", "/metrics", headers=away | {"Authorization": None}).status == 401
    answer = stand.call("GET", "/metrics", headers=away)
    assert (answer.status, answer.error["code"]) == (403, "scope_missing")


def test_a_key_with_the_scope_may_look_from_anywhere(make_stand: MakeStand) -> None:
    stand = make_stand(proxies=["127.0.0.1"])
    stand.policy(f"key:{stand.key.id}", scopes=("metrics",))
    away = {"X-Forwarded-For": "203.0.113.9"}
    assert stand.call("GET", "/metrics", headers=away).status == 200


def test_an_unbelieved_forward_is_still_no_neighbour(stand: Any) -> None:
    """A proxy on this machine that nobody told us of: its clients come from 127.0.0.1 too."""
    away = {"X-Forwarded-For": "203.0.113.9", "Authorization": None}
    assert stand.call("GET", "/metrics", headers=away).status == 401


def test_histograms_are_cumulative_and_labels_escaped() -> None:
    metrics = Metrics(whole=Histogram((1.0, 2.0)))
    for value in (0.5, 1.0, 1.5, 9.0):
        metrics.whole.add(('a"b\\', "r\n"), value)
    text = metrics.text(Moment({}, 0, 1, False, True)).decode()
    labels = r'model="a\"b\\",release="r\n"'
    for bound, count in (("1.0", 2), ("2.0", 3), ("+Inf", 4)):
        assert f'avocado_request_seconds_bucket{{{labels},le="{bound}"}} {count}\n' in text
    assert f"avocado_request_seconds_sum{{{labels}}} 12\n" in text


def test_prompts_stand_in_the_log_only_where_the_operator_asked(make_stand: MakeStand) -> None:
    quiet, loud = make_stand(), make_stand(limits=Limits(log_prompts=True))
    for stand in (quiet, loud):
        stand.ask("a secret word")
        stand.until(lambda stand=stand: stand.log)
    assert "secret" not in str(quiet.log)
    assert "a secret word" in loud.log[0]["body"]


# -- traces ----------------------------------------------------------------------------------------


class Collector(http.server.BaseHTTPRequestHandler):
    """A real OTLP/HTTP receiver, as far as it goes."""

    got: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.got.append((self.path, body))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    got: list[tuple[str, bytes]] = []
    handler = type("Handler", (Collector,), {"got": got})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_request_is_traced_to_a_collector(make_stand: MakeStand, collector: Any) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="needs the telemetry extra")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    from avocado.gateway.tracing import Tracer

    url, got = collector
    tracer = Tracer(url)
    stand = make_stand(tracer=tracer)
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace}-{parent}-01"}
    answer = stand.ask("a secret word", headers, stream=True)
    stand.idle()
    tracer.close()
    [(path, body)] = got
    assert path == "/v1/traces"
    assert b"secret" not in body
    message = ExportTraceServiceRequest.FromString(body)
    spans = [
        span
        for each in message.resource_spans
        for scope in each.scope_spans
        for span in scope.spans
    ]
    by_name = {span.name: span for span in spans}
    root = by_name["POST /v1/chat/completions"]
    assert root.trace_id.hex() == trace
    assert root.parent_span_id.hex() == parent
    found = {pair.key: pair.value for pair in root.attributes}
    assert found["avocado.request"].string_value == answer.headers["x-request-id"]
    assert found["gen_ai.usage.output_tokens"].int_value == 6
    assert found["avocado.charge_nanos"].int_value == stand.charges[0].charge
    assert [event.name for event in root.events] == ["gen_ai.first_token"]
    for name in ("ledger hold", "ledger settle"):
        child = by_name[name]
        assert child.parent_span_id == root.span_id
        assert root.start_time_unix_nano <= child.start_time_unix_nano
        assert child.end_time_unix_nano <= root.end_time_unix_nano


def test_a_collector_that_is_away_harms_nobody(make_stand: MakeStand) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="needs the telemetry extra")
    from avocado.gateway.tracing import Tracer

    stand = make_stand(tracer=Tracer("http://127.0.0.1:9"))
    assert stand.ask().status == 200
