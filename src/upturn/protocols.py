"""Every interface: the base class of each kind of component, and the protocols of what components are given.

A component is a dataclass (hyperparameters in the fields, data in the call) that inherits the base class of its kind.
The base class is required: it declares, with a default, every attribute that other code reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

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

Better = Literal["higher", "lower", "neither"]


class Component:
    """What every component declares. A subclass overrides a property by a class variable, a field or a property."""

    @property
    def several_sizes(self) -> bool:
        """Whether it takes images of several sizes in one run. A run with such images refuses it where it does not."""
        return False

    @property
    def models_used(self) -> tuple[str, ...]:
        """The names under the recipe's ``models:`` that it asks :class:`Tools` for; a missing one is refused early."""
        return ()


class Source(Component):
    """Base class of sources: real data, split by content; ``load`` refuses a layout by naming found and expected."""

    @property
    def kind(self) -> Kind:
        """The kind of content: "text", "image" or "points"."""
        raise NotImplementedError

    compares: ClassVar[bool] = False
    """Whether its samples are groups with ranks, which an objective of preferences can learn from."""

    def load(self) -> Splits:
        """Reads the data and splits it by content. Raises UserError naming what was found and what was expected."""
        raise NotImplementedError


class SamplingSettings:
    """Base class of the settings of a model's sampling: a frozen dataclass, its fields the keys of ``settings:``.

    Settings that a model does not have keep the values below, which change nothing.
    """

    @property
    def guide(self) -> str:
        """The version of the model that guides (autoguidance); empty for none."""
        return ""

    @property
    def keyed(self) -> bool:
        """Whether a sample is a function of its prompt and key, whatever is sampled beside it."""
        return True

    @property
    def sampler(self) -> str | dict[str, Any]:
        """The algorithm, for messages."""
        return ""

    @property
    def temperature(self) -> float:
        """1 samples from the model's own distribution."""
        return 1.0

    @property
    def top_p(self) -> float:
        """The share of probability that is kept; 1 is all."""
        return 1.0

    @property
    def top_k(self) -> int:
        """The number of outcomes that are kept; 0 is all."""
        return 0

    @property
    def guidance(self) -> float:
        """The scale of guidance; 1 is none."""
        return 1.0

    @property
    def negative(self) -> str:
        """The caption that guidance leads away from; empty for the empty caption."""
        return ""

    @property
    def width(self) -> int | None:
        """Pixels of an image; None is the model's own."""
        return None

    @property
    def height(self) -> int | None:
        """Pixels of an image; None is the model's own."""
        return None

    @property
    def batch(self) -> int:
        """Samples in one call of the model."""
        return 1024

    def require(self, where: str) -> None:
        """Raises UserError naming ``where`` where these settings cannot run on this machine."""

    def with_length(self, tokens: int) -> Self:
        """The same with samples of at most so many tokens; itself where samples have no length."""
        return self


class Sampler(Protocol):
    """Anything that answers prompts; an HTTP teacher is only this."""

    @property
    def kind(self) -> Kind:
        """The kind of content: "text", "image" or "points"."""
        ...

    Sampling: ClassVar[type[SamplingSettings]]  # the dataclass of its settings

    @property
    def conditional(self) -> bool:
        """Whether what it makes depends on the prompt."""
        ...

    def sample(self, prompts: Sequence[Prompt], keys: Array, settings: Any, guides: Mapping[str, Any] = {}) -> Samples:
        """P * K rows, prompt-major, for ``keys`` (P, K) int64: the noise of row i depends on key i alone."""
        ...


