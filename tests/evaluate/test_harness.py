"""Tasks of lm-evaluation-harness through our engine, against the harness's own models.

Needs the ``harness`` extra (``make test-harness``); what is said without it is tested always.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from avocado.engine.embedded import EmbeddedEngine
from avocado.engine.scripted import ScriptedEngine
from avocado.evaluate.cache import Cache
from avocado.evaluate.evaluation import Evaluation, HarnessTasks
from avocado.evaluate.harness import Tasks
from avocado.evaluate.run import Result
from avocado.evaluate.suite import SuiteError

SEEDLING = Path(str(files("avocado") / "seedling" / "model"))
INSTALLED = importlib.util.find_spec("lm_eval") is not None
needs_harness = pytest.mark.skipif(not INSTALLED, reason="lm_eval is not installed")

DOCS = [
    {"q": "Am 3. Mai für 12,50 €", "a": "Mai", "c": ["May", "Mai", "12"], "language": "de"},
    {"q": "On May 3 for $12.50", "a": "2024-05-03", "c": ["2024-05-03", "x y z"], "language": "en"},
    {"q": "会议在三月十二日", "a": "三月", "c": ["三月", "march", "{}"], "language": "zh"},
    {"q": "Le 4 juin, 20 €", "a": "juin", "c": ["a", "juin"], "language": "fr", "cluster": "p1"},
    {"q": "Am 4. Mai für 2 €", "a": "4", "c": ["4", "5", "6", "7"], "language": "de"},
]
GENERATE = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
generation_kwargs:
  until: ["}}"]
  max_gen_toks: 24
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""
CHOOSE = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{c.index(a) if a in c else 0}}}}"
doc_to_choice: "{{{{c}}}}"
metric_list:
  - metric: acc
  - metric: acc_norm
metadata:
  version: 1.0
  language: de
"""
ROLL = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{q}}}}"
metric_list:
  - metric: byte_perplexity
metadata:
  version: 1.0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "tasks"
    made.mkdir()
    data = tmp_path / "docs.jsonl"
    data.write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    for name, text in (("say", GENERATE), ("pick", CHOOSE), ("roll", ROLL)):
        (made / f"{name}.yaml").write_text(text.format(name=name, data=data))
    return made


def tasks(folder: Path, *names: str, **settings: Any) -> Tasks:
    return Tasks(HarnessTasks(lm_eval=names, **settings), folder)


def ours(
    wanted: Tasks, cache: Cache | None = None, seen: list[tuple[int, int]] | None = None
) -> dict[str, tuple[Result, ...]]:
    async def ask() -> dict[str, tuple[Result, ...]]:
        engine = EmbeddedEngine.load(SEEDLING)
        try:
            return {
                suite.name: await wanted.run(
                    engine,
                    suite,
                    cache=cache,
                    progress=None if seen is None else lambda *done: seen.append(done),
                )
                for suite in wanted.suites
            }
        finally:
            await engine.close()

    return asyncio.run(ask())


def theirs(folder: Path, names: Iterable[str], **options: Any) -> dict[str, list[dict[str, Any]]]:
    """What the harness's own model of transformers gets, sample by sample."""
    lm_eval: Any = importlib.import_module("lm_eval")
    manager: Any = importlib.import_module("lm_eval.tasks").TaskManager
    done: Any = lm_eval.simple_evaluate(
        model="hf",
        model_args={
            "pretrained": str(SEEDLING),
            "dtype": "float32",
            "enable_thinking": False,
        },
        tasks=list(names),
        task_manager=manager(include_path=str(folder), include_defaults=False),
        device="cpu",
        batch_size=2,
        bootstrap_iters=0,
        **options,
    )
    return dict(done["samples"])


@needs_harness
@pytest.mark.parametrize("chat", [True, False])
def test_scores_and_texts_are_those_of_the_harnesss_own_model(folder: Path, chat: bool) -> None:
    mine = ours(tasks(folder, "say", "pick", chat=chat))
    other = theirs(folder, ["say", "pick"], apply_chat_template=chat)
    assert [each.text for each in mine["say"]] == [
        each["resps"][0][0].rstrip(
            "\ufffd"
        )  # half a character, which the limit cut, is nothing here
        for each in sorted(other["say"], key=lambda one: one["doc_id"])
    ]
    for name, metric in (("say", "exact_match"), ("pick", "acc")):
        assert [each.score for each in mine[name]] == [
            float(each[metric]) for each in sorted(other[name], key=lambda one: one["doc_id"])
        ]
    assert all(each.completion > 0 for each in mine["say"])


