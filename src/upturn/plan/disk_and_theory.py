"""The disk space that a recipe needs, and the theory's forecast for it."""

from __future__ import annotations

import numpy as np
import torch

from upturn.loop.assembly import Assembly, models_named, reward_bounds
from upturn.loop.tools import where
from upturn.plan import expected_counts
from upturn.plan.planner import Planner
from upturn.protocols import FromFiles, Trainable
from upturn.theory import DiscreteLearner, Division, GaussianLearner, Verdict, verdict
from upturn.types import Array, Prompt, Samples, Splits, real_samples

_ROW_BYTES = 200  # of ids, prompt and key in a table, about


def disk_bytes(planner: Planner) -> float:
    """What is trained in every stage, round and listed epoch, the base once, and the tables of samples.

    Before compression. A model that no stage changes takes no more space: unchanged files are hard links.
    """
    recipe = planner.recipe
    rounds = recipe.rounds
    own = 0 if planner.policy is None else _weight_bytes(planner.policy.module)
    given = isinstance(planner.policy, FromFiles) and planner.policy.config is None
    turns = [turn for _ in range(rounds.count) for turn in rounds.train] if rounds else []
    weights = float(own) if given else 0.0
    for spec in (*recipe.all_stages, *turns):
        trains = (spec.steps or spec.epochs or 0) > 0
        if planner.policy is None:
            break
        copies = (1 if trains or not given else 0) + len(spec.checkpoint_epochs)
        weights += copies * planner.trained_bytes(spec, own)
    helpers = sum(
        _weight_bytes(planner.tools.model(name).module) * (rounds.count if model.refit is not None and rounds else 1)
        for name, model in recipe.models.items() if name != "policy"
    )
    samples = sum(row.samples for row in planner.rows if row.step in ("load", "sample", "evaluate"))
    return weights + helpers + samples * (_ROW_BYTES + _content_bytes(planner.splits.train))


def _weight_bytes(module: torch.nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def _content_bytes(samples: Samples) -> float:
    if samples.kind == "text":
        return float(np.mean([len(str(text)) for text in samples.content[:500]]))
    return float(samples.content[0].nbytes) if len(samples) else 0.0


def theory(planner: Planner) -> Verdict | None:
    """The verdict on rounds that train on a mixture; None where there are none."""
    return forecast(planner.parts, planner.splits, planner.policy)


def forecast(parts: Assembly, splits: Splits, policy: Trainable) -> Verdict | None:
    """The verdict on a recipe's rounds, from the recipe and its real data; ``policy`` need not be trained.

    A model that states its ``family`` ("gaussian"; "categorical": points, whole numbers) is followed round by
    round, with the recipe's own scorers where they need no other model.
    """
    rounds = parts.recipe.rounds
    mixing = parts.mixing
    if rounds is None or rounds.count == 0 or rounds.sample is None or mixing is None or mixing.theory is None:
        return None
    settings = parts.sampling
    real = where(splits.train, rounds.mix.where, "rounds.mix")
    bounded = bool(parts.scorers) and bool(np.isfinite(reward_bounds(parts.scorers)).all())
    count = mixing.real_count(len(real), rounds.mix.real, rounds.count)
    return verdict(
        mixing.theory, synthetic=expected_counts.kept(rounds), real=count, rounds=rounds.count,
        lam=rounds.mix.lambda_, selection=expected_counts.selection(rounds), candidates=rounds.sample.candidates,
        temperature=settings.temperature or 1.0,
        guidance=settings.guidance or 1.0, modes=max(2, len(splits.classes) or 10),
        size=rounds.mix.size, bounds=reward_bounds(parts.scorers) if bounded else None,
        start=_start(parts, real, policy),
    )


def _start(parts: Assembly, real: Samples, policy: Trainable) -> GaussianLearner | DiscreteLearner | None:
    """The model at round 0 where its family is known, and its rewards can be."""
    family = policy.family
    scored = any(curator.law != "independent" for curator in parts.curators.values())
    if not family or (scored and any(models_named(scorer) for scorer, _ in parts.scorers.values())):
        return None
    points = np.asarray(real.content, dtype=np.float64)
    if family == "gaussian":
        covariance = np.cov(points.T, bias=True).reshape(points.shape[1], points.shape[1])
        division: Division = policy.division
        reward = (lambda at: _rewards(parts, at)) if scored else None
        return GaussianLearner(points.mean(axis=0), covariance, reward, division)
    places, counts = np.unique(np.rint(points), axis=0, return_counts=True)
    return DiscreteLearner(counts / counts.sum(), _rewards(parts, places) if scored else None)


def _rewards(parts: Assembly, points: Array) -> Array:
    """(m,) of the round's scorers, of points (m, d) on a grid or in the support."""
    at_points = real_samples("points", points, [Prompt("")] * len(points), "foresight")
    total = np.zeros(len(points))
    for scorer, weight in parts.scorers.values():
        total += weight * scorer.score(at_points, None).values  # type: ignore[arg-type]
    return total
