"""THE rendering: messages become token ids at serving, and token ids with a loss mask in training.

There is one renderer, so a training label can only come from the very prompt that serving will
render. For each trained turn the prompt is what serving would send for the turns before it, and
the loss covers what the model itself emits, the stop token included. A conversation for which the
template breaks that promise is refused. Knows nothing about models, losses or files of examples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

IGNORED: Final = -100
"""The label of a token that carries no loss (PyTorch's ``ignore_index``)."""

Message = Mapping[str, Any]


class RenderError(ValueError):
    """A conversation that this template cannot render, or cannot render as serving would."""


@dataclass(frozen=True, slots=True)
class Chat:
    """What serving renders: the turns so far, the tools on offer, and whether to think first."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    thinking: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt. ``len(ids)`` is the exact count that is billed."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence: ``labels[i]`` is ``ids[i]`` where the model learns to emit it, else -100."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def trained(self) -> int:
        """The number of tokens that carry loss."""
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True)
class ChatTemplate:
    """A tokenizer with its chat template and stop tokens, loaded from a folder or a hub id."""

    tokenizer: Any = field(repr=False)
    stop_ids: frozenset[int]
    """Every token that ends a turn at serving."""

    @classmethod
    def load(cls, model: str | Path) -> ChatTemplate:
        """Loads the tokenizer of ``model`` without running any code that comes with it.

        Raises:
            RenderError: there is no chat template or no stop token.
        """
        from transformers import AutoTokenizer, GenerationConfig

        tokenizer = AutoTokenizer.from_pretrained(str(model), trust_remote_code=False)
        if not tokenizer.chat_template:
            raise RenderError(f"{model} has no chat template: a base for chat needs one")
        stops = {tokenizer.eos_token_id}
        try:
            configured = GenerationConfig.from_pretrained(str(model)).eos_token_id
            stops |= set(configured if isinstance(configured, list) else [configured])
        except OSError:
            pass  # no generation_config.json: the tokenizer's own stop token stands alone
        stops.discard(None)
        if not stops:
            raise RenderError(f"{model} names no end-of-turn token (eos_token)")
        return cls(tokenizer, frozenset(stops))

    @property
    def sha256(self) -> str:
        """The hash of the template's text: part of a release, verified before it is served."""
        return hashlib.sha256(str(self.tokenizer.chat_template).encode()).hexdigest()

    @property
    def pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id)

    def _render(self, messages: Sequence[Message], chat: Chat, *, prompt: bool) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                [_for_template(message) for message in messages],
                tools=[dict(tool) for tool in chat.tools] or None,
                add_generation_prompt=prompt,
                enable_thinking=chat.thinking,
                tokenize=False,
            )
        except Exception as error:  # jinja raises what the template's author chose
            raise RenderError(f"the chat template refused these messages: {error}") from error
        return str(text)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of ``text`` with nothing added."""
        encoded = self.tokenizer(text, add_special_tokens=False, verbose=False)
        return tuple(encoded["input_ids"])

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ``ids``; special tokens are left out, bytes that are no UTF-8 become U+FFFD."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def prompt(self, chat: Chat) -> Prompt:
        """Exactly what the engine will be given for ``chat``.

        Raises:
            RenderError: the template refuses the messages, or a text holds a control token.
        """
        self._check_texts(chat)
        text = self._render(chat.messages, chat, prompt=True)
        return Prompt(text, self.encode(text))

    def rows(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[Row]:
        """The training sequences of a conversation, every assistant turn trained once.

        A turn with ``"weight": 0`` is context only. Turns share a sequence where the later
        serving prompt continues the earlier one token by token; where a template rewrites
        history (Qwen3 drops old reasoning), each turn gets a sequence of its own.

        Raises:
            RenderError: no assistant turn to train, a turn whose training text would differ from
                its serving prompt or that does not end with a stop token, a text that holds a
                control token, or a part (reasoning, tools) that this template leaves out.
        """
        rows: list[Row] = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant" or message.get("weight", 1) == 0:
                continue
            prompt, emitted = self._turn(messages, index, tuple(tools))
            context = prompt.ids
            if rows and context[: len(rows[-1].ids)] == rows[-1].ids:
                last = rows.pop()
                masked = last.labels + (IGNORED,) * (len(context) - len(last.ids))
            else:
                masked = (IGNORED,) * len(context)
            rows.append(Row(context + emitted, masked + emitted))
        if not rows:
            raise RenderError("no assistant turn to learn from")
        return rows

    @cached_property
    def _control_tokens(self) -> tuple[str, ...]:
        return tuple(self.tokenizer.all_special_tokens)

    def _check_texts(self, chat: Chat) -> None:
        """A text with a control token in it would open or close turns of its own: whoever wrote a
        document that a customer pastes would speak as the system."""
        for place, message in enumerate(chat.messages, 1):
            self._check_text(f"message {place}", message)
        for place, tool in enumerate(chat.tools, 1):
            self._check_text(f"tool {place}", tool)

    def _check_text(self, where: str, value: Any) -> None:
        for text in _strings(value):
            for token in self._control_tokens:
                if token in text:
                    raise RenderError(f"{where}: its text contains the control token {token}")

    def _turn(
        self, messages: Sequence[Message], index: int, tools: tuple[Mapping[str, Any], ...]
    ) -> tuple[Prompt, tuple[int, ...]]:
        """The serving prompt of turn ``index`` and the ids that the model must emit after it."""
        chat = Chat(tuple(messages[:index]), tools, _thinks(messages[index]))
        prompt = self.prompt(chat)
        self._check_text(f"message {index + 1}", messages[index])
        whole = self._render(messages[: index + 1], chat, prompt=False)
        if not whole.startswith(prompt.text):
            raise RenderError(
                f"turn {index + 1}: the template does not begin the answer with the prompt that "
                "serving sends, so training on it would teach another format"
            )
        answer = whole[len(prompt.text) :]
        _check_complete(index, messages[index], tools, prompt.text, answer)
        emitted = self.encode(answer)
        ends = [place for place, token in enumerate(emitted) if token in self.stop_ids]
        if not ends:
            raise RenderError(f"turn {index + 1}: the template does not end it with a stop token")
        if ends[0] == 0:
            raise RenderError(f"turn {index + 1}: the assistant says nothing")
        if emitted[ends[0] + 1 :] and self.decode(emitted[ends[0] + 1 :]).strip():
            raise RenderError(f"turn {index + 1}: its text contains a stop token")
        return prompt, emitted[: ends[0] + 1]


def _strings(value: Any) -> Iterator[str]:
    """Every string inside a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _strings(key)
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def _thinks(message: Message) -> bool:
    """Whether the model thinks before this answer: in its own field, or inline as ``<think>``."""
    return bool(message.get("reasoning_content")) or "</think>" in (message.get("content") or "")


