"""Points in the plane or in more dimensions, drawn from distributions that are known exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from upturn import seeds
from upturn.data.sources._common import Rows, check_fraction, divide
from upturn.data.split import content_keys
from upturn.protocols import Source
from upturn.types import Array, Kind, Prompt, Splits


@dataclass(frozen=True)
class Points(Source):
    """Points from a known density: eight Gaussians on a circle, two moons, rings, a swiss roll, or a Gaussian mixture.

    Each point carries its mode as the label of its prompt. Content (n, d) float32; d = 2, or that of ``means``.

    shape    which density
    n        points in all
    std      standard deviation of the noise; for ``mixture`` one number, or one for each mode
    seed     the same seed gives the same points
    radius   of the circle of eight Gaussians, of the outer ring, of the roll's end, and the scale of the moons
    means    mixture: one list of d numbers for each mode
    weights  mixture: of the modes (they need not sum to 1); equal where empty
    held_out share of the points that training never sees
    """

    kind: ClassVar[Kind] = "points"

    shape: Literal["eight_gaussians", "two_moons", "rings", "swiss_roll", "mixture"] = "eight_gaussians"
    n: int = 4000
    std: float | list[float] = 0.1
    seed: int = 0
    radius: float = 2.0  # the ring of Gaussians of Metz et al., "Unrolled GANs", ICLR 2017
    means: list[list[float]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    held_out: float = 0.1

    def __post_init__(self) -> None:
        check_fraction(self.held_out)
        if self.n < 2:
            raise ValueError(f"n must be 2 or more, not {self.n}")
        spread = self.std if isinstance(self.std, list) else [self.std]
        if not spread or any(not (s >= 0.0 and math.isfinite(s)) for s in spread):
            raise ValueError(f"std must be 0 or more and finite, not {self.std}")
        if self.shape == "mixture":
            self._check_mixture(len(spread))
        elif self.means or self.weights or isinstance(self.std, list):
            raise ValueError(f"means, weights and a list of std are for shape 'mixture', not '{self.shape}'")

    def _check_mixture(self, spreads: int) -> None:
        modes = len(self.means)
        if not modes or len({len(mean) for mean in self.means}) != 1 or not self.means[0]:
            raise ValueError("shape 'mixture' needs 'means': one list of d numbers for each mode, all of one length")
        if self.weights and len(self.weights) != modes:
            raise ValueError(f"{len(self.weights)} weights for {modes} means")
        if self.weights and (min(self.weights) < 0.0 or not 0.0 < sum(self.weights) < math.inf):
            raise ValueError(f"weights must be 0 or more with a sum above 0, not {self.weights}")
        if isinstance(self.std, list) and spreads != modes:
            raise ValueError(f"{spreads} values of std for {modes} means")

    @property
    def modes(self) -> int:
        """How many modes the density has."""
        known = {"eight_gaussians": 8, "two_moons": 2, "rings": 2, "swiss_roll": 1, "mixture": len(self.means)}
        return known[self.shape]

    def load(self) -> Splits:
        """Draws the points. Raises UserError where a part would be empty (very small ``n``)."""
        rng = seeds.generator(seeds.key("points", self.shape, self.seed))
        chances = np.array(self.weights or [1.0] * self.modes)
        labels = rng.choice(self.modes, self.n, p=chances / chances.sum())
        clean = self._centres(labels, rng)
        scale = np.broadcast_to(np.asarray(self.std, dtype=np.float64), (self.modes,))[labels]
        content = (clean + scale[:, None] * rng.standard_normal(clean.shape)).astype(np.float32)
        names = [f"mode {mode}" for mode in range(self.modes)]
        known = [Prompt(label=mode) for mode in range(self.modes)]
        rows = Rows("points", content, [known[mode] for mode in labels], content_keys("points", content))
        return divide(rows, self.held_out, "points", classes=names)

    def _centres(self, labels: Array, rng: np.random.Generator) -> Array:
        """(n, d) where each point would are without noise."""
        if self.shape == "mixture":
            return np.asarray(np.array(self.means, dtype=np.float64)[labels])
        if self.shape == "eight_gaussians":
            angle = labels * (2.0 * math.pi / self.modes)
            return np.asarray(self.radius * np.stack([np.cos(angle), np.sin(angle)], axis=1))
        if self.shape == "rings":
            angle = rng.uniform(0.0, 2.0 * math.pi, self.n)
            length = self.radius * np.where(labels == 0, 0.5, 1.0)
            return np.asarray(length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1))
        if self.shape == "swiss_roll":
            # the spiral of Marsland 2009 ("Machine Learning", section 6.5) from above: one and a half turns outwards
            angle = 1.5 * math.pi * (1.0 + 2.0 * rng.uniform(0.0, 1.0, self.n))
            length = self.radius * angle / (4.5 * math.pi)
            return np.asarray(length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1))
        # two half circles of radius 1, the second turned over and moved by (1, 1/2); centred, then scaled
        angle = rng.uniform(0.0, math.pi, self.n)
        sign = np.where(labels == 0, 1.0, -1.0)
        x = sign * np.cos(angle) + np.where(labels == 0, 0.0, 1.0)
        y = sign * np.sin(angle) + np.where(labels == 0, 0.0, 0.5)
        return self.radius * np.stack([x - 0.5, y - 0.25], axis=1)
