"""Events that came together are one delta; how they were cut changes no text and no count."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.engine.engine import Delta, EngineError, UsageRejected
from avocado.engine.hearing import Hearing
from avocado.engine.told import told_by_chat
from avocado.terms.usage import Usage


def event(delta: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": delta} | more]}).encode()


def counts(completion: int, **more: Any) -> bytes:
    usage = {"prompt_tokens": 7, "completion_tokens": completion}
    return json.dumps({"choices": [], "usage": usage | more}).encode()


PIECES = st.lists(
    st.one_of(
        st.fixed_dictionaries({"content": st.text(max_size=4)}),
        st.fixed_dictionaries({"content": st.sampled_from(("<think>", "\n</think>", "</thi"))}),
        st.fixed_dictionaries({"reasoning_content": st.text(max_size=4)}),
    ),
    max_size=12,
)


@given(PIECES, st.lists(st.integers(0, 12), max_size=4))
def test_the_cut_changes_nothing(pieces: list[dict[str, str]], cuts: list[int]) -> None:
    events = [event(piece) for piece in pieces]
    events += [event({}, finish_reason="stop"), b"[DONE]"]
    apart, together = Hearing("", 7, 64), Hearing("", 7, 64)
    one = [delta for each in events for delta in apart.take([each])]
    places = [0, *sorted(cuts), len(events)]
    many = [
        delta
        for start, stop in itertools.pairwise(places)
        for delta in together.take(events[start:stop])
    ]
    assert "".join(d.text for d in one) == "".join(d.text for d in many)
    assert apart.usage == together.usage
    assert apart.reason == together.reason == "stop"
    assert len(many) <= len(places) - 1
    if one:
        assert (one[-1].completion, one[-1].reasoning) == (many[-1].completion, many[-1].reasoning)


def test_events_of_one_read_are_one_delta() -> None:
    hearing = Hearing("", 7, 64)
    events = [event({"content": word}) for word in ("a", " b", " c")]
    assert list(hearing.take([*events, counts(4), b"[DONE]"])) == [Delta("a b c", 4)]
    assert hearing.done
    assert hearing.counted
    assert hearing.usage == Usage(7, 4)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (b'{"error": {"message": "out of memory", "code": 500}}', EngineError),
        (b'{"choices": [', EngineError),
        (counts(65), UsageRejected),
        (counts(3, prompt_tokens=-1), UsageRejected),
    ],
)
def test_what_was_heard_before_a_failure_is_passed_on(bad: bytes, error: type[Exception]) -> None:
    hearing = Hearing("", 7, 64)
    heard: list[Delta] = []
    with pytest.raises(error):
        heard.extend(hearing.take([event({"content": "a"}), event({"content": "b"}), bad]))
    assert heard == [Delta("ab", 2)]
    assert hearing.usage == Usage(7, 2)


def test_log_probabilities_stay_with_their_event() -> None:
    hearing = Hearing("", 7, 64, told=told_by_chat)
    told = {"content": [{"token": "a", "logprob": -0.5}]}
    events = [event({"content": "a"}, logprobs=told)] * 2
    assert [len(delta.logprobs) for delta in hearing.take(events)] == [1, 1]
