"""Official clients against a whole gateway: real sockets, a real ledger, scripted answers.

``make test-clients`` runs all of them in an environment of their own; it sets AVOCADO_CLIENTS, and
what is missing then fails. Elsewhere only those run whose packages our own tests have anyway.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from avocado.data.chat import Prompt
from avocado.engine.sampling import JsonSchema, Sampling
from avocado.engine.scripted import Script
from tests.gateway.conftest import MakeStand, Stand, make_stand

__all__ = ["make_stand"]

CALL = '<tool_call>\n{"name": "weather", "arguments": {"place": "Oslo"}}\n</tool_call>'

collect_ignore = (
    ["test_seedling.py"]
    if os.environ.get("AVOCADO_CLIENTS")
    else ["test_langchain.py", "test_litellm.py", "test_node.py"]
)


def answer(prompt: Prompt, sampling: Sampling) -> Script:
    """What a model could say: a call where there are tools, an answer where their results are."""
    lines = prompt.text.rstrip("\n").split("\n")
    if isinstance(sampling.grammar, JsonSchema):
        wanted = json.loads(sampling.grammar.schema)
        if "$defs" in wanted and "arguments" in str(wanted):
            return Script('{"name": "weather", "arguments": {"place": "Oslo"}}')
        return Script('{"city": "Oslo", "degrees": 7}')
    if lines[-1].startswith("tool: "):
        return Script("It rains.")
    if any(line.startswith('tool: {"type"') for line in lines):
        return Script(f"I look.\n{CALL}")
    if "think: yes" in lines:
        return Script("<think>\nhm hm\n</think>\n\nIt is so.")
    return Script("one two three four five")


@pytest.fixture
def clever(make_stand: MakeStand) -> Stand:
    """A stand whose engine answers what was asked."""
    stand = make_stand()
    stand.engine.script = answer
    return stand


@pytest.fixture
def address(clever: Stand) -> dict[str, Any]:
    """Where it is, as environment variables."""
    return {**os.environ, "AVOCADO_URL": clever.url, "AVOCADO_KEY": clever.key.text}
