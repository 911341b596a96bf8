"""How curved the likelihood is where a run's rounds began, and the contraction that follows, of a small model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.linalg import LinAlgError, eigh
from torch import Tensor
from torch.func import functional_call

from upturn.loop.run_context import RunContext
from upturn.protocols import Policy
from upturn.statistics import hessian
from upturn.store import parquet_tables
from upturn.store.run import Run
from upturn.store.units import round_unit
from upturn.theory import estimates
from upturn.types import Array, Batch, Draw, Samples

if TYPE_CHECKING:
    from upturn.protocols import SamplingSettings

_SAMPLES = 500  # real ones, and as many of the model's own
_BLOCKS = 20  # of samples, for the standard errors
_UNIT = round_unit(0)  # trained on real data alone: the run's own θ*


def local_curvature(run: Run, lam: float) -> dict[str, Any]:
    """JSON-ready: ``parameters``, ``unused`` of them, ``samples``, ``likelihood``, ``note`` (why no slope, else
    ""), and with value, low, high and note ``least`` and ``greatest`` eigenvalue and the ``slope``.

    least, greatest  of the Hessian of the mean -log p of a real training sample, nats, at round 0's weights. At an
                     optimum the least is α of :func:`upturn.theory.contraction_rate`.
    slope            by how much the retraining map without curation brings models together a round at ``lam``:
                     λb/(1+λb), b the greatest eigenvalue of A⁻¹B, A that Hessian and B the one on the model's own
                     samples (docs/theory.md, "Real data in every round"). Of exact likelihoods only.
    """
    context = RunContext.open(run)
    policy = context.policy(_UNIT)
    parameters = sum(p.numel() for p in policy.module.parameters())
    found: dict[str, Any] = {"parameters": parameters, "likelihood": policy.likelihood}
    if parameters > hessian.MOST:
        return found | {"note": f"the model has {parameters:,} parameters; exact up to {hessian.MOST:,}"}
    real = _spread(context.tools.train)
    if len(real) < _BLOCKS:
        return found | {"note": f"{len(real)} real samples; {_BLOCKS} are needed"}
    key = context.key("local curvature")
    ours = _Curve(policy, real, key)
    used = ours.used
    values, vectors = np.linalg.eigh(ours.whole[np.ix_(used, used)])
    ends = {name: asdict(ours.end(float(values[i]), _full(vectors[:, i], used), float(values[-1])))
            for name, i in (("least", 0), ("greatest", -1))}
    sampled = _spread(parquet_tables.read_samples(run.unit(_UNIT) / "evaluation.parquet"))
    why = _undefined(policy.likelihood, context.parts.evaluators[0].settings, lam, len(sampled), ends["least"]["low"])
    slope = estimates.unidentified(why) if why else _slope(ours, _Curve(policy, sampled, key + 1), lam)
    return found | ends | {
        "unused": parameters - int(used.sum()), "samples": len(real), "slope": asdict(slope), "note": "",
    }


def _undefined(likelihood: str, settings: SamplingSettings, lam: float, sampled: int, least: float) -> str:
    """Why no slope can be estimated; "" where it can."""
    if likelihood != "exact":
        return f"the log-probs are {likelihood}, and the theory is of exact ones"
    if settings.temperature != 1 or settings.guidance != 1:
        return "the model's own samples are drawn at another temperature than 1, or guided"
    if math.isinf(lam):
        return "nothing real is in the mixture: λ is infinite"
    if sampled < _BLOCKS:
        return f"{sampled} samples of round 0; {_BLOCKS} are needed"
    if not least > 0:
        return "the least curvature is not above 0 beyond chance: these weights are no strict optimum"
    return ""


@dataclass(frozen=True)
class _Curve:
    """Mean -log p of samples as a function of the parameters, and its Hessian, also on halves and blocks of them."""

    policy: Policy
    samples: Samples
    key: int

    @cached_property
    def at(self) -> Tensor:
        return torch.cat([p.detach().reshape(-1) for p in self.policy.module.parameters()])

    @cached_property
    def halves(self) -> tuple[Array, Array]:
        """(P, P) of the even blocks' samples, and of the odd ones'."""
        rows = np.arange(len(self.samples)) % _BLOCKS % 2
        first, second = (hessian.hessian(self._loss(np.flatnonzero(rows == half)), self.at) for half in (0, 1))
        return first, second

    @property
    def whole(self) -> Array:
        return (self.halves[0] + self.halves[1]) / 2

    @cached_property
    def used(self) -> Array:
        """(P,) bool: the parameters that change anything; of a triangular factor half do not."""
        return np.asarray(np.abs(self.whole).max(axis=0) > 0)

    def along(self, direction: Array) -> Array:
        """(_BLOCKS,) vᵀ H v of each block of samples."""
        v = torch.from_numpy(direction).to(self.at)
        blocks = np.arange(len(self.samples)) % _BLOCKS
        return np.array([
            float(v @ hessian.product(self._loss(np.flatnonzero(blocks == block)), self.at, v))
            for block in range(_BLOCKS)
        ])

    def end(self, value: float, vector: Array, greatest: float) -> estimates.Estimated:
        """An eigenvalue with its interval: to first order its change is that of vᵀ H v; float32 blurs it, too."""
        blur = greatest * len(self.at) ** 0.5 * torch.finfo(self.at.dtype).eps
        return estimates.about(value, math.hypot(_error(self.along(vector)), blur), _BLOCKS - 1)

    def _loss(self, rows: Array) -> Callable[[Tensor], Tensor]:
        model = _LogProbs(self.policy)
        batch = self.policy.encode(self.samples.take(rows)).take(torch.arange(len(rows)))
        draw = self.policy.draw(batch, self.key, 0)
        names = [(name, p.shape) for name, p in model.named_parameters()]

        def loss(theta: Tensor) -> Tensor:
            parts = torch.split(theta, [shape.numel() for _, shape in names])
            given = {name: part.reshape(shape) for (name, shape), part in zip(names, parts, strict=True)}
            found: Tensor = functional_call(model, given, (batch, draw))
            return -found.mean()

        return loss


class _LogProbs(torch.nn.Module):
    """The policy's forward pass as a module's own: (N,) log-probs of whole samples, nats."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.inner = policy.module
        self._policy = policy

    def forward(self, batch: Batch, draw: Draw | None) -> Tensor:
        return self._policy.forward(batch, draw).totals()


