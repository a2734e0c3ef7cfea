"""What is said to an OpenAI-compatible server: a request's body, by the server's dialect.

Two ways to ask: token ids to ``/v1/completions`` where the server takes them and we have the
tokenizer, so that it runs the very prompt that we counted; else messages to
``/v1/chat/completions``. Bodies are made here from checked values alone, so nothing that a customer
sends is passed through: no ``prompt_embeds``, no template, no processor. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from avocado.data.chat import Chat, Prompt
from avocado.engine.engine import Calls, Grammar, Json, JsonSchema, Regex, Sampling, Unsupported
from avocado.engine.reply import THINK, THOUGHT, Thinking, thinking_after
from avocado.engine.tool_call import CALL, CALLED, call_schema


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server understands beyond OpenAI's own API."""

    name: str
    token_ids: bool = False
    """``/v1/completions`` takes a prompt of ids, and ``stop_token_ids``."""
    continuous_usage: bool = False
    """``stream_options.continuous_usage_stats``: counts with every event."""
    top_k: bool = False
    """``top_k``, and with it ``min_p`` and ``repetition_penalty``, which are set to do nothing."""
    regex: bool = False
    """``structured_outputs.regex``."""
    structural_tags: bool = False
    """``structural_tag`` as ``response_format``: text with parts that are held to a schema."""
    cache_salt: bool = False
    tokens_as_ids: bool = False
    """``return_tokens_as_token_ids``: log-probabilities name tokens by their ids."""


OPENAI: Final = Dialect("openai")
VLLM: Final = Dialect(
    "vllm",
    token_ids=True,
    continuous_usage=True,
    top_k=True,
    regex=True,
    structural_tags=True,
    cache_salt=True,
    tokens_as_ids=True,
)
Tag = dict[str, Any]
"""A format of XGrammar's structural tags."""
DIALECTS: Final = {each.name: each for each in (OPENAI, VLLM)}


@dataclass(frozen=True, slots=True)
class Question(Prompt):
    """A prompt and the conversation that it was rendered from."""

    chat: Chat


def check(sampling: Sampling, dialect: Dialect, *, ids: bool) -> None:
    """Whether ``sampling`` can be said in ``dialect``.

    Raises:
        Unsupported: it cannot.
    """
    said = f"the server behind this model ({dialect.name}) does not support"
    if sampling.top_k and not dialect.top_k:
        raise Unsupported("top_k", f"{said} top_k")
    if sampling.stop_ids and not dialect.token_ids:
        raise Unsupported("stop_ids", f"{said} stop tokens")
    if isinstance(sampling.grammar, Regex) and not dialect.regex:
        raise Unsupported("response_format", f"{said} a regular expression as response_format")
    calls = sampling.grammar
    if isinstance(calls, Calls) and not (calls.must or dialect.structural_tags):
        raise Unsupported("grammar", f"{said} strict tools, unless one must be called")
    if sampling.logprobs and ids and not dialect.tokens_as_ids:
        raise Unsupported("logprobs", f"{said} log-probabilities")


def path(ids: bool) -> str:
    return "/v1/completions" if ids else "/v1/chat/completions"


