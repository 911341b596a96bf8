"""Helpers of the benchmarks: paths of runs, paired timing of two sides, printed figures."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from upturn.cli.progress_display import Lines
from upturn.config import recipe
from upturn.loop import loop
from upturn.runs import status
from upturn.runs.status import RunStatus
from upturn.store.run import Run
from upturn.store.values import read_values

ROOT = Path(__file__).parents[1]
PAIRS = int(os.environ.get("BENCH_PAIRS", "5"))
RUNS = ROOT / "runs" / "bench"
sys.path.insert(0, str(ROOT / "tests"))  # helpers


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


class Memory:
    """The highest resident size of this process from now on, in MB above where it was."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.floor = self.process.memory_info().rss
        self.peak = self.floor
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self.process.memory_info().rss)
            time.sleep(0.01)

    @property
    def above(self) -> float:
        return (self.peak - self.floor) / 1e6


def timed(marks: Sequence[float], per_step: int) -> float:
    """Samples a second from the first mark, which is the beginning of training, to the last, the end of a step."""
    return per_step * (len(marks) - 1) / (marks[-1] - marks[0])


def threads() -> int:
    return int(os.environ.get("BENCH_THREADS", "2"))


def clock() -> float:
    """Seconds; those of this process alone where it has one thread: a busy machine does not lengthen them."""
    return time.process_time() if threads() == 1 else time.perf_counter()


def tell(figures: dict[str, object]) -> None:
    """The last thing that a script says to :func:`once`."""
    print("RESULT " + json.dumps(figures))


def once(script: str, *arguments: str) -> dict[str, float]:
    """One side in a process of its own: what it tells."""
    command = [sys.executable, str(Path(__file__).parent / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3600)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stderr[-3000:]
    found: dict[str, float] = json.loads(lines[-1].removeprefix("RESULT "))
    return found


@dataclass(frozen=True)
class Ratios:
    """Ours over theirs, a pair each."""

    speeds: list[float]
    memories: list[float]

    @property
    def speed(self) -> float:
        return statistics.median(self.speeds)

    @property
    def memory(self) -> float:
        return statistics.median(self.memories)

    def say(self, name: str, of: str) -> None:
        spread = f"median of {len(self.speeds)} pairs ({min(self.speeds):.2f} to {max(self.speeds):.2f})"
        say(f"{name}: {of} a second, {spread}", f"{self.speed:.2f}")
        say(f"{name}: peak memory above the loaded model", f"{self.memory:.2f}")


def paired_speeds(script: str, ours: Sequence[str], theirs: Sequence[str]) -> Ratios:
    """One after the other each time: what the machine does to one it does to both."""
    found = Ratios([], [])
    for _ in range(PAIRS):
        one, other = once(script, *ours), once(script, *theirs)
        found.speeds.append(one["per_second"] / other["per_second"])
        found.memories.append(one["megabytes"] / other["megabytes"])
    return found