def _slope(real: _Curve, own: _Curve, lam: float) -> estimates.Estimated:
    """Directions are found on one half of the samples and measured on the other: the greatest of noise is no slope."""
    used = real.used
    parts, errors = [], []
    for half in (0, 1):
        a, b = (curve.halves[half][np.ix_(used, used)] for curve in (real, own))
        try:
            direction = eigh(b, a, subset_by_index=(len(a) - 1, len(a) - 1))[1][:, 0]
        except LinAlgError:
            return estimates.unidentified("half of the samples are not curved upwards throughout: no optimum")
        v = _full(direction, used)
        below, above = (curve.along(v)[1 - half :: 2] for curve in (real, own))
        ratio = above.mean() / below.mean()
        parts.append(ratio)
        errors.append(math.hypot(_error(above), ratio * _error(below)) / below.mean())
    value = float(np.mean(parts))
    found = estimates.about(value, math.hypot(*errors) / 2, _BLOCKS - 2)
    value, low, high = (lam * max(b, 0.0) / (1 + lam * max(b, 0.0)) for b in (value, found.low, found.high))
    return estimates.Estimated(value, low, high)


def _error(blocks: Array) -> float:
    return float(blocks.std(ddof=1)) / math.sqrt(len(blocks))


def _full(vector: Array, used: Array) -> Array:
    found = np.zeros(len(used))
    found[used] = vector
    return found


def _spread(samples: Samples) -> Samples:
    """Up to _SAMPLES of them, evenly spaced, as many in every block."""
    count = min(len(samples), _SAMPLES) // _BLOCKS * _BLOCKS
    return samples.take(np.linspace(0, len(samples) - 1, count).round().astype(np.int64))
