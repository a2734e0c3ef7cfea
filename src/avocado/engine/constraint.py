"""What one request asks to be changed in its logits before a token is chosen: penalties, biases, a
grammar. Only rows that ask for it have one; all others go the plain way.

Belongs to the engine's thread. Knows nothing about batches or text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from avocado.engine.sampling import Sampling

if TYPE_CHECKING:
    import torch


class Matcher(Protocol):
    """Where one text stands in its grammar."""

    def mask(self, row: torch.Tensor) -> None:
        """Rules out, in ``row`` ``[vocabulary]``, the tokens that may not come next."""

    def take(self, token: int) -> None: ...

    @property
    def error(self) -> str:
        """Why it can not go on, if so. It rules nothing out from then on."""


class Constraint:
    """Changes one row's logits in place. The grammar is about the answer and not about the thought
    before it. ``waits``: a thought is under way, and ``start`` says when it is over. ``opens``: the
    token that begins one, where the model may think if it likes; it is allowed as the first.
    ``calls``: the token that begins a call, which would end a thought before the grammar is there;
    it is not allowed in one."""

    def __init__(
        self,
        sampling: Sampling,
        matcher: Matcher | None = None,
        *,
        waits: bool = False,
        opens: int | None = None,
        calls: int | None = None,
    ) -> None:
        self._presence, self._frequency = sampling.presence_penalty, sampling.frequency_penalty
        self._bias = sampling.logit_bias
        self._matcher = matcher
        self._started = not waits
        self._opens, self._calls = opens, calls
        self._seen: set[int] = set()
        self._addend: torch.Tensor | None = None
        """``[vocabulary]``, what bias and penalties add; made with the first row."""

    @classmethod
    def of(
        cls,
        sampling: Sampling,
        matcher: Matcher | None = None,
        *,
        waits: bool = False,
        opens: int | None = None,
        calls: int | None = None,
    ) -> Constraint | None:
        """None if ``sampling`` leaves the logits as they are."""
        if matcher or sampling.logit_bias or penalised(sampling):
            return cls(sampling, matcher, waits=waits, opens=opens, calls=calls)
        return None

    @property
    def error(self) -> str:
        """Why the grammar can not be kept, or nothing."""
        return self._matcher.error if self._matcher is not None else ""

    def start(self) -> None:
        """The thought is over."""
        self._started = True

    def apply(self, row: torch.Tensor) -> None:
        """``row``: float32 ``[vocabulary]``."""
        if self._addend is None and (self._bias or self._presence or self._frequency):
            self._addend = _biases(self._bias, row)
        if self._addend is not None:
            row += self._addend
        if self._matcher is None:
            return
        if not self._started:
            if self._calls is not None:
                row[self._calls] = float("-inf")
        else:
            opens = self._opens
            kept = None if opens is None else row[opens].item()
            self._matcher.mask(row)
            if opens is not None and kept is not None:
                row[opens] = kept

    def take(self, token: int) -> None:
        """``token`` was chosen."""
        opens, self._opens = self._opens, None
        if token == opens:
            self._started = False
        elif self._matcher is not None and self._started:
            self._matcher.take(token)
        if self._addend is not None and (self._presence or self._frequency):
            self._addend[token] -= self._frequency
            if token not in self._seen:
                self._seen.add(token)
                self._addend[token] -= self._presence


def penalised(sampling: Sampling) -> bool:
    return bool(sampling.presence_penalty or sampling.frequency_penalty)


def _biases(pairs: tuple[tuple[int, float], ...], like: torch.Tensor) -> Any:
    import torch

    addend = torch.zeros_like(like)
    if pairs:
        places = torch.tensor([token for token, _ in pairs], device=like.device)
        values = torch.tensor([bias for _, bias in pairs], dtype=like.dtype, device=like.device)
        addend[places] = values
    return addend
