"""Heads on embeddings: read from a file, or fitted on scores or preferences of images in the data."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from upturn.data.groups import RANK, from_fields, pairs
from upturn.errors import UserError
from upturn.types import Array, Samples

_LEAST = 8  # scored images or pairs; with fewer no head is fitted
_PENALTIES = 10.0 ** np.arange(-3, 5)  # of the ridge, tried by leave-one-out


@dataclass(frozen=True)
class Head:
    """Linear layers in sequence: (N, D) -> (N,)."""

    layers: tuple[tuple[Array, Array], ...]  # weight (out, in) and bias (out,) of each
    note: str = ""

    def __call__(self, vectors: Array) -> Array:
        out = vectors.astype(np.float64)
        for weight, bias in self.layers:
            if out.shape[1] != weight.shape[1]:
                raise UserError(
                    f"the head reads {weight.shape[1]} numbers, and the encoder gives {out.shape[1]}",
                    where="scorer 'aesthetic'", fix="Name the encoder that the head was trained on.",
                )
            out = out @ weight.T + bias
        found: Array = out[:, 0]
        return found


def from_file(path: Path) -> Head:
    """Of a *.safetensors: "weight" and "bias", or "layers.0.weight", … in order; LAION's heads are linear throughout.

    Raises UserError for other files and shapes.
    """
    where = f"scorer 'aesthetic', head: {path}"
    if path.suffix != ".safetensors":
        raise UserError("is no *.safetensors", where=where,
                        fix="Pickled weights are not read: save the state dict again with safetensors.")
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot be read: {error}", where=where) from error
    names = sorted((name for name in state if name.endswith("weight")), key=_place)
    found = [(state[name].astype(np.float64), state.get(f"{name.removesuffix('weight')}bias")) for name in names]
    layers = tuple((np.atleast_2d(w), np.zeros(len(np.atleast_2d(w))) if b is None else b) for w, b in found)
    fits = all(a[0].shape[0] == b[0].shape[1] for a, b in itertools.pairwise(layers))
    if not layers or not fits or layers[-1][0].shape[0] != 1:
        shapes = ", ".join(f"{name} {state[name].shape}" for name in names) or "no weights"
        raise UserError(f"is no head of linear layers that ends in one number: {shapes}", where=where,
                        fix="Give the layers in order: layers.0.weight, layers.0.bias, …")
    return Head(layers)


def _place(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def from_scores(vectors: Array, scores: Array, column: str) -> Head:
    """Ridge regression, its penalty by leave-one-out; NaN scores are left out."""
    from sklearn.linear_model import RidgeCV

    known = np.isfinite(scores)
    if known.sum() < _LEAST or np.ptp(scores[known]) == 0:
        raise UserError(
            f"{int(known.sum())} real images have a score in '{column}'" if known.sum() < _LEAST
            else f"all scores in '{column}' are equal", where="scorer 'aesthetic', column",
            fix=f"Bring at least {_LEAST} different ones.",
        )
    fitted = RidgeCV(alphas=_PENALTIES).fit(vectors[known].astype(np.float64), scores[known])
    return Head(((fitted.coef_[None, :], np.array([fitted.intercept_])),), f"fitted on {int(known.sum())} scores")


def from_preferences(vectors: Array, samples: Samples) -> Head:
    """Bradley–Terry: logistic regression of the differences between better and worse, without intercept."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    groups, _ = from_fields(samples)
    two = pairs(groups)
    decided = (two.ranks > 0).any(axis=1) & (two.ranks[:, 0] != two.ranks[:, 1])
    rows, ranks = two.rows[decided], np.where(two.ranks[decided] == 0, np.iinfo(np.int64).max, two.ranks[decided])
    if len(rows) < _LEAST:
        raise UserError(f"{len(rows)} pairs of real images have an order", where="scorer 'aesthetic', column",
                        fix=f"Bring at least {_LEAST}.")
    sign = np.where(ranks[:, 0] < ranks[:, 1], 1.0, -1.0)
    gaps = sign[:, None] * (vectors[rows[:, 0]] - vectors[rows[:, 1]]).astype(np.float64)
    both = np.concatenate([gaps, -gaps])  # each pair in both orders, so that order has no effect
    right = np.repeat([1, 0], len(gaps))
    fold = np.tile(np.arange(len(gaps)) % 4, 2)
    splits = [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(4)]
    tried = [LogisticRegression(C=1 / penalty, fit_intercept=False, max_iter=1000) for penalty in _PENALTIES]
    worth = [cross_val_score(one, both, right, cv=splits, scoring="neg_log_loss").mean() for one in tried]
    fitted = tried[int(np.argmax(worth))].fit(both, right)
    return Head(((fitted.coef_, np.zeros(1)),), f"fitted on {len(gaps)} pairs")


def column_of(samples: Samples, column: str) -> Array:
    """(N,) float64 of a field of the samples, NaN where it is empty; UserError where it is absent or not a number."""
    if column not in samples.fields:
        raise UserError(f"the data has no field '{column}'", where="scorer 'aesthetic', column",
                        fix=f"It has: {', '.join(sorted(samples.fields)) or 'none'}; '{RANK}' for preferences.")
    found = samples.fields[column]
    try:
        return np.array([float(value) if str(value).strip() else np.nan for value in found], dtype=np.float64)
    except ValueError as error:
        raise UserError(f"'{column}' holds no number: {error}", where="scorer 'aesthetic', column") from error
