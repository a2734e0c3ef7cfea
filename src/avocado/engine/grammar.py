"""Grammars: which tokens may come next, so that a text is what it must be.

llguidance does the work (JSON Schema, regular expressions; byte by byte, so that a character may
span tokens). It counts its steps and gives up on what is too large, fetches no reference, and says
what is wrong with a schema. A grammar is compiled once, on threads of its own, and copied for each
request. Knows nothing about requests or batches.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from avocado.engine.sampling import Calls, Grammar, Json, JsonSchema, Regex
from avocado.engine.tool_call import CALL, CALLED, call_schema

if TYPE_CHECKING:
    import torch

LONGEST: Final = 64 * 1024
"""Characters of a schema or a pattern."""
KEPT: Final = 128
"""Compiled grammars that are kept for the next request that asks for one."""
PATIENCE: Final = 5.0
"""Seconds that a batch waits for a grammar."""
LIMITS: Final[dict[str, Any]] = {
    "initial_lexer_fuel": 1_000_000,  # 20 ms of compiling
    "step_lexer_fuel": 100_000,  # 7 ms of one step
    "step_max_items": 20_000,  # 1 ms of one step
    "max_lexer_states": 50_000,  # 100 MB
    "max_grammar_size": 200_000,
    "verbose_errors": False,
}
SPACE: Final = r"[\x20\x0A\x0D\x09]{1,40}"
"""White space between JSON's parts: enough to indent, and an end to what a poor model fills."""

OPTIONS: Final[Any] = {"whitespace_pattern": SPACE, "lenient": False}


class GrammarError(ValueError):
    """A schema or a pattern that is wrong, not supported or too large; the sentence says which."""


def check(grammar: Grammar) -> None:
    """Whether ``grammar`` can be kept at all, whatever the tokenizer.

    Raises:
        GrammarError: it cannot.
    """
    from llguidance import LLMatcher

    wrong, messages = LLMatcher.validate_grammar_with_warnings(_source(grammar), limits=_limits())
    if wrong:
        raise GrammarError(_sentence(grammar, messages[0] if messages else "it is not valid"))


class Grammars:
    """The compiled grammars of one model. Thread-safe."""

    def __init__(self, tokenizer: Any, stop_ids: Collection[int], vocabulary: int) -> None:
        """``tokenizer``: a fast tokenizer of transformers; ``vocabulary``: the logits' width."""
        self._made_from = (tokenizer, sorted(stop_ids), vocabulary)
        self._known: OrderedDict[Grammar, Future[Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="avocado-grammar")
        self._tokenizer: Any = None

    def compiled(self, grammar: Grammar) -> Future[Any]:
        """What :meth:`matcher` wants, when it is ready; its exception is a GrammarError."""
        with self._lock:
            future = self._known.get(grammar)
            if future is None:
                future = self._known[grammar] = self._threads.submit(self._compile, grammar)
                while len(self._known) > KEPT:
                    self._known.popitem(last=False)
            self._known.move_to_end(grammar)
        return future

    def matcher(self, compiled: Any) -> TokenMatcher:
        """A text's own place at the beginning of a compiled grammar."""
        return TokenMatcher(compiled.deep_copy(), self._made_from[2])

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _compile(self, grammar: Grammar) -> Any:
        from llguidance import LLMatcher

        vocabulary = self._vocabulary()
        source = _source(grammar, self._made_from[0].get_added_vocab())
        matcher = LLMatcher(vocabulary, source, limits=_limits())
        if not matcher.is_error():
            matcher.compute_bitmask()  # the first costs most, and may find it too large
        if matcher.is_error():
            raise GrammarError(_sentence(grammar, matcher.get_error()))
        return matcher

    def _vocabulary(self) -> Any:
        from llguidance.hf import from_tokenizer

        tokenizer, stop_ids, vocabulary = self._made_from
        with self._lock:  # a second for a large vocabulary: once
            if self._tokenizer is None:
                self._tokenizer = from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=stop_ids)
        return self._tokenizer


