"""What stands between ``<tool_call>`` and ``</tool_call>``, read as it comes, in both Qwen forms.

* Hermes (Qwen2.5, Qwen3): ``{"name": "f", "arguments": {…}}``
* XML (Qwen3-Coder, Qwen3.5): ``<function=f>`` with ``<parameter=key>`` and its value on lines of
  their own. Values are bare text, so their types come from the tool's schema.

A call is certain once its name stands there and its arguments begin; what does not begin like a
call is none, and nothing is guessed. From then on the arguments are the model's: in the Hermes form
they are passed on as they were written, right or wrong; in the XML form they are valid JSON, and a
prefix of it where the answer is cut. Pure.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

Tools = Sequence[Mapping[str, Any]]
"""As OpenAI's ``tools``."""

CALL: Final = "<tool_call>"
CALLED: Final = "</tool_call>"

_WHITE: Final = " \t\r\n"
_HEADER: Final = ("{", '"name"', ":", "", ",", '"arguments"', ":")
"""What stands before the arguments in the Hermes form, white space between; "" is the name."""
_STRING: Final = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_OPEN_STRING: Final = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*\\?')
_OUTSIDE: Final = re.compile(r'["{}\[\]<]')
_INSIDE: Final = re.compile(r'["\\\n<]')

LONGEST_NAME: Final = 256
"""Characters. A longer name is looked at when its call is whole, and not again with each token."""

_FUNCTION: Final = "<function="
_FUNCTION_NAME: Final = re.compile(r"<function=([^<>\s]+)>\s*")
_FUNCTION_END: Final = "</function>"
_PARAMETER: Final = "<parameter="
_KEY: Final = re.compile(r"<parameter=([^<>\n]+)>")
_OPEN_KEY: Final = re.compile(r"<parameter=[^<>\n]*")
_PARAMETER_END: Final = "</parameter>"
_END: Final = re.compile(f"{_PARAMETER_END}|{_FUNCTION_END}")


class _Hermes(msgspec.Struct):
    name: str
    arguments: msgspec.Raw


_decode = msgspec.json.Decoder(_Hermes).decode
_encode = msgspec.json.Encoder().encode


class Arguments(Protocol):
    """The arguments of one call. ``over``: they are complete, or break off."""

    name: str
    over: bool

    def feed(self, held: str) -> tuple[str, str]:
        """What is certain of them, as JSON, and what of ``held`` is not; it comes first in the next
        ``held``. Once ``over``, that is what stands behind them."""

    def end(self, held: str) -> str:
        """The rest, for the answer is over."""


class Unsure(enum.Enum):
    """Whether a text may still become a call that begins with its name."""

    WAIT = enum.auto()
    NO = enum.auto()


def open_call(body: str, tools: Tools) -> tuple[Arguments, str] | Unsure:
    """The call that ``body`` begins, and the text of its arguments as far as it came."""
    rest = body.lstrip()
    if rest.startswith("{"):
        return _open_hermes(rest)
    if rest.startswith(_FUNCTION):
        return _open_xml(rest, tools)
    return Unsure.WAIT if _FUNCTION.startswith(rest) else Unsure.NO


def read_call(body: str) -> tuple[str, str] | None:
    """The name and the arguments, a JSON object as the model wrote it, of a whole call in the
    Hermes form, its fields in any order; None if it is none."""
    try:
        call = _decode(body)
    except (ValueError, RecursionError):  # msgspec's errors, and text that is no UTF-8
        return None
    arguments = bytes(call.arguments)
    return (call.name, arguments.decode()) if arguments.startswith(b"{") else None


def is_cut(body: str) -> bool:
    """Whether ``body`` breaks off inside a value: the mark that seemed to end it may be a part of
    that value."""
    try:
        _decode(body)
    except msgspec.DecodeError as error:
        return bool(body.strip()) and "truncated" in str(error)
    except (ValueError, RecursionError):
        return False
    return False


