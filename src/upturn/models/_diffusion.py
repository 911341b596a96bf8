"""What the diffusion models share: :class:`Diffusion` is a Policy but for what its content looks like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from upturn import components, seeds
from upturn.diffusion.denoiser import Formulation, Network, denoised, spread
from upturn.errors import UserError
from upturn.models import _diffusion_files as files
from upturn.models import _diffusion_sampling as sampling
from upturn.models._diffusion_frame import Frame
from upturn.types import Array, Batch, Draw, Kind, Likelihood, Outputs, Prompt, Rollout, Samples, synthetic_samples

_SIGMA, _NOISE, _DROP = 0, 1, 2  # streams of a training key
_COUNTED = 64  # rows over which floating-point operations are counted


@dataclass(eq=False)
class Diffusion(ABC):
    """The part of a diffusion model that does not depend on its content.

    Log-probs are surrogates: ``-(1/2) w(sigma) |D(x0 + sigma noise; sigma) - x0|^2``, (N, draws), summed over the d
    dimensions of a row; up to the factor d/2 their gradient is that of the formulation's textbook loss.
    """

    classes: int = 0  # 0: unconditional, labels are not looked at
    network: str | dict[str, Any] = "mlp"
    formulation: str | dict[str, Any] = "flow"  # measured on 8x8 digits: docs/decisions.md
    label_dropout: float = 0.1  # Ho & Salimans 2022, section 4.1: 0.1 or 0.2
    draws: int = 1  # noise levels an example in one forward pass
    id: str = field(default="", init=False)
    module: torch.nn.Module = field(init=False, repr=False)
    frame: Frame = field(init=False, repr=False)

    name: ClassVar[str]
    kind: ClassVar[Kind]
    likelihood: ClassVar[Likelihood] = "surrogate"
    Sampling: ClassVar[type] = sampling.DiffusionSampling

    def __post_init__(self) -> None:
        if self.classes < 0 or self.draws < 1 or not 0 <= self.label_dropout < 1:
            raise ValueError("needs classes >= 0, draws >= 1 and 0 <= label_dropout < 1")
        self.parts()

    def parts(self) -> None:
        """Network and formulation from the fields that name them."""
        self.net: Network = components.make("network", self.network, "model.network")
        self.form: Formulation = components.make("formulation", self.formulation, "model.formulation")
        self._operations: dict[str, float] = {}

    @property
    def conditional(self) -> bool:
        return self.classes > 0

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    # What a subclass adds: its content and the network's coordinates.

    @abstractmethod
    def measure(self, content: Array) -> Frame:
        """Shape and scale of the examples. Raises UserError where they are not of the model's kind."""

    @abstractmethod
    def column(self, content: Array) -> Tensor:
        """The column "x": the content as it is kept until the forward pass."""

    @abstractmethod
    def into(self, column: Tensor) -> Tensor:
        """(N, *shape) float32 of the column "x", as the network sees it."""

    @abstractmethod
    def content(self, made: Tensor) -> Array:
        """The content of what :meth:`generate` gives."""

    # Weights.

    def build(self, examples: Samples, key: int) -> None:
        """Random weights from ``key``; scale and shape from the examples. Raises UserError where they do not fit."""
        self._check_kind(examples)
        if not len(examples):
            raise UserError("there are no examples to build a model for", where="model")
        self.frame = self.measure(examples.content)
        self.labels(examples.prompts)
        self.parts()
        self.form = self.form.fitted(self.frame.rms)
        seeds.seed_torch(key)
        self.module = self.net.make(self.frame.shape, self.classes, self.form.noise_range())

    def save(self, folder: Path) -> None:
        """model.json, the network in the format of ``diffusers``, and the scheduler that goes with it.

        An unconditional U-Net that predicts the noise is a whole ``diffusers.DDPMPipeline``.
        """
        files.save(self, folder)

    def load(self, folder: Path) -> None:
        """What was saved: network, formulation, classes and shape are the folder's.

        Raises UserError where this instance was given others, and where a file is missing or damaged.
        """
        files.load(self, folder)

    # Training.

    def encode(self, samples: Samples) -> Batch:
        """Columns "x" (the content as stored) and "label" (int64, -1 for none)."""
        self._check_kind(samples)
        return Batch({"x": self.column(samples.content), "label": self.labels(samples.prompts)})

    def _check_kind(self, samples: Samples) -> None:
        if samples.kind != self.kind:
            raise UserError(f"the model '{self.name}' takes {self.kind}, got {samples.kind}", where="model")

    def labels(self, prompts: Sequence[Prompt]) -> Tensor:
        """(N,) int64, -1 for none; all -1 of an unconditional model. Raises UserError for a class it does not have."""
        if not self.conditional:
            return torch.full((len(prompts),), -1, dtype=torch.int64)
        labels = torch.tensor([-1 if p.label is None else p.label for p in prompts], dtype=torch.int64)
        wrong = labels[(labels >= self.classes) | (labels < -1)]
        if len(wrong):
            raise UserError(
                f"a label is {int(wrong[0])}, but the model has classes 0 to {self.classes - 1}",
                where="model.classes", fix="Raise 'classes:', or mend the labels.",
            )
        return labels

    def draw(self, batch: Batch, key: int, start: int) -> Draw:
        """sigma (N, draws), noise (N, draws, *shape), drop (N,): one chance an example, shared by its candidates."""
        stop = start + len(batch)
        u = seeds.table_uniform(key, start, stop, (self.draws,), stream=_SIGMA)
        noise = seeds.table_normal(key, start, stop, (self.draws, *self.frame.shape), stream=_NOISE)
        drop = None
        if self.conditional and self.label_dropout:
            drop = seeds.table_uniform(key, start, stop, stream=_DROP) < self.label_dropout
        sigma = self.form.training_sigma(u)
        if batch.candidates > 1:
            sigma, noise = (part.repeat_interleave(batch.candidates, dim=0) for part in (sigma, noise))
            drop = None if drop is None else drop.repeat_interleave(batch.candidates)
        return Draw(sigma, noise, drop)

    def forward(self, batch: Batch, draw: Draw | None) -> Outputs:
        """Surrogate log-probs (N, draws): see the class."""
        if draw is None:
            raise ValueError("a diffusion model needs a draw of noise levels and noise")
        x0, label = self.into(batch["x"]), batch["label"]
        sigma, noise = draw.sigma.to(x0.device), draw.noise.to(x0.device)
        if draw.drop is not None:
            label = label.masked_fill(draw.drop.to(x0.device), -1)
        rows, times = sigma.shape
        if times > 1:
            x0, label = x0.repeat_interleave(times, dim=0), label.repeat_interleave(times)
        sigma, noise = sigma.reshape(-1), noise.reshape(x0.shape)
        x = torch.addcmul(x0, spread(sigma, x0), noise)
        error = denoised(self.net, self.module, self.form, x, sigma, label) - x0
        log_probs = (-0.5 * self.form.weight(sigma) * error.square().flatten(1).sum(dim=1)).reshape(rows, times)
        return Outputs(log_probs, torch.ones_like(log_probs), dims=x0[0].numel())

    # Sampling.

    def generate(
        self, prompts: Sequence[Prompt], keys: Array, settings: Any, guides: Mapping[str, Any] = {}
    ) -> Tensor:
        """(N, *shape) float32 in the data's units, not rounded, for N prompts and N keys."""
        run, sigmas = settings.run(), sampling.noise_levels(self, settings)
        parts = [torch.zeros((0, *self.frame.shape), device=self.device)]
        with sampling.evaluating([self.module, *(guide.module for guide in guides.values())]):
            for label, start, noise in sampling.chunks(self, prompts, keys, settings.batch):
                denoise = sampling.denoiser(self, label, settings, guides)
                parts.append(run(denoise, start * sigmas[0], sigmas, noise))
            return self.frame.back(torch.cat(parts))

    def sample(
        self, prompts: Sequence[Prompt], keys: Array, settings: Any, guides: Mapping[str, Any] = {}
    ) -> Samples:
        """P * K rows, prompt-major, for ``keys`` (P, K); the noise of row i depends on key i alone."""
        flat = [prompt for prompt in prompts for _ in range(keys.shape[1])]
        made = self.generate(flat, keys.reshape(-1), settings, guides)
        return synthetic_samples(self.kind, self.content(made), prompts, keys, self.id)

    def rollout(self, prompts: Sequence[Prompt], keys: Array, settings: Any) -> Rollout:
        """Ancestral sampling with all that is needed to replay it; T = steps - 1, the last step has no noise.

        actions    (N, T + 1, *shape) latents from the start to the last before the noiseless step
        log_probs  (N, T) nats of each Gaussian transition, summed over dimensions
        state      "sigmas" (N, T + 1), "label" (N,), "guidance" (N, 3): scale, low, high
        """
        if settings.steps < 2 or settings.guide or settings.sampler != "ancestral":
            raise UserError(
                "a rollout needs the sampler 'ancestral', at least 2 steps and no 'guide'", where="settings",
                fix="Only Gaussian transitions of this model itself have log-probs.",
            )
        flat = [prompt for prompt in prompts for _ in range(keys.shape[1])]
        sigmas, parts = sampling.noise_levels(self, settings), []
        with sampling.evaluating([self.module]):
            for label, start, noise in sampling.chunks(self, flat, keys.reshape(-1), settings.batch):
                denoise = sampling.denoiser(self, label, settings, {})
                parts.append(sampling.trajectory(denoise, start * sigmas[0], sigmas, noise))
        latents, log_probs, made = (torch.cat(column) for column in zip(*parts, strict=True))
        samples = synthetic_samples(self.kind, self.content(self.frame.back(made)), prompts, keys, self.id)
        guidance = torch.tensor([settings.guidance, settings.guidance_low, settings.high], device=self.device)
        state = {
            "sigmas": sigmas[:-1].repeat(len(samples), 1), "label": self.labels(flat).to(self.device),
            "guidance": guidance.repeat(len(samples), 1),
        }
        return Rollout(samples, latents, log_probs, torch.ones_like(log_probs), state)

    def replay(self, rollout: Rollout) -> Batch:
        """Columns "actions", "sigmas", "label", "guidance" as in the rollout, and "behaviour" (N, T), its log-probs."""
        columns = {"actions": rollout.actions, **rollout.state, "behaviour": rollout.log_probs}
        return Batch({name: column.clone() for name, column in columns.items()})  # gradients cannot pass what was made

    def act(self, batch: Batch) -> Outputs:
        """(N, T) log-probs of the denoising steps of a replayed rollout: exact Gaussian transitions (DDPO)."""
        state = {name: batch[name] for name in ("sigmas", "label", "guidance")}
        said = self.transition_log_probs(batch["actions"], state)
        return Outputs(said, torch.ones_like(said), dims=batch["actions"][0, 0].numel())

    def transition_log_probs(self, actions: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """(N, S) nats with gradient: how likely this model makes the S transitions between S + 1 latents.

        ``actions`` (N, S + 1, *shape) and ``state["sigmas"]`` (N, S + 1) may be any slice of rows and of steps of a
        rollout; "label" and "guidance" are of the rows. All rows have one guidance.
        """
        rows, steps = actions.shape[0], actions.shape[1] - 1
        scale, low, high = state["guidance"][0].tolist()
        settings = sampling.DiffusionSampling(guidance=scale, guidance_low=low, guidance_high=high)
        denoise = sampling.denoiser(self, state["label"].repeat_interleave(steps), settings, {})
        now, later = state["sigmas"][:, :-1].reshape(-1), state["sigmas"][:, 1:].reshape(-1)
        x, after = actions[:, :-1].flatten(0, 1), actions[:, 1:].flatten(0, 1)
        return sampling.replay(denoise, x, after, now, later).reshape(rows, steps)

    # Cost.

    def flops(self, batch: Batch) -> float:
        """Matrix products and convolutions of one forward pass; what works element by element is left out."""
        return self._counted("each") * batch.rows * self.draws

    def sampling_flops(self, settings: Any) -> float:
        """The same, for one sample."""
        return self._counted("one") * float(settings.passes)

    def _counted(self, what: str) -> float:
        """Of one row, where ``each`` row has a noise level, or ``one`` is for all."""
        from torch.utils.flop_counter import FlopCounterMode

        if what not in self._operations:
            x = torch.zeros((_COUNTED, *self.frame.shape), device=self.device)
            sigma, label = torch.ones(_COUNTED, device=self.device), torch.full((_COUNTED,), -1, device=self.device)
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                denoised(self.net, self.module, self.form, x, sigma if what == "each" else sigma[0], label)
            self._operations[what] = counter.get_total_flops() / _COUNTED
        return self._operations[what]
