"""Every interface of the house, on one screen.

Plug-ins are dataclasses: hyperparameters in the fields, data in the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from upturn.types import (
    Array,
    Batch,
    Draw,
    Kind,
    Likelihood,
    Loss,
    Measurement,
    MixingCase,
    Outputs,
    Prompt,
    Rollout,
    Samples,
    Scores,
    Selection,
    Splits,
)

if TYPE_CHECKING:
    import torch


class Source(Protocol):
    """Real data: ``load`` reads it, splits it by content, and refuses a layout by naming what it found and expected."""

    kind: Kind

    def load(self) -> Splits: ...


class Sampler(Protocol):
    """Anything that answers prompts. ``Sampling`` is the dataclass of its settings; an HTTP teacher is only this."""

    kind: Kind
    Sampling: ClassVar[type]

    @property
    def conditional(self) -> bool:
        """Whether what it makes depends on the prompt."""
        ...

    def sample(self, prompts: Sequence[Prompt], keys: Array, settings: Any, guides: Mapping[str, Any] = {}) -> Samples:
        """P * K rows, prompt-major, for ``keys`` (P, K) int64: the noise of row i depends on key i alone."""
        ...


class Trainable(Protocol):
    """Anything with weights; reward models and classifiers are only this."""

    kind: Kind
    likelihood: Likelihood
    id: str  # names these weights in the lineage
    module: torch.nn.Module

    def build(self, examples: Samples, key: int) -> None:
        """Make the weights (and tokenizer, scale, …) for this data."""
        ...

    def encode(self, samples: Samples) -> Batch: ...
    def draw(self, batch: Batch, key: int, start: int) -> Draw | None:
        """Chance for examples that stand at ``start``, ``start + 1``, … of the global batch that ``key`` names.

        All candidates of an example share it. None where the model needs none (text).
        """
        ...

    def forward(self, batch: Batch, draw: Draw | None) -> Outputs: ...
    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path) -> None: ...
    def flops(self, batch: Batch) -> float:
        """Floating-point operations of one forward pass over the batch."""
        ...


class Pretrained(Trainable, Protocol):
    """A model that can be used without training, from its files."""

    def open(self) -> None:
        """Read the weights that its fields ``folder`` or ``hub`` name. Raises UserError where they cannot be read."""
        ...


class Policy(Sampler, Trainable, Protocol):
    """A generative model."""

    def rollout(self, prompts: Sequence[Prompt], keys: Array, settings: Any) -> Rollout: ...
    def replay(self, rollout: Rollout) -> Batch:
        """Rows that :meth:`act` reads; "behaviour" (N, T) is the rollout's own log-probs, in nats."""
        ...

    def act(self, batch: Batch) -> Outputs:
        """Log-probs (N, T) of the actions of a replayed rollout: tokens in text, denoising steps in diffusion."""
        ...

    def sampling_flops(self, settings: Any) -> float:
        """Floating-point operations to make one sample."""
        ...


@runtime_checkable
class ClosedForm(Protocol):
    """A model whose weighted maximum likelihood needs no gradient steps."""

    def fit(self, samples: Samples, weights: Array) -> None: ...


class Objective(Protocol):
    """Pure, tensors only. ``example`` says what it eats; ``inputs`` what ``Outputs`` must hold.

    Optional class variables: ``candidates``, how many an example has (2: pairs; absent: whatever there are);
    ``before``, which of "log_probs", "ref_log_probs" and "values" ``prepare`` needs: the trainer computes them for the
    whole global batch without gradient, and puts them in as columns "before_log_probs", … (N, T) with "before_mask";
    ``steer(state, batch)``, what adapts as training goes (a KL coefficient): called once a prepared batch; its answer
    is saved with the training's state and given to the next batches, a number for each example, by name.
    """

    example: ClassVar[str]  # "sample" | "group" | "rollout"
    inputs: ClassVar[frozenset[str]]
    accepts: ClassVar[frozenset[str]]  # the kinds of likelihood it is defined for

    def prepare(self, batch: Batch) -> Batch:
        """Once a global batch (of rollouts: once when they are drawn): advantages, whitening, baselines."""
        ...

    def __call__(self, out: Outputs, batch: Batch) -> Loss: ...


class Adapter(Protocol):
    """Which weights a stage trains, and the model at its entry."""

    def attach(self, model: Trainable, total_steps: int, key: int) -> None: ...
    def reference(self, model: Trainable) -> Trainable: ...
    def parameters(self, model: Trainable) -> Iterable[torch.nn.Parameter]: ...
    def regulariser(self, model: Trainable) -> torch.Tensor | None: ...
    def after_step(self, model: Trainable, step: int) -> None: ...
    def merge(self, model: Trainable) -> None: ...


class Features(Protocol):
    """An encoder: samples to vectors (N, D) float32, shared by metrics, deduplication and search."""

    def embed(self, samples: Samples, tools: Tools) -> Array: ...


class Tools(Protocol):
    """What ``assemble`` hands to a plug-in: never the loop."""

    @property
    def train(self) -> Samples:
        """The real training part."""
        ...

    @property
    def held_out(self) -> Samples: ...
    @property
    def classes(self) -> tuple[str, ...]: ...

    def model(self, name: str) -> Trainable:
        """A model that the recipe's ``models:`` names; ``policy`` is the one in this stage."""
        ...

    def fitted(self, name: str, samples: Samples, key: int) -> Trainable:
        """Another model like that one, trained from nothing on these samples as its ``fit:`` says; nobody keeps it.

        Raises UserError where the recipe does not say how.
        """
        ...

    def pretrained(self, name: str, source: Mapping[str, str]) -> Trainable:
        """A model that is no part of the recipe, opened for use: ``source`` is its "folder" or its name on the "hub".

        Raises UserError where its files cannot be read.
        """
        ...

    def embed(self, samples: Samples) -> Array:
        """(N, D) by the recipe's ``features:``, cached by sample id."""
        ...


