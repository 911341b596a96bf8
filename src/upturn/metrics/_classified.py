"""Classes that a classifier of the recipe predicts for samples."""

from __future__ import annotations

import numpy as np

from upturn.metrics._undefined import UndefinedMetric
from upturn.protocols import Evidence, Tools
from upturn.types import Array, Samples

_ROWS = 512  # samples in one forward pass


def classified(evidence: Evidence, name: str) -> tuple[Array, tuple[str, ...]]:
    """(N,) int64 class of each sample by the model ``name``, and the names of the C classes."""
    return classes_of(evidence.samples, evidence.tools, name)


def classes_of(samples: Samples, tools: Tools, name: str) -> tuple[Array, tuple[str, ...]]:
    """Like :func:`classified`, for any samples."""
    import torch

    model = tools.model(name)
    batch = model.encode(samples)
    found, width = [], 0
    training = model.module.training
    model.module.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(batch), _ROWS):
                part = batch.take(torch.arange(start, min(start + _ROWS, len(batch))))
                logits = model.forward(part, None).logits
                if logits is None:
                    raise UndefinedMetric(f"the model '{name}' gives no logits: it is not a classifier")
                if not bool(torch.isfinite(logits).all()):
                    raise UndefinedMetric(f"the model '{name}' gives logits that are not finite")
                found.append(logits.argmax(dim=1).numpy(force=True))
                width = logits.shape[1]
    finally:
        model.module.train(training)
    classes = tools.classes
    return np.concatenate(found), classes if len(classes) == width else tuple(str(i) for i in range(width))