class Trainable(Component):
    """Base class of models: anything with weights. Reward models and classifiers are only this."""

    id: str  # names these weights in the lineage
    if TYPE_CHECKING:  # at run time, reading the type hints of a recipe's fields must not import torch
        module: torch.nn.Module
    likelihood: ClassVar[Likelihood]
    """What its log-probs are: "exact", "elbo", "surrogate", or "reward" where it gives none."""

    name: ClassVar[str] = ""
    """Its name in messages and saved files."""
    asks: ClassVar[tuple[str, ...]] = ("label",)
    """What it is conditioned on, where it is conditional: "label", "caption"."""
    expensive: ClassVar[bool] = False
    """Whether ``encode`` runs frozen networks, so that a plan times it and shows it as a step of its own."""
    family: ClassVar[str] = ""
    """The distribution that the theory can follow it as, round by round: "gaussian" or "categorical"; "" is none."""
    division: Literal["n", "n-1"] = "n"
    """What a covariance is divided by, of the family "gaussian"."""
    adapter_formats: ClassVar[frozenset[str]] = frozenset({"peft"})
    """The formats in which its adapters can be exported: "peft", "diffusers", "kohya"."""
    attributes: Mapping[str, float] = MappingProxyType({})
    """Of a reward model with a head for each attribute: its attributes in the order of the heads, and their weights."""
    embeds_images_and_texts: ClassVar[bool] = False
    """Whether it has vectors of images and of texts in one space, which a search uses."""
    notes: tuple[str, ...] = ()
    """Of the last ``encode``: what was cut, empty or unknown, counted."""
    words: tuple[Any, ...] = ()
    """Tokens that textual inversion added, in order."""
    inverts: tuple[str, ...] | None = ()
    """Text encoders that can learn new tokens; None where that is not known before its files are there."""
    pipeline_class: str = ""
    """The class of ``diffusers`` that opens it, for messages; "" for none."""

    @property
    def kind(self) -> Kind:
        """The kind of content: "text", "image" or "points"."""
        raise NotImplementedError

    def build(self, examples: Samples, key: int) -> None:
        """Create the weights (and tokenizer, scale, …) for this data."""
        raise NotImplementedError

    def encode(self, samples: Samples) -> Batch:
        """The tensors of the samples that ``forward`` reads: tokens, latents, captions."""
        raise NotImplementedError

    def draw(self, batch: Batch, key: int, start: int) -> Draw | None:
        """Random numbers for the examples ``start``, ``start + 1``, … of the global batch that ``key`` names.

        All candidates of an example share them. None where the model needs none (text).
        """
        raise NotImplementedError

    def forward(self, batch: Batch, draw: Draw | None) -> Outputs:
        """Log-probs (N, T) in nats with their mask, and whatever else the objective needs."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Writes the weights as safetensors, and what is needed to read them, into the folder."""
        raise NotImplementedError

    def load(self, folder: Path) -> None:
        """Reads what ``save`` wrote. Raises UserError where it cannot be read."""
        raise NotImplementedError

    def flops(self, batch: Batch) -> float:
        """Floating-point operations of one forward pass over the batch."""
        raise NotImplementedError

    def without_store(self) -> None:
        """Keep nothing on disk that outlives the process: a plan writes no file and times the work itself."""


class Policy(Trainable):
    """Base class of generative models: a :class:`Sampler` that can be trained."""

    Sampling: ClassVar[type[SamplingSettings]]  # the dataclass of its settings

    @property
    def conditional(self) -> bool:
        """Whether a sample depends on the prompt."""
        raise NotImplementedError

    def sample(self, prompts: Sequence[Prompt], keys: Array, settings: Any, guides: Mapping[str, Any] = {}) -> Samples:
        """P * K rows, prompt-major, for ``keys`` (P, K) int64: the noise of row i depends on key i alone."""
        raise NotImplementedError

    def rollout(self, prompts: Sequence[Prompt], keys: Array, settings: Any) -> Rollout:
        """Samples with all that is needed to replay them: actions, behaviour log-probs (N, T), mask."""
        raise NotImplementedError

    def replay(self, rollout: Rollout) -> Batch:
        """Rows that :meth:`act` reads; "behaviour" (N, T) is the rollout's own log-probs, in nats."""
        raise NotImplementedError

    def act(self, batch: Batch) -> Outputs:
        """Log-probs (N, T) of the actions of a replayed rollout: tokens in text, denoising steps in diffusion."""
        raise NotImplementedError

    def sampling_flops(self, settings: Any) -> float:
        """Floating-point operations of one sample."""
        raise NotImplementedError


@runtime_checkable
class Pretrained(Protocol):
    """Capability of a model: it can be used without training, from its files."""

    def open(self) -> None:
        """Read the weights that its fields ``folder`` or ``hub`` name. Raises UserError where they cannot be read."""
        ...


@runtime_checkable
class ClosedForm(Protocol):
    """Capability of a model: its weighted maximum likelihood needs no gradient steps."""

    def fit(self, samples: Samples, weights: Array) -> None:
        """Sets the weights to the maximum of the weighted likelihood; ``weights`` (N,) are relative."""
        ...


