"""A few timed steps of each kind on this machine: what the plan's seconds rest on."""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from upturn import seeds
from upturn.config.schema import Training
from upturn.loop.assembly import Assembly
from upturn.protocols import Policy, SamplingSettings, Trainable
from upturn.training import trainer
from upturn.training.feeds import Feed
from upturn.training.setup import TrainingSetup
from upturn.types import Array, Batch, Prompt, Samples

_STEPS, _WARM = 30, 4  # timed steps, and those before that are not counted (first allocations)
_ASKED = 4  # passes without gradient that are timed, the first not counted
_BUDGET = 0.3  # seconds of timed steps of one kind, about
_FEW, _MANY = 16, 256  # sample counts that separate the fixed cost from the cost of each sample
_TIMES = 4  # as many as the few are affordable
_READ, _DECODED, _WIDE = 1, 8, 16  # prompts, tokens and candidates that a large model's decoding is timed on
_SLOW = 4.0  # seconds that no sampling is to take longer than

Found = TypeVar("Found")


@dataclass(frozen=True)
class Line:
    """Seconds of n things: ``each * n``, and ``fixed`` once for every ``batch`` of them begun."""

    fixed: float
    each: float
    batch: float = math.inf

    def __call__(self, n: float) -> float:
        return self.fixed * max(1, math.ceil(n / self.batch)) + self.each * n

    def __add__(self, other: Line) -> Line:
        """Both, one after the other; of what is not done in batches."""
        return Line(self.fixed + other.fixed, self.each + other.each)


@dataclass(frozen=True)
class SamplingTime:
    """What sampling costs by number of prompts, and the samples drawn to measure it, K of each prompt."""

    line: Line
    samples: Samples
    candidates: int

    def first(self, prompts: int) -> Samples:
        return self.samples.take(np.arange(min(prompts * self.candidates, len(self.samples))))

    @property
    def prompts(self) -> int:
        return len(self.samples) // self.candidates


def candidate_keys(prompts: int, candidates: int) -> Array:
    """(P, K) keys of samples that are drawn only for timing."""
    return np.stack([seeds.fold(i, range(candidates)) for i in range(prompts)])


def guides_of(policy: Policy, settings: SamplingSettings) -> dict[str, Policy]:
    """The policy itself in the place of its guide: an earlier version takes as long."""
    name = settings.guide
    return {name: policy} if name else {}


