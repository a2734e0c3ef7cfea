"""The benchmarks' code runs: what needs a GPU on a tiny shape, and says so where there is none."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """A benchmark silences logging for its whole process; other tests listen to it."""
    yield
    logging.disable(logging.NOTSET)


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, f"bench_{name}", made)  # dataclasses look their module up
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize("learning", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_the_gpus_benchmark_on_a_tiny_shape(learning: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = module("gpu_train", monkeypatch)
    torch.set_num_threads(1)
    job = bench.Job(bench.TINY, learning, 1, False)
    rows = job.rows()
    order = job.order(rows)
    assert set(order.positions(rows.lengths)) == {256}, "every packed row is full"
    said = list(bench.lines([job]))
    assert len(said) == 1 + len(bench.CONTENDERS)
    assert all(line.rstrip().endswith("tokens/s") for line in said[1:])


def test_qwen3_8b_has_its_real_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    bench = module("gpu_train", monkeypatch)
    with torch.device("meta"):
        build: Any = AutoModelForCausalLM.from_config
        model = build(bench.QWEN3_8B.config)
    assert sum(weight.numel() for weight in model.parameters()) == 8_190_735_360


def test_without_a_gpu_nothing_is_pretended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    bench = module("gpu_train", monkeypatch)
    monkeypatch.setattr(sys, "argv", ["gpu_train.py"])
    assert bench.main() == 1
    assert "no CUDA GPU here: nothing is measured" in capsys.readouterr().out
