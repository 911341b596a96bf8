"""Linear regression on labels of the previous model: d features ~ N(0, I), T samples, noise of variance σ²."""

from __future__ import annotations

import math


def regression_risk_replace(samples: int, features: int, noise: float, rounds: int) -> float:
    """E‖w_t - w‖² = t σ² d/(T-d-1), T > d + 1. Gerstgrasser et al. 2024; re-derived and checked."""
    return rounds * noise * features / (samples - features - 1)


def regression_risk_accumulate(samples: int, features: int, noise: float, rounds: int) -> float:
    """(Σ_{k≤t} 1/k²) σ² d/(T-d-1), every round labelling the SAME inputs again. Gerstgrasser et al. 2024; checked.

    At most π²/6 times the risk of one fit.
    """
    return sum(1 / k**2 for k in range(1, rounds + 1)) * noise * features / (samples - features - 1)


def regression_risk_accumulate_fresh(samples: int, features: int, noise: float, rounds: int) -> float:
    """Σ_{k≤t} σ² d / (k (kT-d-1)): accumulate with FRESH inputs in every round; below the paper's. Derived, checked."""
    return sum(noise * features / (k * (k * samples - features - 1)) for k in range(1, rounds + 1))


def regression_risk_mixed(
    samples: int, features: int, noise: float, lam: float, rounds: int, *, fresh: bool = False
) -> float:
    """Risk with real labels in every round, weights 1 : λ of real and the model's labels on the same inputs.

    With G = σ²d/(T-d-1) and w = 1/(1+λ): kept labels leave `G Σ_{k<t} (1-w)^{2k}`, which settles at
    `G (1+λ)²/(1+2λ)`; new labels in every round (``fresh``) obey `V' = w²G + (1-w)²(V+G)`. Derived, checked.
    """
    one = noise * features / (samples - features - 1)
    w = 0.0 if math.isinf(lam) else 1 / (1 + lam)
    risk = one
    for _ in range(rounds - 1):
        risk = w**2 * one + (1 - w) ** 2 * (risk + one) if fresh else one + (1 - w) ** 2 * risk
    return risk
