"""Diffusion models of a class or unconditional: network and formulation by name, label dropout."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from upturn import seeds
from upturn.config import components
from upturn.diffusion.denoiser import Condition, Formulation, Network
from upturn.errors import UserError
from upturn.models._diffusion import model_files
from upturn.models._diffusion.diffusion_model import Diffusion
from upturn.models._diffusion.normalization import Frame
from upturn.types import Array, Batch, Draw, Prompt, Samples

if TYPE_CHECKING:
    from upturn.models._diffusion.sampling import DiffusionSampling


@dataclass(eq=False)
class ClassDiffusion(Diffusion):
    """Diffusion conditioned on the label of a prompt, or unconditional; a subclass defines its content."""

    classes: int = 0  # 0: unconditional, labels are ignored
    network: str | dict[str, Any] = "mlp"
    formulation: str | dict[str, Any] = "flow"  # measured on 8x8 digits: docs/decisions/
    label_dropout: float = 0.1  # Ho & Salimans 2022, section 4.1: 0.1 or 0.2

    asks: ClassVar[tuple[str, ...]] = ("label",)

    def __post_init__(self) -> None:
        if self.classes < 0 or self.draws < 1 or not 0 <= self.label_dropout < 1:
            raise ValueError("needs classes >= 0, draws >= 1 and 0 <= label_dropout < 1")
        self.parts()

    def parts(self) -> None:
        """Network and formulation from the fields that name them."""
        self.net: Network = components.make("network", self.network, "model.network")
        self.caller = self.net
        self.form: Formulation = components.make("formulation", self.formulation, "model.formulation")
        self._operations = {}

    @property
    def conditional(self) -> bool:
        return self.classes > 0

    @property
    def dropout(self) -> float:
        return self.label_dropout

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
        model_files.save(self, folder)

    def load(self, folder: Path) -> None:
        """Reads a saved model: network, formulation, classes and shape come from the folder.

        Raises UserError where this instance was configured otherwise, and where a file is missing or damaged.
        """
        model_files.load(self, folder)

    # Examples.

    def encode(self, samples: Samples) -> Batch:
        """Columns "x" (the content as stored) and "label" (int64, -1 for none)."""
        self._check_kind(samples)
        return Batch({"x": self.column(samples.content), "label": self.labels(samples.prompts)})

    def labels(self, prompts: Sequence[Prompt]) -> Tensor:
        """(N,) int64, -1 for none; all -1 of an unconditional model. Raises UserError for a class it does not have."""
        if not self.conditional:
            return torch.full((len(prompts),), -1, dtype=torch.int64)
        labels = torch.tensor([-1 if p.label is None else p.label for p in prompts], dtype=torch.int64)
        wrong = labels[(labels >= self.classes) | (labels < -1)]
        if len(wrong):
            raise UserError(
                f"a label is {int(wrong[0])}, but the model has classes 0 to {self.classes - 1}",
                where="model.classes", fix="Raise 'classes:', or fix the labels.",
            )
        return labels

    def clean(self, batch: Batch, draw: Draw) -> Tensor:
        return self.into(batch["x"])

    # Condition.

    def condition(self, prompts: Sequence[Prompt]) -> Condition:
        return {"label": self.labels(prompts)}

    def training_condition(self, batch: Batch, draw: Draw) -> Condition:
        label = batch["label"]
        return {"label": label if draw.drop is None else label.masked_fill(draw.drop.to(label.device), -1)}

    def without(self, condition: Condition, settings: DiffusionSampling) -> Condition:
        return {"label": torch.full_like(condition["label"], -1)}

    def unguidable(self) -> str:
        if not self.conditional:
            return "an unconditional model has no condition to guide by"
        return "" if self.label_dropout else "with label_dropout 0 a model never learns to generate without its class"