class TokenMatcher:
    """One text in its grammar. ``error`` says why it cannot go on, if so."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self.error = ""

    def mask(self, row: torch.Tensor) -> None:
        """Rules out, in ``row`` ``[vocabulary]``, what may not come next."""
        import numpy
        import torch

        bits = self._matcher.compute_bitmask()
        if self._failed():
            return
        allowed = numpy.unpackbits(
            numpy.frombuffer(bits, dtype=numpy.uint8), bitorder="little", count=self._vocabulary
        )
        if not allowed.any():
            self.error = "no token of this model continues it"
            return
        banned = torch.from_numpy(allowed == 0).to(row.device)
        row.masked_fill_(banned, float("-inf"))

    def take(self, token: int) -> None:
        if not self.error:
            self._matcher.consume_token(token)
            self._failed()

    def _failed(self) -> bool:
        if self._matcher.is_error():
            self.error = " ".join(self._matcher.get_error().split())[:300]
        return bool(self.error)


class LateMatcher:
    """Stands for a matcher whose grammar is still being compiled (nobody asked ``check``). Its row
    waits for it, and with it the batch: never longer than a compilation may take."""

    def __init__(self, compiled: Future[Any], make: Callable[[Any], TokenMatcher]) -> None:
        self._compiled, self._make = compiled, make
        self._matcher: TokenMatcher | None = None
        self.error = ""

    def mask(self, row: torch.Tensor) -> None:
        if self._matcher is None and not self.error:
            try:
                self._matcher = self._make(self._compiled.result(timeout=PATIENCE))
            except (GrammarError, TimeoutError, CancelledError) as error:
                self.error = str(error) or "it takes too long to compile"
        if self._matcher is not None:
            self._matcher.mask(row)
            self.error = self._matcher.error

    def take(self, token: int) -> None:
        if self._matcher is not None:
            self._matcher.take(token)
            self.error = self._matcher.error


def _source(grammar: Grammar, marks: Collection[str] = ()) -> str:
    """``marks``: tokens of their own, which llguidance knows by their names alone."""
    from llguidance import LLMatcher

    match grammar:
        case Json():
            return _from_schema('{"type": "object"}')
        case JsonSchema(schema):
            if len(schema) > LONGEST:
                raise GrammarError(f"the JSON schema is longer than {LONGEST} characters")
            return _from_schema(schema)
        case Regex(pattern):
            if len(pattern) > LONGEST:
                raise GrammarError(f"the regular expression is longer than {LONGEST} characters")
            return LLMatcher.grammar_from_regex(pattern)
        case Calls():
            if sum(len(schema) for _, schema in grammar.schemas) > LONGEST:
                raise GrammarError(f"the tools' schemas are longer than {LONGEST} characters")
            return _from_calls(grammar, marks)


def _from_calls(calls: Calls, marks: Collection[str]) -> str:
    """A grammar in llguidance's Lark. Free text lasts until the mark of a call, which may be one
    token, or be spelt; a spelt one ends the text at once (``lazy``)."""
    schema = {"x-guidance": OPTIONS, **call_schema(calls.schemas)}
    opening, closing = f'"{CALL}"', f'"{CALLED}"'
    if CALL in marks:
        opening = f"{CALL} | {opening}"
    if CALLED in marks:
        closing = f"{CALLED} | {closing}"
    if calls.must:
        start = (
            "start: opening body (SPACE opening body)*" if calls.several else "start: opening body"
        )
    else:
        start = "start: (head body)* TEXT" if calls.several else "start: head body | TEXT"
    return "\n".join(
        (
            "%llguidance {}",
            start,
            f"head: {f'TEXT {CALL} | ' if CALL in marks else ''}spelt",
            f"spelt[lazy]: /(.|\\n)*{CALL}/",
            f"opening: {opening}",
            "body: SPACE? call SPACE? closing",
            f"closing: {closing}",
            f"call: %json {json.dumps(schema)}",
            "TEXT: /(.|\\n)*/",
            "SPACE: /[ \\n]{1,2}/",
            "",
        )
    )


def _from_schema(schema: str) -> str:
    from llguidance import LLMatcher

    try:
        read = json.loads(schema)
    except (ValueError, RecursionError) as error:
        raise GrammarError(f"the JSON schema is no JSON: {error}") from None
    if read is True:
        read = {}
    if not isinstance(read, dict):
        raise GrammarError("the JSON schema must be an object")
    # A schema may carry settings for llguidance; ours come last and win.
    read.pop("x-guidance", None)
    return LLMatcher.grammar_from_json_schema(read, overrides=OPTIONS)


def _limits() -> Any:
    from llguidance import LLParserLimits

    return LLParserLimits(**LIMITS)


_PLACE = re.compile(r"^at \d+\(\d+\): (?:failed to compile JSON schema: )?")


def _sentence(grammar: Grammar, said: str) -> str:
    what = {Regex: "regular expression", Calls: "tools' schemas"}.get(type(grammar), "JSON schema")
    if isinstance(grammar, Calls):
        # Behind the first line llguidance shows the grammar, which is ours and not the client's.
        said = _PLACE.sub("", said.strip().partition("\n")[0])
    told = re.sub(r"\s+", " ", said).strip()[:300]
    return f"the {what} cannot be used: {told}"
