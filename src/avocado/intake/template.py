"""Chat templates are programs: each is run once, in a process that cannot hurt, before it is used.

A template comes with the model and Jinja's sandbox bounds neither time nor memory. So it renders a
few conversations in a child process with limits on processor time, memory, files and output. What
this does not prove: that a template behaves the same for every other conversation.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from avocado.errors import Refused
from avocado.intake.document import read_object

MAX_TEMPLATE: Final = 256 * 1024
"""Bytes of one template; the longest in use have some twenty thousand."""

MAX_OUTPUT: Final = 1_000_000
"""Characters that a template may make of a conversation of a few lines."""

SECONDS: Final = 2
"""Of processor time, for all templates of a model."""

PATIENCE: Final = 60
"""Seconds on the clock, for a machine that is busy with other things."""

MEMORY: Final = 1024**3
"""Bytes of address space of the child, interpreter included."""

_MAX_JSON: Final = 128 * 1024 * 1024
_CHILD: Final = Path(__file__).with_name("rendering.py")


def check_templates(folder: Path) -> None:
    """Renders every chat template of ``folder`` in a child process.

    Raises:
        Refused: one is too long, does not parse, does not end, makes too much, reaches outside the
            sandbox, or cannot render a plain question.
    """
    found = tuple(sorted(templates(folder).items()))
    if found:
        reason = _tried(found)
        if reason is not None:
            raise Refused(reason)


def templates(folder: Path) -> Mapping[str, str]:
    """Where a template stands → its text, for all that ``folder`` brings.

    Raises:
        Refused: a file that should hold one holds something else, or too much.
    """
    found: dict[str, str] = {}
    for path in sorted([*folder.glob("*.jinja"), *folder.glob("*/*.jinja")]):
        name = path.relative_to(folder).as_posix()
        if path.stat().st_size > MAX_TEMPLATE:
            raise Refused(f"{name} is longer than {MAX_TEMPLATE:,} bytes")
        try:
            found[name] = path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise Refused(f"{name} is not UTF-8: {error}") from error
    for name in ("tokenizer_config.json", "chat_template.json", "processor_config.json"):
        if (folder / name).is_file():
            found.update(_inside(name, read_object(folder / name, _MAX_JSON).get("chat_template")))
    for name, text in found.items():
        if len(text.encode("utf-8", "surrogatepass")) > MAX_TEMPLATE:
            raise Refused(f"the chat template in {name} is longer than {MAX_TEMPLATE:,} bytes")
    return found


def _inside(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """A template, or several by name (an older form), in a JSON file."""
    if value is None:
        return
    parts = value if isinstance(value, list) else [{"name": "", "template": value}]
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("template"), str):
            raise Refused(f"{name} has a chat_template that is no text")
        title = part.get("name")
        yield f"{name} ({title})" if title else name, part["template"]


@lru_cache(maxsize=64)
def _tried(found: tuple[tuple[str, str], ...]) -> str | None:
    """Why these templates may not come in, or None."""
    if find_spec("jinja2") is None:
        raise Refused("to try a chat template jinja2 is needed: pip install 'avocado-llm[models]'")
    ask = {"templates": found, "output": MAX_OUTPUT, "seconds": SECONDS, "memory": MEMORY}
    where = found[0][0] if len(found) == 1 else "one of " + ", ".join(name for name, _ in found)
    try:
        child = subprocess.run(
            [sys.executable, "-I", str(_CHILD)],
            input=json.dumps(ask).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the chat template in {where} did not end within {PATIENCE} s"
    if child.returncode < 0:
        return f"the chat template in {where} did not end within {SECONDS} s of processor time"
    try:
        answer = json.loads(child.stdout)
        reason = answer["refused"]
    except (ValueError, KeyError, TypeError):
        return f"the chat template in {where} broke the process that tried it"
    return None if reason is None else str(reason)
