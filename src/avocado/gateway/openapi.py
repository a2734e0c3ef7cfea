"""``/openapi.json``: the API as an OpenAPI 3.1 document, made from the very types that parse and
write. What a type cannot say (a parameter that may only stand at its neutral value) is added from
the tables that refuse it.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from avocado.gateway import accounts, query
from avocado.gateway.accounts import WIDTHS
from avocado.gateway.batches import document as batches
from avocado.gateway.surfaces import chat_completions, completions, messages, responses
from avocado.gateway.surfaces.chat_completions import ChatMessage, ChatRequest
from avocado.gateway.surfaces.chat_voice import ChatCompletion
from avocado.gateway.surfaces.completions import CompletionRequest, TextCompletion
from avocado.gateway.surfaces.embeddings import EmbeddingList, EmbeddingRequest
from avocado.gateway.surfaces.message_voice import AnthropicAnswer
from avocado.gateway.surfaces.messages import MessagesRequest
from avocado.gateway.surfaces.response_voice import Response
from avocado.gateway.surfaces.responses import ResponsesRequest
from avocado.gateway.wire import Neutral, encode

VERSION: Final = "1"
"""Of the API, not of the program: it is in the paths."""


class ErrorFields(Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class Error(Struct):
    error: ErrorFields


class AnthropicError(Struct):
    type: Literal["error"]
    error: ErrorFields
    request_id: str


class Deprecation(Struct):
    """Unix seconds, the model to change to, and a sentence once it is deprecated."""

    deprecated: int | None
    ends: int | None
    successor: str | None
    warning: str | None


class Model(Struct):
    id: str
    created: int
    owned_by: str
    release: str
    context_length: int
    price_per_million_tokens: dict[str, str]
    batch_price_per_million_tokens: dict[str, str]
    deprecation: Deprecation | UnsetType = UNSET
    object: Literal["model"] = "model"


class ModelList(Struct):
    data: list[Model]
    object: Literal["list"] = "list"


class Status(Struct):
    status: Literal["ok", "ready"]


_NEUTRAL: Final[dict[type[Struct], Neutral]] = {
    ChatRequest: chat_completions.NEUTRAL,
    ChatMessage: chat_completions.NEUTRAL_IN_MESSAGE,
    CompletionRequest: completions.NEUTRAL,
    MessagesRequest: messages.NEUTRAL,
    ResponsesRequest: responses.NEUTRAL,
}

_WHY: Final = {
    400: "a parameter is wrong or not served; `param` names it",
    401: "the API key is missing or wrong",
    402: "the balance or a spend limit does not cover it",
    403: "the key or the account may not",
    404: "there is no such thing, or it is not yours",
    408: "the body took too long",
    409: "the Idempotency-Key was used before, or what it is about is in use or has ended",
    413: "the body is too large",
    415: "only JSON is read, and a form where a file is sent",
    429: "too many requests; Retry-After says when",
    500: "the server or the engine failed",
    502: "the engine reported what cannot be",
    503: "the ledger or the engine is away, or the server goes",
    504: "the engine took too long",
}
_READS: Final = (400, 401, 403, 404, 429, 500, 503)


@cache
def document() -> bytes:
    """The document, encoded."""
    return encode(describe())


def describe() -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Avocado",
            "version": VERSION,
            "description": "Models by the token, as OpenAI's and Anthropic's clients know them.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _paths() -> dict[str, Any]:
    sold: list[tuple[str, str, type[Struct], type[Struct]]] = [
        ("/v1/chat/completions", "createChatCompletion", ChatRequest, ChatCompletion),
        ("/v1/completions", "createCompletion", CompletionRequest, TextCompletion),
        ("/v1/responses", "createResponse", ResponsesRequest, Response),
        ("/v1/messages", "createMessage", MessagesRequest, AnthropicAnswer),
        ("/v1/embeddings", "createEmbedding", EmbeddingRequest, EmbeddingList),
    ]
    shown: list[tuple[str, str, type[Struct], list[dict[str, Any]]]] = [
        ("/v1/models", "listModels", ModelList, []),
        ("/v1/models/{model}", "retrieveModel", Model, [_parameter("model", where="path")]),
        ("/v1/organization/usage/completions", "usage", accounts.UsagePage, _usage_query()),
        ("/v1/organization/costs", "costs", accounts.CostPage, _costs_query()),
        ("/api/v1/credits", "credits", accounts.CreditsAnswer, []),
        ("/api/v1/key", "key", accounts.KeyAnswer, []),
        (
            "/api/v1/generation",
            "generation",
            accounts.GenerationAnswer,
            [_parameter("id", required=True)],
        ),
    ]
    paths: dict[str, Any] = {
        path: {"post": _sold(path, name, asked, answer)} for path, name, asked, answer in sold
    }
    for path, name, answer, parameters in shown:
        paths[path] = {
            "get": {
                "operationId": name,
                "parameters": parameters,
                "responses": {"200": _json(answer, "as asked"), **_errors(_READS)},
            }
        }
    paths |= batches.paths(_json, _errors, _body, _parameter)
    for path in ("/health", "/ready"):
        paths[path] = {
            "get": {
                "operationId": path[1:],
                "security": [],
                "responses": {"200": _json(Status, "yes"), **_errors((500, 503))},
            }
        }
    return paths


def _sold(path: str, name: str, asked: type[Struct], answer: type[Struct]) -> dict[str, Any]:
    anthropic = answer is AnthropicAnswer
    if answer is EmbeddingList:
        whole = _json(answer, "a vector for each input, in order")
    else:
        whole = _json(answer, "the answer; events instead if `stream` is true")
        whole["content"]["text/event-stream"] = {}
    repeat = {"type": "string", "pattern": "^[ -~]{1,200}$"}
    return {
        "operationId": name,
        "security": [{"bearer": []}, {"x-api-key": []}] if anthropic else [{"bearer": []}],
        "parameters": [
            {"name": "Idempotency-Key", "in": "header", "required": False, "schema": repeat}
        ],
        "requestBody": _body(asked),
        "responses": {"200": whole, **_errors(_WHY, AnthropicError if anthropic else Error)},
    }


def _body(asked: type[Struct]) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(asked)}}
    return {"required": True, "content": content}


def _json(kind: type[Struct], why: str) -> dict[str, Any]:
    return {"description": why, "content": {"application/json": {"schema": _ref(kind)}}}


def _errors(statuses: Any, kind: type[Struct] = Error) -> dict[str, Any]:
    return {str(status): _json(kind, _WHY[status]) for status in statuses}


def _ref(kind: type[Struct]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _parameter(
    name: str, schema: dict[str, Any] | None = None, required: bool = False, where: str = "query"
) -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": required or where == "path",
        "schema": schema or {"type": "string", "minLength": 1},
    }


def _usage_query() -> list[dict[str, Any]]:
    groups = ["api_key_id", "model", "batch"]
    return [
        *_page_query(1440),
        _parameter("bucket_width", {"enum": list(WIDTHS)}),
        _parameter("batch", {"type": "boolean"}),
        _many("group_by", {"enum": groups}),
        _many("api_key_ids", {"type": "string"}),
        _many("models", {"type": "string"}),
    ]


def _costs_query() -> list[dict[str, Any]]:
    return [
        *_page_query(180),
        _parameter("bucket_width", {"enum": ["1d"]}),
        _many("group_by", {"enum": ["line_item", "api_key_id"]}),
        _many("api_key_ids", {"type": "string"}),
        _many("line_items", {"type": "string"}),
    ]


def _page_query(most: int) -> list[dict[str, Any]]:
    when = {"type": "integer", "minimum": 0, "maximum": query.LATEST}
    return [
        _parameter("start_time", when, required=True),
        _parameter("end_time", {**when, "minimum": 1}),
        _parameter("limit", {"type": "integer", "minimum": 1, "maximum": most}),
        _parameter("page"),
    ]


def _many(name: str, items: dict[str, Any]) -> dict[str, Any]:
    return _parameter(name, {"type": "array", "items": items, "maxItems": query.MANY})


def _schemas() -> dict[str, Any]:
    kinds = [
        *_NEUTRAL,
        ChatCompletion,
        TextCompletion,
        Response,
        AnthropicAnswer,
        accounts.UsagePage,
        accounts.CostPage,
        accounts.CreditsAnswer,
        accounts.KeyAnswer,
        accounts.GenerationAnswer,
        *batches.KINDS,
        Model,
        ModelList,
        Status,
        EmbeddingRequest,
        EmbeddingList,
        Error,
        AnthropicError,
    ]
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    for kind, neutral in _NEUTRAL.items():
        properties = schemas[kind.__name__]["properties"]
        for name, harmless in neutral.items():
            properties[name] = {"enum": [None, *harmless]}
    return schemas
