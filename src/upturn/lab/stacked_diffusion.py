"""Many small diffusion models of points trained and sampled as one: every weight has a leading dimension, M.

Networks, formulations, samplers, learning-rate schedule and EMA are those of single models; ``torch.func`` batches
their matrix products. The draws of a model depend on its own key alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from upturn import seeds
from upturn.config import components
from upturn.config.schema import Training
from upturn.diffusion.base_sampler import BaseSampler
from upturn.diffusion.denoiser import Condition, Formulation, Network, denoised
from upturn.training.ema import Ema
from upturn.training.schedule import learning_rate
from upturn.types import Array

_BLOCK = 32  # steps whose noise is drawn at once
_ROWS = 1 << 13  # rows of all models in one pass of sampling: their activations stay in the cache
_TINY = 1e-6  # added to a gradient's norm, as torch.nn.utils.clip_grad_norm_ does


@dataclass(frozen=True)
class Pool:
    """What M models train on: (M, N, d) samples, the first ``real`` of them real, drawn by ``share``.

    share (M,): the probability that a draw is a real one, 1/(1+λ).
    """

    points: Tensor
    real: int
    share: Array

    def weights(self) -> Tensor:
        """(M, N), summing to 1 for each model."""
        count = self.points.shape[1]
        share = torch.as_tensor(self.share, dtype=torch.float64)[:, None]
        generated = (1 - share) / (count - self.real) if count > self.real else torch.zeros_like(share)
        real = share / self.real if self.real else torch.zeros_like(share)
        return torch.cat([real.expand(-1, self.real), generated.expand(-1, count - self.real)], dim=1)


class Stack:
    """M diffusion models of points (d,): fresh weights from M keys, standardised as ``models.points`` does.

    ``coupling`` "ot" pairs the noise of a batch with its samples by exact optimal transport (Tong et al. 2024,
    "Improving and generalizing flow-based generative models with minibatch optimal transport", section 3.2.2).
    """

    def __init__(
        self, keys: Sequence[int], dimensions: int, *, network: str | dict[str, Any] = "mlp",
        formulation: str | dict[str, Any] = "edm", coupling: str = "independent",
    ) -> None:
        self.net: Network = components.make("network", network, "network")
        form: Formulation = components.make("formulation", formulation, "formulation")
        self.form = form.fitted(1.0)  # the frame divides by the data's own root mean square
        self.coupling, self.dimensions = coupling, dimensions
        self.fresh(keys)

    def fresh(self, keys: Sequence[int]) -> None:
        """New weights for every model."""
        networks = []
        for key in keys:
            seeds.seed_torch(key)
            networks.append(self.net.make((self.dimensions,), 0, self.form.noise_range()))
        state, self.buffers = stack_module_state(networks)
        self.base = networks[0].to("meta")  # only its shapes are used
        self.parameters = {name: torch.nn.Parameter(value.detach()) for name, value in state.items()}

    def __len__(self) -> int:
        return len(next(iter(self.parameters.values())))

    def call(self, module: Any, x: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        """F of all models on (M * B, d), model-major; takes the place of a single network in ``diffusion.denoiser``."""
        count = len(self)
        parts = x.reshape(count, -1, self.dimensions)
        label = condition["label"][: parts.shape[1]]

        def one(parameters: Any, buffers: Any, own: Tensor, level: Tensor) -> Any:
            def network(rows: Tensor, at: Tensor, own_label: Tensor) -> Any:
                return functional_call(self.base, (parameters, buffers), (rows, at, own_label))

            return self.net.call(network, own, level, {"label": label})  # type: ignore[arg-type]

        level = noise if noise.ndim == 0 else noise.reshape(count, -1)
        each = (0, 0, 0, None if noise.ndim == 0 else 0)
        generated: Tensor = vmap(one, in_dims=each)(self.parameters, self.buffers, parts, level)
        return generated.reshape(x.shape)

    def _denoised(self, x: Tensor, sigma: Tensor) -> Tensor:
        label = torch.full((len(x),), -1)
        return denoised(self, self.base, self.form, x, sigma, {"label": label})

    def standardise(self, pool: Pool) -> None:
        """data = mean + scale * network: mean (M, 1, d) and scale (M, 1, 1) of each model's own training data."""
        weights = pool.weights()[:, :, None]
        points = pool.points.double()
        mean = (weights * points).sum(dim=1, keepdim=True)
        square = (weights * (points - mean).square()).sum(dim=1, keepdim=True).mean(dim=2, keepdim=True)
        self.mean, self.scale = mean.float(), square.sqrt().clamp(min=1e-12).float()

    def train(self, pool: Pool, keys: Sequence[int], spec: Training) -> Tensor:
        """Each model on its own pool, ``spec.steps`` steps; (M,) mean losses of the last block, nats a dimension."""
        assert spec.steps is not None
        self.standardise(pool)
        points = (pool.points - self.mean) / self.scale
        parameters = list(self.parameters.values())
        optimizer = torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)
        average = Ema(parameters, spec.ema) if spec.ema else None
        draws = [_Draws(key, pool, share, spec.batch_size) for key, share in zip(keys, pool.share, strict=True)]
        losses = torch.zeros(len(self))
        for step in range(spec.steps):
            at = step % _BLOCK
            if at == 0:
                block = [draw.block() for draw in draws]
                picked, u, noise = (torch.from_numpy(np.stack(part, axis=1)) for part in zip(*block, strict=True))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(spec, step, spec.steps)
            x0 = torch.gather(points, 1, picked[at, :, :, None].expand(-1, -1, self.dimensions))
            losses = self._loss(x0, u[at], noise[at])
            optimizer.zero_grad(set_to_none=True)
            losses.sum().backward()  # type: ignore[no-untyped-call]
            clip(parameters, spec.clip)
            optimizer.step()
            if average is not None:
                average.update(step + 1)
        if average is not None:
            average.copy_to_model()
        return losses.detach()

    def _loss(self, x0: Tensor, u: Tensor, noise: Tensor) -> Tensor:
        """(M,) the weighted denoising loss, a mean over rows and dimensions, as in the objective `likelihood`."""
        if self.coupling == "ot":
            noise = coupled(x0, noise)
        sigma = self.form.training_sigma(u.reshape(-1))
        clean = x0.reshape(-1, self.dimensions)
        x = torch.addcmul(clean, sigma[:, None], noise.reshape(clean.shape))
        error = (self._denoised(x, sigma) - clean).square().sum(dim=1)
        return (0.5 * self.form.weight(sigma) * error).reshape(len(self), -1).mean(dim=1) / self.dimensions

    @torch.inference_mode()
    def sample(self, n: int, keys: Sequence[int], steps: int, sampler: str = "dpmpp_2m") -> Tensor:
        """(M, n, d) in the data's units."""
        run: BaseSampler = components.make("sampler", sampler, "sampler")
        sigmas = self.form.sigmas(steps)
        sources = [seeds.generator(key) for key in keys]
        rows = max(_ROWS // len(self), 1)
        parts = []
        for start in range(0, n, rows):
            count = min(rows, n - start)

            def noise(step: int, count: int = count) -> Tensor:
                drawn = [source.standard_normal((count, self.dimensions), dtype=np.float32) for source in sources]
                return torch.from_numpy(np.concatenate(drawn))

            generated = run(self._denoised, noise(-1) * sigmas[0], sigmas, noise)
            parts.append(generated.reshape(len(self), count, self.dimensions))
        return torch.cat(parts, dim=1) * self.scale + self.mean


class _Draws:
    """The random draws of one model's training, in blocks of steps: samples, noise levels and noise."""

    def __init__(self, key: int, pool: Pool, share: float, batch: int) -> None:
        self.source, self.batch, self.share = seeds.generator(key), batch, share
        self.real, self.count, self.dimensions = pool.real, pool.points.shape[1], pool.points.shape[2]

    def block(self) -> tuple[Array, Array, Array]:
        """(steps, B) rows, (steps, B) uniform numbers, (steps, B, d) normal ones."""
        shape = (_BLOCK, self.batch)
        generated = self.source.integers(max(self.count - self.real, 1), size=shape) + self.real
        real = self.source.integers(max(self.real, 1), size=shape)
        picked = np.where(self.source.random(shape) < self.share, real, generated)
        return picked, self.source.random(shape, dtype=np.float32), self.source.standard_normal(
            (*shape, self.dimensions), dtype=np.float32
        )


@torch.no_grad()
def clip(parameters: Sequence[Tensor], most: float) -> None:
    """Clip the gradient norm of each model to ``most``, as ``clip_grad_norm_`` does for a single model."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    squares = torch.stack([g.square().flatten(1).sum(dim=1) for g in gradients]).sum(dim=0)
    factor = (most / (squares.sqrt() + _TINY)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.reshape(-1, *[1] * (gradient.ndim - 1)))


def coupled(x0: Tensor, noise: Tensor) -> Tensor:
    """(M, B, d) the noise of each batch, ordered so that the sum of its squared distances to x0 is the least."""
    from scipy.optimize import linear_sum_assignment

    costs = torch.cdist(x0, noise, compute_mode="donot_use_mm_for_euclid_dist").square().numpy()
    order = np.stack([linear_sum_assignment(cost)[1] for cost in costs])
    return torch.gather(noise, 1, torch.from_numpy(order)[:, :, None].expand_as(noise))


def levels(lam: Sequence[float]) -> Array:
    """(M,) the real share 1/(1+λ) of each λ."""
    return np.array([0.0 if math.isinf(value) else 1 / (1 + value) for value in lam])
