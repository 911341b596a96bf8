"""Sampling of diffusion models, and the Gaussian transitions of its stochastic sampler."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from upturn import seeds
from upturn.config import components
from upturn.config.schema import PlugIn, named
from upturn.diffusion.base_sampler import BaseSampler, Noise
from upturn.diffusion.denoiser import Caller, Condition, Denoise, Formulation, denoised, spread
from upturn.diffusion.guidance import guided
from upturn.diffusion.transitions import posterior
from upturn.errors import UserError
from upturn.models._diffusion.normalization import Frame, carried
from upturn.protocols import SamplingSettings
from upturn.types import Array, Prompt

_FARTHEST = 1e5  # the greatest first noise level that is no pure noise: a table of cosine betas ends at 2 * 10^4


class Sampled(Protocol):
    """What sampling needs of a diffusion model; ``base.Diffusion`` has it."""

    module: torch.nn.Module
    caller: Caller
    frame: Frame

    @property
    def device(self) -> torch.device: ...
    def condition(self, prompts: Sequence[Prompt]) -> Condition: ...
    def prepared(self, condition: Condition) -> Condition: ...
    def without(self, condition: Condition, settings: DiffusionSampling) -> Condition: ...
    def unguidable(self) -> str: ...
    def drawn_shape(self, settings: DiffusionSampling) -> tuple[int, ...]: ...
    def form_of(self, shape: tuple[int, ...]) -> Formulation: ...


@dataclass(frozen=True)
class DiffusionSampling(SamplingSettings):
    """``guidance`` 1 is none; ``batch`` rows are sampled at once, which changes only speed and memory."""

    steps: int = 20  # measured on 8x8 digits and 8 Gaussians: docs/decisions/
    sampler: PlugIn = "dpmpp_2m"  # a component of upturn/diffusion/samplers, by name or with its fields
    guidance: float = 1.0
    guidance_low: float = 0.0  # noise levels between which guidance acts; None: no upper end
    guidance_high: float | None = None
    guide: str = ""  # a worse model: of 'models:', 'round 0', a stage, 'STAGE@EPOCH'; empty: without the condition
    s_churn: float = 40.0  # of the sampler churn: Karras et al. 2022, table 5, ImageNet-64
    s_min: float = 0.05
    s_max: float = 50.0
    s_noise: float = 1.003
    batch: int = 1024

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ValueError(f"steps and batch must be at least 1, got {self.steps} and {self.batch}")
        if not math.isfinite(self.guidance) or not 0 <= self.guidance_low <= self.high:
            raise ValueError("guidance must be finite, and 0 <= guidance_low <= guidance_high")
        if self.guide and self.guidance == 1.0:
            raise ValueError(f"guide '{self.guide}' does nothing at guidance 1; give guidance, for instance 1.5")
        if self.s_churn < 0 or self.s_noise <= 0:
            raise ValueError("s_churn must not be below 0, s_noise must be above it")
        try:
            self.build_sampler()
        except UserError as error:  # checked() adds the place of the settings
            raise ValueError(str(error)) from error

    @property
    def high(self) -> float:
        return math.inf if self.guidance_high is None else self.guidance_high

    @property
    def passes(self) -> int:
        """How often a sample goes through a network."""
        return self.build_sampler().evaluations(self.steps) * (2 if self.guidance != 1.0 else 1)

    def build_sampler(self) -> BaseSampler:
        """The sampler; its fields that are not given with its name are those of the same name here."""
        spec = named(self.sampler)
        own = {item.name for item in fields(components.find("sampler", spec["name"]))}
        shared = {name: value for name, value in vars(self).items() if name in own}
        built: BaseSampler = components.make("sampler", shared | spec, "sampler")
        return built


def samplers_that(declare: Callable[[type[BaseSampler]], bool]) -> str:
    """The names of the shipped samplers whose class has a property, for messages."""
    return ", ".join(name for name in components.names("sampler") if declare(components.find("sampler", name)))


def denoiser(
    model: Sampled, condition: Condition, settings: DiffusionSampling, guides: Mapping[str, Any],
    prompts: Sequence[Prompt] = (),
) -> Denoise:
    """D for N rows of condition, with the guidance of the settings, in the model's coordinates.

    ``prompts`` are those of the rows: a guide builds its own condition from them.
    """

    def plain(of: Sampled, rows_condition: Condition) -> Denoise:
        rows = of.prepared(rows_condition)
        return lambda x, sigma: denoised(of.caller, of.module, of.form_of(tuple(x.shape[1:])), x, sigma, rows)

    _check_guidance(model, settings, guides)
    own = plain(model, condition)
    if settings.guidance == 1.0:
        return own
    if settings.guide:
        other = guides[settings.guide]
        other.module.to(model.device)
        weaker = carried(plain(other, moved(other.condition(prompts), model.device)), other.frame, model.frame)
    else:
        weaker = plain(model, model.without(condition, settings))
    return guided(own, weaker, settings.guidance, settings.guidance_low, settings.high)


def moved(condition: Condition, device: torch.device) -> Condition:
    return {name: column.to(device) for name, column in condition.items()}


def _check_guidance(model: Sampled, settings: DiffusionSampling, guides: Mapping[str, Any]) -> None:
    where, fix = "settings.guidance", "Set guidance to 1, or name a 'guide:'."
    if settings.guide and settings.guide not in guides:
        raise UserError(
            f"there is no model '{settings.guide}' to guide with", where="settings.guide",
            fix=f"There: {', '.join(guides) or 'none'}.",
        )
    if settings.guidance == 1.0 or settings.guide:
        return
    obstacle = model.unguidable()
    if obstacle:
        raise UserError(obstacle, where=where, fix=fix)


def noise_levels(model: Sampled, settings: DiffusionSampling) -> Tensor:
    """(steps + 1,) on the model's device."""
    try:
        levels = model.form_of(model.drawn_shape(settings)).sigmas(settings.steps)
    except ValueError as error:
        raise UserError(str(error), where="settings.steps") from error
    if settings.build_sampler().needs_finite_start and float(levels[0]) > _FARTHEST:
        raise UserError(
            f"the sampler '{named(settings.sampler)['name']}' averages two slopes, and this model starts at pure "
            "noise, where a step has no bound", where="settings.sampler",
            fix=f"Use one of: {samplers_that(lambda cls: not cls.needs_finite_start)}.",
        )
    return levels.to(model.device)


