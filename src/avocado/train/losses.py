"""Losses: what preference and reinforcement training minimise, as the papers write it. Pure.

All take log-probabilities (natural) that somebody else computed and return one number a pair, an
answer or a token, without reduction. Knows no model, no batch and no trainer.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from avocado.train.methods import Dpo, Kto

MOST: Final = 2.0
"""Where :func:`drift` is cut off: one token must not outweigh all others."""

STEADY: Final = 1e-4
"""Added to a group's standard deviation: no division by zero (TRL's value)."""


def dpo(
    settings: Dpo,
    chosen: Tensor,
    rejected: Tensor,
    chosen_tokens: Tensor,
    rejected_tokens: Tensor,
) -> Tensor:
    """The loss of each pair, ``[pairs]``.

    ``chosen`` and ``rejected`` are log-ratios of whole answers, log π(y|x) − log π_ref(y|x); the
    counts are of the answers' tokens. With h = β·(chosen − rejected) and ε the label smoothing:

    * ``sigmoid``: −(1 − ε) log σ(h) − ε log σ(−h) (Rafailov et al. 2023, eq. 7; with ε > 0 Mitchell
      2023, "conservative DPO")
    * ``hinge``: max(0, 1 − h) (Liu et al. 2023, arXiv:2309.06657)
    * ``ipo``: (δ − 1/(2β))² (Azar et al. 2023, arXiv:2310.12036, eq. 17), δ of means a token: the
      authors' own normalisation, or the loss would grow with length
    * ``robust``: (−(1 − ε) log σ(h) + ε log σ(−h)) / (1 − 2ε) (Chowdhury et al. 2024,
      arXiv:2403.00409)
    * ``exo_pair``: KL((σ(h), σ(−h)) ‖ (1 − ε, ε)) (Ji et al. 2024, arXiv:2402.00856, eq. 16)
    * ``apo_zero``: 1 − σ(β·chosen) + σ(β·rejected); ``apo_down``: σ(β·chosen) + 1 − σ(h)
      (D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7 and 8)
    """
    beta, smoothing = settings.beta, settings.label_smoothing
    h = beta * (chosen - rejected)
    match settings.loss:
        case "sigmoid":
            return -(1 - smoothing) * _log_sigmoid(h) - smoothing * _log_sigmoid(-h)
        case "hinge":
            return torch.relu(1 - h)
        case "ipo":
            apart = chosen / chosen_tokens - rejected / rejected_tokens
            return torch.square(apart - 1 / (2 * beta))
        case "robust":
            clean = -(1 - smoothing) * _log_sigmoid(h) + smoothing * _log_sigmoid(-h)
            return clean / (1 - 2 * smoothing)
        case "exo_pair":
            right = torch.sigmoid(h) * (_log_sigmoid(h) - math.log(1 - smoothing))
            wrong = torch.sigmoid(-h) * (_log_sigmoid(-h) - math.log(smoothing))
            return right + wrong
        case "apo_zero":
            return 1 - torch.sigmoid(beta * chosen) + torch.sigmoid(beta * rejected)
        case "apo_down":
            return torch.sigmoid(beta * chosen) + 1 - torch.sigmoid(h)


def kto(settings: Kto, ratios: Tensor, desirable: Tensor, baseline: Tensor | float) -> Tensor:
    """The loss of each answer, ``[answers]`` (Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7).

    ``ratios``: log π(y|x) − log π_ref(y|x); ``desirable``: bool; ``baseline``: z₀, the estimate of
    KL(π ‖ π_ref) from mismatched answers, not negative, no gradient.
    """
    away = settings.beta * (ratios - baseline)
    good = settings.desirable_weight * (1 - torch.sigmoid(away))
    bad = settings.undesirable_weight * (1 - torch.sigmoid(-away))
    return torch.where(desirable, good, bad)


def advantages(rewards: Tensor, *, scaled: bool) -> Tensor:
    """How much better than its group each answer is; ``rewards``: ``[groups, generations]``.

    ``scaled`` divides by the group's standard deviation (Shao et al. 2024, arXiv:2402.03300,
    section 4.1.2); a group whose rewards are all equal has no signal, and gets zeros.
    """
    above = rewards - rewards.mean(dim=1, keepdim=True)
    flat = rewards.amax(dim=1, keepdim=True) == rewards.amin(dim=1, keepdim=True)
    if scaled:
        above = above / (rewards.std(dim=1, keepdim=True) + STEADY)
    return above.masked_fill(flat, 0.0)


def policy_gradient(logps: Tensor, advantage: Tensor) -> Tensor:
    """−A·π/π_old of each token, ``[answers, tokens]``, for answers that π itself has just written.

    The ratio is 1 and its gradient is ∇ log π, so nothing is ever clipped: clipping is for the
    second update on the same answers, which is not done.
    """
    return -advantage.unsqueeze(1) * torch.exp(logps - logps.detach())


def drift(logps: Tensor, written: Tensor) -> Tensor:
    """π/π_engine of each token, at most :data:`MOST`, no gradient: what puts right that the engine
    computes in another precision than training (truncated importance sampling; Yao et al. 2025,
    "Your efficient RL framework secretly brings you off-policy RL training")."""
    return torch.exp(logps.detach() - written).clamp(max=MOST)


def divergence(logps: Tensor, reference: Tensor) -> Tensor:
    """KL(π ‖ π_ref) of each token, without bias and never negative: e^d − d − 1 with
    d = log π_ref − log π (Schulman 2020, "Approximating KL divergence", k3)."""
    apart = reference - logps
    return torch.exp(apart) - apart - 1


def between(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """How far apart two distributions are at each token, ``[tokens]``, from their log-probabilities
    ``[tokens, vocabulary]`` (Agarwal et al. 2024, arXiv:2306.13649, section 2).

    The generalized Jensen-Shannon divergence with the mixture M = β·teacher + (1 − β)·student:
    β·KL(teacher ‖ M) + (1 − β)·KL(student ‖ M). At its ends, as its limits scaled there: β = 0 is
    KL(teacher ‖ student), which covers all that the teacher would say; β = 1 is
    KL(student ‖ teacher), which keeps to what it surely would.
    """
    if beta == 0:
        return _kl(teacher, student)
    if beta == 1:
        return _kl(student, teacher)
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log(1 - beta))
    return beta * _kl(teacher, mixture) + (1 - beta) * _kl(student, mixture)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) of each row, from log-probabilities."""
    return (p.exp() * (p - q)).sum(dim=-1)


def _log_sigmoid(x: Tensor) -> Tensor:
    found: Tensor = functional.logsigmoid(x)
    return found
