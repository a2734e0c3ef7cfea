"""Budget: what a recipe may take, held against its plan before it runs, and what it took after.

Pure. A plan's high end counts: a run that might be over its budget does not begin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avocado.terms.money import Money, ceil_div
from avocado.train.plan import Plan, Total, size
from avocado.train.recipe import Budget
from avocado.train.throughput import spoken


def price_of(budget: Budget | None) -> Money | None:
    """What an hour of a machine costs, where the budget says so."""
    if budget is None or budget.price_per_hour is None:
        return None
    return Money.parse(budget.price_per_hour, budget.currency)


def excess(total: Total, budget: Budget) -> list[str]:
    """Why the plan is refused: by how much its high end is over the budget; none where it fits."""
    reasons = []
    if total.seconds is None and (budget.hours or budget.cost):
        reasons.append(
            "the budget cannot be held, because no time was measured on this machine: plan with "
            "--probe or --tokens-per-second where it is to run"
        )
    if budget.hours is not None and total.seconds is not None:
        allowed = 3600 * budget.hours
        if total.seconds[1] > allowed:
            reasons.append(
                f"this may take {spoken(total.seconds[1])}, which is "
                f"{spoken(total.seconds[1] - allowed)} over the budget of {spoken(allowed)}"
            )
    if budget.cost is not None and total.spent is not None:
        limit = Money.parse(budget.cost, budget.currency)
        high = total.spent[1]
        if high.currency != limit.currency:
            reasons.append(f"this is priced in {high.currency} and its budget in {limit.currency}")
        elif high > limit:
            reasons.append(
                f"this may cost {high}, which is {high - limit} over the budget of {limit}"
            )
    return reasons


@dataclass(frozen=True, slots=True)
class Actual:
    """What a run took. ``seconds`` are of its steps, ``memory`` is the peak of process 0."""

    tokens: int
    flops: int
    seconds: float
    memory: int
    cost: Money | None

    def to_json(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens,
            "flops": self.flops,
            "seconds": round(self.seconds, 3),
            "memory": self.memory,
            "cost": None if self.cost is None else str(self.cost),
        }


def actual(
    planned: Plan,
    tokens: int,
    metrics: Sequence[Mapping[str, float]],
    memory: int,
    price_per_hour: Money | None,
    machines: int = 1,
) -> Actual:
    """From the ``tokens`` that were learnt from and what each step logged.

    What passed forward only is the plan's own, but for the answers that the model wrote itself: of
    those, as many tokens as it really wrote.
    """
    load = planned.load
    forward, teacher = load.forward, load.teacher
    if load.answers:
        passed = float(tokens)
        if "answer_length" in metrics[-1]:
            written = load.answers * sum(line["answer_length"] for line in metrics)
            passed = load.tokens - load.trained + written  # every prompt, and what was written
        forward = round(load.forward * passed / load.tokens)
        teacher = round(load.teacher * passed / load.tokens)
    seconds = sum(line["seconds"] for line in metrics)
    cost = None
    if price_per_hour is not None:
        worth = machines * price_per_hour.nanos * (int(seconds * 1000) + 1)
        cost = Money(ceil_div(worth, 3_600_000), price_per_hour.currency)
    return Actual(tokens, planned.flops_of(tokens, forward, teacher), seconds, memory, cost)


def compared(planned: Mapping[str, Any], taken: Mapping[str, Any]) -> list[str]:
    """``Plan.to_json`` beside ``Actual.to_json``, for a terminal."""
    most = "at most " if planned["load"]["bound"] else ""
    seconds, cost = planned["seconds"], planned["cost"]
    lines = [
        f"tokens: {most}{planned['tokens']:,} planned, {taken['tokens']:,} in fact",
        f"FLOPs: {most}{planned['flops']:.2e} planned, {taken['flops']:.2e} in fact",
        f"time of all steps: {_planned(seconds)}{spoken(taken['seconds'])} in fact",
        f"memory: {size(planned['memory']['total'])} planned for the model and its training, "
        f"{size(taken['memory'])} at the peak in fact (of a GPU; without one, of the whole process "
        "with its libraries)",
    ]
    if cost is not None or taken["cost"] is not None:
        planned_cost = "not" if cost is None else " to ".join(cost)
        lines.append(f"cost: {planned_cost} planned, {taken['cost'] or 'unknown'} in fact")
    return lines


def _planned(seconds: Sequence[float] | None) -> str:
    if seconds is None:
        return ""
    return f"{spoken(seconds[0])} to {spoken(seconds[1])} planned, "
