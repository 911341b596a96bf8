"""How good a reward model is on held-out preferences: does it order pairs right, and do its probabilities come true."""

from __future__ import annotations

from typing import Any

import numpy as np

from upturn.data.groups import RANK, SCORE, from_fields, ordered_pairs
from upturn.embeddings.rewards import rewarded
from upturn.errors import UserError
from upturn.protocols import Trainable
from upturn.seeds import key as keyed
from upturn.statistics.calibration import calibration_error, reliability
from upturn.statistics.intervals import bootstrap_mean
from upturn.types import Array, Groups, Samples

_MOST = 20_000  # pairs: a share's standard error is 0.4 points there, and the bins' interval answers in a second


def assess(model: Trainable, held_out: Samples, name: str = "reward", key: int = 0) -> dict[str, Any]:
    """JSON-ready; None where it cannot be measured, with the reason in "notes".

    accuracy    of all pairs (better, worse) in held-out groups, the share that the reward orders so; half for equal
                rewards; {"value", "low", "high"}, 95%, whole groups drawn
    calibration error of P(better) = sigmoid(gap), the more probable of the two taken as the model's word:
                {"value", "low", "high", "by_chance"}
    bins        of a reliability diagram: {"confidence", "right", "count"} of each
    log_loss    nats a pair of -log sigmoid(gap);  log 2 = 0.693 is what a coin has
    labels      of unpaired labels, the share whose reward has the right sign;  None where there are none
    attributes  name -> {"rmse", "correlation", "count"}
    pairs, ties, groups, notes
    """
    rewards = rewarded(model, name, held_out)
    out: dict[str, Any] = {"accuracy": None, "calibration": None, "bins": [], "log_loss": None, "labels": None}
    out |= {"pairs": 0, "ties": 0, "groups": 0, "attributes": _attributes(model, held_out), "notes": []}
    if RANK not in held_out.fields and SCORE not in held_out.fields:
        return out
    try:
        groups, notes = from_fields(held_out)
    except UserError as undefined:
        out["notes"] = [undefined.what]
        return out
    out["groups"], out["notes"] = len(groups), list(notes)
    out["labels"] = _labels(groups, rewards, keyed("assess labels", key))
    gap, owner, out["ties"] = pair_gaps(groups, rewards)
    unscored = np.isnan(gap)
    if unscored.any():
        out["notes"].append(f"{int(unscored.sum())} of {len(gap)} pairs have a reward that is not finite: left out")
        gap, owner = gap[~unscored], owner[~unscored]
    out["pairs"] = len(gap)
    if not len(gap):
        out["notes"].append("no held-out group orders two candidates")
        return out
    if len(gap) > _MOST:
        out["notes"].append(f"{_MOST} of {len(gap)} pairs are looked at")
        kept = np.linspace(0, len(gap) - 1, _MOST).round().astype(np.int64)
        gap, owner = gap[kept], owner[kept]
    right = np.where(gap == 0, 0.5, gap > 0)
    out["accuracy"] = _mean(right, keyed("assess accuracy", key), owner)
    confidence = 1 / (1 + np.exp(-np.abs(gap)))
    out["calibration"] = calibration_error(confidence, right, keyed("assess calibration", key), owner)
    out["bins"] = reliability(confidence, right)
    out["log_loss"] = float(np.logaddexp(0, -gap).mean())
    return out


def pair_gaps(groups: Groups, rewards: Array) -> tuple[Array, Array, int]:
    """(M,) reward of the better less that of the worse, for every ordered pair; (M,) its group; and how many tie."""
    better, worse, owner, ties = ordered_pairs(groups)
    return rewards[better] - rewards[worse], owner, ties


def _labels(groups: Groups, rewards: Array, key: int) -> dict[str, float | None] | None:
    alone = (groups.rows >= 0).sum(axis=1) == 1
    ranked = alone & (groups.ranks[:, 0] > 0)
    if not ranked.any():
        return None
    own = rewards[groups.rows[ranked, 0]]
    right = np.where(np.isnan(own), np.nan, (own > 0) == (groups.ranks[ranked, 0] == 1))
    return _mean(right, key, None)


def _attributes(model: Trainable, held_out: Samples) -> dict[str, dict[str, float | int | None]]:
    """Of each attribute that the model has and the samples state."""
    names = [name for name in model.attributes if name in held_out.fields]
    if not names or not len(held_out):
        return {}
    from upturn.embeddings.inference import forwarded

    ranked = forwarded(model, "reward", held_out, "logits").astype(np.float64)
    out: dict[str, dict[str, float | int | None]] = {}
    for place, name in enumerate(model.attributes):
        if name not in names:
            continue
        target = np.asarray(held_out.fields[name], dtype=np.float64)
        known = np.isfinite(target)
        own, true = ranked[known, place], target[known]
        varied = len(true) > 1 and own.std() > 0 and true.std() > 0
        out[name] = {
            "rmse": float(np.sqrt(np.mean((own - true) ** 2))) if len(true) else None,
            "correlation": float(np.corrcoef(own, true)[0, 1]) if varied else None, "count": int(known.sum()),
        }
    return out


def _mean(values: Array, key: int, clusters: Array | None) -> dict[str, float | None]:
    low, high = bootstrap_mean(values, key, clusters=clusters)
    ends = {"low": low, "high": high}
    return {"value": float(np.nanmean(values)), **{name: e if np.isfinite(e) else None for name, e in ends.items()}}
