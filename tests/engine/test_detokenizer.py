"""Text as it streams is the text at once: no half characters, no beginning of a stop string."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avocado.engine.detokenizer import Detokenizer, StopFilter

same_tokenizer = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@same_tokenizer
@given(st.lists(st.integers(0, 399), max_size=40))
def test_pieces_join_to_the_whole_of_any_ids(backend: Any, tokens: list[int]) -> None:
    machine = Detokenizer(backend)
    text = "".join(map(machine.step, tokens)) + machine.flush()
    assert text == backend.decode(tokens, skip_special_tokens=True).rstrip("\ufffd")


@same_tokenizer
@given(st.text(alphabet=st.characters(exclude_characters="\ufffd", codec="utf-8"), max_size=40))
def test_real_text_never_shows_half_a_character(backend: Any, text: str) -> None:
    machine = Detokenizer(backend)
    pieces = [machine.step(token) for token in backend.encode(text).ids]
    assert "".join(pieces) + machine.flush() == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_text_cut_inside_a_character_ends_before_it(backend: Any) -> None:
    tokens = backend.encode("a\N{HEDGEHOG}").ids
    machine = Detokenizer(backend)
    assert len(tokens) > 2  # the hedgehog takes several tokens
    assert "".join(map(machine.step, tokens[:-1])) + machine.flush() == "a"


@given(
    st.lists(st.text("abc", max_size=4), max_size=12),
    st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_what_is_shown_never_has_to_be_taken_back(pieces: list[str], stops: list[str]) -> None:
    whole = "".join(pieces)
    machine = StopFilter(tuple(stops))
    shown = ""
    for place, piece in enumerate(pieces):
        text, stopped = machine.feed(piece)
        shown += text
        assert not any(stop in shown for stop in stops)
        if stopped:
            seen = "".join(pieces[: place + 1])
            assert any(seen.startswith(shown + stop) for stop in stops)
            return
        held = seen_so_far(pieces, place)[len(shown) :]
        assert held == "" or any(stop.startswith(held) for stop in stops)
    assert shown + machine.flush() == whole
    assert not any(stop in whole for stop in stops)


def seen_so_far(pieces: list[str], place: int) -> str:
    return "".join(pieces[: place + 1])
