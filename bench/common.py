"""What the benchmarks share: where runs lie, and how figures are printed."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np

from upturn import loop, recipe, status
from upturn.cli.progress import Lines
from upturn.status import RunStatus
from upturn.store.run import Run
from upturn.store.values import read_values

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "bench"
sys.path.insert(0, str(ROOT / "tests"))  # children, small


def run(name: str, file: str, *settings: str) -> tuple[Run, RunStatus]:
    """A shipped recipe under another name; done before, it is only read."""
    # one thread: benchmarks may run side by side, and threads that wait for each other measure nothing
    asked = recipe.load(ROOT / "recipes" / file, [f"name={name}", "threads=1", *settings])
    done = loop.run(asked, RUNS, Lines())
    return done, status.read(done)


def say(figure: str, value: object) -> None:
    """A line that docs/benchmarks.md can quote."""
    print(f"FIGURE {figure}: {value}", flush=True)


def paired(done: Run, metric: str, before: str, after: str) -> tuple[float, float, float]:
    """Mean of ``after - before`` over the same prompts and noise, with its 95% interval (normal)."""
    old = read_values(done.unit(before) / "values.parquet")[metric]
    new = read_values(done.unit(after) / "values.parquet")[metric]
    gap = new - old
    spread = 1.96 * gap.std(ddof=1) / math.sqrt(len(gap))
    return float(gap.mean()), float(gap.mean() - spread), float(gap.mean() + spread)


def own_share(done: Run) -> float:
    """Share of the time of all steps that is neither sampling, training nor measuring."""
    records = done.records()
    total = sum(record.seconds for record in records)
    spent = sum(float(record.info.get("compute_seconds", 0.0)) for record in records)
    return (total - spent) / total


def interval(values: list[float]) -> str:
    array = np.asarray(values)
    return f"{array.mean():.4f} (lowest {array.min():.4f}, highest {array.max():.4f} of {len(array)})"
