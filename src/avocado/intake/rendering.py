"""The child process that tries chat templates: run as a file, it imports nothing of ours.

Reads ``{"templates": [[name, text] …], "output", "seconds", "memory"}`` from standard input, bounds
itself, renders, and prints ``{"refused": reason or null}``. The environment is the one in which
templates are rendered for real (transformers' ``chat_template_utils``): Jinja's immutable sandbox,
its loop controls, ``tojson``, ``raise_exception``, ``strftime_now`` and the ``generation`` block.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

_CALL: Final = {"name": "add", "arguments": {"a": 1, "b": 2}}
_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
}
_QUESTION: Final = [{"role": "user", "content": "What is 1 + 2?"}]
_CONVERSATIONS: Final[list[tuple[list[dict[str, Any]], list[dict[str, Any]] | None]]] = [
    (_QUESTION, None),
    (
        [
            {"role": "system", "content": "Be brief."},
            *_QUESTION,
            {"role": "assistant", "content": "3"},
            {"role": "user", "content": "And 2 + 2?"},
        ],
        None,
    ),
    (
        [
            *_QUESTION,
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "c1", "type": "function", "function": _CALL}],
            },
            {"role": "tool", "tool_call_id": "c1", "name": "add", "content": "3"},
        ],
        [_TOOL],
    ),
]
"""The first must render; a template may decline the others, as some know no system turn."""

_TOKENS: Final = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "", "unk_token": ""}


class _Generation(Extension):
    """``{% generation %}``: marks what the assistant wrote; here it only passes through."""

    tags = {"generation"}  # noqa: RUF012  (Jinja declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Declined(TemplateError):
    """The template itself said no to a conversation."""


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _decline
    environment.globals["strftime_now"] = lambda form: datetime.now(UTC).strftime(form)
    return environment


def _to_json(value: Any, **how: Any) -> str:
    return json.dumps(value, **{"ensure_ascii": False, **how})


def _decline(message: object) -> None:
    raise _Declined(str(message))


def _bound(seconds: int, memory: int) -> None:
    """Nothing that this process does from here on may hurt the machine."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    end = int(used.ru_utime + used.ru_stime) + seconds
    for what, limit in (
        (resource.RLIMIT_CPU, end),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        hard = resource.getrlimit(what)[1]
        bounded = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (bounded, bounded))


def _render(environment: ImmutableSandboxedEnvironment, text: str, limit: int) -> str | None:
    """Why ``text`` is refused, or None."""
    template = environment.from_string(text)
    for number, (messages, tools) in enumerate(_CONVERSATIONS):
        length = 0
        try:
            for piece in template.generate(
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=True,
                **_TOKENS,
            ):
                length += len(piece)
                if length > limit:
                    return f"makes more than {limit:,} characters of a short question"
        except (SecurityError, MemoryError, RecursionError):
            raise
        except Exception as error:
            if number == 0:
                return f"cannot render a plain question: {str(error)[:200]}"
    return None


def _refused(ask: Mapping[str, Any]) -> str | None:
    environment = _environment()
    for name, text in ask["templates"]:
        where = f"the chat template in {name}"
        try:
            reason = _render(environment, text, ask["output"])
        except TemplateSyntaxError as error:
            return f"{where} does not parse: line {error.lineno}: {error.message}"
        except SecurityError as error:
            return f"{where} reaches outside its sandbox: {error}"
        except MemoryError:
            return f"{where} needs more memory than the {ask['memory']:,} bytes it may have"
        except (RecursionError, OverflowError):
            return f"{where} is nested too deep"
        if reason is not None:
            return f"{where} {reason}"
    return None


def main() -> None:
    ask = json.load(sys.stdin)
    _bound(ask["seconds"], ask["memory"])
    json.dump({"refused": _refused(ask)}, sys.stdout)


if __name__ == "__main__":
    main()
