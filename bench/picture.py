"""Draws the README's image from a run of recipes/digits.yaml:  python bench/picture.py RUN docs/images/digits.png"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from upturn.runs import status
from upturn.store import parquet_tables
from upturn.store.run import Run


def strip(run: Run, unit: str) -> np.ndarray:
    """The unit's grid as one image: a row a class, its candidates side by side, a dark line between."""
    samples = parquet_tables.read_samples(run.unit(unit) / "grid.parquet")
    rows = []
    for group in range(int(samples.group.max()) + 1):
        cells = [np.pad(255 - c[:, :, 0], 1, constant_values=255) for c in samples.content[samples.group == group]]
        rows.append(np.concatenate(cells, axis=1))
    return np.concatenate(rows, axis=0)


def main() -> None:
    run = Run.open(Path(sys.argv[1]))
    seen = status.read(run)
    units = [(s.name, s.unit, s.metrics, "") for s in seen.rounds[0].stages]
    units += [(f"round {r.round}", r.unit, r.metrics, str(r.gate and r.gate["decision"])) for r in seen.rounds[1:]]
    figure, axes = plt.subplots(
        2, len(units), figsize=(2.0 * len(units), 6.6), height_ratios=[5, 1.9], layout="constrained"
    )
    values = [m["label_agreement"] for _, _, m, _ in units]
    names = {"pretrain": "pre-trained on all,\ngood and bad", "finetune": "fine-tuned\non the good"}
    for axis, (name, unit, _, decision) in zip(axes[0], units, strict=True):
        axis.imshow(strip(run, unit), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_title(names.get(name, f"{name}\n{decision}"), fontsize=11,
                       color="#b3261e" if decision == "rejected" else "#1a1a1a")
        axis.axis("off")
    grid = axes[1, 0].get_gridspec()
    for axis in axes[1]:
        axis.remove()
    curve = figure.add_subplot(grid[1, :])
    x = np.arange(len(units))
    y = np.array([v["value"] for v in values])
    reach = np.array([[v["value"] - v["low"], v["high"] - v["value"]] for v in values]).T
    colours = ["#b3261e" if d == "rejected" else "#2457a6" for *_, d in units]
    curve.plot(x, y, color="#9db7dd", zorder=1)
    for i in range(len(units)):
        curve.errorbar(x[i], y[i], yerr=reach[:, i : i + 1], fmt="o", color=colours[i], capsize=3, zorder=2)
        curve.annotate(f"{y[i]:.1%}", (x[i], y[i]), textcoords="offset points", xytext=(9, -11), fontsize=10)
    curve.set_xlim(-0.5, len(units) - 0.5)
    curve.set_ylim(min(y) - 0.08, 1.02)
    curve.set_ylabel("shows the digit\nasked for", fontsize=10)
    curve.set_xticks([])
    for side in ("top", "right", "bottom"):
        curve.spines[side].set_visible(False)
    figure.savefig(sys.argv[2], dpi=110)


if __name__ == "__main__":
    main()
