"""Gathering: teachers answer every prompt, rewards and a judge verify, the best answers are kept.

Every answer is journaled as it comes, so that an interrupted gathering goes on where it stopped and
nothing is paid for twice. What is kept records its teacher, revision, licence and sampling.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from avocado import rewards
from avocado.data.problem import Problem
from avocado.errors import Refused
from avocado.lineage import canonical, digest
from avocado.terms.money import Money
from avocado.train.methods import Distillation, Teacher
from avocado.train.teachers import (
    Answer,
    Asking,
    Unanswered,
    cost_of,
    grade,
    sampling_of,
)

ENOUGH: Final = 20
"""Requests of a teacher after which it is refused if none of them was answered."""


class Attempt(msgspec.Struct, frozen=True):
    """One answer of one teacher to one prompt. ``score`` is from 0 to 1; ``error`` says why there
    is no answer. ``key`` pins prompt, teacher, sampling and sample."""

    key: str
    problem: str
    teacher: int
    seed: int
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish: str = ""
    nanos: int = 0
    score: float = 0.0
    parts: dict[str, float] = {}
    error: str | None = None

    @property
    def answer(self) -> Answer:
        return Answer(
            self.text,
            self.reasoning,
            self.tool_calls,
            self.prompt_tokens,
            self.completion_tokens,
            self.finish,
        )


Progress = Callable[[int, int, str], None]


class Journal:
    """The attempts so far, one JSON line each; a line that a kill cut short is left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.attempts: dict[str, Attempt] = {}
        kept = b""
        if path.exists():
            for line in path.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    attempt = msgspec.json.decode(line, type=Attempt)
                    self.attempts[attempt.key] = attempt
                    kept += line
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kept)
        self._handle = path.open("ab")

    def add(self, attempt: Attempt) -> None:
        self.attempts[attempt.key] = attempt
        self._handle.write(msgspec.json.encode(attempt) + b"\n")
        self._handle.flush()
        os.fsync(self._handle.fileno())

    def close(self) -> None:
        self._handle.close()


@dataclass(frozen=True)
class Wanted:
    """An answer to ask for."""

    key: str
    problem: Problem
    teacher: int
    seed: int


def wanted(distillation: Distillation, problems: Iterable[Problem]) -> list[Wanted]:
    """Every (prompt, teacher, sample), seeded from what it is, so that asking again asks alike.

    A teacher is its model, revision and sampling: where it is served and for what price may change.
    """
    found = []
    for problem in problems:
        for number, teacher in enumerate(distillation.teachers):
            identity = [teacher.model, teacher.revision, sampling_of(teacher, 0)]
            for sample in range(teacher.samples):
                hashed = digest(canonical([problem.sha256, identity, sample]))
                found.append(Wanted(hashed, problem, number, int(hashed[:8], 16) & 0x7FFFFFFF))
    return found


async def gather(
    distillation: Distillation,
    problems: Sequence[Problem],
    journal: Journal,
    *,
    limit: Money | None = None,
    progress: Progress = lambda *_: None,
) -> list[Attempt]:
    """Asks for every answer that ``journal`` does not hold yet; returns all, in order.

    Raises:
        Refused: a teacher answers nothing, a reward cannot judge, or the answers cost ``limit``.
            What was answered is in the journal.
    """
    scorer = rewards.Scorer(distillation.rewards) if distillation.rewards else None
    asked = wanted(distillation, problems)
    missing = [each for each in asked if each.key not in journal.attempts]
    gatherer = _Gatherer(distillation, scorer, journal, limit, len(asked), progress)
    try:
        async with asyncio.TaskGroup() as tasks:
            for number, teacher in enumerate(distillation.teachers):
                queue = iter([each for each in missing if each.teacher == number])
                for _ in range(teacher.at_once):
                    tasks.create_task(gatherer.work(queue))
    except* Refused as group:
        raise _first(group) from None
    finally:
        await gatherer.close()
    return [journal.attempts[each.key] for each in asked]


def _first(group: BaseExceptionGroup[Refused]) -> Refused:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


