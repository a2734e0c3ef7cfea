"""Tools: what a client offers the model, and the grammar of a call that it insists on. Pure.

Every surface brings its tools into OpenAI's shape, which is what chat templates render. Whether the
model calls one is its own choice, unless ``required`` or a named function leaves it none: then the
answer is one call, held to the schema of its parameters by the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from avocado.engine.engine import JsonSchema
from avocado.gateway.errors import bad_request, unsupported

MAX_TOOLS: Final = 128
CALL_END: Final = "</tool_call>"
"""Ends a generation that may hold one call only."""


@dataclass(frozen=True, slots=True)
class Function:
    """One tool. ``parameters`` is a JSON Schema, None for a function that says nothing of them."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    strict: bool = False

    def openai(self) -> dict[str, Any]:
        function: dict[str, Any] = {"name": self.name}
        if self.description is not None:
            function["description"] = self.description
        function["parameters"] = self.parameters or {"type": "object", "properties": {}}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Choice:
    """``mode`` auto, none, required; ``name`` if it must be that function."""

    mode: str = "auto"
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Toolset:
    """What the template is given, and the grammar where the model has no choice."""

    tools: tuple[Mapping[str, Any], ...] = ()
    grammar: JsonSchema | None = None
    stop: tuple[str, ...] = ()


def choose(
    functions: Sequence[Function], choice: Choice, parallel: bool, places: tuple[str, str]
) -> Toolset:
    """What becomes of the tools. ``places`` are the names of the two parameters, for errors.

    Raises:
        ApiError: 400, a choice without tools, of an unknown one, or ``strict`` where nothing can
            hold the model to it.
    """
    tools_at, choice_at = places
    if len(functions) > MAX_TOOLS:
        raise bad_request(f"Invalid value for {tools_at}: at most {MAX_TOOLS} tools", tools_at)
    names = [function.name for function in functions]
    if len(set(names)) < len(names):
        raise bad_request(f"Invalid value for {tools_at}: a name stands there twice", tools_at)
    if not functions:
        if choice.mode == "required":
            raise bad_request(f"{choice_at} needs {tools_at}", choice_at)
        return Toolset()
    if choice.mode == "none":
        return Toolset()
    offered = tuple(function.openai() for function in functions)
    if choice.mode == "auto":
        for place, function in enumerate(functions):
            if function.strict:
                raise unsupported(
                    f"{tools_at}[{place}].strict",
                    "strict: true is served where the model must call a tool: with "
                    f"{choice_at} required, or naming the function. Leave it out otherwise",
                )
        return Toolset(offered, stop=() if parallel else (CALL_END,))
    wanted = [function for function in functions if choice.name in (None, function.name)]
    if not wanted:
        raise bad_request(
            f"Invalid value for {choice_at}: no tool is called {choice.name!r}", choice_at
        )
    return Toolset(offered, JsonSchema(msgspec.json.encode(call_schema(wanted)).decode()))


def call_schema(functions: Sequence[Function]) -> dict[str, Any]:
    """The JSON Schema of one call in the Hermes form, of one of ``functions``."""
    calls = []
    definitions: dict[str, Any] = {}
    for place, function in enumerate(functions):
        arguments: Mapping[str, Any] = function.parameters or {"type": "object"}
        definitions[f"tool{place}"] = _moved(arguments, f"#/$defs/tool{place}")
        calls.append(
            {
                "type": "object",
                "properties": {
                    "name": {"const": function.name},
                    "arguments": {"$ref": f"#/$defs/tool{place}"},
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    whole = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {**whole, "$defs": definitions}


def _moved(schema: Any, root: str) -> Any:
    """A schema that lies below another's root: its references to its own root follow it."""
    if isinstance(schema, Mapping):
        return {
            key: root + value[1:]
            if key == "$ref" and isinstance(value, str) and value.startswith("#")
            else _moved(value, root)
            for key, value in schema.items()
        }
    if isinstance(schema, list):
        return [_moved(each, root) for each in schema]
    return schema
