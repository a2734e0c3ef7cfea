"""``avocado evaluate`` on several suites: tables, JSON, kept answers, a kill, and clear errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from avocado.cli.evaluate import cache_of
from avocado.engine.embedded import EmbeddedEngine
from avocado.workspace import Workspace
from tests.cli.conftest import Avocado

TOML = """
[[suites]]
name = "extraction"
data = "held_out.jsonl"
grade = "json_fields"
max_tokens = 40

[[suites]]
name = "tongues"
data = "quiz.jsonl"
grade = "choice"
role = "guard"
"""


def write_suites(folder: Path, toml: str = TOML, count: int = 3) -> Path:
    """Of items that no training data asks: whole sentences in three languages."""
    texts = {
        "de": "Morgen bringt Herr Schäfer die rote Lampe für {n} Euro ins Lager nach Bremen.",
        "en": "Please tell the warehouse that lamp number {n} arrives broken on a rainy Tuesday.",
        "zh": "第{n}号仓库的红色台灯已经坏了，请明天上午派人送到北京路的修理店。",
    }
    rows: list[dict[str, Any]] = []
    for n in range(count):
        for language, text in texts.items():
            said = [{"role": "user", "content": text.format(n=n)}]
            rows.append({"id": f"{language}{n}", "language": language, "messages": said})
    asked = [{**row, "answer": '{"name": "x", "item": "y"}'} for row in rows]
    quiz = [
        {**row, "answer": "yes", "choices": ["yes", "no", "也许"], "cluster": row["id"][2:]}
        for row in rows
    ]
    for name, items in (("held_out", asked), ("quiz", quiz)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in items))
    path = folder / "evaluation.toml"
    path.write_text(toml)
    return path


def test_a_row_per_language_of_every_suite_and_a_second_run_asks_nothing(
    avocado: Avocado, trained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, checkpoint = trained
    path = write_suites(folder)
    told = avocado(folder, "evaluate", checkpoint, "--suite", path)
    assert told.code == 0, told.err
    for word in ("extraction", "tongues", "de", "en", "zh", "report.html"):
        assert word in told.out

    def never(*_: Any) -> None:
        raise AssertionError("it asked the engine again")

    monkeypatch.setattr(EmbeddedEngine, "generate", never)
    monkeypatch.setattr(EmbeddedEngine, "likelihoods", never)
    first = avocado(folder, "evaluate", checkpoint, "--suite", path, "--json")
    assert first.code == 0, first.err
    card: Any = first.json
    assert card["order"] == ["extraction", "tongues"]
    assert card["suites"]["extraction"]["metric"] == "right fields"
    assert card["suites"]["tongues"]["role"] == "guard"
    assert set(card["suites"]["tongues"]["languages"]) == {"de", "en", "zh"}
    assert Path(card["report"]).is_file()
    store = Workspace.open(folder).store
    parents = store.load(card["scorecard"]).manifest.parents
    assert {"suite extraction", "suite tongues"} <= parents.keys()
    again: Any = avocado(folder, "evaluate", checkpoint, "--suite", path, "--json").json
    assert again["scorecard"] == card["scorecard"], "the same answers are the same scorecard"


@pytest.mark.slow
def test_an_evaluation_that_was_killed_goes_on_to_the_same_scorecard(
    avocado: Avocado, trained: tuple[Path, str]
) -> None:
    folder, checkpoint = trained
    path = write_suites(folder, TOML.replace("max_tokens = 40", "max_tokens = 41"), count=20)
    command = [sys.executable, "-m", "avocado", "evaluate", checkpoint, "--suite", str(path)]
    cache = Workspace.open(folder).state / "cache"
    before = sum(each.stat().st_size for each in cache.glob("*")) if cache.is_dir() else 0
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        now = sum(each.stat().st_size for each in cache.glob("*")) if cache.is_dir() else 0
        if now > before + 400:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    assert process.wait(timeout=60) == -signal.SIGKILL, "it was to be killed among its answers"
    workspace = Workspace.open(folder)
    base = workspace.store.load(workspace.store.load(checkpoint).manifest.parents["base"])
    kept = cache_of(workspace, base, None)
    known = len(kept)
    kept.close()
    assert known > 0
    told = avocado(folder, "evaluate", checkpoint, "--suite", path, "--json")
    assert told.code == 0, told.err
    for file in cache.glob("*.jsonl"):
        file.unlink()
    anew = avocado(folder, "evaluate", checkpoint, "--suite", path, "--json")
    assert anew.json["scorecard"] == told.json["scorecard"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[[suites", "evaluation.toml is not TOML"),
        (TOML.replace("json_fields", "json_field"), "suite 1 (extraction): Invalid value"),
        (TOML.replace("quiz.jsonl", "none.jsonl"), "none.jsonl cannot be read: No such file"),
        (TOML + "normalise = 'none'", "suite 2 (tongues): Object contains unknown field"),
        (TOML.replace("tongues", "extraction"), "two suites are named 'extraction'"),
        (
            TOML + "[[suites]]\nlm_eval = ['nothing_of_that_name']\ninclude_path = '.'",
            "lm",
        ),
    ],
)
def test_a_wrong_evaluation_is_one_clear_sentence(
    avocado: Avocado, trained: tuple[Path, str], toml: str, says: str
) -> None:
    folder, checkpoint = trained
    told = avocado(folder, "evaluate", checkpoint, "--suite", write_suites(folder, toml))
    assert told.code == 1
    assert says in told.err
    assert len(told.err.strip().splitlines()) == 1


def test_a_judge_that_is_down_stops_it_with_its_address(
    avocado: Avocado, trained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from avocado.evaluate import judge

    monkeypatch.setattr(judge, "RETRIES", 0)
    # Two steps of training change few answers, and equal ones are a tie without asking.
    monkeypatch.setattr(judge, "said", lambda result: str(id(result)))
    folder, checkpoint = trained
    head = '[[suites]]\ndata = "held_out.jsonl"\ngrade = "judge"\nmax_tokens = 8\nmodel = "j"\n'
    path = write_suites(folder, head + 'url = "http://127.0.0.1:9/v1"', 1)
    told = avocado(folder, "evaluate", checkpoint, "--suite", path)
    assert told.code == 1
    assert "the judge j at http://127.0.0.1:9/v1 does not answer" in told.err


def test_every_suite_is_held_against_what_was_learnt(
    avocado: Avocado, trained: tuple[Path, str]
) -> None:
    folder, checkpoint = trained
    path = write_suites(folder)
    learnt = json.loads((folder / "train.jsonl").read_text().splitlines()[0])["messages"]
    stolen = {
        "id": "stolen",
        "language": "de",
        "messages": [each for each in learnt if each["role"] != "assistant"],
        "answer": "yes",
        "choices": ["yes", "no"],
    }
    with (folder / "quiz.jsonl").open("a") as handle:
        handle.write(json.dumps(stolen) + "\n")
    told = avocado(folder, "evaluate", checkpoint, "--suite", path)
    assert told.code == 1
    assert "asks what the evaluation asks" in told.err


def test_training_data_is_checked_against_every_suite_of_a_recipe(
    avocado: Avocado, shop: Path
) -> None:
    path = write_suites(shop)
    learnt = json.loads((shop / "train.jsonl").read_text().splitlines()[0])["messages"]
    asked = [each for each in learnt if each["role"] != "assistant"]
    row = {"id": "s", "language": "de", "messages": asked, "answer": "a", "choices": ["a", "b"]}
    with (shop / "quiz.jsonl").open("a") as handle:
        handle.write(json.dumps(row) + "\n")
    told = avocado(shop, "data", "check", shop / "train.jsonl", "--evaluation", path)
    assert "tongues s" in told.out + told.err


@pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm_eval is not installed")
def test_a_task_of_the_harness_is_a_suite_like_any_other(
    avocado: Avocado, trained: tuple[Path, str]
) -> None:
    folder, checkpoint = trained
    toml = TOML + '[[suites]]\nlm_eval = ["lamps"]\ninclude_path = "."\n'
    path = write_suites(folder, toml)
    (folder / "lamps.yaml").write_text(
        "task: lamps\ndataset_path: json\noutput_type: multiple_choice\ntest_split: test\n"
        f"dataset_kwargs:\n  data_files:\n    test: {folder / 'quiz.jsonl'}\n"
        'doc_to_text: "{{messages[0].content}}"\ndoc_to_choice: "{{choices}}"\ndoc_to_target: 0\n'
        "metric_list:\n  - metric: acc\nmetadata:\n  version: 1\n"
    )
    told = avocado(folder, "evaluate", checkpoint, "--suite", path, "--json")
    assert told.code == 0, told.err
    card: Any = told.json
    assert card["order"] == ["extraction", "tongues", "lamps"]
    assert (card["suites"]["lamps"]["role"], card["suites"]["lamps"]["metric"]) == ("guard", "acc")
    assert set(card["suites"]["lamps"]["languages"]) == {"de", "en", "zh"}
    again: Any = avocado(folder, "evaluate", checkpoint, "--suite", path, "--json").json
    assert again["scorecard"] == card["scorecard"]
