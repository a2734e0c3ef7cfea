"""``avocado train`` as a real process, killed at random moments: what is resumed ends bit for bit
as what was never killed, and a disk that fills up leaves the last good training checkpoint.

The default suite kills once, and once more before it is said what changed; the slow tests
twenty-three times more.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from avocado.lineage import digest_folder
from avocado.workspace import Workspace

HEAD = """
name = "small"
base = "{base}"
data = ["rows.jsonl"]
license = "Apache-2.0"
"""
TRAINING = """
[training]
learning_rate = 0.003
batch = 4
micro_batch = 2
steps = {steps}
max_length = 128
"""
LORA = 'weights = "lora"\nlora = {r = 4, dropout = 0.1}\n'
STAGES = """
[[stages]]
name = "adapt"
weights = "lora"
lora = {r = 4}

[[stages]]
name = "polish"
"""


class Shop:
    """A workspace with a recipe, in which ``avocado train`` runs as a process of its own."""

    def __init__(self, folder: Path, recipe: str, rows: Path) -> None:
        self.folder = folder
        Workspace.create(folder)
        (folder / "recipe.toml").write_text(recipe)
        (folder / "rows.jsonl").write_bytes(rows.read_bytes())

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "avocado", "train", "recipe.toml", "--save-every", "3", *words],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": ""},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def train(self, *words: str) -> tuple[str, str]:
        """What it said: results, and progress."""
        process = self.start(*words)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        return out, err

    def weights(self) -> list[dict[str, str]]:
        """The hashes of every checkpoint's files, in the order of their making."""
        store = Workspace.open(self.folder).store
        return [digest_folder(store.load(each).files) for each in store.ids("checkpoint")]

    def steps(self) -> int:
        """Steps that were logged, over all stages."""
        logs = (self.folder / ".avocado" / "runs").glob("*/metrics.jsonl")
        return sum(log.read_bytes().count(b"\n") for log in logs)

    def kill(self, draw: random.Random, total: int) -> int:
        """Starts or resumes, and kills once some random number of further steps has been made.

        Returns the steps that stand logged."""
        before = self.steps()
        after = before + draw.randrange(1, max(2, (total - before) // 2))
        process = self.start("--auto-resume")
        deadline = time.monotonic() + 240
        grown = -1
        while process.poll() is None and time.monotonic() < deadline:
            now = self.steps()
            grown = max(grown, now)
            if now >= after:
                break
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it was still training"
        return self.steps()


MakeShop = Callable[..., Shop]
ADAPTERS = HEAD + LORA + TRAINING.format(steps=60)


@pytest.fixture
def make_shop(tmp_path: Path, base: Path) -> MakeShop:
    def make(name: str, recipe: str, rows: Path) -> Shop:
        return Shop(tmp_path / name, recipe.replace("{base}", str(base)), rows)

    return make


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, base: Path, conversations: Path
) -> list[dict[str, str]]:
    """The checkpoint of a run of :data:`ADAPTERS` that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed") / "shop"
    shop = Shop(folder, ADAPTERS.replace("{base}", str(base)), conversations)
    out, err = shop.train()
    assert "40 of 40 rows accepted" in out, "what is learnt is said, and what is left out"
    strange = [line for line in err.splitlines() if not line.startswith("  step ")]
    assert not strange, "only progress goes to standard error"
    assert " 0 tokens/s" not in err, "a speed that is not known yet is not shown"
    return shop.weights()


@pytest.fixture(scope="module")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "conversations.jsonl"
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"{'please ' * (number % 5)}double {number}"},
                {"role": "assistant", "content": f"{2 * number}"},
            ]
        }
        for number in range(40)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    lines = [
        {
            "prompt": [{"role": "user", "content": f"{'please ' * (number % 5)}double {number}"}],
            "chosen": [{"role": "assistant", "content": f"{2 * number}"}],
            "rejected": [{"role": "assistant", "content": f"it is {number}"}],
        }
        for number in range(40)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def killed_and_whole(make_shop: MakeShop, recipe: str, rows: Path, kills: int, total: int) -> None:
    whole = make_shop("whole", recipe, rows)
    whole.train()
    assert killed(make_shop, recipe, rows, kills, total) == whole.weights()


def killed(
    make_shop: MakeShop, recipe: str, rows: Path, kills: int, total: int
) -> list[dict[str, str]]:
    """What comes of a run that was killed so often."""
    shop = make_shop("killed", recipe, rows)
    draw = random.Random(f"{recipe}{kills}")
    stood = [shop.kill(draw, total) for _ in range(kills)]
    assert all(0 < steps < total for steps in stood)
    shop.train("--resume" if stood[-1] > 3 else "--auto-resume")
    assert shop.weights()
    return shop.weights()


@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_fault_42_killed_at_random_ends_with_the_same_weights(
    make_shop: MakeShop, conversations: Path, undisturbed: list[dict[str, str]], kills: int
) -> None:
    assert killed(make_shop, ADAPTERS, conversations, kills=kills, total=60) == undisturbed


@pytest.mark.slow
def test_fault_42_supervised_killed_eight_times(make_shop: MakeShop, conversations: Path) -> None:
    recipe = HEAD + TRAINING.format(steps=400)
    killed_and_whole(make_shop, recipe, conversations, kills=8, total=400)


@pytest.mark.slow
def test_fault_42_dpo_killed_six_times(make_shop: MakeShop, pairs: Path) -> None:
    recipe = HEAD + 'method = "dpo"\n' + TRAINING.format(steps=300)
    killed_and_whole(make_shop, recipe, pairs, kills=6, total=300)


@pytest.mark.slow
def test_fault_42_stages_killed_six_times(make_shop: MakeShop, conversations: Path) -> None:
    recipe = HEAD + TRAINING.format(steps=200) + STAGES
    killed_and_whole(make_shop, recipe, conversations, kills=6, total=400)


@pytest.mark.slow
def test_fault_42_a_full_disk_leaves_the_last_good_training_checkpoint(
    make_shop: MakeShop, conversations: Path, undisturbed: list[dict[str, str]]
) -> None:
    """From the first training checkpoint on, no file of the running process may grow to half of
    what the optimizer's state takes."""
    shop = make_shop("full", ADAPTERS, conversations)
    run = shop.folder / ".avocado" / "runs" / "small"
    process = shop.start()
    while process.poll() is None and not list(run.glob("checkpoint-*")):
        time.sleep(0.002)
    (saved,) = run.glob("checkpoint-*/optimizer.pt")
    limit = saved.stat().st_size // 2
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "cannot be written" in err
    assert "go on with --resume" in err
    assert "Traceback" not in err
    (kept,) = run.glob("checkpoint-*")
    assert (kept / "optimizer.pt").stat().st_size > limit
    shop.train("--resume")
    assert shop.weights() == undisturbed


def test_fault_43_data_recipe_or_code_that_changed_is_named(
    make_shop: MakeShop, conversations: Path
) -> None:
    shop = make_shop("drift", HEAD + TRAINING.format(steps=60), conversations)
    shop.kill(random.Random(0), 60)
    while not list((shop.folder / ".avocado/runs/small").glob("checkpoint-*")):
        shop.kill(random.Random(1), 60)
    described = shop.folder / ".avocado" / "runs" / "small" / "run.json"
    then = json.loads(described.read_text())
    recipe = shop.folder / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("batch = 4", "batch = 8"))
    with (shop.folder / "rows.jsonl").open("a") as rows:
        rows.write(conversations.read_text().splitlines()[3].replace("double", "halve") + "\n")
    described.write_text(json.dumps({**then, "code": {"train": "another"}}))
    process = shop.start("--resume")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "code.train, the data, recipe.training.batch" in err
    assert "put it back, or begin anew with --restart" in err
