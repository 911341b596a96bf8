"""Linear regression on labels made by the model before: d features ~ N(0, I), T samples, noise of variance σ²."""

from __future__ import annotations


def regression_risk_replace(samples: int, features: int, noise: float, rounds: int) -> float:
    """E‖w_t - w‖² = t σ² d/(T-d-1), T > d + 1. Gerstgrasser et al. 2024; re-derived and checked."""
    return rounds * noise * features / (samples - features - 1)


def regression_risk_accumulate(samples: int, features: int, noise: float, rounds: int) -> float:
    """(Σ_{k≤t} 1/k²) σ² d/(T-d-1), every round labelling the SAME inputs anew. Gerstgrasser et al. 2024; checked.

    At most π²/6 times the risk of one fit.
    """
    return sum(1 / k**2 for k in range(1, rounds + 1)) * noise * features / (samples - features - 1)


def regression_risk_accumulate_fresh(samples: int, features: int, noise: float, rounds: int) -> float:
    """Σ_{k≤t} σ² d / (k (kT-d-1)): accumulate with FRESH inputs in every round; below the paper's. Derived, checked."""
    return sum(noise * features / (k * (k * samples - features - 1)) for k in range(1, rounds + 1))
