"""Estimates of a run's loop: effective K and λ, selection strength, curvature, and of twins the contraction."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from upturn.errors import UserError
from upturn.runs import status
from upturn.store import parquet_tables
from upturn.store.columns import read_table
from upturn.store.promotion import SKIPPED
from upturn.store.run import Run
from upturn.store.units import round_unit
from upturn.studies.curvature import local_curvature
from upturn.theory import estimates
from upturn.types import REAL, Array, Samples


def estimate(run: Run, twin: Run | None = None) -> dict[str, Any]:
    """JSON-ready: ``rounds`` (by number: effective_candidates, selection_strength), ``effective_lambda``, and with a
    twin ``contraction``; each with value, low, high and note; ``curvature`` as :func:`local_curvature` has it. Raises
    UserError where no round is finished.
    """
    numbers = _finished(run)
    rounds = {str(n): {name: asdict(one) for name, one in _selection(run, n).items()} for n in numbers}
    found: dict[str, Any] = {"run": run.folder.name, "rounds": rounds}
    found["effective_lambda"] = asdict(_lambda(run, numbers))
    found["curvature"] = local_curvature(run, _stated_lambda(run, numbers[0]))
    if twin is not None:
        found["contraction"] = asdict(_contraction(run, twin))
    return found


def _finished(run: Run) -> list[int]:
    numbers = [r.round for r in status.read(run).rounds[1:] if r.gate is not None and r.gate["decision"] != SKIPPED]
    if not numbers:
        raise UserError("no round is finished", where=str(run.folder), fix="Run it on; estimates need finished rounds.")
    return numbers


def _selection(run: Run, number: int) -> dict[str, estimates.Estimated]:
    unit = run.unit(round_unit(number))
    samples = parquet_tables.read_samples(unit / "samples.parquet")
    rewards = _rewards(run, unit.name, samples)
    if rewards is None or not (unit / "selections.parquet").exists() or np.isnan(rewards).any():
        missing = estimates.unidentified("this round has no curation by scores that are all known")
        return {"effective_candidates": missing, "selection_strength": missing}
    kept = parquet_tables.read_selections(unit / "selections.parquet", samples.ids)[-1].kept
    return {
        "effective_candidates": estimates.effective_candidates(rewards, samples.group, kept),
        "selection_strength": estimates.selection_strength(rewards, samples.group, kept),
    }


def _rewards(run: Run, name: str, samples: Samples) -> Array | None:
    """(N,) the weighted sum of the round's scores."""
    path = run.unit(round_unit(int(name))) / "scores.parquet"
    rounds = status.read(run).recipe.rounds
    if rounds is None or not rounds.score or not path.exists():
        return None
    weights = {str(s.get("as", s["name"])): float(s.get("weight", 1.0)) for s in rounds.score}
    found = parquet_tables.read_scores(path, samples.ids)
    return np.asarray(sum(weight * found[scorer].values for scorer, weight in weights.items()))


def _lambda(run: Run, numbers: list[int]) -> estimates.Estimated:
    if _features(parquet_tables.read_samples(run.unit(round_unit(numbers[0])) / "samples.parquet")) is None:
        return estimates.unidentified("texts have no mean; only points and images are measured")
    mixtures = [parquet_tables.read_mixture(run, run.unit(round_unit(n)) / "mixture.parquet").samples for n in numbers]
    real = [mixture.take(mixture.origin == REAL) for mixture in mixtures]
    if not len(real[0]):
        return estimates.unidentified("nothing real is in the mixture: λ is infinite by the recipe")
    kept = [_features(mixture.take(mixture.origin != REAL)) for mixture in mixtures]
    after = [_features(parquet_tables.read_samples(run.unit(round_unit(n)) / "evaluation.parquet")) for n in numbers]
    pairs = [(k, a) for k, a in zip(kept, after, strict=True) if k is not None and a is not None and len(k)]
    data = _features(real[0])
    assert data is not None
    return estimates.effective_lambda(data, [k for k, _ in pairs], [a for _, a in pairs])


def _stated_lambda(run: Run, number: int) -> float:
    """Synthetic : real by the weights that a round was trained on."""
    mixture = parquet_tables.read_mixture(run, run.unit(round_unit(number)) / "mixture.parquet")
    real = mixture.samples.origin == REAL
    weight = float(mixture.weights[real].sum())
    return float(mixture.weights[~real].sum()) / weight if weight else math.inf


def _real_ids(run: Run) -> set[str]:
    return set(read_table(run.unit("data") / parquet_tables.SAMPLES, ["id"]).column("id").to_pylist())


def _contraction(run: Run, twin: Run) -> estimates.Estimated:
    if _real_ids(run) != _real_ids(twin):
        raise UserError(
            "twins learn from the same real data, and these do not: each goes to a fixed point of its own",
            where=str(twin.folder),
            fix="Give both the same 'data:' and its seed; let another 'seed:' or stage part them.",
        )
    last = min(max(_finished(run)), max(_finished(twin)))
    paths: list[list[Array]] = []
    for one in (run, twin):
        drawn = [parquet_tables.read_samples(one.unit(round_unit(n)) / "evaluation.parquet") for n in range(last + 1)]
        features = [found for found in map(_features, drawn) if found is not None]
        if len(features) < len(drawn):
            return estimates.unidentified("texts have no mean; only points and images are measured")
        paths.append(features)
    if {a.shape for a in paths[0]} != {b.shape for b in paths[1]}:
        raise UserError(
            "twins are measured on as many samples of one shape, and these are not", where=str(twin.folder),
            fix="Give both the same 'evaluate:'.",
        )
    return estimates.contraction(*paths)


def _features(samples: Samples) -> Array | None:
    """(N, d) the numbers that a sample consists of; None of texts."""
    if samples.kind == "text":
        return None
    return np.asarray(samples.content, dtype=np.float64).reshape(len(samples), -1)
