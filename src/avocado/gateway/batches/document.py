"""Files and batches in the API's OpenAPI document: made from the types that read and write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from avocado.gateway.batches.files import FILES
from avocado.gateway.batches.files import MOST as MOST_FILES
from avocado.gateway.batches.jobs import BATCHES
from avocado.gateway.batches.jobs import MOST as MOST_BATCHES
from avocado.gateway.batches.office import NAMED
from avocado.gateway.batches.upload import LEAST_LIFE, MOST_LIFE
from avocado.gateway.batches.wire import (
    Batch,
    BatchList,
    BatchRequest,
    FileDeleted,
    FileList,
    FileObject,
)

KINDS: Final = (BatchRequest, Batch, BatchList, FileObject, FileList, FileDeleted)
_READS: Final = (400, 401, 403, 404, 429, 500, 503)
_WRITES: Final = (*_READS, 408, 409, 413, 415)

Part = Callable[..., Any]


def paths(json: Part, errors: Part, body: Part, parameter: Part) -> dict[str, Any]:
    """Path → its operations. The arguments write parts of the document, as ``openapi`` does."""

    def answers(kind: type[Struct], why: str, statuses: tuple[int, ...]) -> dict[str, Any]:
        return {"200": json(kind, why), **errors(statuses)}

    file_id = [parameter("file_id", where="path")]
    batch_id = [parameter("batch_id", where="path")]
    after = parameter("after")
    limit = {"type": "integer", "minimum": 1}
    one_file, content, one_batch, cancel = NAMED
    return {
        FILES: {
            "post": {
                "operationId": "createFile",
                "requestBody": _form(),
                "responses": answers(FileObject, "the file", _WRITES),
            },
            "get": {
                "operationId": "listFiles",
                "parameters": [
                    after,
                    parameter("limit", {**limit, "maximum": MOST_FILES}),
                    parameter("order", {"enum": ["asc", "desc"]}),
                    parameter("purpose"),
                ],
                "responses": answers(FileList, "a page of files", _READS),
            },
        },
        one_file: {
            "get": {
                "operationId": "retrieveFile",
                "parameters": file_id,
                "responses": answers(FileObject, "the file", _READS),
            },
            "delete": {
                "operationId": "deleteFile",
                "parameters": file_id,
                "responses": answers(FileDeleted, "it is deleted", (*_READS, 409)),
            },
        },
        content: {
            "get": {
                "operationId": "downloadFile",
                "parameters": file_id,
                "responses": {
                    "200": {
                        "description": "its bytes",
                        "content": {"application/octet-stream": {}},
                    },
                    **errors(_READS),
                },
            }
        },
        BATCHES: {
            "post": {
                "operationId": "createBatch",
                "requestBody": body(BatchRequest),
                "responses": answers(Batch, "the batch, before its file was read", _WRITES),
            },
            "get": {
                "operationId": "listBatches",
                "parameters": [after, parameter("limit", {**limit, "maximum": MOST_BATCHES})],
                "responses": answers(BatchList, "a page of batches", _READS),
            },
        },
        one_batch: {
            "get": {
                "operationId": "retrieveBatch",
                "parameters": batch_id,
                "responses": answers(Batch, "the batch as it stands", _READS),
            }
        },
        cancel: {
            "post": {
                "operationId": "cancelBatch",
                "parameters": batch_id,
                "responses": answers(Batch, "what runs ends, nothing more begins", (*_READS, 409)),
            }
        },
    }


def _form() -> dict[str, Any]:
    seconds = {"type": "integer", "minimum": LEAST_LIFE, "maximum": MOST_LIFE}
    properties = {
        "file": {"type": "string", "contentMediaType": "application/jsonl"},
        "purpose": {"enum": ["batch"]},
        "expires_after[anchor]": {"enum": ["created_at"]},
        "expires_after[seconds]": seconds,
    }
    schema = {
        "type": "object",
        "properties": properties,
        "required": ["file", "purpose"],
        "additionalProperties": False,
    }
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