def body(
    prompt: Prompt,
    sampling: Sampling,
    model: str,
    dialect: Dialect,
    *,
    ids: bool,
    stop_ids: tuple[int, ...] = (),
) -> bytes:
    """The request, always for a stream. ``ids`` chooses the way to ask; ``stop_ids`` are the
    model's own, which the server need not know.

    Raises:
        Unsupported: messages are needed and ``prompt`` has none.
    """
    fields: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if dialect.continuous_usage:
        fields["stream_options"]["continuous_usage_stats"] = True
    _ask(fields, prompt, sampling, dialect, ids, stop_ids)
    if sampling.seed is not None:
        fields["seed"] = sampling.seed
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    for name in ("presence_penalty", "frequency_penalty"):
        if value := getattr(sampling, name):
            fields[name] = value
    if sampling.logit_bias:
        fields["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    if dialect.top_k:
        fields |= {"top_k": sampling.top_k or -1, "min_p": 0.0, "repetition_penalty": 1.0}
    if dialect.cache_salt and sampling.cache_salt:
        fields["cache_salt"] = sampling.cache_salt
    if sampling.grammar is not None:
        fields |= _grammar(sampling.grammar, dialect, _thought(prompt, sampling) if ids else None)
    return msgspec.json.encode(fields)


def _ask(
    fields: dict[str, Any],
    prompt: Prompt,
    sampling: Sampling,
    dialect: Dialect,
    ids: bool,
    stop_ids: tuple[int, ...],
) -> None:
    if ids:
        fields["prompt"] = prompt.ids
        fields["max_tokens"] = sampling.max_tokens
        if stops := sorted({*stop_ids, *sampling.stop_ids}):
            fields["stop_token_ids"] = stops
        if sampling.logprobs:
            fields["logprobs"] = sampling.top_logprobs
            fields["return_tokens_as_token_ids"] = dialect.tokens_as_ids
        return
    if not isinstance(prompt, Question):
        raise Unsupported("prompt", "the server behind this model takes conversations only")
    fields["messages"] = prompt.chat.messages
    fields["max_tokens"] = sampling.max_tokens
    if prompt.chat.tools:
        fields["tools"] = prompt.chat.tools
    if sampling.logprobs:
        fields["logprobs"] = True
        fields["top_logprobs"] = sampling.top_logprobs
    if dialect.token_ids:
        fields["chat_template_kwargs"] = {"enable_thinking": prompt.chat.thinking}
        if sampling.stop_ids:
            fields["stop_token_ids"] = list(sampling.stop_ids)


def _grammar(grammar: Grammar, dialect: Dialect, thought: Tag | None) -> dict[str, Any]:
    if dialect.structural_tags and (thought is not None or isinstance(grammar, Calls)):
        parts = [_tag(grammar)] if thought is None else [thought, _tag(grammar)]
        whole = parts[0] if len(parts) == 1 else {"type": "sequence", "elements": parts}
        return {"response_format": {"type": "structural_tag", "format": whole}}
    match grammar:
        case Json():
            return {"response_format": {"type": "json_object"}}
        case JsonSchema(schema):
            return _named(msgspec.Raw(schema.encode()))
        case Calls():  # without its marks: one call at most
            return _named(call_schema(grammar.schemas))
        case Regex(pattern):
            return {"structured_outputs": {"regex": pattern}}


def _named(schema: Any) -> dict[str, Any]:
    named = {"name": "answer", "strict": True, "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _tag(grammar: Grammar) -> Tag:
    """``grammar`` in XGrammar's structural tags."""
    match grammar:
        case Json():
            return {"type": "json_schema", "json_schema": {"type": "object"}}
        case JsonSchema(schema):
            return {"type": "json_schema", "json_schema": msgspec.Raw(schema.encode())}
        case Regex(pattern):
            return {"type": "regex", "pattern": pattern}
        case Calls():
            tags = [_call_tag(name, schema) for name, schema in grammar.schemas]
            how = (
                {"type": "tags_with_separator", "separator": "\n", "at_least_one": True}
                if grammar.must
                else {"type": "triggered_tags", "triggers": [CALL]}
            )
            return {**how, "tags": tags, "stop_after_first": not grammar.several}


def _call_tag(name: str, schema: str) -> Tag:
    """One call of the tool ``name``, as Qwen's templates show it."""
    quoted = msgspec.json.encode(name).decode()
    return {
        "type": "tag",
        "begin": f'{CALL}\n{{"name": {quoted}, "arguments": ',
        "content": {"type": "json_schema", "json_schema": msgspec.Raw(schema.encode())},
        "end": f"}}\n{CALLED}",
    }


def _thought(prompt: Prompt, sampling: Sampling) -> Tag | None:
    """What comes before an answer that a grammar holds: a server holds the text from its first
    token on, unless it is told of a thought. A call would end one before the grammar is there."""
    free: Tag = {"type": "any_text"}
    if isinstance(sampling.grammar, Calls):
        free["excludes"] = [CALL]
    tag = {"type": "tag", "begin": THINK, "content": free, "end": THOUGHT}
    opening = thinking_after(prompt.text)
    if opening is Thinking.YES:
        return {**tag, "begin": ""}
    if opening is Thinking.PERHAPS and isinstance(prompt, Question) and prompt.chat.thinking:
        return {"type": "or", "elements": [tag, {"type": "const_string", "value": ""}]}
    return None
