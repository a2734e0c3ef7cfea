"""Two real processes train the same recipe as one: same losses, one writer, and an exact resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avocado.errors import Refused
from avocado.lineage import digest_folder
from avocado.train.recipe import Compute
from avocado.train.sequences import order
from avocado.train.team import ALONE, Team, join
from avocado.workspace import Workspace

RECIPE = """
name = "small"
base = "seedling"
data = ["train.jsonl"]
license = "Apache-2.0"
{more}
[training]
learning_rate = 1e-3
batch = 8
steps = 8
max_length = 256
precision = "fp32"
"""
LORA = 'weights = "lora"\nlora = {r = 8, dropout = 0.1}'
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
RUN = Path(".avocado/runs/small")


def shop(folder: Path, more: str = "") -> Path:
    from avocado.demo.task import write_task

    Workspace.create(folder)
    write_task(folder / "train.jsonl", folder / "evaluation.jsonl", train=60, evaluate=4)
    (folder / "recipe.toml").write_text(RECIPE.format(more=more))
    return folder


def start(folder: Path, launcher: tuple[str, ...], *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "avocado", "train", "recipe.toml", *words],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def trained(folder: Path, launcher: tuple[str, ...], *words: str) -> Path:
    """The files of the checkpoint that comes of it."""
    code, out, err = finish(start(folder, launcher, *words))
    assert code == 0, err
    assert out.count("made checkpoint-") == 1, "one process speaks for all"
    store = Workspace.open(folder).store
    (made,) = store.ids("checkpoint")
    return store.load(made).files


def logged(folder: Path) -> list[dict[str, float]]:
    text = (folder / RUN / "metrics.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(tmp_path: Path) -> None:
    alone, both = shop(tmp_path / "alone"), shop(tmp_path / "both")
    trained(alone, ())
    trained(both, TWO)
    one, two = logged(alone), logged(both)
    assert [line["step"] for line in two] == list(range(1, 9))
    assert [line["tokens"] for line in two] == [line["tokens"] for line in one]
    for key in ("loss", "grad_norm"):
        assert [line[key] for line in two] == pytest.approx([line[key] for line in one], rel=1e-4)
    store = Workspace.open(both).store
    assert len(store.ids("corpus")) == 1
    assert store.load(store.ids("checkpoint")[0]).note["processes"] == 2


@pytest.mark.slow
def test_fault_42_two_processes_resume_to_the_same_weights(tmp_path: Path) -> None:
    whole, killed = shop(tmp_path / "whole", LORA), shop(tmp_path / "killed", LORA)
    wanted = digest_folder(trained(whole, TWO))
    process = start(killed, TWO, "--save-every", "2")
    deadline = time.monotonic() + 120
    while not (killed / RUN / "checkpoint-4").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    _kill_workers(killed)
    process.communicate()
    assert not Workspace.open(killed).store.ids("checkpoint")
    assert digest_folder(trained(killed, TWO, "--resume")) == wanted


def _kill_workers(folder: Path) -> None:
    """torchrun's own children lead sessions of their own."""
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "cwd").readlink() == folder:
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue


def test_what_is_refused_is_said_once(tmp_path: Path) -> None:
    folder = shop(tmp_path)
    (folder / "train.jsonl").write_text("no JSON\n")
    code, _, err = finish(start(folder, TWO))
    assert code != 0
    said = [line for line in err.splitlines() if line.startswith("refused: ")]
    assert said
    assert len(set(said)) == len(said), "each reason once, not once a process"
    assert not (folder / RUN).exists()


def test_a_number_of_processes_that_contradicts_the_recipe_is_refused() -> None:
    two = {"WORLD_SIZE": "2", "RANK": "0"}
    with pytest.raises(Refused, match=r"2 processes were started .* asks for 8"):
        join(Compute(nodes=1, gpus=8), two)
    with pytest.raises(Refused, match=r"1 process was started .* asks for 4"):
        join(Compute(nodes=2, gpus=2), {})
    assert join(Compute(), {}) is ALONE
    assert join(None, {}) is ALONE


def test_a_team_of_one_agrees_with_itself() -> None:
    assert Team().once(lambda: 3) == Team().together(lambda: 3) == 3
    Team().wait()
    Team().leave()


def test_every_process_gets_equally_many_micro_batches() -> None:
    import numpy as np

    from avocado.train.recipe import Training
    from avocado.train.sequences import Sequences

    lengths = np.random.default_rng(0).integers(4, 60, 50)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.ones(starts[-1], np.int32)
    rows = Sequences(ids, ids, starts)
    for packing in (True, False):
        training = Training(
            learning_rate=0.1, batch=12, steps=9, micro_batch=2, max_length=64, packing=packing
        )
        alone = order(rows, training)
        for processes in (2, 3, 4):
            shared = order(rows, training, processes)
            assert shared.per_step % processes == 0
            assert shared.tokens == alone.tokens
            for step in range(9):
                parts = [
                    [
                        row
                        for each in one.micro_batches[step * one.per_step :][: one.per_step]
                        for row in each
                    ]
                    for one in (alone, shared)
                ]
                assert sorted(parts[0]) == sorted(parts[1])
        with pytest.raises(Refused, match="make batch a multiple of 16"):
            order(rows, training, 16)
