"""Launch files: what they start is this very command, and shells and schedulers can read them."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from avocado.train.launch import Launcher, LaunchFile, launch_file
from avocado.train.recipe import parse

RECIPE = """
name = "My_run.v1"
base = "seedling"
data = ["a.jsonl"]
compute = {nodes = 2, gpus = 8}
training = {learning_rate = 1e-3, batch = 8, steps = 10}
"""


PATH = "my recipes/it's.toml"


def made(launcher: Launcher, path: str = PATH, recipe: str = RECIPE) -> LaunchFile:
    return launch_file(parse(recipe), path, launcher)


@pytest.mark.parametrize("launcher", ["torchrun", "slurm"])
def test_a_shell_reads_it(launcher: Launcher, tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text(made(launcher).text)
    subprocess.run(["bash", "-n", tmp_path / "run.sh"], check=True)


def torchrun_of(text: str) -> list[str]:
    """The words that torchrun is started with, after the shell has read them."""
    line = next(line for line in text.replace("\\\n", " ").splitlines() if "torchrun" in line)
    words = shlex.split(line)
    if "-c" in words:  # srun bash -c '…'
        words = shlex.split(words[words.index("-c") + 1])
    return words[words.index("torchrun") + 1 :]


@pytest.mark.parametrize("launcher", ["torchrun", "slurm", "skypilot"])
def test_torchrun_starts_the_recipe_on_every_device(launcher: Launcher) -> None:
    text = made(launcher).text
    text = yaml.safe_load(text)["run"] if launcher == "skypilot" else text
    words = torchrun_of(text.split("\n\n")[-1] if launcher == "skypilot" else _commands(text))
    assert words[-5:] == ["-m", "avocado", "train", PATH, "--auto-resume"]
    assert "--nproc-per-node" in words
    assert "--nnodes" in words


def _commands(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


def test_one_machine_needs_no_address() -> None:
    alone = RECIPE.replace("nodes = 2, ", "")
    file = made("torchrun", "r.toml", alone)
    assert "--standalone --nproc-per-node 8" in file.text
    assert file.command == "bash My_run.v1.torchrun.sh"


def test_slurm_and_skypilot_ask_for_the_recipes_machines() -> None:
    slurm = made("slurm").text
    assert "#SBATCH --nodes=2\n" in slurm
    assert "#SBATCH --gpus-per-node=8\n" in slurm
    sky = yaml.safe_load(made("skypilot").text)
    assert (sky["name"], sky["num_nodes"]) == ("my-run-v1", 2)
    assert sky["resources"]["accelerators"] == "H100:8"


def test_skypilot_keeps_runs_where_every_machine_sees_them() -> None:
    """Keys as SkyPilot's YAML reference has them; a cached bucket serves one machine only."""
    known = {"name", "num_nodes", "resources", "workdir", "setup", "run"}
    several = yaml.safe_load(made("skypilot").text)
    assert several.keys() == known | {"volumes"}
    assert several["volumes"] == {"/avocado": "avocado-my-run-v1"}
    one = yaml.safe_load(made("skypilot", "r.toml", RECIPE.replace("nodes = 2, ", "")).text)
    assert one.keys() == known | {"file_mounts"}
    assert one["file_mounts"]["/avocado"] == {"name": "avocado-my-run-v1", "mode": "MOUNT_CACHED"}


def test_skypilot_puts_the_state_in_place_of_what_the_workspace_brought(tmp_path: Path) -> None:
    state, workspace = tmp_path / "kept", tmp_path / "workspace"
    (workspace / ".avocado" / "runs").mkdir(parents=True)
    line = yaml.safe_load(made("skypilot").text)["run"].splitlines()[0]
    line = line.replace("/avocado/state", str(state))
    for _ in range(2):
        subprocess.run(["bash", "-c", line], cwd=workspace, check=True)
    assert (workspace / ".avocado").readlink() == state
    assert not list(state.iterdir())


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("launcher", ["torchrun", "slurm"])
def test_shellcheck_finds_nothing(launcher: Launcher, tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text(made(launcher).text)
    subprocess.run(["shellcheck", tmp_path / "run.sh"], check=True)


def test_the_shell_script_really_starts_torchrun(tmp_path: Path) -> None:
    """With a torchrun that prints its words in place of the real one."""
    tool = tmp_path / "torchrun"
    tool.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    tool.chmod(0o755)
    (tmp_path / "run.sh").write_text(made("torchrun").text)
    ran = subprocess.run(
        ["bash", tmp_path / "run.sh"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1"},
        capture_output=True,
        text=True,
        check=True,
    )
    words = ran.stdout.splitlines()
    assert words[words.index("--node-rank") + 1] == "1"
    assert words[-2:] == [PATH, "--auto-resume"]
    missing = subprocess.run(
        ["bash", tmp_path / "run.sh"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert missing.returncode != 0
    assert "number of this machine" in missing.stderr
