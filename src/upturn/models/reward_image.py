"""Reward models of images and points: a head on features."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from upturn import seeds
from upturn.embeddings.unwrap import unwrapped
from upturn.errors import UserError
from upturn.models._heads import attribute_rewards as _reward_attributes
from upturn.models._heads import head_files as _network_files
from upturn.models._heads import inputs
from upturn.models._heads.networks import HeadNetwork
from upturn.protocols import Trainable
from upturn.store import files
from upturn.types import Batch, Draw, Kind, Likelihood, Outputs, Samples, content_id

if TYPE_CHECKING:
    from upturn.types import Ragged

_WHERE = "model 'reward_image'"


class ClassScaledNetwork(nn.Module):
    """A network whose features are scaled by the class of the prompt, before its last layer.

    Class c scales them by 1 + a vector that begins at 0; no class (-1) leaves them as they are.
    """

    def __init__(self, network: HeadNetwork, hidden: int, classes: int) -> None:
        super().__init__()
        self.network = network
        self.scale = nn.Embedding(classes + 1, hidden, padding_idx=0)
        nn.init.zeros_(self.scale.weight)

    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.body(x) * (1 + self.scale(label + 1))
        return self.network.head(self.network.dropout(features)), features


@dataclass
class RewardImage(Trainable):
    """A reward of an image (or a point in the plane) and the requested class: a head on small convolutions.

    Images of any size, halved until 4 pixels are left, as in the classifier; there is no batch statistic, so a score
    is the same in any batch. Where prompts have classes, the features are scaled by the class first: the score of an
    image depends on its prompt. ``attributes`` {name: weight} makes a head of A whose weighted sum is the reward.

    hidden    width of the penultimate layer, which is returned as ``features``
    channels  of the first convolution (images); doubled at each halving
    depth     hidden layers; for images convolutions a resolution
    dropout   before the last layer, in training
    """

    likelihood: ClassVar[Likelihood] = "reward"

    hidden: int = 64  # as the classifier, whose figures are in docs/decisions/
    channels: int = 32
    depth: int = 1
    dropout: float = 0.0  # a pair's two rewards would get different noise
    attributes: dict[str, float] = field(default_factory=dict)

    kind: Kind = field(default="image", init=False)  # of the examples it was built for
    id: str = field(default="", init=False)
    module: torch.nn.Module = field(default_factory=torch.nn.Module, init=False, repr=False)
    _settings: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        sizes = {"hidden": self.hidden, "channels": self.channels, "depth": self.depth}
        inputs.check(sizes, {"dropout": self.dropout})
        _reward_attributes.check(self.attributes)

    def build(self, examples: Samples, key: int) -> None:
        """Weights, classes and scale for this data."""
        if examples.kind == "text":
            raise UserError("reward_image reads images or points, and these samples are text", where=_WHERE,
                            fix="Use reward_text.")
        self.kind = examples.kind
        self._settings = {
            "kind": examples.kind, "shape": [int(side) for side in examples.content.shape[1:]],
            "classes": max(1, len(self.attributes)), "asked": int(examples.labels.max(initial=-1)) + 1,
            "hidden": self.hidden, "channels": self.channels, "depth": self.depth, "dropout": self.dropout,
            "attributes": list(self.attributes),
        }
        seeds.seed_torch(key)
        self.module = self._network(self._settings, inputs.columns(examples, self._settings["shape"]))
        self.id = content_id("reward_image", key, files.to_json(self._settings))

    @staticmethod
    def _network(settings: dict[str, Any], column: Tensor | Ragged | None = None) -> ClassScaledNetwork:
        return ClassScaledNetwork(inputs.network(settings, column), settings["hidden"], settings["asked"])

    def encode(self, samples: Samples) -> Batch:
        """"x" (N, C, H, W) uint8 or (N, d) float32, "label" (N,) int64, -1 where none, and "attributes" (N, A).

        Raises UserError where kind, shape or classes differ from those the model was built for.
        """
        if samples.kind != self._settings["kind"]:
            raise UserError(f"the model was built for {self._settings['kind']}, and these samples are {samples.kind}",
                            where=_WHERE, fix="Train it on data of this kind.")
        class_count = self._settings["asked"]
        labels = samples.labels if class_count else np.full(len(samples), -1)  # a model without classes ignores labels
        if labels.max(initial=-1) >= class_count > 0:
            raise UserError(
                f"a prompt requests class {labels.max()}, and its training data had {class_count}",
                where=_WHERE, fix="Train it on preferences about every class.",
            )
        columns = {"x": inputs.columns(samples, self._settings["shape"]), "label": torch.from_numpy(labels)}
        return Batch({**columns, **_reward_attributes.column(samples, self.attributes)})

    def draw(self, batch: Batch, key: int, start: int) -> Draw | None:
        return None

    def forward(self, batch: Batch, draw: Draw | None) -> Outputs:
        """rewards (N,), logits (N, A), features (N, hidden); log_probs and mask are (N, 0): no likelihood."""
        logits, features = self.module(batch["x"], batch["label"])
        if logits.dtype in (torch.bfloat16, torch.float16):
            logits = logits.float()
        none = logits[:, :0]
        reward = _reward_attributes.reward(logits, self.attributes)
        return Outputs(none, none, rewards=reward, logits=logits, features=features.float())

    def save(self, folder: Path) -> None:
        """``model.safetensors`` and ``config.json``: equal weights give equal bytes."""
        _network_files.save(self.module, "reward_image", self._settings, folder)

    def load(self, folder: Path) -> None:
        """Reads the files of ``save``; UserError where it cannot be read or is of another model."""
        found = _network_files.settings("reward_image", folder)
        _reward_attributes.same(found.get("attributes"), self.attributes)
        module, raw = _network_files.weights(lambda: self._network(found), folder)
        self._settings, self.kind, self.module = found, found["kind"], module
        self.id = content_id("reward_image", raw)

    def flops(self, batch: Batch) -> float:
        """Floating-point operations of the matrix products and convolutions of one forward pass."""
        module: Any = unwrapped(self.module)
        return inputs.multiplications(module.network, batch.columns["x"])
