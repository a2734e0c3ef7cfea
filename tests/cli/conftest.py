"""A workspace with a small, honest checkpoint: two steps on forty examples, so it gains nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from avocado.cli.main import run

RECIPE = """
name = "small"
base = "seedling"
data = ["train.jsonl"]
evaluation = "evaluation.jsonl"
license = "Apache-2.0"

[training]
learning_rate = 1e-6
batch = 4
steps = 2
max_length = 256
"""


@dataclass(frozen=True)
class Ran:
    """What a command line did: exit code, and what it wrote to each stream."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> object:
        return json.loads(self.out)


Avocado = Callable[..., Ran]


@pytest.fixture
def avocado(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Avocado:
    """Runs ``avocado`` in a folder, in this process."""

    def call(folder: Path, *words: str | Path) -> Ran:
        monkeypatch.chdir(folder)
        capsys.readouterr()
        code = run([str(word) for word in words])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Ran(code, captured.out, captured.err)

    return call


def write_inputs(folder: Path) -> None:
    from avocado.demo.task import write_task

    write_task(folder / "train.jsonl", folder / "evaluation.jsonl", train=40, evaluate=10)
    (folder / "recipe.toml").write_text(RECIPE)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A workspace with data and a recipe; nothing trained."""
    from avocado.workspace import Workspace

    Workspace.create(tmp_path / "shop")
    write_inputs(tmp_path / "shop")
    return tmp_path / "shop"


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(workspace, checkpoint id), trained once for all tests of this room: nobody writes here."""
    from avocado.cli.output import Output
    from avocado.cli.stages import train_recipe
    from avocado.train.recipe import load
    from avocado.workspace import Workspace

    folder = tmp_path_factory.mktemp("trained")
    workspace = Workspace.create(folder)
    write_inputs(folder)
    path = folder / "recipe.toml"
    return folder, train_recipe(Output(), workspace, load(path), path).id


@pytest.fixture(scope="module")
def trained(
    trained_once: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A copy of the trained workspace for each file of tests: what one does, no other meets."""
    folder = tmp_path_factory.mktemp("copied") / "workspace"
    shutil.copytree(trained_once[0], folder)
    return folder, trained_once[1]
