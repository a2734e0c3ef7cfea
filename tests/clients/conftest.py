"""Official clients against a whole gateway: real sockets, a real ledger, scripted answers.

Each run takes what its environment has and says what it leaves out. ``make test-clients`` has an
environment for all of them; it sets AVOCADO_CLIENTS, and a client that is missing there fails.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import pytest

from avocado.data.chat import Prompt
from avocado.engine.sampling import Calls, JsonSchema, Sampling
from avocado.engine.scripted import Script
from tests.gateway.conftest import MakeStand, Stand, make_stand

__all__ = ["make_stand"]

NODE_MODULES = Path(__file__).with_name("node") / "node_modules"
ALL = "AVOCADO_CLIENTS" in os.environ
"""Whether this is the environment that has every client, and no torch."""

CALL = '<tool_call>\n{"name": "weather", "arguments": {"place": "Oslo"}}\n</tool_call>'


def lacks(file: str) -> str | None:
    """What the tests in ``file`` need and this environment was never meant to have."""
    match file:
        case "test_seedling.py" if find_spec("torch") is None:
            return "torch is not installed: make test has it"
        case "test_langchain.py" if not ALL and find_spec("langchain_openai") is None:
            return "LangChain is not installed: make test-clients has it"
        case "test_litellm.py" if not ALL and find_spec("litellm") is None:
            return "LiteLLM is not installed: make test-clients has it"
        case "test_node.py" if not ALL and not (shutil.which("node") and NODE_MODULES.is_dir()):
            return "Node or its packages are not installed: make test-clients installs the latter"
        case _:
            return None


class LeftOut(pytest.Module):
    """A file of tests that is not even imported; the summary of the run says why."""

    def collect(self) -> NoReturn:
        pytest.skip(lacks(self.path.name) or "", allow_module_level=True)


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    return LeftOut.from_parent(parent, path=module_path) if lacks(module_path.name) else None


def answer(prompt: Prompt, sampling: Sampling) -> Script:
    """What a model could say: a call where there are tools, an answer where their results are."""
    lines = prompt.text.rstrip("\n").split("\n")
    if isinstance(sampling.grammar, Calls) and sampling.grammar.must:
        return Script(CALL)
    if isinstance(sampling.grammar, JsonSchema):
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
