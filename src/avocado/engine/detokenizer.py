"""Token ids become text piece by piece: whole characters only, and nothing of a stop string.

Knows nothing about models. Two small machines: :class:`Detokenizer` (ids → text) and
:class:`StopFilter` (text → text that may be shown).
"""

from __future__ import annotations

from typing import Any


class Detokenizer:
    """Turns ids into text as they come.

    The pieces joined are what the tokenizer decodes at once, special tokens left out, except that
    bytes at the very end that make no character are never given out: a text that is cut off in the
    middle of a character ends before it.
    """

    def __init__(self, backend: Any) -> None:
        """``backend`` is the ``tokenizers.Tokenizer`` below a fast tokenizer."""
        from tokenizers.decoders import DecodeStream

        self._backend = backend
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._given = 0

    def step(self, token: int) -> str:
        """The text that is certain now. A token that ends inside a character waits for the next."""
        self._ids.append(token)
        text = self._stream.step(self._backend, token) or ""
        self._given += len(text)
        return text

    def flush(self) -> str:
        """The end came: whole characters of a token that waited."""
        text: str = self._backend.decode(self._ids, skip_special_tokens=True)
        return text[self._given :].rstrip("\ufffd")


class StopFilter:
    """Passes text on, up to the first stop string, and holds back what may begin one."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""

    def feed(self, text: str) -> tuple[str, str | None]:
        """What may be shown now, and the stop string that ended the text, if one did."""
        if not self._stops:
            return text, None
        pending = self._held + text
        found = [(place, stop) for stop in self._stops if (place := pending.find(stop)) >= 0]
        if found:
            self._held = ""
            place, stop = min(found)
            return pending[:place], stop
        keep = max(_overlap(pending, stop) for stop in self._stops)
        self._held = pending[len(pending) - keep :]
        return pending[: len(pending) - keep], None

    def flush(self) -> str:
        """The end came: what was held back did not begin a stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop`` without completing it."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[len(text) - length :]):
            return length
    return 0
