"""Log-probabilities of chosen tokens, told beside the text that shows them.

A token's bytes may be a part of a character, and text may be held back for a stop string, so tokens
wait here until the text that they begin is shown. Knows nothing about models or batches.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from avocado.engine.engine import TokenLogprob


@dataclass(frozen=True, slots=True)
class Told:
    """What the sampler says of one chosen token: its log-probability, and the likeliest ``(token,
    log-probability)`` in its place."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Spelling:
    """The exact bytes of a tokenizer's tokens, one after the other looked up once.

    Byte-level BPE (Qwen's) writes each byte as a printable character; other tokenizers' tokens are
    what they decode to by themselves.
    """

    def __init__(self, backend: Any) -> None:
        """``backend`` is the ``tokenizers.Tokenizer`` below a fast tokenizer."""
        self._backend = backend
        self._bytes = _byte_alphabet()
        added = backend.get_added_tokens_decoder()
        self._added = {token: str(each.content) for token, each in added.items()}
        self._known: dict[int, bytes] = {}

    def of(self, token: int) -> bytes:
        found = self._known.get(token)
        if found is None:
            found = self._known[token] = self._spell(token)
        return found

    def _spell(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode()
        piece = self._backend.id_to_token(token)
        if piece is None:  # a row of the embedding that no token uses
            return b""
        try:
            return bytes(self._bytes[character] for character in piece)
        except KeyError:
            text: str = self._backend.decode([token], skip_special_tokens=False)
            return text.encode()


class Telling:
    """The tokens of one answer on their way to the text that shows them."""

    def __init__(self, spelling: Spelling) -> None:
        self._spelling = spelling
        self._waiting: deque[tuple[int, TokenLogprob]] = deque()
        self._shown = 0

    def hear(self, token: int, told: Told, start: int) -> None:
        """``start``: how many characters of the answer were certain before ``token``."""
        top = tuple(self._token(each, value) for each, value in told.top)
        self._waiting.append((start, self._token(token, told.logprob, top)))

    def tell(self, text: str) -> tuple[TokenLogprob, ...]:
        """The tokens that begin in the text so far, ``text`` being its newest piece."""
        self._shown += len(text)
        out = []
        while self._waiting and self._waiting[0][0] < self._shown:
            out.append(self._waiting.popleft()[1])
        return tuple(out)

    def rest(self) -> tuple[TokenLogprob, ...]:
        """The tokens without text of their own, when the answer is over."""
        out = tuple(token for _, token in self._waiting)
        self._waiting.clear()
        return out

    def _token(
        self, token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()
    ) -> TokenLogprob:
        spelt = self._spelling.of(token)
        return TokenLogprob(spelt.decode(errors="replace"), spelt, logprob, top)


def _byte_alphabet() -> dict[str, int]:
    """Byte-level BPE's characters (Radford et al. 2019): printable bytes stand for themselves, the
    others for the characters from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + place): byte for place, byte in enumerate(others)
    }