@runtime_checkable
class ValueHead(Protocol):
    """Capability of a policy: it can carry a head for the values of states, which PPO needs."""

    def add_value_head(self, key: int) -> None:
        """Add it with fresh weights from ``key``; nothing where it is there."""
        ...


@runtime_checkable
class Standardises(Protocol):
    """Capability of a model of points: it can turn them into independent standard normal numbers."""

    def standardised(self, samples: Samples) -> Array:
        """(N, d) float64."""
        ...


@runtime_checkable
class FromFiles(Protocol):
    """Capability of a model: its weights come from ``config`` (train from scratch), ``folder`` or ``hub``."""

    config: dict[str, Any] | None
    folder: str | None
    hub: str | None


class Objective(Component):
    """Base class of objectives: pure, tensors only."""

    example: ClassVar[str]
    """What an example is: "sample", "group" or "rollout"."""
    inputs: ClassVar[frozenset[str]]
    """What ``Outputs`` must hold."""
    accepts: ClassVar[frozenset[str]]
    """The kinds of likelihood that it is defined for: "exact", "elbo", "surrogate", "reward"."""
    candidates: ClassVar[int | None] = None
    """How many candidates an example has (2: pairs); None is any number."""
    ties: ClassVar[bool] = False
    """Whether it learns from ties; votes for a tie are otherwise counted and left out."""
    unrelated: ClassVar[bool] = False
    """Whether it takes unpaired labels, and beside each row the same prompt with another example's content."""
    before: ClassVar[frozenset[str]] = frozenset()
    """Which of "log_probs", "ref_log_probs" and "values" ``prepare`` needs of the whole global batch.

    The trainer computes them without gradient: columns "before_log_probs", … (N, T) with "before_mask".
    """
    maximum_likelihood: ClassVar[bool] = False
    """Whether it is weighted maximum likelihood, which a :class:`ClosedForm` model solves without gradient steps."""

    def prepare(self, batch: Batch) -> Batch:
        """Once a global batch (of rollouts: once when they are drawn): advantages, whitening, baselines."""
        raise NotImplementedError

    def __call__(self, out: Outputs, batch: Batch) -> Loss:
        raise NotImplementedError

    def steer(self, state: Mapping[str, float], batch: Batch) -> dict[str, float]:
        """What adapts as training proceeds (a KL coefficient), after each prepared batch.

        The answer is saved with the training's state and given to the next batches, a number for each example, by name.
        """
        return dict(state)


class Adapter(Component):
    """Base class of adapters: which weights a stage trains, and the model at its entry."""

    trains_all: ClassVar[bool] = False
    """Whether it trains the model's own weights, without an adapter; a report then does not mention it."""

    def refuses(self, model: Trainable) -> str:
        """Why it cannot adapt this model; "" where it can, or where that is not known before the model is built."""
        return ""

    def attach(self, model: Trainable, total_steps: int, key: int) -> None:
        """Sets which weights require gradients, and adds layers where the adapter has some."""
        raise NotImplementedError

    def reference(self, model: Trainable) -> Trainable:
        """The model at the entry of the stage."""
        raise NotImplementedError

    def parameters(self, model: Trainable) -> Iterable[torch.nn.Parameter]:
        """The weights that the optimizer trains."""
        raise NotImplementedError

    def regulariser(self, model: Trainable) -> torch.Tensor | None:
        """A term that is added to the loss; None for none."""
        return None

    def after_step(self, model: Trainable, step: int) -> None:
        """Called after each optimizer step."""

    def merge(self, model: Trainable) -> None:
        """Adds the adapter's layers to the weights of the model, for export."""
        raise NotImplementedError


class Features(Component):
    """Base class of encoders: samples to vectors (N, D) float32, for metrics, deduplication and search."""

    def embed(self, samples: Samples, tools: Tools) -> Array:
        """Vectors (N, D) float32."""
        raise NotImplementedError


