"""The theory's forecast for a recipe, before it runs: statements, each with its assumption."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

import upturn.theory.curation as curation
import upturn.theory.discrete as discrete
import upturn.theory.diversity as diversity
import upturn.theory.gaussian as gaussian
import upturn.theory.real_data as real_data
import upturn.theory.settling as settling
from upturn.theory.case import Case
from upturn.theory.selection import Selector
from upturn.theory.statements import KEPT_HALF, KEPT_WELL, Level, Statement, Verdict, kind_of, level_of
from upturn.types import Array, MixingCase

_MOST_MODE_LOSS = 2.0  # above it a mode may lose more than half of its mass: λ > 1
_AWAY = "settles away from the data"
_SLOWLY = 10  # a half-life this many times the configured rounds is slow
_LOOKED_AHEAD = 3  # times the configured rounds, where a known model is followed beyond them


def verdict(
    policy: MixingCase, *, synthetic: int, real: int, rounds: int, lam: float | None = None,
    selection: Sequence[Selector] = (), candidates: int = 1, temperature: float = 1.0, guidance: float = 1.0,
    modes: int = 10, size: int | None = None, rewards: Array | None = None,
    bounds: tuple[float, float] | None = None,
    start: diversity.GaussianLearner | diversity.DiscreteLearner | None = None,
) -> Verdict:
    """What to expect of ``rounds`` rounds that each add ``synthetic`` samples (after curation) to ``real`` real ones.

    lam         synthetic : real by weight in every round, inf for no real data; None: all samples weigh the same
    selection   the curators in the order in which they apply; all of them count
    candidates  K of each prompt, before curation
    temperature, guidance  of sampling, 1 is unbiased
    modes       equal modes to count losses of (classes)
    size        rows in all that accumulate_subsample trains on; as many as are real where None
    rewards     (m,) rewards of samples of the first model, nats; without them they are taken as even over ``bounds``,
                and without these as N(0, 1); the statement names which
    bounds      the least and greatest reward, where the scorers state them
    start       what the model is at round 0, if it is a Gaussian or shares on a finite support; sharpens ``kept``

    Raises ValueError for a policy that is not known or counts that make no loop.
    """
    case = Case(
        policy, synthetic, real, rounds, lam, tuple(selection), candidates, temperature, guidance, modes, size,
        None if rewards is None else np.asarray(rewards, dtype=np.float64), bounds,
    )
    left = diversity.diversity_left(case, start, rounds)
    statements = [*_chance(case), *_with_real(case), *_curation(case), *_sampling(case)]
    statements.append(_foreseen(case, start, float(left[-1])))
    word, half_life = _word(case)
    if start is not None:
        word, half_life = _sharper(case, start, word, half_life, left)
    return Verdict(word, half_life, tuple(statements), kind_of(float(left[-1])), float(left[-1]))


_LEARNERS = {
    diversity.GaussianLearner:
        "A Gaussian that errs only through its finite sample, followed round by round; the reward's form is known.",
    diversity.DiscreteLearner:
        "Shares on a finite support, relearned perfectly but for the finite sample, followed round by round.",
    type(None): "An ideal learner of unknown kind: chance and temperature as of one Gaussian, curation as on a finite "
    "support; a real model adds its own errors.",
}


def _foreseen(case: Case, start: object, kept: float) -> Statement:
    kind = kind_of(kept)
    lost = f"it {_AWAY}" if case.held and kept < 1 else "it collapses"
    outcome = {"stable": "it is stable", "drifts": "it drifts", "collapses": lost}[kind]
    level: Level = {"stable": "ok", "drifts": "warn", "collapses": "danger"}[kind]  # type: ignore[assignment]
    assumption = _LEARNERS[type(start)]
    if case.by_reward and start is None:
        assumption = f"{assumption[:-1]}; {_rewards_from(case)}."
    return Statement(
        f"After {case.rounds} rounds about {kept:.0%} of round 0's diversity is left: {outcome}.", assumption,
        {"kept": kept}, level,
    )


def _sharper(
    case: Case, start: diversity.GaussianLearner | diversity.DiscreteLearner, word: str, half_life: float, left: Array
) -> tuple[str, float]:
    """The word for a known model, from its forecast; followed beyond the configured rounds where needed.

    A model that real data hold loses diversity, but does not collapse: it remains a mixture with them.
    """
    kind = kind_of(float(left[-1]))
    if case.held and float(left[-1]) < 1:
        return (_AWAY if kind != "stable" and word == "stable" else word), half_life
    if kind != "collapses" and not math.isfinite(half_life):
        return ("drifts slowly" if kind == "drifts" and word == "stable" else word), half_life
    path = left if kind == "collapses" else diversity.diversity_left(case, start, _LOOKED_AHEAD * case.rounds)
    gone = np.flatnonzero((path < KEPT_HALF) | (path > 1 / KEPT_HALF))
    if len(gone):
        what = "collapses" if path[gone[0]] < 1 else "diverges"
        return f"{what} in about {gone[0]} rounds", float(gone[0])
    return "drifts slowly", math.inf


def _chance(case: Case) -> list[Statement]:
    """What finite samples lose where nothing real holds the model, or where the pool is all there is."""
    if case.synthetic_only and not case.accumulates:
        return _replace(case)
    if case.accumulates and (case.synthetic_only or case.lam is None):
        subsample = (case.size or case.real or case.n) if case.subsamples else None
        real = 0 if case.synthetic_only else case.real
        left = discrete.accumulated_heterozygosity(case.n, case.rounds, real, subsample=subsample)
        return [
            Statement(
                f"Chance leaves {left:.1%} of the diversity after {case.rounds} rounds; the loss has a limit.",
                "A discrete distribution learned perfectly; every sample of every round has the same weight.",
                {"heterozygosity_kept": left}, level_of(left),
            )
        ]
    return []


def _replace(case: Case) -> list[Statement]:
    n, t = case.n, case.rounds
    kept = discrete.mean_heterozygosity(n, t)
    lost = discrete.expected_lost_modes(np.full(case.modes, 1 / case.modes), n, t)
    typical = math.exp(gaussian.mean_log_variance(n, t) / 2)
    half = math.log(2) / -math.log1p(-1 / n)
    return [
        Statement(
            f"Nothing real holds the model: diversity (the chance that two samples differ) shrinks by 1 - 1/{n} a "
            f"round, to {kept:.1%} after {t}; it halves every {half:.0f} rounds.",
            "A discrete distribution learned perfectly from its own samples (replace).",
            {"factor": 1 - 1 / n, "heterozygosity_kept": kept, "half_life": half}, level_of(kept),
        ),
        Statement(
            f"A Gaussian's spread shrinks by {gaussian.alpha(n):.6f} a round on average; the typical one is at "
            f"{typical:.1%} after {t}.",
            "A Gaussian fitted to its own samples, division by n - 1 (replace).",
            {"alpha": gaussian.alpha(n), "mean_sigma": gaussian.mean_sigma(n, t), "typical_sigma": typical},
            level_of(typical),
        ),
        Statement(
            f"Of {case.modes} equal modes {lost.value:.2g} are lost by chance within {t} rounds.",
            "Wright–Fisher: a learner that errs only through its finite sample.",
            {"lost_modes": lost.value, "standard_error": lost.standard_error},
            "ok" if lost.value < 0.05 else "warn" if lost.value < 1 else "danger",
        ),
    ]


def _with_real(case: Case) -> list[Statement]:
    if case.synthetic_only:
        return []
    lam = case.last_lam
    share, factor = 1 / (1 + lam), curation.mode_loss_bound(lam)
    out = [
        Statement(
            f"With real data in each round no real mode loses more than the factor {factor:.3g} of its mass "
            f"(KL(p_ref‖p_t) ≤ {math.log(factor):.3g}); at least {share:.0%} of what is trained on is real.",
            "A perfect fit, unbiased or not, under any curation; the real data are used in every round.",
            {"mode_loss": factor, "kl_reference_to_model": math.log(factor), "real_share": share},
            "ok" if factor <= _MOST_MODE_LOSS else "warn",
        )
    ]
    if case.fresh:
        k = case.real / case.n
        best = real_data.best_real_weight(k)
        ratio = real_data.fresh_error(share, k) / real_data.fresh_error(best, k)
        out.append(
            Statement(
                f"Fresh real data: the best weight of the real part is {best:.3f} (λ = {1 / best - 1:.3g}); with "
                f"{share:.3f} the squared error is {ratio:.2f} times the least.",
                "The mean of a distribution estimated with fresh real data in every round.",
                {"best_real_weight": best, "real_weight": share, "error_ratio": ratio}, "ok" if ratio < 1.5 else "warn",
            )
        )
    elif not case.accumulates and lam > 0:
        rate = real_data.contraction_rate(lam)
        out.append(
            Statement(
                f"A deviation from the data shrinks to {rate:.3f} of itself a round (uncurated, unbiased sampling).",
                "An exponential family, or any likelihood that fits the data well and starts near its optimum.",
                {"contraction": rate, "stationary_error": real_data.stationary_error(case.n, lam)},
            )
        )
    return out


def _curation(case: Case) -> list[Statement]:
    if not case.by_reward:
        return []
    if case.synthetic_only:
        half = case.curated_half_life
        pace = "" if math.isinf(half) else f": the effective number of samples first halves in about {half:.2g} rounds"
        return [
            Statement(
                f"Curated and nothing real: the model collapses onto what is rewarded most{pace}.",
                f"A fixed reward, {_rewards_from(case)}, a perfect fit; the model keeps only the newest round."
                if not case.accumulates else f"A fixed reward, {_rewards_from(case)}; accumulating only slows it.",
                {"curated_half_life": half}, "danger",
            )
        ]
    lam, most = case.last_lam, case.amplification
    bound = math.inf if math.isinf(most) else curation.kl_bound(lam, most, case.reward_range)
    assumption = "A fixed reward, a perfect fit, unguided sampling, p_0 = p_ref; an upper bound, often loose by 9×."
    if math.isinf(bound):
        limit = "" if math.isinf(most) else f" (λ = {lam:.3g} ≥ 1/(K-1) = {1 / (most - 1):.3g})"
        text = f"Curated{limit}: pile-up on what is rewarded has no bound; the real modes keep theirs."
        out = [Statement(text, assumption, {"kl_model_to_reference": math.inf}, "warn")]
    else:
        text = f"Curated with enough real data: KL(p_t‖p_ref) ≤ {bound:.3g} in every round."
        out = [Statement(text, assumption, {"kl_model_to_reference": bound}, "ok")]
    if case.only_choice is not None and case.rewards is not None:
        out.append(_settled(case, case.only_choice.temperature))
    return out


def _settled(case: Case, temperature: float) -> Statement:
    """Where measured rewards settle, exactly, on their own support."""
    assert case.rewards is not None
    uniform = np.full(len(case.rewards), 1 / len(case.rewards))
    there = settling.fixed_point(uniform, case.rewards / temperature, case.candidates, case.last_lam)
    kl = float(np.sum(there * np.log(there / uniform)))
    gain = float(np.sum((there - uniform) * case.rewards))
    return Statement(
        f"With the rewards measured, the mean reward settles {gain:+.3g} from the start, KL(p*‖p_0) = {kl:.3g}.",
        "The support is the measured samples; a fixed reward, K and λ, a perfect fit.",
        {"reward_gain": gain, "kl": kl, "effective_share": math.exp(-kl)}, level_of(math.exp(-kl)),
    )


def _sampling(case: Case) -> list[Statement]:
    out = []
    if case.temperature != 1:
        if case.synthetic_only:
            left = gaussian.temperature_shrink(case.temperature, case.rounds)
            what = f"by itself is multiplied by {left:.3g} in {case.rounds} rounds"
        else:
            left = case.tempered
            what = f"settles at {left:.3g} of the data's" if math.isfinite(left) else "grows without limit"
        text = f"Temperature {case.temperature:g}: a Gaussian's variance {what}."
        level: Level = "danger" if left > 2 else level_of(left)
        out.append(Statement(text, "A Gaussian sampled at temperature τ, large samples.", {"variance": left}, level))
    if case.guidance != 1:
        out.append(
            Statement(
                f"Guidance {case.guidance:g} narrows the samples of every round; no formula here gives by how much, "
                "and the bounds above take unguided sampling.",
                "None: measure diversity round by round.", {"guidance": case.guidance},
                "danger" if case.synthetic_only else "warn",
            )
        )
    return out


def _word(case: Case) -> tuple[str, float]:
    growing = case.accumulates
    if case.synthetic_only and growing:
        drifts = case.by_reward or case.temperature != 1 or case.guidance != 1
        return ("drifts slowly" if drifts else "stable"), math.inf
    if case.synthetic_only:
        rate = -math.log1p(-1 / case.n) - 2 * math.log(case.temperature)
        half = min(math.log(2) / abs(rate) if rate else math.inf, case.curated_half_life)
        if case.rounds * _SLOWLY < half:
            return "drifts slowly", half
        return f"{'diverges' if rate < 0 else 'collapses'} in about {max(round(half), 1)} rounds", half
    if growing and case.lam is None and case.by_reward:
        return "drifts slowly", math.inf
    bound = curation.kl_bound(case.last_lam, case.amplification, case.reward_range) if case.by_reward else 0.0
    settled = case.tempered
    away = math.isinf(bound) or not KEPT_WELL <= settled <= 1 / KEPT_WELL or case.guidance != 1
    return (_AWAY if away else "stable"), math.inf


def _rewards_from(case: Case) -> str:
    if all(step.selector.law != "odds" for step in case.selecting):
        return "all rewards different"
    if case.rewards is not None:
        return "rewards as measured"
    if case.bounds is not None:
        return f"rewards taken as even between {case.bounds[0]:g} and {case.bounds[1]:g}"
    return "rewards taken as N(0, 1) as none were measured"

