"""Teachers: models behind OpenAI-compatible servers that are asked for answers or for grades.

One request, one answer, whatever channel its thoughts came in. Knows nothing of rows or of files.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from avocado.errors import Refused
from avocado.terms.money import Money, ceil_div
from avocado.terms.price import MILLION
from avocado.train.methods import Judge, Teacher

if TYPE_CHECKING:
    from openai import AsyncOpenAI

RETRIES: Final = 5
"""Of a request that failed for the server's sake (429, 5xx, no connection), with back-off."""

SECONDS: Final = 600.0
"""How long one answer may take."""

HIGHEST: Final = 10
"""The best grade of a judge."""

_THOUGHT = re.compile(r"\A\s*<think>(.*?)</think>\s*", re.DOTALL)
_CHANNEL = re.compile(
    r"<\|channel\|>(?P<name>\w+)[^<]*<\|message\|>(?P<text>.*?)"
    r"(?=<\|end\|>|<\|return\|>|<\|call\|>|<\|channel\|>|\Z)",
    re.DOTALL,
)
_GRADE_FORM = (
    '\n\nAnswer with JSON and nothing else: {"grade": G}, G a whole number from 0 (useless) to '
    f"{HIGHEST} (perfect)."
)


class Unanswered(Exception):
    """The server refused this very request; others may do better."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. ``tool_calls`` are in OpenAI's form; tokens are the server's own count."""

    text: str
    reasoning: str
    tool_calls: tuple[Mapping[str, Any], ...]
    prompt_tokens: int
    completion_tokens: int
    finish: str

    def message(self, *, reasoning: bool) -> dict[str, Any]:
        """The assistant's turn as a training row has it."""
        turn: dict[str, Any] = {"role": "assistant", "content": self.text}
        if reasoning and self.reasoning:
            turn["reasoning_content"] = self.reasoning
        if self.tool_calls:
            turn["tool_calls"] = [dict(call) for call in self.tool_calls]
        return turn


class Asking:
    """One server's client; at most ``at_once`` requests at a time."""

    def __init__(self, model: str, url: str, key_env: str | None, at_once: int) -> None:
        """Raises Refused where the environment has no ``key_env``."""
        from openai import AsyncOpenAI

        key = "none"
        if key_env is not None:
            key = os.environ.get(key_env, "")
            if not key:
                raise Refused(f"{model} needs a key: set the environment variable {key_env}")
        self.model = model
        self._client: AsyncOpenAI = AsyncOpenAI(
            base_url=url, api_key=key, max_retries=RETRIES, timeout=SECONDS
        )
        self._url = url
        self._gate = asyncio.Semaphore(at_once)

    async def close(self) -> None:
        await self._client.close()

    async def ask(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        **sampling: Any,
    ) -> Answer:
        """One answer.

        Raises:
            Unanswered: the server refuses this request for what is in it (400, 413, 422).
            Refused: it refuses every request (a key, a name, an address), or failed too often.
        """
        import openai

        extra: dict[str, Any] = {"tools": [dict(tool) for tool in tools]} if tools else {}
        try:
            async with self._gate:
                got = await self._client.chat.completions.create(
                    model=self.model,
                    messages=[dict(message) for message in messages],  # type: ignore[misc]
                    **extra,
                    **sampling,
                )
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            raise Unanswered(_first_line(error)) from error
        except openai.APIStatusError as error:
            if error.status_code == 413:
                raise Unanswered(_first_line(error)) from error
            raise Refused(f"teacher {self.model} at {self._url}: {_first_line(error)}") from error
        except openai.OpenAIError as error:
            raise Refused(f"teacher {self.model} at {self._url}: {_first_line(error)}") from error
        return _answer(got)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _answer(got: Any) -> Answer:
    if not got.choices:
        raise Unanswered("the answer has no choices")
    choice = got.choices[0]
    message = choice.message
    apart = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    reasoning, text = split_reasoning(message.content or "", apart if apart else "")
    calls = tuple(
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for call in message.tool_calls or ()
        if call.type == "function"
    )
    usage = got.usage
    return Answer(
        text,
        reasoning,
        calls,
        usage.prompt_tokens if usage else 0,
        usage.completion_tokens if usage else 0,
        choice.finish_reason or "stop",
    )


def split_reasoning(text: str, apart: str = "") -> tuple[str, str]:
    """(thoughts, answer), whichever way a server sends thoughts.

    Apart (``reasoning_content`` of vLLM and Qwen, ``reasoning`` of gpt-oss and OpenRouter), inline
    as Qwen's ``<think>``, or as raw Harmony channels of gpt-oss (``analysis``, then ``final``).
    """
    channels = [(found["name"], found["text"]) for found in _CHANNEL.finditer(text)]
    if channels:
        thoughts = [said for name, said in channels if name != "final"]
        final = [said for name, said in channels if name == "final"]
        return "\n".join([apart, *thoughts]).strip(), "".join(final).strip()
    found = _THOUGHT.match(text)
    if found:
        return f"{apart}\n{found[1]}".strip(), text[found.end() :].strip()
    before, mark, after = text.partition("</think>")
    if mark:  # the template had opened the thought
        return f"{apart}\n{before}".strip(), after.strip()
    return apart.strip(), text.strip()


def sampling_of(teacher: Teacher, seed: int) -> dict[str, Any]:
    """The parameters of a request to ``teacher``."""
    return {
        "temperature": teacher.temperature,
        "top_p": teacher.top_p,
        "max_tokens": teacher.max_tokens,
        "seed": seed,
    }


def cost_of(teacher: Teacher, answer: Answer) -> Money:
    """What the answer cost by the teacher's prices, rounded up to a nano-unit."""
    prompt = Money.parse(teacher.price_input).nanos * answer.prompt_tokens
    completion = Money.parse(teacher.price_output).nanos * answer.completion_tokens
    return Money(ceil_div(prompt + completion, MILLION), teacher.currency)


async def grade(asking: Asking, judge: Judge, request: str, answer: str) -> float:
    """The judge's grade of ``answer``, from 0 to 1.

    Raises:
        Unanswered: the judge did not answer with a grade.
    """
    got = await asking.ask(
        [
            {"role": "system", "content": judge.instruction + _GRADE_FORM},
            {"role": "user", "content": f"Request:\n{request}\n\nAnswer:\n{answer}"},
        ],
        temperature=0,
        max_tokens=judge.max_tokens,
    )
    found = re.search(r"\{[^{}]*\}", got.text)
    try:
        value = json.loads(found[0])["grade"] if found else None
    except (ValueError, KeyError):
        value = None
    if type(value) is not int or not 0 <= value <= HIGHEST:
        raise Unanswered(f"the judge gave no grade: {got.text[:80]!r}")
    return value / HIGHEST
