"""What stands between ``<tool_call>`` and ``</tool_call>``, read in both of Qwen's forms. Pure.

* Hermes (Qwen2.5, Qwen3): ``{"name": "f", "arguments": {…}}``
* XML (Qwen3-Coder, Qwen3.5): ``<function=f>`` with ``<parameter=key>`` and its value on lines of
  their own. Values are bare text, so their types come from the tool's schema.

What cannot be read is None: it then stays text, and nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

Tools = Sequence[Mapping[str, Any]]
"""As OpenAI's ``tools``."""

_FUNCTION: Final = re.compile(r"\s*<function=([^<>\s]+)>\s*(.*?)\s*</function>\s*", re.DOTALL)
_PARAMETER: Final = re.compile(
    r"<parameter=([^<>\n]+)>\n?(.*?)\n?</parameter>\s*(?=<parameter=|\Z)", re.DOTALL
)


class _Hermes(msgspec.Struct):
    name: str
    arguments: msgspec.Raw


_decode = msgspec.json.Decoder(_Hermes).decode
_encode = msgspec.json.Encoder().encode


def read_call(body: str, tools: Tools) -> tuple[str, str] | None:
    """The name and the arguments, a JSON object as text (as the model wrote it where it wrote
    JSON); None if ``body`` is neither form."""
    match = _FUNCTION.fullmatch(body)
    if match is not None:
        return _from_xml(match[1], match[2], tools)
    try:
        call = _decode(body)
    except (ValueError, RecursionError):  # msgspec's errors, and text that is no UTF-8
        return None
    arguments = bytes(call.arguments)
    return (call.name, arguments.decode()) if arguments.startswith(b"{") else None


def is_cut(body: str) -> bool:
    """Whether ``body`` breaks off inside a value: the mark that seemed to end it may be a part of
    that value."""
    if body.lstrip().startswith("<function="):
        return not body.rstrip().endswith("</function>")
    try:
        _decode(body)
    except msgspec.DecodeError as error:
        return bool(body.strip()) and "truncated" in str(error)
    except (ValueError, RecursionError):
        return False
    return False


def _from_xml(name: str, inside: str, tools: Tools) -> tuple[str, str] | None:
    values: dict[str, Any] = {}
    schemas = _properties(name, tools)
    end = 0
    for match in _PARAMETER.finditer(inside):
        if match.start() != end:
            return None
        values[match[1]] = _typed(match[2], schemas.get(match[1]))
        end = match.end()
    if end != len(inside):
        return None
    try:
        return name, _encode(values).decode()
    except (ValueError, RecursionError):
        return None


def _properties(name: str, tools: Tools) -> Mapping[str, Any]:
    for tool in tools:
        function = tool.get("function", tool)
        if isinstance(function, Mapping) and function.get("name") == name:
            parameters = function.get("parameters")
            found = parameters.get("properties") if isinstance(parameters, Mapping) else None
            return found if isinstance(found, Mapping) else {}
    return {}


def _typed(text: str, schema: Any) -> Any:
    """The value that ``text`` stands for: text where the schema allows text or says nothing."""
    kinds = set(_kinds(schema))
    if text == "null" and "null" in kinds:
        return None
    if not kinds or "string" in kinds:
        return text
    if "boolean" in kinds and text.strip().lower() in ("true", "false"):
        return text.strip().lower() == "true"
    try:
        msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text
    return msgspec.Raw(text.encode())  # as it was written: a large number keeps its digits


def _kinds(schema: Any) -> Iterator[str]:
    if not isinstance(schema, Mapping):
        return
    kind = schema.get("type")
    yield from [kind] if isinstance(kind, str) else kind if isinstance(kind, list) else ()
    if any(isinstance(value, str) for value in schema.get("enum") or ()):
        yield "string"
    for name in ("anyOf", "oneOf"):
        for choice in schema.get(name) or ():
            yield from _kinds(choice)