def _check_complete(
    index: int,
    message: Message,
    tools: Sequence[Mapping[str, Any]],
    prompt: str,
    answer: str,
) -> None:
    """A template that leaves a part of the example out would teach less than the data says."""
    wanted = {
        "reasoning_content": [message.get("reasoning_content") or ""],
        "tool_calls": [call["function"]["name"] for call in message.get("tool_calls") or ()],
    }
    for part, texts in wanted.items():
        if any(text.strip() not in answer for text in texts):
            raise RenderError(f"turn {index + 1}: the chat template leaves out its {part}")
    if any(tool["function"]["name"] not in prompt for tool in tools):
        raise RenderError(
            "the chat template leaves out the tools: this model was not made for them"
        )


def _for_template(message: Message) -> dict[str, Any]:
    """OpenAI carries tool arguments as a JSON string; templates expect the object."""
    calls = message.get("tool_calls")
    if not calls:
        return dict(message)
    parsed = []
    for call in calls:
        function = dict(call["function"])
        if isinstance(function.get("arguments"), str):
            try:
                function["arguments"] = json.loads(function["arguments"])
            except ValueError as error:
                raise RenderError(f"a tool call's arguments are not JSON: {error}") from error
        parsed.append({**call, "function": function})
    return {**message, "tool_calls": parsed}
