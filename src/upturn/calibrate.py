"""A few timed steps of each kind on this machine: what the plan's seconds rest on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from upturn import seeds, trainer
from upturn.assemble import Assembly
from upturn.feeds import FixedFeed
from upturn.protocols import ClosedForm, Objective, Policy, Trainable
from upturn.recipe import Training
from upturn.types import Batch, Prompt, Samples

_STEPS, _WARM = 30, 4  # timed steps, and those before that are not counted (first allocations)
_BUDGET = 0.4  # seconds spent on one kind of work
_FEW, _MANY = 8, 64  # prompts sampled to tell the fixed cost from the cost a sample


@dataclass(frozen=True)
class Line:
    """Seconds as ``fixed + each * n``."""

    fixed: float
    each: float

    def __call__(self, n: float) -> float:
        return self.fixed + self.each * n


def step_seconds(parts: Assembly, model: Trainable, spec: Training, examples: Batch) -> float:
    """Seconds of one optimiser step of this spec, the median of a few; 0 where the model is fitted in closed form."""
    objective: Objective = parts.objective(spec)
    if isinstance(model, ClosedForm) and spec.objective["name"] == "likelihood":
        return 0.0
    marks: list[float] = []
    began = time.perf_counter()

    class Enough(Exception):
        pass

    def on_step(step: int, total: int, loss: float) -> None:
        marks.append(time.perf_counter())
        if len(marks) >= _STEPS + _WARM or (len(marks) > _WARM and marks[-1] - began > _BUDGET):
            raise Enough

    short = spec.model_copy(update={"epochs": None, "steps": 10**6, "held_out_every": 10**6, "save_every": 10**9})
    plan = trainer.Plan(
        spec=short, objective=objective, adapter=parts.adapter(spec), key=0, where="plan", on_step=on_step,
        feed=FixedFeed(examples, spec.batch_size, 0),
    )
    with suppress(Enough):
        trainer.train(model, plan)
    spent = np.diff(marks[min(_WARM, len(marks) - 2) :])
    return float(np.median(spent)) if len(spent) else 0.0


def sampling_line(policy: Policy, prompts: Sequence[Prompt], candidates: int, settings: Any) -> Line:
    """Seconds to answer n prompts with K candidates each, from two sizes."""

    def timed(count: int) -> float:
        asked = [prompts[i % len(prompts)] for i in range(count)]
        keys = np.stack([seeds.fold(i, range(candidates)) for i in range(count)])
        return _timed(lambda: policy.sample(asked, keys, settings))

    timed(2)
    few = timed(_FEW)
    if few > _BUDGET:
        return Line(0.0, few / _FEW)
    return _line((_FEW, few), (_MANY, timed(_MANY)))


def measuring_line(measure: Callable[[int], None], most: int) -> Line:
    """Seconds to measure n samples, from two sizes."""
    few, many = max(2, most // 4), max(3, most)
    measure(few)  # first calls import and load
    return _line((few, _timed(lambda: measure(few))), (many, _timed(lambda: measure(many))))


def flops_of(model: Trainable, examples: Batch, rows: int) -> float:
    """Floating-point operations of one training step on ``rows`` examples: forward, and twice that backward."""
    count = min(rows, len(examples))
    with torch.no_grad():
        return 3 * model.flops(examples.take(torch.arange(count))) * rows / count


def storage_bytes(samples: Samples) -> float:
    """Bytes of content a sample takes in a table, before compression."""
    if samples.kind == "text":
        return float(np.mean([len(str(text)) for text in samples.content[:500]]))
    return float(samples.content[:1].nbytes)


def _line(a: tuple[float, float], b: tuple[float, float]) -> Line:
    each = max((b[1] - a[1]) / (b[0] - a[0]), 0.0)
    return Line(max(a[1] - each * a[0], 0.0), each)


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
