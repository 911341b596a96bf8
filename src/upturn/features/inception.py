"""Inception v3's pooled features, from local weights."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from upturn.embeddings.image_tensors import coloured, prepared
from upturn.errors import UserError
from upturn.protocols import Features
from upturn.types import Array, Samples

_SIDE = 299  # pixels, Szegedy et al. 2016
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet's, as torchvision's weights expect
_WHERE = "features.weights"


@dataclass
class Inception(Features):
    """Inception v3's pooled features, from local weights: the space of published Fréchet distances.

    weights  ``*.pt``, a TorchScript file that takes (N, 3, H, W) uint8 and ``return_features=True`` (the form in which
             the original Fréchet network of Heusel et al. 2017 is passed on), or ``*.safetensors`` of torchvision's
             ``inception_v3``, for which torchvision must be installed. Distances in torchvision's features are of
             another scale than published ones. A TorchScript file holds a program: use one only from a source that you
             trust
    batch    images in one pass
    """

    weights: str
    batch: int = 64
    _network: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, not {self.batch}")

    def embed(self, samples: Samples, tools: object) -> Array:
        """(N, 2048) float32. UserError where the samples are not images, or weights or torchvision are missing."""
        import torch

        if samples.kind != "image":
            raise UserError(f"Inception reads images, and these samples are {samples.kind}", where="features")
        path = Path(self.weights).expanduser()
        if self._network is None:
            self._network = _load(path)
        parts = []
        with torch.no_grad():
            for start in range(0, len(samples), self.batch):
                content = samples.content[start : start + self.batch]
                if path.suffix == ".safetensors":
                    found = self._network(prepared(content, (_SIDE, _SIDE), _MEAN, _STD))
                else:
                    found = self._network(coloured(content), return_features=True)
                parts.append(found.flatten(1).float().numpy())
        return np.concatenate(parts)


def _load(path: Path) -> Any:
    if not path.is_file():
        raise UserError(
            "there are no Inception weights here", where=f"{_WHERE}: {path}",
            fix="Give a TorchScript *.pt or torchvision's *.safetensors on this machine, or use 'features: pixels', "
            "'classifier' or 'encoder'.",
        )
    if path.suffix == ".safetensors":
        return _torchvision(path)
    import torch

    try:
        with warnings.catch_warnings():  # the form is old, and the one in which these weights are passed on
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise UserError(
            "this is no TorchScript file", where=f"{_WHERE}: {path}",
            fix="Pickled weights are not read: give a TorchScript *.pt or a *.safetensors.",
        ) from error


def _torchvision(path: Path) -> Any:
    try:
        models = importlib.import_module("torchvision.models")
    except ImportError as error:
        raise UserError(
            "these weights need torchvision, which is not installed", where=f"{_WHERE}: {path}",
            fix="Run 'pip install torchvision', or give a TorchScript *.pt, which needs nothing.",
        ) from error
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    network = models.inception_v3(weights=None, init_weights=False, transform_input=False)
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"these are not the weights of torchvision's inception_v3: {first}", where=f"{_WHERE}: {path}",
            fix="Save its whole state dict as safetensors.",
        ) from error
    network.fc = torch.nn.Identity()
    return network.eval()
