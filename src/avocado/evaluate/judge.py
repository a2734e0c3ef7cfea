"""A judge: another model says which of two answers is better, behind any OpenAI-compatible URL.

Each pair is judged twice, the answers' places swapped, since judges prefer a place (Zheng et al.
2023, arXiv:2306.05685, section 3.4, whose conservative rule this is): an answer wins only where it
wins in both places. Equal answers are a tie and are not asked about. Greedy; knows no engine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

from avocado.errors import Refused
from avocado.evaluate.asking import side_by_side
from avocado.evaluate.cache import Cache
from avocado.evaluate.graders import Judge
from avocado.evaluate.run import Result
from avocado.evaluate.suite import Item, Suite, SuiteError
from avocado.lineage import Json
from avocado.rewards import spoken

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Verdict = Literal["A", "B", "tie"]

RETRIES: Final = 4
"""Of a request that failed for the server's sake (429, 5xx, no connection), with back-off."""

SECONDS: Final = 300.0
"""How long one verdict may take."""

FORM: Final = (
    "\n\nDo not let the order of the answers or their length decide. After thinking, end with a "
    "line that says [[A]] if answer A is better, [[B]] if answer B is better, or [[C]] if neither "
    "is."
)

_SAID = re.compile(r"\[\[([ABC])\]\]")


async def prefer(
    suite: Suite,
    base: Sequence[Result],
    other: Sequence[Result],
    *,
    cache: Cache | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Result, ...]:
    """``other`` with a score for each answer: 1 better than ``base``'s, 0 worse, 0.5 neither.

    Raises:
        SuiteError: the suite is not graded by a judge.
        Refused: the judge's server cannot be reached or refuses, or its key is not set.
    """
    if not isinstance(suite.grade, Judge):
        raise SuiteError(f"suite {suite.name!r} is not graded by a judge")
    court = _Court(suite.grade, cache)
    scores: dict[int, float] = {}

    async def judge(place: int) -> None:
        item, left, right = suite.items[place], base[place], other[place]
        scores[place] = await court.score(item, said(left), said(right))
        if progress is not None:
            progress(len(scores), len(suite.items))

    try:
        await side_by_side(range(len(suite.items)), judge, suite.grade.at_once)
    finally:
        await court.close()
    return tuple(replace(each, score=scores[place]) for place, each in enumerate(other))


def said(result: Result) -> str:
    """An answer without its thought."""
    return spoken(result.text).strip()


def verdict(text: str) -> Verdict:
    """What a judge's answer says at its end; a tie where it says nothing."""
    found = _SAID.findall(spoken(text))
    return "tie" if not found or found[-1] == "C" else found[-1]


def score_of(first: Verdict, swapped: Verdict) -> float:
    """The checkpoint's score. It was answer B in ``first`` and A in ``swapped``."""
    if (first, swapped) == ("B", "A"):
        return 1.0
    return 0.0 if (first, swapped) == ("A", "B") else 0.5


class _Court:
    """One judge and what it said before."""

    def __init__(self, judge: Judge, cache: Cache | None) -> None:
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise Refused(
                "a judge needs the package openai: pip install 'avocado-llm[models]'"
            ) from error
        key = "none"
        if judge.key_env is not None:
            key = os.environ.get(judge.key_env, "")
            if not key:
                raise Refused(
                    f"the judge needs a key: set the environment variable {judge.key_env}"
                )
        self._judge = judge
        self._cache = cache
        self._client: AsyncOpenAI = AsyncOpenAI(
            base_url=judge.url, api_key=key, max_retries=RETRIES, timeout=SECONDS
        )

    async def close(self) -> None:
        await self._client.close()

    async def score(self, item: Item, base: str, other: str) -> float:
        if base == other:
            return 0.5
        first = await self._verdict(item, base, other)
        swapped = await self._verdict(item, other, base)
        return score_of(first, swapped)

    async def _verdict(self, item: Item, a: str, b: str) -> Verdict:
        messages = brief(self._judge, item, a, b)
        asked: Json = {
            "url": self._judge.url,
            "model": self._judge.model,
            "max_tokens": self._judge.max_tokens,
            "messages": messages,
        }
        kept = None if self._cache is None else self._cache.get("verdict", asked)
        if kept is None:
            kept = await self._ask(messages)
            if self._cache is not None:
                self._cache.put(kept, "verdict", asked)
        return verdict(str(kept))

    async def _ask(self, messages: list[dict[str, str]]) -> str:
        import openai

        sent: Any = messages
        try:
            got = await self._client.chat.completions.create(
                model=self._judge.model,
                messages=sent,
                temperature=0,
                max_tokens=self._judge.max_tokens,
            )
        except openai.OpenAIError as error:
            lines = str(error).splitlines() or [type(error).__name__]
            raise Refused(
                f"the judge {self._judge.model} at {self._judge.url} does not answer: "
                f"{lines[0][:300]}"
            ) from error
        if not got.choices:
            raise Refused(f"the judge {self._judge.model} at {self._judge.url} said nothing")
        return got.choices[0].message.content or ""


def brief(judge: Judge, item: Item, a: str, b: str) -> list[dict[str, str]]:
    """What the judge reads: the conversation, the reference if there is one, and two answers."""
    talk = "\n\n".join(f"{each['role']}: {each['content']}" for each in item.messages)
    reference = f"\n\n[Reference answer]\n{item.answer}" if item.answer else ""
    return [
        {"role": "system", "content": judge.instruction + FORM},
        {
            "role": "user",
            "content": f"[Request]\n{talk}{reference}\n\n[Answer A]\n{a}\n\n[Answer B]\n{b}",
        },
    ]