def sampled(
    policy: Policy, prompts: Sequence[Prompt], candidates: int, settings: SamplingSettings, wanted: int
) -> SamplingTime:
    """Answers some of ``prompts`` with K candidates each, at two sizes; ``wanted`` is how many prompts the run has.

    The larger size is a part of a batch of the sampler, less where that would take seconds. Where already the smaller
    one does, its samples are all there are.
    """

    guides = guides_of(policy, settings)

    def sampled_for(count: int) -> tuple[float, Samples]:
        cycled = [prompts[i % len(prompts)] for i in range(count)]
        return timed(lambda: policy.sample(cycled, candidate_keys(count, candidates), settings, guides))

    few = max(2, _FEW // candidates)
    short, samples = sampled_for(few)
    if short > _SLOW:
        return SamplingTime(Line(0.0, short / few), samples, candidates)
    batch = max(few + 1, settings.batch // candidates)
    affordable = max(_TIMES * few, int(_SLOW / short * few))  # if all of it grew with their number: most of it does not
    many = min(batch, affordable, max(few + 1, min(wanted, _MANY // candidates)))
    long, samples = sampled_for(many)
    line = _line((few, short), (many, long))
    return SamplingTime(Line(line.fixed, line.each, batch), samples, candidates)


@dataclass(frozen=True)
class Decoding:
    """What sampling texts from a large model costs: reading a prompt, and a decoding step of n rows, in seconds."""

    reading: float  # of a prompt
    step: float  # for any number of rows
    row: float  # a row in a step
    prompts: Sequence[Prompt]  # timed
    samples: Samples  # one of each prompt, cut after a few tokens

    def line(self, tokens: int, candidates: int, batch: int) -> Line:
        """By prompts, for completions of so many tokens."""
        each = self.reading + candidates * tokens * self.row
        return Line(tokens * self.step, each, max(1.0, batch / candidates))


def decoding(policy: Policy, prompts: Sequence[Prompt], settings: SamplingSettings) -> Decoding:
    """Timed on a few prompts and tokens: with one candidate at two lengths, then with several."""
    guides, read = guides_of(policy, settings), [prompts[i % len(prompts)] for i in range(_READ)]

    def seconds(candidates: int, tokens: int) -> tuple[float, Samples]:
        keys = candidate_keys(len(read), candidates)
        return timed(lambda: policy.sample(read, keys, settings.with_length(tokens), guides))

    seconds(1, 1)  # imports and allocates
    short, (long, samples), (wide, _) = seconds(1, 1)[0], seconds(1, 1 + _DECODED), seconds(_WIDE, 1 + _DECODED)
    narrow = max(long - short, 0.0) / _DECODED  # of a step of one row a prompt
    row = max((wide - short) / _DECODED - narrow, 0.0) / (len(read) * (_WIDE - 1))
    return Decoding(short / len(read), max(narrow - row * len(read), 0.0), row, read, samples)


def measuring_line(
    measure: Callable[[int], object], most: int, wanted: int, loaded: Callable[[], object] = lambda: None
) -> Line:
    """Seconds to measure n things, of which ``most`` are there: at the size that is wanted, else from two sizes.

    A call that imports modules, or changes what is ``loaded``, is repeated and does not count: a run does so once.
    """
    long = _settled(measure, most, loaded)
    few = max(1, most // 4)
    if most >= wanted or few == most:
        return Line(0.0, long / most)
    return _line((few, timed(lambda: measure(few))[0]), (most, long))


def measuring_once(measure: Callable[[int], object], most: int, loaded: Callable[[], object] = lambda: None) -> Line:
    """Seconds of a measurement whose time does not depend on the number of samples."""
    return Line(_settled(measure, most, loaded), 0.0)


def _settled(measure: Callable[[int], object], most: int, loaded: Callable[[], object]) -> float:
    before = len(sys.modules), loaded()
    long, _ = timed(lambda: measure(most))
    if (len(sys.modules), loaded()) != before:
        long, _ = timed(lambda: measure(most))
    return long


def step_seconds(parts: Assembly, model: Trainable, spec: Training, feed: Feed) -> float:
    """Seconds of one optimiser step of this spec, the median of a few, on a copy: the model stays as it is."""
    trained = copy.copy(model)
    trained.module = copy.deepcopy(model.module)
    marks: list[float] = []
    began = time.perf_counter()

    class Enough(Exception):
        pass

    def on_step(step: int, total: int, loss: float) -> None:
        marks.append(time.perf_counter())
        if len(marks) >= _STEPS + _WARM or (len(marks) > _WARM and marks[-1] - began > _BUDGET):
            raise Enough

    endless = {"epochs": None, "steps": 10**6, "held_out_every": 10**6, "patience": None}
    objective = parts.objective(spec)
    if "values" in objective.inputs:
        trained.add_value_head(0)  # type: ignore[attr-defined]
    plan = TrainingSetup(
        spec=spec.model_copy(update={**endless, "kl_limit": None}), objective=objective, adapter=parts.adapter(spec),
        key=0, where="plan", on_step=on_step, feed=feed,
    )
    with suppress(Enough):
        trainer.train(trained, plan)
    return float(np.median(np.diff(marks[_WARM - 1 :])))


def quiet_seconds(model: Trainable, examples: Batch, rows: int, acting: bool) -> float:
    """Seconds of one example in a forward pass of ``rows`` examples without gradient, the median of a few."""
    ask: Any = model.act if acting else lambda part: model.forward(part, model.draw(part, 0, 0))  # type: ignore[attr-defined]
    batch = examples.take(torch.arange(min(rows, len(examples))))
    was_training = model.module.training
    model.module.eval()
    with torch.no_grad():
        spent = [timed(lambda: ask(batch))[0] for _ in range(_ASKED)]
    model.module.train(was_training)
    return float(np.median(spent[1:])) / len(batch)


def flops_of(model: Trainable, examples: Batch, rows: int) -> float:
    """Floating-point operations of one training step on ``rows`` examples: forward, and twice that backward."""
    count = min(rows, len(examples))
    with torch.no_grad():
        return 3 * model.flops(examples.take(torch.arange(count))) * rows / count


def _line(a: tuple[float, float], b: tuple[float, float]) -> Line:
    each = max((b[1] - a[1]) / (b[0] - a[0]), 0.0)
    return Line(max(a[1] - each * a[0], 0.0), each)


def timed(call: Callable[[], Found]) -> tuple[float, Found]:
    """Seconds of a call, and what it returned."""
    began = time.perf_counter()
    found = call()
    return time.perf_counter() - began, found
