"""Continuous batching: who waits, who joins, who runs; one step at a time, on one thread.

A step takes in waiting requests as far as memory allows (first come, first served; computing at
most one piece of prompt, so that the running ones keep their pace) and then gives every running
one a token. Memory is kept for what a request has and some more, not for its maximum; where it
runs out, the newest stand aside with all that they computed, and come back before anybody else.
Knows nothing about threads, event loops or HTTP.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from avocado.engine.decoder import CHUNK, SHORT, Decoder, Parked, Prefill
from avocado.engine.engine import Delta, EngineError
from avocado.engine.logprobs import Told
from avocado.engine.sampler import decide
from avocado.engine.sequence import Sequence
from avocado.engine.stream import Begun, Signal, Stopped

Say = Callable[[Sequence, Signal], None]


class Scheduler:
    """``say`` is told what happens to each sequence; the last word is Finish, Stopped or an error.

    A failure of the model fails the requests that were in the failing pass, and no others.
    """

    def __init__(self, decoder: Decoder, say: Say) -> None:
        self._decoder = decoder
        self._say = say
        self._waiting: deque[Sequence] = deque()
        self._joining: list[Sequence] = []
        self._prefill: Prefill | None = None
        self._running: list[Sequence] = []
        self._parked: list[tuple[Sequence, Parked]] = []
        """The newest last."""
        self._order: dict[Sequence, int] = {}
        self._came = 0

    @property
    def idle(self) -> bool:
        return not (self._waiting or self._joining or self._running or self._parked)

    @property
    def waiting(self) -> int:
        """How many have not begun. Any thread may ask."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many have begun. Any thread may ask."""
        return len(self._joining) + len(self._running) + len(self._parked)

    @property
    def capacity(self) -> int:
        """How many may run at once."""
        return self._decoder.max_rows

    def add(self, sequence: Sequence) -> None:
        self._came += 1
        self._order[sequence] = self._came
        self._waiting.append(sequence)

    def step(self) -> None:
        """Lets go of the cancelled, takes in what fits, and gives each running one a token."""
        self._release_cancelled()
        try:
            self._take_in()
        except Exception as error:  # whatever a model raises must not end the engine
            self._fail(self._joining, error)
            self._joining, self._prefill = [], None
        try:
            self._make_room()
            self._advance()
        except Exception as error:  # as above
            self._fail(self._running, error)
            self._running = []
            self._decoder.clear()

    def fail_all(self, error: Exception) -> None:
        """Ends everything: the engine closes, or can not go on."""
        parked = [each for each, _ in self._parked]
        self._fail([*self._running, *parked, *self._joining, *self._waiting], error)
        self._waiting.clear()
        self._parked.clear()
        self._joining, self._prefill, self._running = [], None, []
        self._decoder.clear()

    def _release_cancelled(self) -> None:
        for row in range(len(self._running) - 1, -1, -1):
            if self._running[row].cancelled:
                self._end(self._running[row], self._running[row].stopped())
                self._leave(row)
        for each, _ in [pair for pair in self._parked if pair[0].cancelled]:
            self._end(each, each.stopped())
        self._parked = [pair for pair in self._parked if not pair[0].cancelled]
        if self._joining and all(each.cancelled for each in self._joining):
            for each in self._joining:
                self._end(each, Stopped(0))
            self._joining, self._prefill = [], None
        if any(each.cancelled for each in self._waiting):
            for each in self._waiting:
                if each.cancelled:
                    self._end(each, Stopped(0))
            self._waiting = deque(each for each in self._waiting if not each.cancelled)

    def _take_in(self) -> None:
        self._resume()
        if self._prefill is None:
            self._joining = self._next_group()
            if not self._joining:
                return
            self._prefill = self._decoder.prefill(
                [each.ids for each in self._joining], [each.salt for each in self._joining]
            )
            if self._prefill.cached:
                self._joining[0].cached = self._prefill.cached
                self._say(self._joining[0], Begun(self._prefill.cached))
        logits = self._prefill.advance()
        if logits is None:
            return
        chosen = decide(logits, [each.choice for each in self._joining])
        self._decoder.join(self._prefill, [each.claim for each in self._joining])
        first = len(self._running)
        self._running += self._joining
        self._joining, self._prefill = [], None
        self._hand_out(first, *chosen)

    def _next_group(self) -> list[Sequence]:
        """The first of the queue that fit together: in memory, and padded in one piece."""
        group: list[Sequence] = []
        width = 0
        while self._waiting and not self._parked:
            candidate = self._waiting[0]
            width = max(width, len(candidate.ids))
            if group and (width > SHORT or width * (len(group) + 1) > CHUNK):
                break
            if not self._decoder.fits([each.claim for each in (*group, candidate)]):
                break
            group.append(self._waiting.popleft())
        return group

    def _resume(self) -> None:
        """Those who stood aside come back, the oldest first, as far as memory allows."""
        while self._parked and self._prefill is None:
            each, parked = self._parked[0]
            claim = each.claim_next()
            if not self._decoder.fits([claim]):
                return
            del self._parked[0]
            try:
                self._decoder.resume(parked, claim)
            except Exception as error:  # as in ``step``: no room after all
                self._fail([each], error)
            else:
                each.claim = claim
                self._running.append(each)

    def _make_room(self) -> None:
        """Each running one gets memory for its next token; the newest stand aside for that."""
        row = 0
        while row < len(self._running):
            each = self._running[row]
            if each.length <= each.claim:
                row += 1
                continue
            claim = each.claim_next()
            if self._decoder.extend(row, claim, [other.claim for other in self._joining]):
                each.claim = claim
            elif self._joining:  # they are the newest, and have nothing yet that took long
                self._waiting.extendleft(reversed(self._joining))
                self._joining, self._prefill = [], None
            else:
                self._park(max(range(len(self._running)), key=self._age))
                row = 0

    def _age(self, row: int) -> int:
        return self._order[self._running[row]]

    def _park(self, row: int) -> None:
        each = self._running[row]
        self._parked.append((each, self._decoder.park(row)))
        self._parked.sort(key=lambda pair: self._order[pair[0]])
        self._close_up(row)

    def _advance(self) -> None:
        if self._running:
            logits = self._decoder.step([each.last for each in self._running])
            self._hand_out(0, *decide(logits, [each.choice for each in self._running]))

    def _hand_out(self, first: int, tokens: list[int], told: dict[int, Told]) -> None:
        """A token for each running sequence from ``first`` on; those that end leave."""
        for row in range(len(self._running) - 1, first - 1, -1):
            sequence = self._running[row]
            for signal in sequence.take(tokens[row - first], told.get(row - first)):
                if isinstance(signal, Delta):
                    self._say(sequence, signal)
                else:
                    self._end(sequence, signal)
                    self._leave(row)

    def _end(self, sequence: Sequence, word: Signal) -> None:
        """The last word on it."""
        self._order.pop(sequence, None)
        self._say(sequence, word)

    def _leave(self, row: int) -> None:
        self._decoder.drop(row)
        self._close_up(row)

    def _close_up(self, row: int) -> None:
        """As the decoder does: the last one takes the number of one that left."""
        last = self._running.pop()
        if row < len(self._running):
            self._running[row] = last

    def _fail(self, sequences: list[Sequence], error: Exception) -> None:
        known = isinstance(error, EngineError)
        text = str(error) if known else f"the model failed: {type(error).__name__}: {error}"
        for each in sequences:
            self._end(each, EngineError(text))  # one each: raising adds to an error's traceback
