"""The lab's points: stacked models against the same trainings in sequence, and the cost of 20 retrainings.

BENCH_POINTS=whole runs 6 λ × 20 retrainings × 10 seeds and resumes after a kill. Otherwise a small part runs.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from common import RUNS, say

from upturn import seeds
from upturn.config import components
from upturn.config.schema import Training
from upturn.lab import experiment_runner
from upturn.lab.experiments import _point_shapes as shapes
from upturn.lab.experiments.points import LOST, LOST_AT_ALL, OFF, Points, _PointRounds
from upturn.models.points import Points as Model
from upturn.training import trainer
from upturn.training.feeds import FixedFeed
from upturn.training.setup import TrainingSetup
from upturn.types import Batch, Prompt, real_samples

WHOLE = os.environ.get("BENCH_POINTS") == "whole"
SEEDS = 30  # models of a stack here, as many as the lab takes, at λ = 1
ALONE = 6 if WHOLE else 3  # of them trained in sequence
STEPS = 600


class Timed(NamedTuple):
    """Samples of M models after one retraining, and seconds of this process for one training and its sampling."""

    made: np.ndarray[Any, Any]
    seconds: float


def alone(of: Points, real: np.ndarray[Any, Any], key: int) -> Timed:
    """A model of this package and its first retraining at λ = 1, by its own trainer and sampler."""
    began, points = time.process_time(), real
    for t in range(2):
        model = Model(network={"name": "mlp", "width": of.width})
        samples = real_samples("points", points, [Prompt("")] * len(points), "bench")
        model.build(samples, seeds.key("weights", key, t))
        spec = Training.model_validate({
            "steps": of.steps, "batch_size": of.batch, "learning_rate": of.learning_rate, "ema": of.ema,
            "precision": "fp32",
        })
        encoded = model.encode(samples)
        feed = FixedFeed(Batch(encoded.columns, 1, {"weights": torch.ones(len(points))}), of.batch, key)
        trainer.train(model, TrainingSetup(
            spec=spec, objective=components.make("objective", "likelihood"),
            adapter=components.make("adapter", "full"), feed=feed, key=seeds.key("training", key, t), where="bench",
        ))
        keys = np.arange(of.n, dtype=np.uint64)[:, None] + np.uint64(of.n * (2 * key + t))
        made = model.sample([Prompt("")] * of.n, keys, model.Sampling(sampler="dpmpp_2m", steps=20)).content
        points = np.concatenate([real, made])
    return Timed(made, (time.process_time() - began) / 2)


def stacked(of: Points) -> tuple[_PointRounds, float]:
    """The same of all seeds at once; seconds for one training of one model."""
    loop = _PointRounds(of, of.cells())
    began = time.process_time()
    for t in range(2):
        loop.retrain(t)
    return loop, (time.process_time() - began) / 2 / of.seeds


def test_stacked_models_are_faster_and_no_different() -> None:
    """Both on one thread: seconds of the process, which a busy machine hardly changes."""
    torch.set_num_threads(1)
    of = Points(lam=[1.0], seeds=SEEDS, steps=STEPS)
    loop, each = stacked(of)
    singles = [alone(of, loop.real[i], i) for i in range(ALONE)]
    one = float(np.median([single.seconds for single in singles]))
    say("points: seconds of a training and its samples, stacked", f"{each:.3f}")
    say("points: the same, in sequence", f"{one:.3f}")
    say("points: speed on one core", f"{one / each:.2f}")
    made = np.stack([single.generated for single in singles])
    for name, ours, theirs in (
        (OFF, 1 - loop.near, 1 - shapes.shares(loop.shape, made)[1]),
        ("sliced distance", shapes.sliced(loop.generated, loop.held_out), shapes.sliced(made, loop.held_out[:ALONE])),
    ):
        error = math.sqrt(ours.var(ddof=1) / len(ours) + theirs.var(ddof=1) / len(theirs))
        z = float(ours.mean() - theirs.mean()) / error
        say(f"points: {name}, stacked and alone", f"{ours.mean():.4f}, {theirs.mean():.4f}, z {z:+.2f}")
        assert abs(z) < 4
    assert one / each > 1.5  # two processes of stacks double it


def test_twenty_retrainings() -> None:
    """Seconds are those of the stacks, each in a process of one thread; stacks that were kept count as they took."""
    small = {} if WHOLE else {"lam": [0.5, math.inf], "rounds": 2, "seeds": 2, "steps": 100, "stack": 2}
    folder = RUNS / ("lab-points" if WHOLE else "lab-points-part")
    if not WHOLE:
        shutil.rmtree(folder, ignore_errors=True)
    began = time.perf_counter()
    found = experiment_runner.conduct("points", small, folder, workers=2)
    say("points: wall seconds of this call", f"{time.perf_counter() - began:.0f}")
    say("points: seconds of all stacks, halved for two processes", f"{found['seconds'] / 2:.0f}")
    last = found["settings"]["rounds"]
    for row in found["checks"]:
        if row["quantity"] in (LOST, LOST_AT_ALL, OFF) and row["round"] == last:
            said = "" if row["theory"] is None else f", theory {row['theory']:.3g}"
            say(f"points: λ = {row['lam']}, {row['quantity']}", f"{row['simulation']:.4g}{said}")
    if WHOLE:
        assert found["seconds"] / 2 < 1200
        assert not any(
            row["simulation"] for row in found["checks"]
            if row["quantity"] == LOST_AT_ALL and float(row["lam"]) >= 0.5 and row["round"] == last
        )