def chunks(
    model: Sampled, prompts: Sequence[Prompt], keys: Array, settings: DiffusionSampling
) -> Iterator[tuple[Sequence[Prompt], Condition, Tensor, Noise]]:
    """Of every ``batch`` rows: prompts, condition, the start's unit noise, noise of step i (streams 0 and i + 1)."""
    condition, shape = moved(model.condition(prompts), model.device), model.drawn_shape(settings)
    for start in range(0, len(prompts), settings.batch):
        rows = slice(start, start + settings.batch)
        part = keys[rows]

        def noise(step: int, part: Array = part) -> Tensor:
            return seeds.normal(part, shape, stream=step + 1).to(model.device)

        yield prompts[rows], {name: column[rows] for name, column in condition.items()}, noise(-1), noise


@contextmanager
def evaluating(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Without gradients and dropout; restores each module's mode afterwards."""
    every = list(modules)
    before = [module.training for module in every]
    for module in every:
        module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in zip(every, before, strict=True):
            module.train(training)


def trajectory(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise
) -> tuple[Tensor, Tensor, Tensor]:
    """Ancestral sampling that keeps its path: latents (N, T + 1, ...), log-probs (N, T), the finished rows (N, ...)."""
    path, log_probs = [x], []
    for i in range(len(sigmas) - 2):
        mean, std = posterior(x, denoise(x, sigmas[i]), sigmas[i], sigmas[i + 1])
        x = mean + std * noise(i)
        path.append(x)
        log_probs.append(normal_log_density(x, mean, std))
    return torch.stack(path, dim=1), torch.stack(log_probs, dim=1), denoise(x, sigmas[-2])


def replay(denoise: Denoise, x: Tensor, after: Tensor, now: Tensor, later: Tensor) -> Tensor:
    """(N,) nats of the transitions from ``x`` at sigma ``now`` (N,) to ``after`` at ``later`` (N,), with gradient."""
    mean, std = posterior(x, denoise(x, now), spread(now, x), spread(later, x))
    return normal_log_density(after, mean, std)


def normal_log_density(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(N,) nats: log N(x; mean, std^2) summed over all but the first dimension; ``std`` broadcasts over x."""
    terms = ((x - mean) / std).square() + 2 * std.log() + math.log(2 * math.pi)
    return -0.5 * terms.flatten(1).sum(dim=1)
