"""Multiple choice by log-likelihood: which of the given answers the model finds likeliest.

The measure of MMLU's and ARC's authors as lm-evaluation-harness computes it: ``acc`` by the sum of
the choice's log-probabilities (Brown et al. 2020, arXiv:2005.14165, section 2.4), ``acc_norm``
divided by the choice's length in bytes, which does not depend on a tokenizer
(https://blog.eleuther.ai/multiple-choice-normalization/). Nothing is generated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from avocado.data.chat import Prompt
from avocado.engine.engine import Measured, Unsupported
from avocado.evaluate.asking import Answer, Asker
from avocado.evaluate.graders import Choice, Mark
from avocado.evaluate.run import Result, prompt_of
from avocado.evaluate.suite import Suite, SuiteError


async def choose(
    asker: Asker, suite: Suite, grade: Choice, progress: Callable[[int, int], None] | None
) -> tuple[Result, ...]:
    """Every item's choice, in the suite's order; ``completion`` is 0, since nothing is generated.

    Raises:
        SuiteError: an item that does not fit, or an engine that does not tell likelihoods.
    """
    pairs: list[Measured] = []
    prompts: list[Prompt] = []
    for item in suite.items:
        ids = [_ids(asker, choice) for choice in item.choices]
        prompts.append(prompt_of(asker.engine, suite, item, max(map(len, ids))))
        pairs += [(prompts[-1].ids, each) for each in ids]
    ends: list[int] = []
    for item in suite.items:
        ends.append((ends[-1] if ends else 0) + len(item.choices))

    def tell(done: int) -> None:
        if progress is not None:
            progress(sum(end <= done for end in ends), len(ends))

    told = await asker.likelihoods(pairs, tell)
    results = []
    for item, prompt, end in zip(suite.items, prompts, ends, strict=True):
        totals = [each.total for each in told[end - len(item.choices) : end]]
        chosen = item.choices[likeliest(totals, item.choices, grade)]
        answer = Answer(chosen, chosen, "stop", len(prompt.ids), 0)
        results.append(Result.of(item, answer, Mark.right(chosen == item.answer)))
    return tuple(results)


def likeliest(totals: Sequence[float], choices: Sequence[str], grade: Choice) -> int:
    """The place of the likeliest choice, the first of equals. ``totals`` are log-likelihoods."""
    scores = list(totals)
    if grade.normalize == "bytes":
        scores = [total / len(text.encode()) for total, text in zip(totals, choices, strict=True)]
    return scores.index(max(scores))


def _ids(asker: Asker, choice: str) -> tuple[int, ...]:
    try:
        return asker.engine.prepare_text(choice).ids
    except Unsupported as error:
        raise SuiteError(f"choices cannot be compared: {error}") from error
