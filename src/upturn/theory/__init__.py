"""The theory of training in rounds, as pure functions; `docs/theory.md` derives and checks each of them.

Symbols: n samples a round, t rounds, λ (``lam``) synthetic : real, K candidates of which one is chosen, r rewards in
nats. Rounds are counted from the model that is the truth (round 0). Every docstring names the assumption and the
source; "checked" means that ``tests/theory/test_theory.py`` holds the formula against a simulation, an enumeration, a
quadrature or a published figure. Nothing here rests on a citation alone.
"""

from __future__ import annotations

from upturn.theory.biased_sampling import (
    diversity_half_life,
    gaussian_half_life,
    nucleus,
    nucleus_rounds,
    tempered_shares,
)
from upturn.theory.curation import (
    best_of_n_half_life,
    choice_kernel,
    curated_update,
    growth_bound,
    growth_bound_real,
    kl_bound,
    mixed_update,
    mode_loss_bound,
    tilt_error,
    tilted,
)
from upturn.theory.discrete import (
    Estimate,
    accumulated_heterozygosity,
    expected_lost_modes,
    heterozygosity,
    lost_modes_path,
    mean_heterozygosity,
    mixed_heterozygosity,
)
from upturn.theory.diversity import DiscreteLearner, GaussianLearner
from upturn.theory.downstream import added_mean_error, attacked_error, best_synthetic_count, plain_error
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
from upturn.theory.judging import (
    Selected,
    gold,
    judge_needed,
    select_best,
    selected_rounds,
    selection_intensity,
    tilted_normal,
    turning_round,
    verified_limit,
    verified_rounds,
    verified_share,
)
from upturn.theory.moments import Moments, accumulated_moments, adaptive_kernel, mixed_moments
from upturn.theory.rare import missed, missed_accumulated
from upturn.theory.real_data import (
    best_real_weight,
    contraction_rate,
    contraction_rate_sharp,
    fresh_error,
    mean_parameter,
    stationary_error,
    tempered_variance,
)
from upturn.theory.recipe_forecast import verdict
from upturn.theory.regression import (
    regression_risk_accumulate,
    regression_risk_accumulate_fresh,
    regression_risk_mixed,
    regression_risk_replace,
)
from upturn.theory.selection import Selector, selector_of
from upturn.theory.settling import (
    FixedPoint,
    curated_half_life,
    fixed_point,
    fixed_point_from_advantage,
    fixed_point_from_rewards,
)
from upturn.theory.statements import Kind, Statement, Verdict, kind_of

__all__ = [
    "DiscreteLearner",
    "Division",
    "Estimate",
    "FixedPoint",
    "GaussianLearner",
    "Kind",
    "Moments",
    "Selected",
    "Selector",
    "Statement",
    "Verdict",
    "accumulated_drift",
    "accumulated_heterozygosity",
    "accumulated_limit",
    "accumulated_moments",
    "accumulated_variance",
    "adaptive_kernel",
    "added_mean_error",
    "alpha",
    "attacked_error",
    "best_of_n_half_life",
    "best_real_weight",
    "best_synthetic_count",
    "choice_kernel",
    "contraction_rate",
    "contraction_rate_sharp",
    "curated_half_life",
    "curated_update",
    "diversity_half_life",
    "expected_lost_modes",
    "fixed_point",
    "fixed_point_from_advantage",
    "fixed_point_from_rewards",
    "fresh_error",
    "gaussian_half_life",
    "gold",
    "growth_bound",
    "growth_bound_real",
    "heterozygosity",
    "judge_needed",
    "kind_of",
    "kl_bound",
    "log_variance_spread",
    "log_variance_step",
    "lost_modes_path",
    "mean_drift",
    "mean_heterozygosity",
    "mean_log_det",
    "mean_log_variance",
    "mean_parameter",
    "mean_sigma",
    "mean_variance",
    "missed",
    "missed_accumulated",
    "mixed_heterozygosity",
    "mixed_moments",
    "mixed_update",
    "mode_loss_bound",
    "nucleus",
    "nucleus_rounds",
    "plain_error",
    "regression_risk_accumulate",
    "regression_risk_accumulate_fresh",
    "regression_risk_mixed",
    "regression_risk_replace",
    "select_best",
    "selected_rounds",
    "selection_intensity",
    "selector_of",
    "stationary_error",
    "temperature_shrink",
    "tempered_shares",
    "tempered_variance",
    "tilt_error",
    "tilted",
    "tilted_normal",
    "turning_round",
    "verdict",
    "verified_limit",
    "verified_rounds",
    "verified_share",
]
