"""Runs: listed, shown and compared as they are, whatever state they are in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from avocado.errors import Refused
from avocado.train.run_folder import RunFolder
from avocado.workspace import Workspace

from .conftest import RECIPE, Avocado


@pytest.fixture
def two(shop: Path, avocado: Avocado) -> Path:
    for name, rate in (("small", "1e-6"), ("other", "1e-5")):
        text = RECIPE.replace('"small"', f'"{name}"').replace("1e-6", rate)
        (shop / f"{name}.toml").write_text(text)
        assert avocado(shop, "train", f"{name}.toml").code == 0
    return shop


def test_runs_are_listed_shown_and_compared(two: Path, avocado: Avocado) -> None:
    listed: Any = avocado(two, "runs", "list", "--json").json
    assert {(run["name"], run["state"], run["steps"]) for run in listed} == {
        ("small", "finished", 2),
        ("other", "finished", 2),
    }
    assert listed[0]["checkpoint"].startswith("checkpoint-")
    assert "finished" in avocado(two, "runs", "list").out

    shown = avocado(two, "runs", "show", "small", "--plot", "curve.png")
    assert shown.code == 0
    assert "loss by step" in shown.out
    assert (two / "curve.png").read_bytes()[:4] == b"\x89PNG"

    compared: Any = avocado(two, "runs", "compare", "small", "other", "--json").json
    assert compared["differences"] == {
        "training.learning_rate": {"small": "1e-06", "other": "1e-05"}
    }
    assert "training.learning_rate" in avocado(two, "runs", "compare", "small", "other").out


UNSHOWN = (
    (("show", "none"), "there is no run 'none' in this workspace (there are: "),
    (("show", "../runs/small"), "there is no run"),
    (("compare", "small", "small"), "at least two different runs"),
    (("show", "small", "--key", "reward"), "logged no 'reward' (it has: "),
    (("show", "small", "--plot", "no/such/folder.png"), "cannot be written"),
)


def test_what_cannot_be_shown_is_said(two: Path, avocado: Avocado) -> None:
    for words, said in UNSHOWN:
        ran = avocado(two, "runs", *words)
        assert ran.code in (1, 2), words
        assert said in ran.err


def test_a_workspace_without_runs_says_what_to_do(shop: Path, avocado: Avocado) -> None:
    assert "avocado train" in avocado(shop, "runs", "list").out


def test_a_run_is_trained_by_one_process_at_a_time(shop: Path, avocado: Avocado) -> None:
    folder = RunFolder(Workspace.find(shop).state / "runs" / "small")
    with folder.hold():
        assert folder.held()
        ran = avocado(shop, "train", "recipe.toml")
        assert ran.code == 1
        assert "another process" in ran.err
        with pytest.raises(Refused), folder.hold():
            os._exit(1)
    assert not folder.held()
