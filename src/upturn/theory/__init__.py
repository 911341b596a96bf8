"""What the theory says of training in rounds, as pure functions; `docs/theory.md` derives and checks each of them.

Symbols: n samples a round, t rounds, λ (``lam``) synthetic : real, K candidates of which one is chosen, r rewards in
nats. Rounds are counted from the model that is the truth (round 0). Every docstring names the assumption and the
source; "checked" means that ``tests/test_theory.py`` holds the formula against a simulation, an enumeration, a
quadrature or a published figure. Nothing here rests on a citation alone.
"""

from __future__ import annotations

from upturn.theory.curation import (
    best_of_n_half_life,
    choice_kernel,
    curated_update,
    growth_bound,
    growth_bound_real,
    kl_bound,
    mixed_update,
    mode_loss_bound,
    tilted,
)
from upturn.theory.discrete import (
    Estimate,
    accumulated_heterozygosity,
    expected_lost_modes,
    heterozygosity,
    mean_heterozygosity,
)
from upturn.theory.foresight import Normal, Shares
from upturn.theory.gaussian import (
    Division,
    accumulated_drift,
    accumulated_limit,
    accumulated_variance,
    alpha,
    log_variance_spread,
    log_variance_step,
    mean_drift,
    mean_log_det,
    mean_log_variance,
    mean_sigma,
    mean_variance,
    temperature_shrink,
)
from upturn.theory.real_data import (
    best_real_weight,
    contraction_rate,
    contraction_rate_sharp,
    fresh_error,
    mean_parameter,
    stationary_error,
    tempered_variance,
)
from upturn.theory.regression import (
    regression_risk_accumulate,
    regression_risk_accumulate_fresh,
    regression_risk_replace,
)
from upturn.theory.settling import (
    FixedPoint,
    curated_half_life,
    fixed_point,
    fixed_point_from_advantage,
    fixed_point_from_rewards,
)
from upturn.theory.statements import Kind, Statement, Verdict, kind_of
from upturn.theory.verdict import verdict

__all__ = [
    "Division",
    "Estimate",
    "FixedPoint",
    "Kind",
    "Normal",
    "Shares",
    "Statement",
    "Verdict",
    "accumulated_drift",
    "accumulated_heterozygosity",
    "accumulated_limit",
    "accumulated_variance",
    "alpha",
    "best_of_n_half_life",
    "best_real_weight",
    "choice_kernel",
    "contraction_rate",
    "contraction_rate_sharp",
    "curated_half_life",
    "curated_update",
    "expected_lost_modes",
    "fixed_point",
    "fixed_point_from_advantage",
    "fixed_point_from_rewards",
    "fresh_error",
    "growth_bound",
    "growth_bound_real",
    "heterozygosity",
    "kind_of",
    "kl_bound",
    "log_variance_spread",
    "log_variance_step",
    "mean_drift",
    "mean_heterozygosity",
    "mean_log_det",
    "mean_log_variance",
    "mean_parameter",
    "mean_sigma",
    "mean_variance",
    "mixed_update",
    "mode_loss_bound",
    "regression_risk_accumulate",
    "regression_risk_accumulate_fresh",
    "regression_risk_replace",
    "stationary_error",
    "temperature_shrink",
    "tempered_variance",
    "tilted",
    "verdict",
]
