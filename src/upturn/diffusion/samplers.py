"""From noise to samples: each sampler is one function of a denoiser, in the coordinates x = x0 + sigma * noise.

All take ``denoise(x, sigma)``, the start ``x`` (N, ...) = sigmas[0] * noise, falling ``sigmas`` (steps + 1,) that end
in 0, and ``noise(i)`` (N, ...) standard normal of step i; all return (N, ...). The ODE ones never ask for noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from upturn.diffusion.denoiser import Denoise

Noise = Callable[[int], "Tensor"]


def euler(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Euler steps of the probability-flow ODE (Karras et al. 2022, Algorithm 1 without its correction).

    In these coordinates it is DDIM with eta = 0 (Song et al. 2021, equation 13).
    """
    for now, later in pairwise(sigmas.unbind()):
        estimate = denoise(x, now)
        x = estimate + later / now * (x - estimate)  # nothing cancels, however great the first noise level
    return x


def heun(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Second-order steps of the probability-flow ODE (Karras et al. 2022, Algorithm 1); 2 steps - 1 evaluations."""
    for now, later in pairwise(sigmas.unbind()):
        x = _heun_step(denoise, x, now, later)
    return x


def _heun_step(denoise: Denoise, x: Tensor, now: Tensor, later: Tensor) -> Tensor:
    slope = (x - denoise(x, now)) / now
    guess = x + (later - now) * slope
    if later == 0:
        return guess
    return x + (later - now) * (slope + (guess - denoise(guess, later)) / later) / 2


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """DPM-Solver++(2M): second order at one evaluation a step (Lu et al. 2022, "DPM-Solver++", Algorithm 2).

    With alpha = 1 the paper's lambda is -log sigma; the first and the last step are of first order.
    """
    before, step_before = None, None
    for now, later in pairwise(sigmas.unbind()):
        estimate = denoise(x, now)
        if later == 0:
            return estimate
        step = now.log() - later.log()
        target = estimate
        if before is not None and step_before is not None:
            target = estimate + (estimate - before) * step / (2 * step_before)
        x = later / now * x + (1 - later / now) * target
        before, step_before = estimate, step
    return x


def posterior(x: Tensor, estimate: Tensor, now: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (N, ...) and standard deviation of the noise level ``later`` given x at ``now`` and x0 = ``estimate``.

    Ho et al. 2020, equations 6 and 7, in these coordinates. ``now`` and ``later`` broadcast over x.
    """
    share = (later / now).square()
    return estimate + share * (x - estimate), later * (1 - share).sqrt()


def ancestral(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """DDPM's own sampler: a Gaussian transition a step, the last without noise (Ho et al. 2020, Algorithm 2)."""
    for i, (now, later) in enumerate(pairwise(sigmas.unbind())):
        mean, std = posterior(x, denoise(x, now), now, later)
        x = mean + std * noise(i) if later > 0 else mean
    return x


def churn(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, *,
    s_churn: float = 40.0, s_min: float = 0.05, s_max: float = 50.0, s_noise: float = 1.003,
) -> Tensor:
    """Heun steps, before each a little noise put back (Karras et al. 2022, Algorithm 2; constants of its table 5)."""
    most = math.sqrt(2) - 1
    for i, (now, later) in enumerate(pairwise(sigmas.unbind())):
        gamma = min(s_churn / (len(sigmas) - 1), most) if s_min <= now <= s_max else 0.0
        raised = now * (1 + gamma)
        if gamma > 0:
            x = x + (raised.square() - now.square()).sqrt() * s_noise * noise(i)
        x = _heun_step(denoise, x, raised, later)
    return x


def evaluations(sampler: str, steps: int) -> int:
    """How often a sampler calls the denoiser."""
    return 2 * steps - 1 if sampler in {"heun", "churn"} else steps
