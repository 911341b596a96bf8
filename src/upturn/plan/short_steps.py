"""Steps of a large model, timed on few and short rows: seconds and memory grow with tokens, from a fixed part."""

from __future__ import annotations

import copy
import itertools
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

import torch

from upturn.config.schema import Training
from upturn.loop.assembly import Assembly
from upturn.plan.live_memory import LiveMemory
from upturn.protocols import Trainable
from upturn.training import trainer
from upturn.training.feeds import Feed, FixedFeed, OnlineFeed
from upturn.training.setup import TrainingSetup
from upturn.types import Batch

_LARGE = 2e7  # weights; below, some dozen whole steps take less than the imports
_ON_DEVICE = 100  # times as many on an accelerator
_FEW, _MANY = 32, 128  # tokens of the two batches that the costs are fitted on
_STEPS = (2, 1)  # timed at each size, after one that is not
_ENDLESS = 10**9  # passes over a drawn set


@dataclass(frozen=True)
class StepCost:
    """Of one optimizer step: seconds by floating-point operations, bytes by tokens."""

    fixed: float  # seconds
    per_flop: float  # seconds
    trained: int  # weights that get gradients
    per_token: float  # bytes of activations in a step
    quiet_per_flop: float  # seconds


def is_large(model: Trainable) -> bool:
    """Whether whole steps of this model take too long to be timed."""
    parameters = list(model.module.parameters())
    device = parameters[0].device.type if parameters else "cpu"
    return sum(p.numel() for p in parameters) > _LARGE * (1 if device == "cpu" else _ON_DEVICE)


def shortened(examples: Batch, tokens: int) -> Batch:
    """A few examples of about ``tokens`` tokens in all their rows: texts are cut, the share that is learned stays."""
    lengths = examples.lengths
    rows = examples.candidates
    if lengths is None or "mask" not in examples.columns:
        return examples.take(torch.arange(min(2, len(examples))))
    middle = lengths.argsort(stable=True)[len(lengths) // 2 :]
    width = min(max(8, tokens // rows), int(lengths[middle[0]]))
    taken = examples.take(middle[: max(1, tokens // (rows * width))])
    whole = taken["mask"].shape[1]
    columns = {name: _cut(taken[name], width, whole) for name in taken.columns}
    mask = torch.zeros_like(columns["mask"])
    learned = max(1, round(float(taken["mask"].double().sum() / lengths[middle[: len(taken)]].sum() / rows) * width))
    mask[:, -min(learned, width - 1) :] = 1
    return replace(taken, columns={**columns, "mask": mask})


def _cut(column: torch.Tensor, width: int, whole: int) -> torch.Tensor:
    """The first ``width`` tokens of a column that has one entry a token, or one fewer; any other as it is."""
    fewer = whole - column.shape[1] if column.dim() > 1 else -1
    return column[:, : width - fewer] if fewer in (0, 1) else column


def cost(parts: Assembly, model: Trainable, spec: Training, feed: Feed, examples: Batch) -> StepCost:
    """Timed at two sizes, on copies: the model stays as it is."""
    few, many = (shortened(examples, tokens) for tokens in (_FEW, _MANY))
    found = [
        _measured(parts, model, spec, feed, batch, steps) for batch, steps in zip((few, many), _STEPS, strict=True)
    ]
    (short, small, trained), (long, large, _) = found
    work = [3 * model.flops(batch) for batch in (few, many)]
    slope = max((long - short) / (work[1] - work[0]), 0.0) if work[1] > work[0] else long / work[1]
    tokens = [_tokens(batch) for batch in (few, many)]
    each = (large - small) / (tokens[1] - tokens[0]) if tokens[1] > tokens[0] else large / tokens[1]
    spent = _quiet_seconds(model, many, parts.objective(spec).example == "rollout")
    return StepCost(
        max(short - slope * work[0], 0.0), slope, trained, max(each, 0.0), spent / model.flops(many),
    )


def quiet_bytes(model: Trainable, examples: Batch) -> float:
    """Bytes of activations a token in a forward pass without gradient."""
    batch = shortened(examples, _MANY)
    memory = LiveMemory(model.module, model.vocabulary)
    with torch.no_grad(), memory:
        model.forward(batch, model.draw(batch, 0, 0))
    return memory.peak / _tokens(batch)


def _tokens(batch: Batch) -> int:
    """Positions in all rows, padding counted; rows where they are no texts."""
    return int(batch["mask"].numel()) if "mask" in batch.columns else batch.rows


def _measured(
    parts: Assembly, model: Trainable, spec: Training, feed: Feed, batch: Batch, steps: int
) -> tuple[float, float, int]:
    """Seconds of a step on this batch, the peak of bytes in its first step, and the trained weights."""
    trained = copy.copy(model)
    trained.module = copy.deepcopy(model.module)
    objective, adapter = parts.objective(spec), parts.adapter(spec)
    if "values" in objective.inputs:
        trained.add_value_head(0)  # type: ignore[attr-defined]
    size = len(batch)
    short: Feed = FixedFeed(batch, size, 0)
    if isinstance(feed, OnlineFeed):
        short = OnlineFeed(lambda number: batch, size, size, _ENDLESS, 0)
    marks: list[float] = []
    memory = LiveMemory(model.module, model.vocabulary)

    class Enough(Exception):
        pass

    def on_step(step: int, total: int, loss: float) -> None:
        if step == 1:
            first_step.close()
        marks.append(time.perf_counter())
        if step > steps:
            raise Enough

    endless = {"epochs": None, "steps": 10**6, "held_out_every": 10**6, "patience": None, "kl_limit": None,
               "batch_size": size, "micro_batch": None}
    setup = TrainingSetup(
        spec=spec.model_copy(update=endless), objective=objective, adapter=adapter, key=0, where="plan",
        on_step=on_step, feed=short,
    )
    with ExitStack() as first_step, suppress(Enough):
        first_step.enter_context(memory)
        trainer.train(trained, setup)
    count = sum(p.numel() for p in trained.module.parameters() if p.requires_grad)
    return min(b - a for a, b in itertools.pairwise(marks)), float(memory.peak), count


def _quiet_seconds(model: Trainable, batch: Batch, acting: bool) -> float:
    """Of a forward pass without gradient; the steps before it have allocated what it needs."""
    training = model.module.training
    model.module.eval()
    with torch.no_grad():
        began = time.perf_counter()
        if acting:
            model.act(batch)  # type: ignore[attr-defined]
        else:
            model.forward(batch, model.draw(batch, 0, 0))
        seconds = time.perf_counter() - began
    model.module.train(training)
    return seconds
