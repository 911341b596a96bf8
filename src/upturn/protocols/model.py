"""Base classes of models: anything with weights, and the generative ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from upturn.protocols.component import Component
from upturn.protocols.sampler import SamplingSettings
from upturn.types import Array, Batch, Draw, Kind, Likelihood, Outputs, Prompt, Rollout, Samples, TokenRows

if TYPE_CHECKING:
    import torch


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
    bf16_weights: ClassVar[bool] = False
    """Whether its forward pass may run with all weights in bfloat16: it widens by itself what has to be wide."""
    vocabulary: int = 0
    """Entries in a row of its logits, of a language model; 0 for none."""
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

    def as_tokens(self, samples: Samples, examples: Samples, key: int) -> TokenRows | None:
        """The samples as tokens, before there are weights; None where the model reads none.

        ``examples`` and ``key`` are what :meth:`build` will get. Raises UserError where a row cannot be read.
        """
        return None

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

    def refuses_packing(self) -> str:
        """Why ``forward`` cannot read rows of uneven length as one sequence without padding; "" where it can.

        Where it can, a batch with the column ``PACKED`` gives the same outputs as without it, within rounding.
        """
        return "it does not read rows as one sequence"

    def flops(self, batch: Batch) -> float:
        """Floating-point operations of one forward pass over the batch."""
        raise NotImplementedError

    def logits_bytes(self, tokens: int) -> float:
        """The most memory that the logits of so many tokens take in a training step; 0 where there are none."""
        return 0.0

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

    def sampling_bytes(self, settings: Any, rows: int, tokens: int) -> tuple[float, float]:
        """Memory beside the weights while ``rows`` rows of ``tokens`` tokens are sampled: (cache, logits)."""
        return 0.0, 0.0

    def sampling_flops(self, settings: Any) -> float:
        """Floating-point operations of one sample."""
        raise NotImplementedError
