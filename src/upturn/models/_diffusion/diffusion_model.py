"""The base class of diffusion models: :class:`Diffusion` is a Policy; subclasses define content and condition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from upturn import seeds
from upturn.diffusion.denoiser import Caller, Condition, Formulation, denoised, spread
from upturn.errors import UserError
from upturn.models._diffusion import sampling
from upturn.models._diffusion.normalization import Frame
from upturn.protocols import Policy
from upturn.types import Array, Batch, Draw, Kind, Likelihood, Outputs, Prompt, Rollout, Samples, synthetic_samples

_SIGMA, _NOISE, _DROP = 0, 1, 2  # streams of a training key


@dataclass(eq=False)
class Diffusion(Policy, ABC):
    """The part of a diffusion model that depends neither on its content nor on its condition.

    Log-probs are surrogates: ``-(1/2) w(sigma) |D(x0 + sigma noise; sigma) - x0|^2``, (N, draws), summed over the d
    dimensions of a row; up to the factor d/2 their gradient is that of the formulation's textbook loss.
    """

    draws: int = field(default=1, kw_only=True)  # noise levels an example in one forward pass
    id: str = field(default="", init=False)
    module: torch.nn.Module = field(init=False, repr=False)
    frame: Frame = field(init=False, repr=False)
    caller: Caller = field(init=False, repr=False)
    form: Formulation = field(init=False, repr=False)
    _operations: dict[str, float] = field(default_factory=dict, init=False, repr=False)

    name: ClassVar[str]
    kind: ClassVar[Kind]
    likelihood: ClassVar[Likelihood] = "surrogate"
    Sampling: ClassVar[type] = sampling.DiffusionSampling
    asks: ClassVar[tuple[str, ...]]  # the names of a condition's columns
    counted: ClassVar[int] = 64  # rows over which floating-point operations are counted

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    # What a subclass adds: its content, its condition, and the network's coordinates.

    @property
    @abstractmethod
    def conditional(self) -> bool: ...

    @property
    @abstractmethod
    def dropout(self) -> float:
        """The share of examples that lose their condition in training."""

    @abstractmethod
    def condition(self, prompts: Sequence[Prompt]) -> Condition:
        """The requested condition, N rows. Raises UserError for values that the model does not have."""

    @abstractmethod
    def without(self, condition: Condition, settings: sampling.DiffusionSampling) -> Condition:
        """As many unconditional rows, or rows of the negative condition of the settings."""

    def prepared(self, condition: Condition) -> Condition:
        """The condition with values that many calls of the network share, computed once."""
        return condition

    @abstractmethod
    def unguidable(self) -> str:
        """Why this model cannot be guided by itself without its condition; empty where it can."""

    @abstractmethod
    def content(self, generated: Tensor) -> Array:
        """The content of the rows of :meth:`generate`."""

    @abstractmethod
    def clean(self, batch: Batch, draw: Draw) -> Tensor:
        """x0: (N, *shape) float32 of the examples as the network sees them."""

    @abstractmethod
    def training_condition(self, batch: Batch, draw: Draw) -> Condition:
        """The condition of each row of a training batch, dropped where ``draw.drop`` is true."""

    def row_shape(self, batch: Batch) -> tuple[int, ...]:
        """The shape of a batch's rows, as the network sees them."""
        return self.frame.shape

    def drawn_shape(self, settings: sampling.DiffusionSampling) -> tuple[int, ...]:
        """The shape of the samples that these settings request."""
        return self.frame.shape

    def form_of(self, shape: tuple[int, ...]) -> Formulation:
        """The formulation in sampling rows of a shape, where it depends on that."""
        return self.form

    # Training.

    def _check_kind(self, samples: Samples) -> None:
        if samples.kind != self.kind:
            raise UserError(f"the model '{self.name}' takes {self.kind}, got {samples.kind}", where="model")

    def weight(self, sigma: Tensor) -> Tensor:
        """The weight of the squared error of D at these noise levels, by the formulation's textbook loss."""
        return self.form.weight(sigma)

    def draw(self, batch: Batch, key: int, start: int) -> Draw:
        """sigma (N, draws), noise (N, draws, *shape), drop (N,): one chance an example, shared by its candidates."""
        stop, shape = start + len(batch), self.row_shape(batch)
        u = seeds.table_uniform(key, start, stop, (self.draws,), stream=_SIGMA)
        noise = seeds.table_normal(key, start, stop, (self.draws, *shape), stream=_NOISE)
        drop = None
        if self.conditional and self.dropout:
            drop = seeds.table_uniform(key, start, stop, stream=_DROP) < self.dropout
        sigma = self.form.training_sigma(u)
        if batch.candidates > 1:
            sigma, noise = (part.repeat_interleave(batch.candidates, dim=0) for part in (sigma, noise))
            drop = None if drop is None else drop.repeat_interleave(batch.candidates)
        return Draw(sigma, noise, drop)

    def forward(self, batch: Batch, draw: Draw | None) -> Outputs:
        """Surrogate log-probs (N, draws): see the class."""
        if draw is None:
            raise ValueError("a diffusion model needs a draw of noise levels and noise")
        x0, condition = self.clean(batch, draw), self.training_condition(batch, draw)
        sigma, noise = draw.sigma.to(x0.device), draw.noise.to(x0.device)
        rows, times = sigma.shape
        if times > 1:
            x0, condition = x0.repeat_interleave(times, dim=0), _repeated(condition, times)
        sigma, noise = sigma.reshape(-1), noise.reshape(x0.shape)
        x = torch.addcmul(x0, spread(sigma, x0), noise)
        error = denoised(self.caller, self.module, self.form, x, sigma, condition) - x0
        log_probs = (-0.5 * self.weight(sigma) * error.square().flatten(1).sum(dim=1)).reshape(rows, times)
        return Outputs(log_probs, torch.ones_like(log_probs), dims=x0[0].numel())

    # Sampling.

    def generate(
        self, prompts: Sequence[Prompt], keys: Array, settings: sampling.DiffusionSampling,
        guides: Mapping[str, Any] = {},
    ) -> Tensor:
        """(N, *shape) float32 in the data's units, not rounded, for N prompts and N keys."""
        sampler, sigmas = settings.build_sampler(), sampling.noise_levels(self, settings)
        parts = [torch.zeros((0, *self.drawn_shape(settings)), device=self.device)]
        with sampling.evaluating([self.module, *(guide.module for guide in guides.values())]):
            for wanted, condition, start, noise in sampling.chunks(self, prompts, keys, settings):
                denoise = sampling.denoiser(self, condition, settings, guides, wanted)
                parts.append(sampler(denoise, start * sigmas[0], sigmas, noise))
            return self.frame.back(torch.cat(parts))

    def sample(
        self, prompts: Sequence[Prompt], keys: Array, settings: sampling.DiffusionSampling,
        guides: Mapping[str, Any] = {},
    ) -> Samples:
        """P * K rows, prompt-major, for ``keys`` (P, K); the noise of row i depends on key i alone."""
        flat = [prompt for prompt in prompts for _ in range(keys.shape[1])]
        generated = self.generate(flat, keys.reshape(-1), settings, guides)
        return synthetic_samples(self.kind, self.content(generated), prompts, keys, self.id)

    def rollout(self, prompts: Sequence[Prompt], keys: Array, settings: sampling.DiffusionSampling) -> Rollout:
        """Ancestral sampling with all that is needed to replay it; T = steps - 1, the last step has no noise.

        actions    (N, T + 1, *shape) latents from the start to the last before the noiseless step
        log_probs  (N, T) nats of each Gaussian transition, summed over dimensions
        state      "sigmas" (N, T + 1), the condition's columns (N, …), "guidance" (N, 3): scale, low, high
        """
        if settings.steps < 2 or settings.guide or not settings.build_sampler().replayable:
            known = sampling.samplers_that(lambda cls: cls.replayable)
            raise UserError(
                f"a rollout needs a sampler with Gaussian transitions ({known}), at least 2 steps and no 'guide'",
                where="settings",
                fix="Only Gaussian transitions of this model itself have log-probs.",
            )
        flat = [prompt for prompt in prompts for _ in range(keys.shape[1])]
        sigmas, parts = sampling.noise_levels(self, settings), []
        with sampling.evaluating([self.module]):
            for _, condition, start, noise in sampling.chunks(self, flat, keys.reshape(-1), settings):
                denoise = sampling.denoiser(self, condition, settings, {})
                parts.append(sampling.trajectory(denoise, start * sigmas[0], sigmas, noise))
        latents, log_probs, generated = (torch.cat(column) for column in zip(*parts, strict=True))
        samples = synthetic_samples(self.kind, self.content(self.frame.back(generated)), prompts, keys, self.id)
        guidance = torch.tensor([settings.guidance, settings.guidance_low, settings.high], device=self.device)
        state = {
            "sigmas": sigmas[:-1].repeat(len(samples), 1), "guidance": guidance.repeat(len(samples), 1),
            **sampling.moved(self.condition(flat), self.device),
        }
        return Rollout(samples, latents, log_probs, torch.ones_like(log_probs), state)

    def replay(self, rollout: Rollout) -> Batch:
        """Columns "actions" and the state of the rollout, and "behaviour" (N, T), its log-probs."""
        columns = {"actions": rollout.actions, **rollout.state, "behaviour": rollout.log_probs}
        return Batch({name: column.clone() for name, column in columns.items()})  # no gradient through sampled latents

    def act(self, batch: Batch) -> Outputs:
        """(N, T) log-probs of the denoising steps of a replayed rollout: exact Gaussian transitions (DDPO)."""
        log_probs = self.transition_log_probs(batch["actions"], {name: batch[name] for name in batch.columns})
        return Outputs(log_probs, torch.ones_like(log_probs), dims=batch["actions"][0, 0].numel())

    def transition_log_probs(self, actions: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """(N, S) nats with gradient: the log-probs of the S transitions between S + 1 latents.

        ``actions`` (N, S + 1, *shape) and ``state["sigmas"]`` (N, S + 1) may be any slice of rows and of steps of a
        rollout; the condition and "guidance" are of the rows. All rows have one guidance.
        """
        rows, steps = actions.shape[0], actions.shape[1] - 1
        scale, low, high = state["guidance"][0].tolist()
        settings = self.Sampling(guidance=scale, guidance_low=low, guidance_high=high)
        condition = {name: state[name] for name in self.asks}
        denoise = sampling.denoiser(self, _repeated(condition, steps), settings, {})
        now, later = state["sigmas"][:, :-1].reshape(-1), state["sigmas"][:, 1:].reshape(-1)
        x, after = actions[:, :-1].flatten(0, 1), actions[:, 1:].flatten(0, 1)
        return sampling.replay(denoise, x, after, now, later).reshape(rows, steps)

    # Cost.

    def flops(self, batch: Batch) -> float:
        """Matrix products and convolutions of one forward pass; elementwise operations are left out."""
        return self._counted("each", self.row_shape(batch)) * batch.rows * self.draws

    def sampling_flops(self, settings: sampling.DiffusionSampling) -> float:
        """The same, for one sample."""
        return self._counted("one", self.drawn_shape(settings)) * float(settings.passes)

    def _counted(self, what: str, shape: tuple[int, ...]) -> float:
        """For one row of a shape; ``each``: a noise level a row, ``one``: one level for all rows."""
        from torch.utils.flop_counter import FlopCounterMode

        name = f"{what} {shape}"
        if name not in self._operations:
            x = torch.zeros((self.counted, *shape), device=self.device)
            sigma = torch.ones(self.counted, device=self.device)
            condition = sampling.moved(self.condition([Prompt()] * self.counted), self.device)
            with torch.no_grad():
                rows = condition if what == "each" else self.prepared(condition)
                with FlopCounterMode(display=False) as counter:
                    denoised(self.caller, self.module, self.form, x, sigma if what == "each" else sigma[0], rows)
            self._operations[name] = counter.get_total_flops() / self.counted
        return self._operations[name]


def _repeated(condition: Condition, times: int) -> Condition:
    return {name: column.repeat_interleave(times, dim=0) for name, column in condition.items()}
