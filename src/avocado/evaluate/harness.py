"""Tasks of lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness) by name.

Each task is a suite of its own: the harness asks and grades, through the engine that serves, and
each document becomes a result. With ``include_path`` nothing is fetched. The package is optional
(``pip install 'avocado-llm[harness]'``) and imported when a task is wanted.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from avocado.engine.engine import Engine
from avocado.errors import Refused
from avocado.evaluate.asking import Answer, Asker
from avocado.evaluate.cache import Cache
from avocado.evaluate.graders import Harness, Mark
from avocado.evaluate.run import CONCURRENCY, Result
from avocado.evaluate.suite import Item, Suite, SuiteError
from avocado.lineage import Json, digest

if TYPE_CHECKING:
    from avocado.evaluate.evaluation import HarnessTasks

BINARY: Final = frozenset({"acc", "acc_norm", "acc_mutual_info", "acc_bytes", "exact_match"})
"""Metrics whose values say right or wrong."""

SEED: Final = 1234
"""lm-evaluation-harness's own default, which chooses the examples of few-shot prompts."""


@dataclass(frozen=True)
class Tasks:
    """The tasks of one table; ``include`` is the folder of their files, if they have one."""

    settings: HarnessTasks
    include: Path | None

    @cached_property
    def tasks(self) -> Mapping[str, Any]:
        """The harness's own task objects by name, groups taken apart.

        Raises:
            SuiteError: the package is missing, there is no such task, or its data does not load.
        """
        try:
            found = _module("lm_eval.tasks").TaskManager(
                include_path=None if self.include is None else str(self.include),
                include_defaults=self.include is None,
            )
            unknown = [name for name in self.settings.lm_eval if name not in found.all_tasks]
            if unknown:
                where = f"in {self.include}" if self.include else "in lm-evaluation-harness"
                raise SuiteError(f"lm_eval: there is no task {unknown[0]!r} {where}")
            tasks: dict[str, Any] = found.load(list(self.settings.lm_eval))["tasks"]
        except SuiteError:
            raise
        except Exception as error:  # whatever a task's file or its data raises
            names = ", ".join(self.settings.lm_eval)
            raise SuiteError(
                f"lm_eval: {names} cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        for task in tasks.values():
            self._set_up(task)
        return tasks

    def _set_up(self, task: Any) -> None:
        """As ``lm_eval.simple_evaluate`` does: a task that says 0 examples keeps that."""
        said = task.get_config("num_fewshot")
        if said != 0 or self.settings.num_fewshot is None:
            wanted = self.settings.num_fewshot
            task.set_config(key="num_fewshot", value=(said or 0) if wanted is None else wanted)
        task.set_fewshot_seed(seed=SEED)

    @cached_property
    def suites(self) -> tuple[Suite, ...]:
        """A suite for each task: its documents as items.

        Raises:
            SuiteError: as ``tasks``, or a task without the wanted metric or without documents.
        """
        return tuple(self._suite(name, task) for name, task in self.tasks.items())

    def _suite(self, name: str, task: Any) -> Suite:
        metrics = list(task.aggregation())
        metric = self.settings.metric or metrics[0]
        if metric not in metrics:
            raise SuiteError(
                f"lm_eval: {name} has no metric {metric!r}; it has {', '.join(metrics)}"
            )
        setup: Json = {
            "config": task.dump_config(),
            "limit": self.settings.limit,
            "chat": self.settings.chat,
            "version": _module("lm_eval").__version__,
        }
        config = digest(json.dumps(setup, sort_keys=True, default=str).encode())
        items = tuple(self._items(task))
        if not items:
            raise SuiteError(f"lm_eval: {name} has no documents to ask about")
        grade = Harness(task=name, name=metric, config=config)
        return Suite(name, items, grade, self.settings.role)

    def _items(self, task: Any) -> Iterator[Item]:
        said = getattr(task.config, "metadata", None) or {}
        for number, doc in task.doc_iterator(rank=0, limit=self.settings.limit, world_size=1):
            text, target = task.doc_to_text(doc), task.doc_to_target(doc)
            choices: tuple[str, ...] = ()
            if task.OUTPUT_TYPE == "multiple_choice":
                choices = tuple(map(str, task.doc_to_choice(doc)))
                if isinstance(target, int) and 0 <= target < len(choices):
                    target = choices[target]
            language = doc.get("language") or said.get("language") or self.settings.language
            cluster = doc.get("cluster")
            yield Item(
                str(number),
                str(language),
                ({"role": "user", "content": str(text)},),
                str(target),
                None if cluster is None else str(cluster),
                choices,
            )

    async def run(
        self,
        engine: Engine,
        suite: Suite,
        *,
        cache: Cache | None = None,
        progress: Callable[[int, int], None] | None = None,
        concurrency: int = CONCURRENCY,
    ) -> tuple[Result, ...]:
        """Results in the suite's order, as the harness graded them.

        Raises:
            SuiteError: the task or the engine cannot do it, or its metric is not from 0 to 1 for
                each document.
            EngineError: the engine failed.
        """
        template = getattr(engine, "template", None)
        if template is None:
            raise SuiteError("tasks of lm_eval need an engine that has the model's own tokenizer")
        model_of = _module("avocado.evaluate.harness_model").EngineModel
        total = len(suite.items)

        def tell(done: int) -> None:
            if progress is not None:
                progress(min(done, total), total)

        model = model_of(
            Asker(engine, cache),
            template,
            asyncio.get_running_loop(),
            at_once=concurrency,
            tell=tell,
        )
        try:
            samples = await asyncio.to_thread(partial(self._evaluate, suite.name, model))
        except (SuiteError, Refused):
            raise
        except (ValueError, TypeError, KeyError, AssertionError, NotImplementedError) as error:
            raise SuiteError(f"lm_eval: {suite.name} failed: {error}") from error
        tell(total)
        results = [
            self._result(suite, item, sample, model)
            for item, sample in zip(suite.items, samples, strict=True)
        ]
        return tuple(results)

    def _evaluate(self, name: str, model: Any) -> list[Mapping[str, Any]]:
        """The harness's own samples, one for each document, of the task's first filter."""
        done = _module("lm_eval.evaluator").evaluate(
            lm=model,
            task_dict={"tasks": {name: self.tasks[name]}, "groups": {}},
            limit=self.settings.limit,
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=self.settings.chat,
            fewshot_as_multiturn=True,
        )
        samples: list[Mapping[str, Any]] = done["samples"][name]
        first = [each for each in samples if each["filter"] == samples[0]["filter"]]
        return sorted(first, key=lambda each: int(each["doc_id"]))

    def _result(self, suite: Suite, item: Item, sample: Mapping[str, Any], model: Any) -> Result:
        metric = suite.metric
        value = sample.get(metric)
        if isinstance(value, bool) or not isinstance(value, int | float):
            value = float(value) if isinstance(value, bool) else _number(value)
        if value is None or not 0 <= value <= 1:
            raise SuiteError(
                f"lm_eval: {suite.name} gives no {metric} from 0 to 1 for each document: name "
                "another with metric"
            )
        answer = _answer(item, sample, model)
        score = float(value)
        correct = score == 1.0 if metric in BINARY else None
        return Result.of(item, answer, Mark(score, correct))


def _number(value: Any) -> float | None:
    """numpy's scalars too."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _answer(item: Item, sample: Mapping[str, Any], model: Any) -> Answer:
    """What the model said; of likelihoods, the likeliest choice. Nothing is generated for those."""
    first = sample["resps"][0][0]
    if isinstance(first, str):
        known: Answer | None = model.answers.get(sample["arguments"][0][0])
        if known is not None:
            return known
        return Answer(first, first, "stop", 0, 0)
    text = ""
    if item.choices and len(sample["resps"]) >= len(item.choices):
        totals = [float(each[0][0]) for each in sample["resps"][: len(item.choices)]]
        text = item.choices[totals.index(max(totals))]
    return Answer(text, text, "stop", 0, 0)


def _module(name: str) -> Any:
    """Raises SuiteError: the package is not installed."""
    try:
        found = importlib.import_module(name)
    except ImportError as error:
        raise SuiteError(
            "tasks by name need lm-evaluation-harness, which is not installed: "
            f"pip install 'avocado-llm[harness]' ({error})"
        ) from error
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return found
