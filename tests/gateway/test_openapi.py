"""``/openapi.json`` against the server itself, by schemathesis: what it promises is what happens.

Cases are made from our own document, right ones and wrong ones, and sent over HTTP. No answer may
be a 5xx, have a status or a type that the document doesn't name, or break its schema; what is wrong
must be refused. The stand proves its book when it closes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from avocado.gateway import openapi
from avocado.gateway.surfaces import messages, responses
from avocado.gateway.surfaces.chat_completions import ChatRequest

MakeStand = Callable[..., Any]
CHECKS: Any = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
SCHEMA = schemathesis.openapi.from_dict(openapi.describe())
OPERATIONS: dict[str, Any] = {
    operation.label: operation
    for operation in (cast(Any, result).ok() for result in SCHEMA.get_all_operations())
}
RUNS = [
    (label, mode)
    for label in OPERATIONS
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or label not in ("GET /health", "GET /ready")
]
"""Those two read nothing that could be wrong."""
PAGED = ("GET /v1/files", "GET /v1/batches")
FEW, MANY = 12, 150
"""Cases of each operation and kind, at most."""


def test_the_document_is_valid_and_served(stand: Any) -> None:
    answer = stand.call("GET", "/openapi.json", headers={"Authorization": None})
    document = answer.json
    assert (answer.status, document["openapi"]) == (200, "3.1.0")
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    served = set(stand.app._routes) - {"/metrics", "/openapi.json"} | {"/v1/models/{model}"}
    served |= set(stand.app.batches.paths())
    assert set(document["paths"]) == served, "each endpoint stands in the document"


@pytest.mark.parametrize(
    ("kind", "name", "harmless"),
    [
        ("ChatRequest", "store", [None, False]),
        ("ResponsesRequest", "previous_response_id", [None]),
        ("MessagesRequest", "service_tier", [None, "auto", "standard_only"]),
    ],
)
def test_what_is_not_served_is_said_by_value(kind: str, name: str, harmless: Any) -> None:
    schema = openapi.describe()["components"]["schemas"][kind]
    assert schema["properties"][name] == {"enum": harmless}
    assert schema["additionalProperties"] is False


def test_every_field_is_in_the_document() -> None:
    schemas = openapi.describe()["components"]["schemas"]
    for kind in (ChatRequest, responses.ResponsesRequest, messages.MessagesRequest):
        assert set(schemas[kind.__name__]["properties"]) == set(kind.__struct_fields__)


def run_cases(stand: Any, label: str, mode: GenerationMode, examples: int) -> Counter[int]:
    """Sends them, checks each answer, and counts their statuses."""
    seen: Counter[int] = Counter()
    wrong = mode is GenerationMode.NEGATIVE
    # In a query one value is a list of one, and a list of none is not there at all, which
    # schemathesis takes for wrong.
    refused = wrong and "/organization/" not in label and label not in PAGED
    wanted = [*CHECKS, checks.negative_data_rejection] if refused else CHECKS

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        if not wrong:
            _name_the_model(case)
        response = case.call(
            base_url=stand.url, headers={"Authorization": f"Bearer {stand.key.text}"}
        )
        seen[response.status_code] += 1
        case.validate_response(response, checks=wanted)

    send()
    return seen


def _name_the_model(case: Any) -> None:
    """A name at random is a 404 and nothing more."""
    if isinstance(case.body, dict) and "model" in case.body:
        case.body["model"] = "avocado-1"
    if "model" in (case.path_parameters or {}):
        case.path_parameters["model"] = "avocado-1"


@pytest.mark.parametrize(("label", "mode"), RUNS, ids=lambda part: getattr(part, "value", part))
def test_schemathesis(stand: Any, label: str, mode: GenerationMode) -> None:
    run_cases(stand, label, mode, FEW)


@pytest.mark.slow
def test_schemathesis_thousands(make_stand: MakeStand, capsys: Any) -> None:
    stand = make_stand(credit=10**15)
    seen: Counter[int] = Counter()
    for label, mode in RUNS:
        seen += run_cases(stand, label, mode, MANY)
    with capsys.disabled():
        print(f"\nschemathesis: {seen.total()} cases, {json.dumps(dict(sorted(seen.items())))}")
    assert seen.total() >= 2000
    assert seen[200] > 100, "some of them are served"