@needs_harness
def test_few_shot_and_length_normalised_scores_are_the_same(folder: Path) -> None:
    (folder / "shots.yaml").write_text(
        (folder / "pick.yaml").read_text().replace("task: pick", "task: shots")
        + "\nfewshot_split: test\n"
    )
    mine = ours(tasks(folder, "shots", num_fewshot=2, metric="acc_norm", limit=4))
    other = theirs(
        folder,
        ["shots"],
        num_fewshot=2,
        limit=4,
        apply_chat_template=True,
        fewshot_as_multiturn=True,
    )
    assert [each.score for each in mine["shots"]] == [
        float(each["acc_norm"]) for each in other["shots"]
    ]


@needs_harness
def test_its_command_line_gives_the_same_mean(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--tasks", "pick"]
    command += ["--model_args", f"pretrained={SEEDLING},dtype=float32,enable_thinking=False"]
    command += ["--include_path", str(folder), "--device", "cpu", "--batch_size", "4"]
    command += ["--apply_chat_template", "--output_path", str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (found,) = out.rglob("results_*.json")
    mean = json.loads(found.read_text())["results"]["pick"]["acc,none"]
    (results,) = ours(tasks(folder, "pick")).values()
    assert sum(each.score for each in results) / len(results) == pytest.approx(mean)


@needs_harness
def test_rolling_likelihoods_are_the_same_and_no_score_from_0_to_1(folder: Path) -> None:
    from avocado.evaluate.asking import Asker
    from avocado.evaluate.harness_model import EngineModel

    wanted = tasks(folder, "roll")

    async def ask() -> list[float]:
        engine = EmbeddedEngine.load(SEEDLING)
        model = EngineModel(
            Asker(engine),
            engine.template,
            asyncio.get_running_loop(),
            at_once=4,
            tell=lambda _: None,
        )
        try:
            samples = await asyncio.to_thread(wanted._evaluate, "roll", model)
            with pytest.raises(SuiteError, match="gives no byte_perplexity from 0 to 1"):
                await wanted.run(engine, wanted.suites[0])
            return [each["resps"][0][0] for each in samples]
        finally:
            await engine.close()

    mine = asyncio.run(ask())
    other = theirs(folder, ["roll"], apply_chat_template=True)["roll"]
    assert mine == pytest.approx([each["resps"][0][0] for each in other], rel=1e-4)


@needs_harness
def test_a_task_is_a_suite_with_languages_and_clusters(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.toml"
    path.write_text(
        '[[suites]]\nlm_eval = ["say", "pick"]\ninclude_path = "tasks"\nlimit = 4\nrole = "target"'
    )
    say, pick = Evaluation.read(path).suites()
    assert (say.name, say.role, say.metric, pick.metric) == ("say", "target", "exact_match", "acc")
    assert say.languages == ("de", "en", "zh", "fr")
    assert say.items[3].cluster == "p1"
    assert (pick.items[0].answer, pick.items[0].choices) == ("Mai", ("May", "Mai", "12"))
    assert say.items[0].messages[0]["content"] == DOCS[0]["q"]
    again = list(Evaluation.read(path).suites())
    assert [each.sha256 for each in again] == [say.sha256, pick.sha256]


@needs_harness
def test_a_second_run_asks_nothing_and_progress_reaches_the_end(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    first = ours(tasks(folder, "say", "pick"), Cache(tmp_path / "cache", "m"), seen)
    assert seen[-1] == (5, 5)

    def never(*_: Any) -> None:
        raise AssertionError("it asked the engine again")

    monkeypatch.setattr(EmbeddedEngine, "generate", never)
    monkeypatch.setattr(EmbeddedEngine, "likelihoods", never)
    again = ours(tasks(folder, "say", "pick"), Cache(tmp_path / "cache", "m"))
    assert again == first


@needs_harness
@pytest.mark.parametrize(
    ("names", "settings", "says"),
    [
        (("sya",), {}, "there is no task 'sya' in "),
        (("say",), {"metric": "bleu"}, "say has no metric 'bleu'; it has exact_match"),
    ],
)
def test_what_is_wrong_with_a_task_is_said(
    folder: Path, names: tuple[str, ...], settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(SuiteError) as caught:
        _ = tasks(folder, *names, **settings).suites
    assert says in str(caught.value)


@needs_harness
def test_data_that_is_not_there_and_an_engine_without_tokenizer_are_said(
    folder: Path, tmp_path: Path
) -> None:
    wanted = tasks(folder, "say")
    suite = wanted.suites[0]
    with pytest.raises(SuiteError, match="need an engine that has the model's own tokenizer"):
        asyncio.run(wanted.run(ScriptedEngine(), suite))
    (tmp_path / "docs.jsonl").unlink()
    broken = tasks(folder, "pick")
    with pytest.raises(SuiteError, match="pick cannot be loaded: FileNotFoundError"):
        _ = broken.suites


def test_without_the_package_a_task_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(SuiteError, match=r"pip install 'avocado-llm\[harness\]'"):
        _ = tasks(tmp_path, "say").suites
