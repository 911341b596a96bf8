"""Clouds of points over the real points; each cloud is drawn once and referred to by its id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from upturn.report import svg
from upturn.report.svg import element
from upturn.types import Array

_SIDE = 400  # units of a panel
_MOST = 1200  # points of a cloud: more only fill it
_MARGIN = 0.06  # of the real points' range, on every side
_BINS = 48  # of a histogram, for points on a line


@dataclass(frozen=True)
class Projection:
    """Maps points (N, d) to positions of a panel, equally for all panels of a run.

    d = 2 without change, d = 1 as a histogram, d > 2 onto the first two principal components of the real points.
    """

    centre: Array
    directions: Array  # (d, 2) or (d, 1)
    low: Array
    high: Array
    note: str

    @staticmethod
    def of(real: Array) -> Projection:
        d = real.shape[1]
        centre, directions, note = np.zeros(d), np.eye(d)[:, :2], ""
        if d > 2:
            centre = real.mean(axis=0)
            directions = np.linalg.svd(real - centre, full_matrices=False)[2][:2].T
            note = f"The {d} dimensions are projected onto the first two principal components of the real points."
        projected = (real - centre) @ directions
        low, high = projected.min(axis=0), projected.max(axis=0)
        pad = np.maximum((high - low) * _MARGIN, 1e-6)
        if d > 1:  # one scale on both axes: a circle stays a circle
            half = (high - low + 2 * pad).max() / 2
            middle = (low + high) / 2
            return Projection(centre, directions, middle - half, middle + half, note)
        return Projection(centre, directions, low - pad, high + pad, note)

    def cloud(self, points: Array, name: str) -> Markup:
        """A path with the id ``name``."""
        # points outside the panel are left out
        projected = (points[_evenly(len(points))] - self.centre) @ self.directions
        scaled = (projected - self.low) / (self.high - self.low)
        if scaled.shape[1] == 1:
            return self._histogram(scaled[:, 0], name)
        inside = np.isfinite(scaled).all(axis=1) & (np.abs(scaled - 0.5) <= 0.5).all(axis=1)
        positions = np.rint(scaled[inside] * _SIDE).astype(int)
        return element("path", d="".join(f"M{x} {_SIDE - y}h0" for x, y in positions.tolist()), id=name)

    def _histogram(self, scaled: Array, name: str) -> Markup:
        counts = np.histogram(scaled, bins=_BINS, range=(0, 1))[0] / max(len(scaled), 1)
        heights = _SIDE * (1 - np.minimum(counts * _BINS / 8, 1.0))
        step = _SIDE / _BINS
        steps = "".join(f"L{i * step:.0f} {h:.0f}H{(i + 1) * step:.0f}" for i, h in enumerate(heights.tolist()))
        return element("path", d=f"M0 {_SIDE}{steps}V{_SIDE}", id=name)

    @property
    def flat(self) -> bool:
        """Whether panels are histograms."""
        return bool(self.directions.shape[1] == 1)


def _evenly(count: int) -> Array:
    """At most ``_MOST`` rows, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, _MOST)).round().astype(int)) if count else np.arange(0)


def definitions(clouds: Sequence[Markup]) -> Markup:
    return element("svg", element("defs", *clouds), width=0, height=0, aria_hidden="true", class_="defs")


def panel(projection: Projection, real: str, name: str, label: str) -> Markup:
    """The cloud ``name`` over the real one."""
    kind = "histogram" if projection.flat else "cloud"
    body = svg.join([
        element("use", href=f"#{real}", class_=f"{kind} real"),
        element("use", href=f"#{name}", class_=f"{kind} generated"),
    ])
    return svg.figure(body, label, _SIDE, _SIDE)
