"""Our engine as lm-evaluation-harness sees a model. Only imported where ``lm_eval`` is installed.

The harness asks from a thread of its own and waits; the engine answers on its event loop. Prompts
are rendered by **the** rendering (:mod:`avocado.data.chat`), so that a task asks what serving asks.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from avocado.data.chat import Chat, ChatTemplate, Prompt
from avocado.engine.engine import Measured, Sampling
from avocado.engine.reply import Thinking, thinking_after
from avocado.evaluate.asking import Answer, Asker, side_by_side
from avocado.rewards import spoken

_model: Any = importlib.import_module("lm_eval.api.model")
_models: Any = importlib.import_module("lm_eval.models.utils")
_windows: Any = importlib.import_module("lm_eval.utils")

T = TypeVar("T")


class EngineModel(_model.TemplateLM):  # type: ignore[misc]
    """``loop`` is the engine's; ``tell`` counts the requests that were answered."""

    def __init__(
        self,
        asker: Asker,
        template: ChatTemplate,
        loop: asyncio.AbstractEventLoop,
        *,
        at_once: int,
        tell: Callable[[int], None],
    ) -> None:
        super().__init__()
        self.tokenizer = template.tokenizer
        self.answers: dict[str, Answer] = {}
        """The last answer to each prompt, for its counts."""
        self._asker = asker
        self._template = template
        self._loop = loop
        self._at_once = at_once
        self._tell = tell
        self._done = 0

    @property
    def eot_token_id(self) -> int:
        return int(self._template.tokenizer.eos_token_id)

    @property
    def max_length(self) -> int:
        return self._asker.engine.context_length

    @property
    def tokenizer_name(self) -> str:
        return self._template.sha256

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        return list(self._template.encode(string))

    def apply_chat_template(
        self, chat_history: Sequence[dict[str, Any]], add_generation_prompt: bool = True
    ) -> str:
        turns = tuple(chat_history)
        if add_generation_prompt:
            return self._template.prompt(Chat(turns)).text
        return self._template.prompt(Chat(turns[:-1])).text + str(turns[-1]["content"])

    # -- what the harness asks for ---------------------------------------------------------------

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        found: dict[int, str] = {}

        async def ask(place: int) -> None:
            context, given = requests[place].args
            prompt, sampling = self._asked(context, given)
            answer = await self._asker.answer(prompt, sampling, context)
            self.answers[context] = answer
            thinking = thinking_after(context) is Thinking.YES
            found[place] = spoken(answer.text, thinking=thinking)
            self._count(1)

        self._wait(side_by_side(range(len(requests)), ask, self._at_once))
        return [found[place] for place in range(len(requests))]

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        pairs = [self._cut(before, asked) for _, before, asked in requests]
        return [(each.total, each.greedy) for each in self._likelihoods(pairs)]

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        pairs: list[Measured] = []
        owners: list[int] = []
        for place, request in enumerate(requests):
            windows = _windows.get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for window in map(_windows.make_disjoint_window, windows):
                pairs.append((tuple(window[0]), tuple(window[1])))
                owners.append(place)
        totals = [0.0] * len(requests)
        for place, each in zip(owners, self._likelihoods(pairs), strict=True):
            totals[place] += each.total
        return totals

    # -- how they are asked ----------------------------------------------------------------------

    def _asked(self, context: str, given: Any) -> tuple[Prompt, Sampling]:
        """As the harness's own models: greedy unless a task samples, the prompt's beginning cut off
        where it does not fit."""
        kwargs = _models.normalize_gen_kwargs(given, 256)
        until = kwargs["until"] if isinstance(kwargs["until"], list) else [kwargs["until"]]
        room = int(kwargs["max_gen_toks"])
        draws = bool(kwargs.get("do_sample")) and kwargs.get("temperature", 0) > 0
        sampling = Sampling(
            room,
            temperature=float(kwargs["temperature"]) if draws else 0.0,
            top_p=float(kwargs.get("top_p", 1.0)) if draws else 1.0,
            top_k=int(kwargs.get("top_k", 0)) if draws else 0,
            seed=0,
            stop=tuple(each for each in until if each),
        )
        ids = self._asker.engine.prepare_text(context).ids
        return Prompt(context, ids[-(self.max_length - room) :]), sampling

    def _cut(self, before: list[int], asked: list[int]) -> Measured:
        """The last tokens that fit, one of them before what is asked. The very last is not read."""
        kept = asked[-self.max_length :]
        room = self.max_length + 1 - len(kept)
        return tuple(before[-room:]), tuple(kept)

    def _likelihoods(self, pairs: Sequence[Measured]) -> list[Any]:
        before = self._done
        found = self._wait(self._asker.likelihoods(pairs, lambda done: self._tell(before + done)))
        self._done = before + len(pairs)
        return found

    def _count(self, more: int) -> None:
        self._done += more
        self._tell(self._done)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
