"""One metric of features, this package's or a reference package's, in its own process.

python measures.py frechet|prdc|fld ours|theirs ROWS

Features resemble an encoder's: 2,048 float32 numbers per row, at least 0, correlated.
"""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any

import numpy as np
import torch
from common import Memory, clock, tell, threads

from helpers.metric_cases import Tools, measure, real, sampled
from upturn.seeds import generator

DIMS, HIDDEN, STRIP = 2048, 64, 2000
K = 5
Array = np.ndarray[Any, Any]


def features(rows: int, key: int, scale: float = 1.0) -> Array:
    """(rows, 2048) float32, a strip at a time, so that no larger array is ever in memory."""
    mixing = generator(99).standard_normal((HIDDEN, DIMS), dtype=np.float32)
    found = np.empty((rows, DIMS), dtype=np.float32)
    for start in range(0, rows, STRIP):
        draw, count = generator(key + start), min(STRIP, rows - start)
        own = draw.standard_normal((count, DIMS), dtype=np.float32)
        shared = scale * draw.standard_normal((count, HIDDEN), dtype=np.float32)
        np.maximum(shared @ mixing + 3 * own, 0, out=found[start : start + count])
    return found


class Inputs:
    """Evidence whose samples are their own features."""

    def __init__(self, samples: Array, held_out: Array, train: Array) -> None:
        self.samples, self.rewards = sampled(samples), np.zeros(len(samples))
        self.tools, self.seed, self.settings = Tools(real(train), real(held_out)), 0, None


def ours(what: str, samples: Array, held_out: Array, train: Array) -> dict[str, float]:
    inputs = Inputs(samples, held_out, train)
    if what == "prdc":
        return {name: measure(name, inputs, k=K).value for name in ("precision", "recall", "density", "coverage")}
    return {what: measure(what, inputs).value}


def theirs(what: str, samples: Array, held_out: Array) -> dict[str, float]:
    """prdc 0.2; torchmetrics' Fréchet distance, whose moments are numpy's (its own are of Inception's layers alone)."""
    if what == "prdc":
        from prdc import compute_prdc

        with contextlib.redirect_stdout(io.StringIO()):
            return {name: float(value) for name, value in compute_prdc(held_out, samples, K).items()}
    from torchmetrics.image.fid import _compute_fid

    wide = [part.astype(np.float64) for part in (samples, held_out)]
    moments = [torch.from_numpy(x) for part in wide for x in (part.mean(axis=0), np.cov(part.T))]
    return {"frechet": float(_compute_fid(*moments))}


def main(what: str, whose: str, rows: int) -> None:
    torch.set_num_threads(threads())
    samples, held_out = features(rows, 10**6, 0.9), features(rows, 2 * 10**6)
    train = features(2 * rows if what == "fld" else 2, 3 * 10**6)
    small = [features(300, key) for key in (4 * 10**6, 5 * 10**6, 6 * 10**6)]
    if what == "prdc" or (whose == "ours" and what == "fld"):  # imports and first calls are not timed
        ours(what, *small) if whose == "ours" else theirs(what, *small[:2])
    memory, start = Memory(), clock()
    found = ours(what, samples, held_out, train) if whose == "ours" else theirs(what, samples, held_out)
    tell({"seconds": clock() - start, "above": memory.above, "peak": memory.peak / 1e6, **found})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
