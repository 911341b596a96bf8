"""A round's certificate: what an ideal learner would have done, by the theory of curation, and whether this one did."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from upturn.config.recipe import Recipe
from upturn.config.schema import Rounds
from upturn.loop.assembly import models_named, reward_bounds
from upturn.loop.run_context import RunContext
from upturn.loop.stages.curate import kept_rows
from upturn.loop.stages.evaluate import evaluation_file, read_measured
from upturn.loop.stages.score import rewards_of
from upturn.protocols import Metric, Policy, SamplingSettings
from upturn.store import parquet_tables
from upturn.store.units import round_unit
from upturn.theory import certificates, kl_bound
from upturn.theory.certificates import Check
from upturn.types import Array, Measurement, Samples

ALPHA = 0.05  # of calling an ideal learner inconsistent once in a run, all its rounds and checks together
_ROWS = 512  # samples in one forward pass
_EVERYTHING = 1e6  # nothing in a recipe is sampled with a top_k beyond it


def certificate(context: RunContext, unit: str, incumbent: str) -> dict[str, Any]:
    """The content of certificate.json: ``why_not`` there are no checks ("" where there are), the ``checks``, ``notes``
    on what could not be measured, and the round's ``word``.
    """
    why = without(context)
    checks: list[Check] = []
    notes: list[str] = []
    if not why:
        checks, notes, why = _checks(context, unit, incumbent)
    word = certificates.worst(checks) if checks else ""
    return {"why_not": why, "checks": [asdict(c) for c in checks], "notes": notes, "word": word}


def without(context: RunContext) -> str:
    """Why rounds of this recipe have no certificate; "" where they have."""
    rounds = context.parts.recipe.rounds
    assert rounds is not None
    curators = list(context.parts.curators.values())
    if rounds.sample is None:
        return "the policy draws while it trains: no candidates of one fixed model are chosen among"
    if len(curators) != 1 or (curators[0].law, curators[0].selects) != ("odds", "reward"):
        names = [str(spec["name"]) for spec in rounds.curate]
        here = f"here the chain is {', then '.join(names)}" if names else "here nothing is curated"
        return f"the theory covers the curator 'choice' alone, and {here}"
    if curators[0].temperature != 1:
        return "the theory covers 'choice' at temperature 1"
    if rounds.sample.candidates < 2:
        return "one candidate is no choice"
    moving = _moving(context.parts.recipe, context)
    if moving:
        return f"the theory is of a fixed reward, and '{moving}' is fitted again in each round"
    odd = _biased(context.parts.sampling) or _biased(context.parts.evaluators[0].settings)
    if odd:
        return f"the theory is of unbiased sampling, and here {odd}"
    return _otherwise_trained(context, rounds)


def _moving(recipe: Recipe, context: RunContext) -> str:
    named = {name for scorer, _ in context.parts.scorers.values() for name in models_named(scorer)}
    return next((n for n in sorted(named) if n == "policy" or recipe.models[n].refit is not None), "")


def _otherwise_trained(context: RunContext, rounds: Rounds) -> str:
    if len(rounds.train) > 1 or not context.parts.objective(rounds.train[0]).maximum_likelihood:
        names = " and ".join(str(turn.objective["name"]) for turn in rounds.train)
        return f"the theory is of one training on likelihood, and here it is {names}"
    if context.parts.mixing is not None and context.parts.mixing.accumulates:
        return "the theory is of rounds that train on the newest samples, and here those of earlier rounds stay"
    return ""


def _biased(settings: SamplingSettings) -> str:
    biases = {"temperature": settings.temperature, "guidance": settings.guidance, "top_p": settings.top_p}
    for name, value in biases.items():
        if value != 1:
            return f"{name} is {value:g}"
    if settings.guide:
        return f"'{settings.guide}' guides"
    top = settings.top_k
    return f"top_k is {top}" if 0 < top < _EVERYTHING else ""


def _checks(context: RunContext, unit: str, incumbent: str) -> tuple[list[Check], list[str], str]:
    rounds = context.parts.recipe.rounds
    assert rounds is not None and rounds.sample is not None
    synthetic = 1 - float(_info(context, unit, "mix")["real_fraction"])
    lam = math.inf if synthetic == 1 else synthetic / (1 - synthetic)
    before = incumbent if math.isinf(lam) else round_unit(0)
    pool_of = unit if math.isinf(lam) else round_unit(1)  # candidates of ``before``
    new, old = _evaluated(context, unit), _evaluated(context, before)
    pool = parquet_tables.read_samples(context.run.unit(pool_of) / "samples.parquet")
    rewards = rewards_of(context, pool_of, pool)
    own = parquet_tables.read_samples(context.run.unit(unit) / "samples.parquet")
    given = rewards_of(context, unit, own)[kept_rows(context, unit)]
    seen = [new[1], old[1], rewards, given]
    unscored = sum(int(np.isnan(values).sum()) for values in seen)
    if unscored:
        return [], [], f"{unscored} of the rewards that it needs are missing (unscored)"
    notes: list[str] = []
    lowest, top = reward_bounds(context.parts.scorers)
    if math.isinf(top):
        top = max(float(np.max(values)) for values in seen)
        notes.append(
            f"r* is the greatest reward seen ({top:.4g}), as a scorer states no upper end: with a higher one less "
            "growth would be required"
        )
    alpha = certificates.error_rate(ALPHA, rounds.count)
    candidates = rounds.sample.candidates
    now, then = np.exp(new[1] - top), np.exp(old[1] - top)  # in units of e^{r*}: the bound is homogeneous
    factor = (candidates - 1) / candidates * (1.0 if math.isinf(lam) else lam / (1 + lam) ** 3)
    checks = [
        certificates.growth(
            certificates.mean(now - then, new[0].group),
            certificates.variance(np.exp(rewards - top), pool.group, context.policy(unit).conditional),
            certificates.mean(np.exp(given - top)), factor, synthetic, alpha, "exp(reward), 1 at its greatest",
        )
    ]
    if not math.isinf(lam):
        checks += _against_start(context, unit, lam, candidates, top - lowest, alpha, new[0], notes)
    return checks, notes, ""


def _against_start(
    context: RunContext, unit: str, lam: float, candidates: int, reward_range: float, alpha: float, sampled: Samples,
    notes: list[str],
) -> list[Check]:
    """Pile-up and loss of classes against round 0, as far as this run can measure them."""
    found: list[Check] = []
    now, before = _class_counts(context, unit), _class_counts(context, round_unit(0))
    policy = context.policy(unit)
    piled = None
    if policy.likelihood == "exact" and context.model_folder(round_unit(0)).exists():
        ratios = _totals(policy, sampled) - _totals(context.policy(round_unit(0)), sampled)
        context.policy(unit)
        kl = certificates.mean(ratios, sampled.group)
        piled = certificates.pile_up(kl, lam, candidates, reward_range, alpha, "exact log-probs")
    elif now is not None and before is not None:
        kl = certificates.divergence_of_shares(now, before)
        piled = certificates.pile_up(kl, lam, candidates, reward_range, alpha, "shares of classes, a part of KL")
    if piled is not None:
        found.append(piled)
    else:
        bounded = math.isfinite(kl_bound(lam, candidates, reward_range))
        notes.append(
            "KL to round 0 cannot be measured: there are no exact log-probs of both models, and no class_shares"
            if bounded else f"KL to round 0 has no bound at λ = {lam:.3g} with K = {candidates}"
        )
    if now is None or before is None:
        notes.append("loss of classes is not measured: the first evaluation has no class_shares")
    else:
        found.append(certificates.class_loss(now, before, lam, alpha, "shares of classes"))
    return found


def _info(context: RunContext, unit: str, step: str) -> dict[str, Any]:
    record = context.run.done(unit, step)
    assert record is not None
    return dict(record.info)


def _evaluated(context: RunContext, unit: str) -> tuple[Samples, Array]:
    """The first evaluation's samples and their rewards: as measured, else scored again."""
    file = evaluation_file(context, context.parts.evaluators[0])
    samples = parquet_tables.read_samples(context.run.unit(unit) / file)
    for name, measured in _metrics(context, unit, lambda metric: metric.averages_reward):
        if "/" not in name and measured.values is not None and len(measured.values) == len(samples):
            return samples, np.asarray(measured.values, dtype=np.float64)
    return samples, context.scores(samples)[1]


def _metrics(context: RunContext, unit: str, wanted: Callable[[Metric], bool]) -> list[tuple[str, Measurement]]:
    """Measurements of a unit by the recipe's metrics that declare what is wanted."""
    names = [n for e in context.parts.evaluators for n, metric in e.metrics.items() if wanted(metric)]
    measured = read_measured(context.run.unit(unit))
    return [(name, measured[name]) for name in names if name in measured]


def _class_counts(context: RunContext, unit: str) -> Array | None:
    for name, measured in _metrics(context, unit, lambda metric: metric.counts_classes):
        if "/" not in name and "shares" in measured.details:
            return np.array([share["value"] * measured.n for share in measured.details["shares"].values()])
    return None


@torch.no_grad()
def _totals(policy: Policy, samples: Samples) -> Array:
    """(N,) exact log-probs, nats."""
    batch = policy.encode(samples)
    policy.module.eval()
    parts = [
        policy.forward(batch.take(torch.arange(start, min(start + _ROWS, len(batch)))), None).totals()
        for start in range(0, len(batch), _ROWS)
    ]
    return np.asarray(torch.cat(parts).double().numpy(force=True))
