"""Tools: what a client offers the model, and the grammar of its calls. Pure.

Every surface brings its tools into OpenAI's shape, which is what chat templates render. Whether the
model calls one is its own choice, unless ``required`` or a named function leaves it none: then the
answer is calls alone. Calls that must be made, and those of strict tools, are held to the schemas
of their parameters by the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from avocado.engine.engine import Calls
from avocado.gateway.errors import bad_request

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
    """What the template is given, and what holds the model's calls. ``forced``: the answer is calls
    alone. ``grammar_from`` is the parameter that asks for the grammar."""

    tools: tuple[Mapping[str, Any], ...] = ()
    grammar: Calls | None = None
    grammar_from: str = ""
    stop: tuple[str, ...] = ()

    @property
    def forced(self) -> bool:
        return self.grammar is not None and self.grammar.must


def choose(
    functions: Sequence[Function], choice: Choice, parallel: bool, places: tuple[str, str]
) -> Toolset:
    """What becomes of the tools. ``places`` are the names of the two parameters, for errors.

    Raises:
        ApiError: 400, a choice without tools or of an unknown one.
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
        strict = [place for place, function in enumerate(functions) if function.strict]
        if not strict:
            return Toolset(offered, stop=() if parallel else (CALL_END,))
        grammar = _calls(functions, must=False, several=parallel)
        return Toolset(offered, grammar, f"{tools_at}[{strict[0]}].strict")
    wanted = [function for function in functions if choice.name in (None, function.name)]
    if not wanted:
        raise bad_request(
            f"Invalid value for {choice_at}: no tool is called {choice.name!r}", choice_at
        )
    grammar = _calls(wanted, must=True, several=parallel and choice.name is None)
    return Toolset(offered, grammar, choice_at)


def _calls(functions: Sequence[Function], *, must: bool, several: bool) -> Calls:
    """A tool that is not strict is held to its schema only where it must be called, for then a
    grammar is needed in any case."""
    anything: Mapping[str, Any] = {"type": "object"}
    schemas = [
        (function.parameters if must or function.strict else None) or anything
        for function in functions
    ]
    named = zip((function.name for function in functions), schemas, strict=True)
    return Calls(
        tuple((name, msgspec.json.encode(schema).decode()) for name, schema in named), must, several
    )
