"""One Gaussian in d dimensions: a model with known properties."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from upturn import seeds
from upturn.embeddings.unwrap import unwrapped
from upturn.errors import UserError
from upturn.protocols import Policy, SamplingSettings
from upturn.types import (
    Array,
    Batch,
    Draw,
    Kind,
    Likelihood,
    Outputs,
    Prompt,
    Rollout,
    Samples,
    content_id,
    synthetic_samples,
)

_WEIGHTS, _SETTINGS = "model.safetensors", "config.json"


class Normal(torch.nn.Module):
    """``mean`` (d,) and ``factor`` (d, d): the Cholesky factor below the diagonal, its logarithm on it, 0 above.

    Every value of the parameters is a Gaussian, so gradient steps need no constraint.
    """

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(dimensions))
        self.factor = torch.nn.Parameter(torch.zeros(dimensions, dimensions))

    def cholesky(self) -> Tensor:
        """(d, d) lower triangular L, covariance L Lᵀ."""
        factor: Tensor = self.factor.tril(-1) + torch.diag(self.factor.diagonal().exp())
        return factor

    def standardised(self, points: Tensor) -> Tensor:
        """(d, N) of (N, d): independent standard normals, where the points are this Gaussian's."""
        white: Tensor = torch.linalg.solve_triangular(self.cholesky(), (points - self.mean).T, upper=False)
        return white

    def forward(self, points: Tensor) -> Tensor:
        """(N,) log-densities of (N, d), nats."""
        white = self.standardised(points)
        constant = 0.5 * len(self.mean) * math.log(2 * math.pi) + self.factor.diagonal().sum()
        density: Tensor = -0.5 * white.square().sum(dim=0) - constant
        return density


@dataclass(frozen=True)
class GaussianSampling(SamplingSettings):
    """``temperature`` multiplies the standard deviations; ``batch`` rows are sampled at once."""

    temperature: float = 1.0
    batch: int = 65_536

    def __post_init__(self) -> None:
        if not self.temperature > 0 or self.batch < 1:
            raise ValueError("temperature must be above 0 (at 0 there is no density), and batch at least 1")