class Scorer(Protocol):
    """Judges. Optional: ``bounds``, the least and the greatest score that it can give; certificates need the latter."""

    def score(self, samples: Samples, tools: Tools) -> Scores: ...


SelectionLaw = Literal["odds", "best", "top", "independent"]


class Curator:
    """Base class of curators: keeps some samples, and drops the rest with a reason.

    The class attributes declare what other code needs to know: pairing checks, the plan, the theory's forecast and
    the certificate read these, and never the curator's name.
    """

    selects: ClassVar[Literal["reward", "votes", "random", "content", "none"]] = "none"
    """What decides: the rewards of the scorers, annotators' votes, chance, the samples' content, or nothing."""
    among_candidates: ClassVar[bool] = False
    """Whether it compares the candidates of one prompt, so that it needs at least two of them."""
    several_sizes: ClassVar[bool] = False
    """Whether it can read images of several sizes."""
    law: ClassVar[SelectionLaw] = "independent"
    """What it keeps, for the theory: one of K candidates by softmax(reward / ``temperature``) ("odds"), the ``keep``
    best of K ("best"), the best share of all samples ("top"), or a share that the reward does not change."""
    kept_is_assumed: ClassVar[bool] = False
    """Whether ``expected_kept`` is an assumption, since the share kept depends on rewards that are not known yet."""
    keep: int = 1  # candidates kept of each prompt, where it selects among candidates
    temperature: float = 1.0  # of the odds

    def expected_kept(self, samples: float, prompts: float) -> float:
        """How many of ``samples`` samples of ``prompts`` prompts it is expected to keep, before any is scored.

        Default: ``keep`` of each prompt for a curator among candidates, else all.
        """
        return min(samples, prompts * self.keep) if self.among_candidates else samples

    def curate(self, samples: Samples, rewards: Array, tools: Tools, key: int) -> Selection:
        """Which of N samples to keep.

        ``rewards`` (N,) float64, NaN where unscored; rows of one ``group`` are candidates of one prompt; ``key``
        seeds every random choice.
        """
        raise NotImplementedError


class MixingPolicy(Protocol):
    """Which real rows and which samples of earlier rounds a round trains on; λ and weights are applied by the mixer.

    Subclass ``upturn.data.base_mixing_policy.BaseMixingPolicy``, which has a default for everything below.
    """

    theory: ClassVar[MixingCase | None]  # the case of the theory that describes it; None: no forecast is made
    accumulates: ClassVar[bool]  # whether samples of earlier rounds stay in the mixture
    fresh_real: ClassVar[bool]  # whether each round gets real rows that no earlier round had
    subsamples: ClassVar[bool]  # whether it draws ``mix.size`` rows from the pool
    real_only: ClassVar[bool]  # whether λ = 0 is accepted, a round without synthetic rows

    def rounds_used(self, number: int) -> Sequence[int]:
        """The rounds, from 1 and ascending, whose kept samples enter the mixture of round ``number``."""
        ...

    def real_count(self, available: int, wanted: int | None, rounds: int | None) -> int:
        """How many of ``available`` real rows one round gets; ``wanted`` is ``mix.real``."""
        ...

    def real_rows(self, real: Samples, wanted: int | None, rounds: int | None, number: int, key: int) -> Samples:
        """The real rows of round ``number``. Raises UserError where there are too few."""
        ...

    def subsample(self, origin: Array, size: int, share: float | None, key: int) -> Array:
        """Rows of the pool, ascending, that are trained on; ``origin`` (N,) says which are real, ``share`` is λ."""
        ...

    def expected_rows(self, real: float, synthetic: float, size: int, share: float | None) -> dict[str, float]:
        """Expected rows by origin of a mixture whose pool has so many real and synthetic ones."""
        ...


class OptimizerFactory(Protocol):
    """Builds the optimizer of a training; its fields are hyperparameters beside learning rate and weight decay."""

    def build(
        self, parameters: Sequence[torch.nn.Parameter], learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        """Raises UserError where a library that it needs is not installed."""
        ...


class Schedule(Protocol):
    """How the learning rate changes after the warm-up."""

    def factor(self, done: float) -> float:
        """What the learning rate is multiplied by when the share ``done`` in [0, 1) of the steps is done."""
        ...


class Evidence(Protocol):
    """What a metric may look at; ``samples`` are made from fixed prompts and noise, the same in every round."""

    @property
    def samples(self) -> Samples: ...
    @property
    def rewards(self) -> Array:
        """(N,) by the round's scorers, NaN where unscored."""
        ...

    @property
    def tools(self) -> Tools: ...
    @property
    def seed(self) -> int: ...
    @property
    def settings(self) -> Any:
        """How the samples were drawn."""
        ...


class Metric(Protocol):
    """``better`` is "higher", "lower" or "neither" (a description, never a gate)."""

    kinds: ClassVar[frozenset[str]]
    better: ClassVar[str]

    def measure(self, evidence: Evidence) -> Measurement: ...


class Caption(Protocol):
    """Writes the prompts' text of pictures; ids, labels and fields stay.

    ``folder`` is where it may keep what is dear to make; chance is a function of ``key`` and the picture. Where a
    picture has several captions, all are in the field "captions", (N,) tuples of text, the prompt's text first.
    Notes count what is empty or absent; a strategy that says ``silent`` wants empty captions, one that says ``dear``
    asks a model.
    """

    def caption(
        self, samples: Samples, classes: Sequence[str], folder: Path | None, key: int
    ) -> tuple[Samples, tuple[str, ...]]: ...