def call_schema(schemas: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The JSON Schema of one call in the Hermes form; ``schemas`` are each tool's name and the JSON
    text of its arguments' schema.

    Raises:
        ValueError: a schema is no JSON.
    """
    calls = []
    definitions: dict[str, Any] = {}
    for place, (name, schema) in enumerate(schemas):
        root = f"#/$defs/tool{place}"
        definitions[f"tool{place}"] = _moved(msgspec.json.decode(schema), root)
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": name}, "arguments": {"$ref": root}},
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
            if key != "x-guidance"  # settings of llguidance: ours win
        }
    if isinstance(schema, list):
        return [_moved(each, root) for each in schema]
    return schema


def _open_hermes(body: str) -> tuple[Arguments, str] | Unsure:
    name, rest = "", body
    for step in _HEADER:
        rest = rest.lstrip(_WHITE)
        if not step:
            front = rest[:LONGEST_NAME]
            match = _STRING.match(front)
            if match is None:
                going_on = not rest or (front == rest and _OPEN_STRING.fullmatch(front))
                return Unsure.WAIT if going_on else Unsure.NO
            try:
                name = msgspec.json.decode(match[0].encode(), type=str)
            except ValueError:
                return Unsure.NO
            rest = rest[match.end() :]
        elif not rest.startswith(step):
            return Unsure.WAIT if step.startswith(rest) else Unsure.NO
        else:
            rest = rest[len(step) :]
    rest = rest.lstrip(_WHITE)
    if not rest:
        return Unsure.WAIT
    return (_Written(name), rest) if rest[0] == "{" else Unsure.NO


class _Written:
    """Arguments of the Hermes form, passed on as they are. They end where their object does. A mark
    inside a string is a part of it, unless a bare line break shows that the string is no JSON."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.over = False
        self._depth = 0
        self._string = False
        self._broken = False

    def feed(self, held: str) -> tuple[str, str]:
        place = 0
        while (mark := (_INSIDE if self._string else _OUTSIDE).search(held, place)) is not None:
            start, place = mark.span()
            match mark[0]:
                case '"':
                    self._string = not self._string
                case "\\":
                    if place == len(held):
                        return held[:start], held[start:]
                    place += 1
                case "\n":
                    self._broken = True
                case "{" | "[":
                    self._depth += 1
                case "}" | "]":
                    self._depth -= 1
                    if not self._depth:
                        self.over = True
                        return held[:place], held[place:]
                case _ if not self._string or self._broken:
                    rest = held[start:]
                    if rest.startswith((CALL, CALLED)):
                        self.over = True
                        return held[:start], rest
                    if CALL.startswith(rest) or CALLED.startswith(rest):
                        return held[:start], rest
        return held, ""

    def end(self, held: str) -> str:
        return held


def _open_xml(body: str, tools: Tools) -> tuple[Arguments, str] | Unsure:
    match = _FUNCTION_NAME.match(body)
    if match is None:
        inside = body[len(_FUNCTION) :]
        going_on = len(inside) <= LONGEST_NAME and not re.search(r"[<>\s]", inside)
        return Unsure.WAIT if going_on else Unsure.NO
    if len(match[1]) > LONGEST_NAME:
        return Unsure.NO
    rest = body[match.end() :]
    if rest.startswith(_FUNCTION_END) or _KEY.match(rest):
        return _Tagged(match[1], _properties(match[1], tools)), rest
    return Unsure.WAIT if _may_go_on(rest) else Unsure.NO


def _may_go_on(rest: str) -> bool:
    """Whether ``rest`` may become the next parameter or the end of the function."""
    return (
        _PARAMETER.startswith(rest)
        or _FUNCTION_END.startswith(rest)
        or _OPEN_KEY.fullmatch(rest) is not None
    )


class _Tagged:
    """Arguments of the XML form, written as JSON. Text goes out as it comes; other values when they
    are whole. A value ends only where another parameter or the call's end follows."""

    def __init__(self, name: str, schemas: Mapping[str, Any]) -> None:
        self.name = name
        self.over = False
        self._schemas = schemas
        self._schema: Any = None
        self._inside = self._fresh = self._text = False
        self._scanned = 0
        self._before = "{"

    def feed(self, held: str) -> tuple[str, str]:
        return self._feed(held, last=False)

    def end(self, held: str) -> str:
        text, rest = self._feed(held, last=True)
        if not self._inside:
            return text
        return text + (_encode(rest)[1:-1].decode() if self._text else rest)

    def _feed(self, held: str, last: bool) -> tuple[str, str]:
        out: list[str] = []
        while not self.over:
            if not self._inside:
                match = _KEY.match(held)
                if match is None:
                    if not held.startswith(_FUNCTION_END):
                        break  # cut between two parameters
                    out.append("{}" if self._before == "{" else "}")
                    held = held[len(_FUNCTION_END) :]
                    self.over = True
                    break
                out.append(self._begin(match[1]))
                held = held[match.end() :]
            if self._fresh and held:
                self._fresh = False
                held = held.removeprefix("\n")
            found, sure = self._find_end(held, last)
            if not found:
                if self._text:
                    out.append(_encode(held[:sure])[1:-1].decode())
                    held = held[sure:]
                    self._scanned = 0
                break
            out.append(self._finish(held[:sure].removesuffix("\n")))
            held = held[sure:].removeprefix(_PARAMETER_END).lstrip()
        return "".join(out), held

    def _begin(self, key: str) -> str:
        self._schema = self._schemas.get(key)
        kinds = set(_kinds(self._schema))
        self._text = not kinds or ("string" in kinds and "null" not in kinds)
        self._inside = self._fresh = True
        self._scanned = 0
        before, self._before = self._before, ","
        return f"{before}{_encode(key).decode()}:" + ('"' if self._text else "")

    def _finish(self, value: str) -> str:
        self._inside = False
        if self._text:
            return _encode(value)[1:].decode()
        try:
            return _encode(_typed(value, self._schema)).decode()
        except (ValueError, RecursionError):
            return _encode(value).decode()

    def _find_end(self, held: str, last: bool) -> tuple[bool, int]:
        """Whether the value ends in ``held`` and where; else how much of ``held`` is surely its."""
        while (match := _END.search(held, self._scanned)) is not None:
            rest = held[match.end() :].lstrip()
            closes = match[0] == _FUNCTION_END
            if not closes and rest.startswith(_FUNCTION_END):
                closes, rest = True, rest[len(_FUNCTION_END) :].lstrip()
            if closes:
                sure, perhaps = rest.startswith(CALLED), CALLED.startswith(rest)
            else:
                sure, perhaps = _KEY.match(rest) is not None, _may_go_on(rest)
            if sure or (perhaps and last):
                return True, match.start()
            if perhaps:
                return False, _less_break(held, match.start())
            self._scanned = match.start() + 1
        if last:
            return False, 0
        place = held.rfind("<", max(0, len(held) - len(_PARAMETER_END) + 1))
        if place < 0 or not _begins_end(held[place:]):
            place = len(held)
        self._scanned = max(self._scanned, place)
        return False, _less_break(held, place)


def _begins_end(text: str) -> bool:
    return _PARAMETER_END.startswith(text) or _FUNCTION_END.startswith(text)


def _less_break(text: str, place: int) -> int:
    """``place`` without the line break before it, which may be framing."""
    return place - 1 if text[:place].endswith("\n") else place


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