@dataclass(eq=False)
class Gaussian(Policy):
    """A Gaussian in d dimensions (d is the data's), fitted in closed form, or by gradient steps.

    ``division`` by n is maximum likelihood, by n-1 unbiased: under retraining on own samples the two have known,
    different limits (Bertrand et al., ICLR 2024). Log-probs are exact, (N, 1) nats over d dimensions.
    """

    division: Literal["n", "n-1"] = "n"
    id: str = field(default="", init=False)
    module: torch.nn.Module = field(init=False, repr=False)

    kind: ClassVar[Kind] = "points"
    likelihood: ClassVar[Likelihood] = "exact"
    family: ClassVar[str] = "gaussian"  # the name under which theory predicts it, round by round
    Sampling: ClassVar[type] = GaussianSampling

    @property
    def conditional(self) -> bool:
        return False

    @property
    def _normal(self) -> Normal:
        inner = unwrapped(self.module)
        assert isinstance(inner, Normal)
        return inner

    def build(self, examples: Samples, key: int) -> None:
        """Mean and standard deviations of the data, no correlation: nothing is random, so ``key`` is unused."""
        points = _points(examples)
        deviation = points.std(axis=0)
        self._set(points.mean(axis=0), np.diag(np.where(deviation > 0, deviation, 1.0)))
        self.id = content_id("gaussian", self.division, points)

    def fit(self, samples: Samples, weights: Array) -> None:
        """Weighted mean and covariance. Weights are relative: their scale changes nothing, nor does a weight of 0.

        With division n-1 the sum of weights W is reduced by (sum of squares) / W, which is n - 1 for equal ones.
        Raises UserError where the points do not span the space.
        """
        points, weights = _points(samples), np.asarray(weights, dtype=np.float64)
        total = float(weights.sum())
        if (weights < 0).any() or not total > 0:
            raise UserError("the weights of a Gaussian fit cannot be negative nor all 0", where="gaussian")
        mean = weights @ points / total
        centred = points - mean
        scale = total if self.division == "n" else total - float((weights**2).sum()) / total
        used = int((weights > 0).sum())
        dimensions = points.shape[1]
        fix = f"Fit to more different points, at least {dimensions + 1}."
        if used <= dimensions or not scale > 0:
            raise UserError(
                f"{used} points cannot give a covariance in {dimensions} dimensions", where="gaussian", fix=fix
            )
        try:
            factor = np.linalg.cholesky((centred * weights[:, None]).T @ centred / scale)
        except np.linalg.LinAlgError as error:
            raise UserError(
                f"the {used} points lie in less than {dimensions} dimensions", where="gaussian", fix=fix
            ) from error
        self._set(mean, factor)

    def _set(self, mean: Array, factor: Array) -> None:
        if not hasattr(self, "module"):
            self.module = Normal(len(mean))
        stored = np.tril(factor, -1) + np.diag(np.log(np.diagonal(factor)))
        normal = self._normal
        with torch.no_grad():
            normal.mean.copy_(torch.from_numpy(mean))
            normal.factor.copy_(torch.from_numpy(stored))

    def encode(self, samples: Samples) -> Batch:
        """Column "points" (N, d) float32."""
        return Batch({"points": torch.from_numpy(_points(samples).astype(np.float32))})

    def draw(self, batch: Batch, key: int, start: int) -> Draw | None:
        return None

    def forward(self, batch: Batch, draw: Draw | None) -> Outputs:
        """(N, 1) log-densities, nats."""
        found = self.module(batch["points"])[:, None]
        return Outputs(found, torch.ones_like(found), dims=batch["points"].shape[1])

    @torch.no_grad()
    def standardised(self, samples: Samples) -> Array:
        """(N, d) float64: the Rosenblatt (1952) transform: each coordinate given those before it, standardised.

        Independent standard normals where the points are this Gaussian's.
        """
        points = self.encode(samples)["points"].to(self._normal.mean)
        white: Array = self._normal.standardised(points).T.double().cpu().numpy()
        return white

    @torch.no_grad()
    def _drawn(self, keys: Array, settings: GaussianSampling) -> tuple[Tensor, Tensor]:
        """(N, d) points and (N,) their log-densities under the tempered Gaussian."""
        normal = self._normal
        factor = normal.cholesky()
        dimensions, tau = len(normal.mean), settings.temperature
        parts = [
            seeds.normal(keys[start : start + settings.batch], (dimensions,))
            for start in range(0, len(keys), settings.batch)
        ]
        noise = torch.cat(parts).to(factor)
        points = normal.mean + tau * (noise @ factor.T)
        constant = normal.factor.diagonal().sum() + dimensions * (0.5 * math.log(2 * math.pi) + math.log(tau))
        return points, -0.5 * noise.square().sum(dim=1) - constant

    def sample(
        self, prompts: Sequence[Prompt], keys: Array, settings: GaussianSampling, guides: Mapping[str, Any] = {}
    ) -> Samples:
        """P * K points mean + temperature * L noise, the noise of a row from its key alone."""
        if guides:
            raise UserError("gaussian cannot be guided by another model", where="sampling")
        return self.rollout(prompts, keys, settings).samples

    def rollout(self, prompts: Sequence[Prompt], keys: Array, settings: GaussianSampling) -> Rollout:
        """One action a sample, the point itself: actions (N, 1, d), behaviour log-probs (N, 1)."""
        points, log_probs = self._drawn(keys.reshape(-1), settings)
        fields = {"log_prob": log_probs.double().cpu().numpy()}
        samples = synthetic_samples("points", points.cpu().numpy(), prompts, keys, self.id, fields)
        return Rollout(samples, points[:, None], log_probs[:, None], torch.ones(len(points), 1))

    def replay(self, rollout: Rollout) -> Batch:
        """Columns "points" (N, d), and "behaviour" (N, 1), the rollout's log-probs."""
        return Batch({"points": rollout.actions[:, 0], "behaviour": rollout.log_probs})

    def act(self, batch: Batch) -> Outputs:
        """A point is one action: its log-density by ``forward``."""
        return self.forward(batch, None)

    def save(self, folder: Path) -> None:
        """model.safetensors (mean, factor) and config.json."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.detach().cpu().contiguous() for name, value in self._normal.state_dict().items()}
        save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
        settings = {"model": "gaussian", "dimensions": len(self._normal.mean)}
        (folder / _SETTINGS).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Reads the files of ``save``; UserError where it cannot be read."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            weights = load_file(folder / _WEIGHTS)
            module = Normal(len(weights["mean"]))
            module.load_state_dict(weights)
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise UserError(
                f"cannot be read: {str(error).splitlines()[0]}", where=str(folder / _WEIGHTS),
                fix="Use another checkpoint.",
            ) from error
        self.module = module
        self.id = content_id("gaussian", (folder / _WEIGHTS).read_bytes())

    def flops(self, batch: Batch) -> float:
        """A triangular solve, d² a row, and 4 d for the squares and the mean."""
        rows, dimensions = batch["points"].shape
        return float(rows * (dimensions**2 + 4 * dimensions))

    def sampling_flops(self, settings: GaussianSampling) -> float:
        dimensions = len(self._normal.mean)
        return float(2 * dimensions**2 + 2 * dimensions)


def _points(samples: Samples) -> Array:
    """(N, d) float64. Raises UserError on other kinds, no rows and numbers that are not finite."""
    if samples.kind != "points":
        raise UserError(f"gaussian reads points, and these samples are {samples.kind}", where="model")
    points = np.asarray(samples.content, dtype=np.float64)
    if points.ndim != 2 or not len(points):
        raise UserError(f"gaussian needs points (N, d), got an array of shape {points.shape}", where="model")
    broken = int((~np.isfinite(points).all(axis=1)).sum())
    if broken:
        raise UserError(f"{broken} of {len(points)} points are not finite numbers", where="model", fix="Remove them.")
    return points