class Tools(Protocol):
    """What a component is given to work with: models, features and the real data."""

    @property
    def train(self) -> Samples:
        """The real training part."""
        ...

    @property
    def held_out(self) -> Samples:
        """The held-out part of the real data."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        ...

    def model(self, name: str) -> Trainable:
        """A model that the recipe's ``models:`` names; ``policy`` is the one in this stage."""
        ...

    def fitted(self, name: str, samples: Samples, key: int) -> Trainable:
        """Another model like that one, trained from scratch on these samples as its ``fit:`` says; it is not kept.

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


class Scorer(Component):
    """Base class of scorers: a number for each sample, NaN for unscored, with a reason in words."""

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest score that it can give, infinite where there is none; certificates need it."""
        return (-math.inf, math.inf)

    def score(self, samples: Samples, tools: Tools) -> Scores:
        """(N,) float64, NaN where a sample is unscored."""
        raise NotImplementedError


SelectionLaw = Literal["odds", "best", "top", "independent"]


class Curator(Component):
    """Base class of curators: keeps some samples, and drops the rest with a reason.

    The class attributes declare what other code needs to know: pairing checks, the plan, the theory's forecast and
    the certificate read these, and never the curator's name.
    """

    selects: ClassVar[Literal["reward", "votes", "random", "content", "none"]] = "none"
    """What decides: the rewards of the scorers, annotators' votes, chance, the samples' content, or nothing."""
    among_candidates: ClassVar[bool] = False
    """Whether it compares the candidates of one prompt, so that it needs at least two of them."""
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
    """What a metric may look at; ``samples`` are drawn for fixed prompts and noise, the same in every round."""

    @property
    def samples(self) -> Samples:
        """The samples of the evaluation."""
        ...

    @property
    def rewards(self) -> Array:
        """(N,) by the round's scorers, NaN where unscored."""
        ...

    @property
    def tools(self) -> Tools:
        """The tools of the run."""
        ...

    @property
    def seed(self) -> int:
        """The seed of the run."""
        ...

    @property
    def settings(self) -> SamplingSettings:
        """How the samples were drawn."""
        ...


class Metric(Component):
    """Base class of metrics: a number that describes the samples of an evaluation, or the model.

    Where it is undefined (too few samples, …) the value is NaN and the note says why.
    """

    title: ClassVar[str] = ""
    """Its name in a report; "" for its name in the recipe."""
    meaning: ClassVar[str] = ""
    """One sentence for a reader who does not know it: what the number is, and what a high or a low one says."""
    reference: ClassVar[tuple[str, str] | None] = None
    """A number in its details that gives the scale, and what has that value."""
    kinds: ClassVar[frozenset[str]] = frozenset({"text", "image", "points"})
    """The kinds of content that it can measure."""
    better: ClassVar[Better] = "neither"
    """"higher", "lower" or "neither": a description, which no gate can use."""
    by_features: ClassVar[bool] = False
    """Whether it sees images through the recipe's ``features:`` alone."""
    held_out_only: ClassVar[bool] = False
    """Whether it looks at held-out data and not at the samples of the evaluation."""
    averages_reward: ClassVar[bool] = False
    """Whether its ``values`` are the rewards of the evaluation's samples."""
    is_gold_reward: ClassVar[bool] = False
    """Whether it is a reward that no training uses, which a report plots against the reward that is trained on."""
    flags_copies: ClassVar[bool] = False
    """Whether its details have "flagged", "copied" and "baseline": whether samples are copies of training data."""
    counts_classes: ClassVar[bool] = False
    """Whether its details have "shares", the share of each class among the samples."""

    @classmethod
    def described(cls, spec: Mapping[str, Any]) -> tuple[str, str, Better]:
        """Title, meaning and better direction with the settings of a recipe, where these change them."""
        return cls.title, cls.meaning, cls.better

    def measure(self, evidence: Evidence) -> Measurement:
        """The value with its 95% interval; NaN with a note where it is undefined."""
        raise NotImplementedError


class Caption(Component):
    """Base class of caption strategies: they write the prompts' text of images; ids, labels and fields stay.

    Where an image has several captions, all are in the field "captions", (N,) tuples of text, the prompt's text first.
    """

    wants_empty: ClassVar[bool] = False
    """Whether empty captions are intended; otherwise they are counted in a note."""

    @property
    def expensive(self) -> bool:
        """Whether a model writes them, so that a plan times it."""
        return False

    def caption(
        self, samples: Samples, classes: Sequence[str], folder: Path | None, key: int
    ) -> tuple[Samples, tuple[str, ...]]:
        """Samples with captions, and notes that count what is empty or absent.

        ``folder`` is where it may keep what is expensive to compute; chance is a function of ``key`` and the image.
        """
        raise NotImplementedError
