"""Any image classification model of ``transformers``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from upturn.embeddings.pretrained import located, quiet
from upturn.embeddings.processors import Reader
from upturn.errors import UserError
from upturn.types import Array

_CHUNK = 64  # images in one pass


@dataclass(frozen=True)
class ImageClassifier:
    """``labels`` are the model's own names of its C classes."""

    model: Any
    reader: Reader
    labels: tuple[str, ...]

    @property
    def several(self) -> bool:
        """Whether an image may have several labels, each with its own probability."""
        return bool(getattr(self.model.config, "problem_type", None) == "multi_label_classification")

    def probabilities(self, content: Array) -> Array:
        """(N, C) float64 of (N, H, W, channels) uint8."""
        import torch

        parts = []
        with torch.no_grad():
            for start in range(0, len(content), _CHUNK):
                logits = self.model(pixel_values=self.reader.pixels(content[start : start + _CHUNK])).logits.double()
                parts.append((logits.sigmoid() if self.several else logits.softmax(dim=1)).numpy())
        return np.concatenate(parts) if parts else np.zeros((0, len(self.labels)))


def read(folder: str | None, hub: str | None) -> ImageClassifier:
    """UserError where it cannot be read, or weights would have been random."""
    return located(folder, hub, _read)


def _read(name: str, where: str, local: bool) -> ImageClassifier:
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    plain: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    try:
        with quiet():
            model, report = AutoModelForImageClassification.from_pretrained(
                name, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **plain
            )
            processor = AutoImageProcessor.from_pretrained(name, **plain)
    except Exception as error:  # the readers of weights and JSON raise exceptions of any class
        lines = str(error).strip().splitlines()
        raise UserError(
            f"'{name}' cannot be read as an image classifier: {lines[0] if lines else repr(error)}", where=where,
            fix="It needs config.json with id2label, model.safetensors and preprocessor_config.json.",
        ) from error
    if report["missing_keys"]:
        raise UserError(
            f"{len(report['missing_keys'])} weights are missing (the first is {min(report['missing_keys'])}) and would "
            "have been random", where=where, fix="Give an image classifier, with its head.",
        )
    names = model.config.id2label
    labels = tuple(str(names[i]) for i in sorted(names, key=int))
    return ImageClassifier(model.eval(), Reader(None, processor, 0, False), labels)
