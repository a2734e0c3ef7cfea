"""Asks a model every question of a suite, many at once, through the engine that serves it.

Greedy, so that a model has one score and not a distribution of scores. Knows nothing about what the
answers are compared with elsewhere: :mod:`avocado.evaluate.compare` does that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Final

from avocado.data.chat import Chat, Prompt, RenderError
from avocado.engine.engine import Engine, FinishReason, Sampling
from avocado.evaluate.asking import Answer, Asker, side_by_side
from avocado.evaluate.cache import Cache
from avocado.evaluate.graders import Choice, Judge, Mark
from avocado.evaluate.suite import Item, Suite, SuiteError
from avocado.lineage import Json

Progress = Callable[[int, int], None]
"""Called with the number of items done and of all items."""

CONCURRENCY: Final = 64
"""Questions at once; the engine batches them."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the model said to one item, and what that is worth.

    ``score`` is 0..1; ``correct`` says the same where an answer is right or wrong, else None. Items
    of one ``cluster`` are not independent. ``prompt`` and ``completion`` are tokens, the stop token
    included; ``seconds`` from asking to the last token, which two equal results need not share.
    """

    item: str
    language: str
    cluster: str | None
    score: float
    correct: bool | None
    text: str
    reason: FinishReason
    prompt: int
    completion: int
    seconds: float = field(default=0.0, compare=False)

    @classmethod
    def of(cls, item: Item, answer: Answer, mark: Mark) -> Result:
        return cls(
            item=item.id,
            language=item.language,
            cluster=item.cluster,
            score=mark.score,
            correct=mark.correct,
            text=answer.text,
            reason=answer.reason,
            prompt=answer.prompt,
            completion=answer.completion,
            seconds=answer.seconds,
        )

    def to_json(self) -> dict[str, Json]:
        return asdict(self)


async def run(
    engine: Engine,
    suite: Suite,
    *,
    concurrency: int = CONCURRENCY,
    progress: Progress | None = None,
    cache: Cache | None = None,
) -> tuple[Result, ...]:
    """Results in the suite's order. Stops at the first failure and cancels what still runs.

    Where another model is to judge, every answer gets 0.5: :mod:`avocado.evaluate.judge` holds it
    against the base's.

    Raises:
        SuiteError: an item that the template refuses or that does not fit the context, or an engine
            that cannot do what the suite's grade needs.
        Refused: a reward cannot judge an answer.
        EngineError: the engine failed.
    """
    asker = Asker(engine, cache)
    if isinstance(suite.grade, Choice):
        from avocado.evaluate.choice import choose

        return await choose(asker, suite, suite.grade, progress)
    sampling = Sampling(suite.max_tokens, temperature=0)
    prompts = [prompt_of(engine, suite, item, suite.max_tokens) for item in suite.items]
    grade = None if isinstance(suite.grade, Judge) else suite.grader
    results: dict[int, Result] = {}

    async def ask(place: int) -> None:
        item = suite.items[place]
        answer = await asker.answer(prompts[place], sampling, question_of(suite, item))
        mark = Mark(0.5)
        if grade is not None:
            mark = grade(answer.said, item.answer, item.language, item.fields)
        results[place] = Result.of(item, answer, mark)
        if progress is not None:
            progress(len(results), len(suite.items))

    await side_by_side(range(len(suite.items)), ask, concurrency)
    return tuple(results[place] for place in range(len(suite.items)))


def question_of(suite: Suite, item: Item) -> Json:
    """What decides an item's prompt: its language, answer and grade do not."""
    return {"messages": [dict(each) for each in item.messages], "thinking": suite.thinking}


def prompt_of(engine: Engine, suite: Suite, item: Item, room: int) -> Prompt:
    """The rendered question; ``room`` tokens have to fit behind it.

    Raises:
        SuiteError: the template refuses it, or it does not fit the context.
    """
    try:
        prompt = engine.prepare(Chat(item.messages, thinking=suite.thinking))
    except RenderError as error:
        raise SuiteError(f"item {item.id!r}: {error}") from error
    if len(prompt.ids) + room > engine.context_length:
        raise SuiteError(
            f"item {item.id!r}: {len(prompt.ids)} prompt tokens and {room} to "
            f"answer exceed the model's context of {engine.context_length} tokens"
        )
    return prompt
