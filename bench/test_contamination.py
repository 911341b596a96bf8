"""Coverage of the interval of the synthetic share, at 0 to 50% planted samples."""

from __future__ import annotations

import numpy as np
import pytest
from common import say

from upturn.data.sources.digits import Digits
from upturn.statistics.contamination import of_features
from upturn.statistics.intervals import share as wilson
from upturn.types import concatenate

_SEEDS, _ROWS, _TRUSTED = 30, 400, 400
_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
_SURE = 0.85  # of 180 intervals at 95%: fewer inside would happen once in 10^7


def clusters(draw: np.random.Generator, n: int, made: bool) -> np.ndarray:
    """Two clusters in 6 dimensions; synthetic ones are narrower and shifted: a classifier is right in 64% of cases."""
    side = draw.random(n) < (0.7 if made else 0.5)
    centre = np.where(side, -1.5, 1.5)[:, None] * np.eye(6)[0]
    return (centre + (0.7 if made else 1.0) * draw.standard_normal((n, 6))).astype(np.float32)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """(1797, 64) pixels, and what a Gaussian of each class, fitted to a third of them, makes: rounded as they."""
    splits = Digits().load()
    every = concatenate([splits.train, splits.held_out])
    pixels = every.content.reshape(len(every), -1).astype(np.float64)
    draw, made = np.random.default_rng(0), []
    for label in range(10):
        own = pixels[every.labels == label][::3]
        made.append(draw.multivariate_normal(own.mean(axis=0), np.cov(own.T), 300))
    levels = np.rint(np.concatenate(made).clip(0, 255) * 16 / 255) * 255 / 16
    return pixels.astype(np.float32), levels.astype(np.float32)


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("data", ["clusters", "digits"])
def test_intervals_hold_the_planted_share(data: str) -> None:
    known = digits() if data == "digits" else None
    inside_all = []
    for share in _SHARES:
        inside, found_it, widths = [], 0, []
        for seed in range(_SEEDS):
            draw, count = np.random.default_rng(seed), round(share * _ROWS)
            if known is None:
                real, trusted = clusters(draw, _ROWS - count, False), clusters(draw, _TRUSTED, False)
                planted, own = clusters(draw, count, True), clusters(draw, _TRUSTED, True)
            else:
                order, other = draw.permutation(len(known[0])), draw.permutation(len(known[1]))
                real, trusted = known[0][order[: _ROWS - count]], known[0][order[_ROWS : _ROWS + _TRUSTED]]
                planted, own = known[1][other[:count]], known[1][other[_ROWS : _ROWS + _TRUSTED]]
            found = of_features(np.concatenate([real, planted]), trusted, own, key=seed)
            inside.append(float(found.low <= share <= found.high))
            widths.append(found.high - found.low)
            found_it += found.detected
        low, high = wilson(np.array(inside))
        say(f"{data}, {share:.0%} planted: intervals that hold it, of {_SEEDS} (95%); mean width; detected",
            (f"{np.mean(inside):.2f} ({low:.2f} to {high:.2f})", round(float(np.mean(widths)), 3), found_it))
        inside_all += inside
    say(f"{data}: of all {len(inside_all)}", round(float(np.mean(inside_all)), 3))
    assert np.mean(inside_all) >= _SURE
