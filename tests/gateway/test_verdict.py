"""The verdict: each way in which a generation ends has one consequence for the hold."""

from __future__ import annotations

import pytest

from avocado.engine.engine import EngineBusy, EngineError, Finish
from avocado.gateway.verdict import Charge, Ending, Keep, Release, Stop, judge
from avocado.terms.usage import Usage, UsageError

SOME = Usage(10, 3)
NONE = Usage(10, 0)


def test_a_good_end_is_charged_as_the_engine_counted() -> None:
    verdict = judge(Ending(SOME, finish=Finish("length", Usage(10, 4, 2))))
    assert verdict == Charge(Usage(10, 4, 2), "length")


def test_a_finish_beats_a_disconnect_that_came_too_late() -> None:
    ending = Ending(SOME, finish=Finish("stop", SOME), stop=Stop.DISCONNECT)
    assert judge(ending) == Charge(SOME, "stop")


@pytest.mark.parametrize("stop", [Stop.DISCONNECT, Stop.STALLED])
@pytest.mark.parametrize("delivered", [False, True])
def test_a_client_that_left_pays_for_what_was_generated(stop: Stop, delivered: bool) -> None:
    verdict = judge(Ending(SOME, stop=stop, delivered=delivered))
    assert isinstance(verdict, Charge)
    assert (verdict.usage, verdict.finish) == (SOME, stop.value)
    assert isinstance(judge(Ending(NONE, stop=stop)), Release)


@pytest.mark.parametrize(
    ("stop", "failure", "status"),
    [
        (Stop.HUNG, None, 504),
        (Stop.OVERTIME, None, 504),
        (Stop.SHUTDOWN, None, 503),
        (None, EngineError("x"), 500),
        (None, EngineError("x", retryable=True), 503),
        (None, EngineBusy(), 429),
        (None, RuntimeError("bug"), 500),
        (None, None, 500),
    ],
)
def test_a_failure_is_charged_only_where_it_was_delivered(
    stop: Stop | None, failure: Exception | None, status: int
) -> None:
    delivered = judge(Ending(SOME, failure=failure, stop=stop, delivered=True))
    assert isinstance(delivered, Charge)
    assert delivered.error is not None
    assert (delivered.usage, delivered.error.status) == (SOME, status)
    nothing = judge(Ending(SOME, failure=failure, stop=stop))
    assert isinstance(nothing, Release)
    assert nothing.error.status == status


@pytest.mark.parametrize("delivered", [False, True])
def test_usage_that_is_not_believed_keeps_the_hold(delivered: bool) -> None:
    verdict = judge(Ending(SOME, failure=UsageError("NaN"), delivered=delivered))
    assert isinstance(verdict, Keep)
    assert verdict.error.status == 502


def test_no_answer_says_what_broke_inside() -> None:
    verdict = judge(Ending(NONE, failure=RuntimeError("/secret/path")))
    assert isinstance(verdict, Release)
    assert "secret" not in verdict.error.message