class _Gatherer:
    def __init__(
        self,
        distillation: Distillation,
        scorer: rewards.Scorer | None,
        journal: Journal,
        limit: Money | None,
        total: int,
        progress: Progress,
    ) -> None:
        self._distillation = distillation
        self._scorer = scorer
        self._journal = journal
        self._limit = limit
        self._total = total
        self._progress = progress
        self._asking = [
            Asking(each.model, each.url, each.key_env, each.at_once)
            for each in distillation.teachers
        ]
        judge = distillation.judge
        self._judging = judge and Asking(judge.model, judge.url, judge.key_env, judge.at_once)
        before = journal.attempts.values()
        self._done, self._nanos = len(before), sum(each.nanos for each in before)
        self._answered: Counter[int] = Counter()
        self._failed: Counter[int] = Counter()

    async def close(self) -> None:
        for asking in (*self._asking, *([self._judging] if self._judging else [])):
            await asking.close()

    async def work(self, queue: Iterable[Wanted]) -> None:
        for each in queue:
            attempt = await self._attempt(each)
            self._journal.add(attempt)
            self._nanos += attempt.nanos
            self._done += 1
            spent = Money(self._nanos, self._distillation.teachers[0].currency)
            self._progress(self._done, self._total, f"cost {spent}")
            if self._limit is not None and spent.nanos > self._limit.nanos:
                raise Refused(
                    f"the teachers' answers cost {spent} and the budget is {self._limit}: raise "
                    "[budget] cost and go on with --resume"
                )

    async def _attempt(self, each: Wanted) -> Attempt:
        teacher = self._distillation.teachers[each.teacher]
        problem = each.problem
        blank = Attempt(each.key, problem.sha256, each.teacher, each.seed)
        try:
            answer = await self._asking[each.teacher].ask(
                problem.messages, problem.tools, **sampling_of(teacher, each.seed)
            )
        except Unanswered as error:
            self._fail(each.teacher, teacher, str(error))
            return msgspec.structs.replace(blank, error=str(error))
        self._answered[each.teacher] += 1
        score, parts = await self._judge(problem, answer)
        return msgspec.structs.replace(
            blank,
            text=answer.text,
            reasoning=answer.reasoning,
            tool_calls=tuple(dict(call) for call in answer.tool_calls),
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            finish=answer.finish,
            nanos=cost_of(teacher, answer).nanos,
            score=score,
            parts=parts,
        )

    def _fail(self, number: int, teacher: Teacher, why: str) -> None:
        self._failed[number] += 1
        if not self._answered[number] and self._failed[number] >= ENOUGH:
            raise Refused(f"teacher {teacher.model} answers nothing: {why}")

    async def _judge(self, problem: Problem, answer: Answer) -> tuple[float, dict[str, float]]:
        """The mean of the rewards and of the judge's grade; an answer that was cut off is worth
        nothing, and one that nobody judges is worth 1."""
        if answer.finish == "length" or not (answer.text or answer.tool_calls):
            return 0.0, {}
        totals, parts = [], dict[str, float]()
        if self._scorer is not None:
            scored = self._scorer.score(answer.text, problem.reference, problem.fields)
            totals.append(scored.total)
            parts |= scored.parts
        if self._judging and self._distillation.judge:
            request = str(problem.messages[-1]["content"])
            try:
                parts["judge"] = await grade(
                    self._judging, self._distillation.judge, request, answer.text
                )
            except Unanswered:
                parts["judge"] = 0.0
            totals.append(parts["judge"])
        return (sum(totals) / len(totals) if totals else 1.0), parts


@dataclass(frozen=True)
class Kept:
    """The best answer to a prompt: the training row, and the record of where it came from."""

    row: Mapping[str, Any]
    record: Mapping[str, Any]


def choose(
    distillation: Distillation, problems: Iterable[Problem], attempts: Iterable[Attempt]
) -> list[Kept]:
    """For each prompt the best answer that reaches the threshold. Equal scores: the shorter one,
    then the teacher that the recipe names first. The same answers give the same choice."""
    answers: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        good = attempt.score >= distillation.threshold and attempt.finish != "length"
        if attempt.error is None and good and (attempt.text or attempt.tool_calls):
            answers.setdefault(attempt.problem, []).append(attempt)
    kept = []
    for problem in problems:
        found = answers.get(problem.sha256)
        if found:
            best = min(found, key=lambda each: (-each.score, len(each.text), each.teacher))
            kept.append(_keep(distillation, problem, best))
    return kept


def _keep(distillation: Distillation, problem: Problem, attempt: Attempt) -> Kept:
    teacher = distillation.teachers[attempt.teacher]
    turn = attempt.answer.message(reasoning=distillation.reasoning == "keep")
    row = {
        "messages": [*problem.messages, turn],
        **({"tools": list(problem.tools)} if problem.tools else {}),
        "language": problem.language,
        "license": problem.licence,
        "source": problem.source,
    }
    record = {
        "problem": problem.sha256,
        "file": problem.file,
        "row": problem.row,
        "language": problem.language,
        "teacher": teacher.model,
        "revision": teacher.revision,
        "license": teacher.license,
        "sampling": sampling_of(teacher, attempt.seed),
        "score": attempt.score,
        "parts": attempt.parts,
        "prompt_tokens": attempt.prompt_tokens,
        "completion_tokens": attempt.completion_tokens,
    }
    return Kept(row, record)


def summary(
    distillation: Distillation,
    problems: Sequence[Problem],
    attempts: Sequence[Attempt],
    kept: Sequence[Kept],
) -> dict[str, Any]:
    """What a corpus states of its teachers: kept and asked by language, rows, tokens and cost by
    teacher. Costs are what the answers cost when they were made."""
    asked = Counter(problem.language for problem in problems)
    found = Counter(str(each.record["language"]) for each in kept)
    teachers = []
    for number, teacher in enumerate(distillation.teachers):
        own = [each for each in attempts if each.teacher == number]
        rows = [each for each in kept if each.record["teacher"] == teacher.model]
        teachers.append(
            {
                "model": teacher.model,
                "revision": teacher.revision,
                "license": teacher.license,
                "answers": sum(each.error is None for each in own),
                "failed": sum(each.error is not None for each in own),
                "kept": len(rows),
                "prompt_tokens": sum(each.prompt_tokens for each in own),
                "completion_tokens": sum(each.completion_tokens for each in own),
                "cost": str(Money(sum(each.nanos for each in own), teacher.currency)),
            }
        )
    languages = {name: {"asked": n, "kept": found[name]} for name, n in sorted(asked.items())}
    return {"teachers": teachers, "languages": languages}
