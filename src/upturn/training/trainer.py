"""The trainer: one objective, one feed, any number of processes; it stops and resumes at any step."""

from __future__ import annotations

import sys
import time

from upturn import seeds
from upturn.protocols import Trainable
from upturn.training import checkpointing
from upturn.training.checkpointing import CheckpointInterval
from upturn.training.device import accelerator_for
from upturn.training.early_stopping import reason_to_stop, record_held_out
from upturn.training.ema import Ema
from upturn.training.forward import ForwardPass
from upturn.training.held_out import held_out_loss
from upturn.training.history import History
from upturn.training.master_weights import MasterWeights
from upturn.training.narrow_passes import NarrowPasses, emulated, narrows
from upturn.training.optimizer import build_optimizer
from upturn.training.packing import packed
from upturn.training.precompute import Precomputation, with_reference
from upturn.training.schedule import learning_rate
from upturn.training.setup import TrainingSetup
from upturn.training.state import TrainingState
from upturn.training.step import OptimizationStep, StepResult
from upturn.training.step_log import StepLog

_ATTACH = 2**62  # among the steps' keys, the number of the adapter's random draws
_COMPILE_FROM = 1000  # steps below which compiling on an accelerator costs more time than it saves


def train(model: Trainable, setup: TrainingSetup) -> History:
    """Train ``model`` in place; it ends with the averaged weights where the stage has an EMA.

    Raises RunError when a loss or a gradient is not finite, naming the step; the last checkpoint stays.
    """
    accelerator = accelerator_for(setup.spec)
    narrow = narrows(setup.spec, model, accelerator)
    if narrow:  # without autocast
        accelerator = accelerator_for(setup.spec.model_copy(update={"precision": "fp32"}))
    setup = packed(setup, model)
    total = setup.total_steps
    setup.adapter.attach(model, total, int(seeds.fold(setup.key, _ATTACH)[0]))
    model.module.to(accelerator.device)
    slow = emulated(setup.spec, model, accelerator)
    if slow:
        setup.note("this processor does not multiply bf16 in hardware, which would be slower: trained in float32")
    passes = NarrowPasses(narrow and not slow)
    forward = ForwardPass(accelerator, setup.uses_rollouts, passes)
    feed, reference = with_reference(setup, model, forward)
    parameters = list(setup.adapter.parameters(model))
    masters = MasterWeights(parameters)
    optimizer = build_optimizer(setup.spec, parameters)
    state = TrainingState(model, parameters, optimizer, Ema(parameters, setup.spec.ema) if setup.spec.ema else None)
    precomputation = Precomputation(setup, state, forward, feed, reference)
    step = OptimizationStep(setup, state, accelerator, forward, feed, reference, precomputation)
    if setup.progress is not None:
        checkpointing.resume(state, setup.progress, accelerator)
    history, module = state.history, model.module
    start = time.perf_counter() - history.seconds
    due = CheckpointInterval(setup.spec.save_every)
    model.module = accelerator.prepare(module)
    if accelerator.device.type == "cuda" and total >= _COMPILE_FROM:
        module.compile()
    logged = setup.progress if accelerator.is_main_process else None
    try:
        module.train()
        with StepLog(logged, history.steps) as lines:
            for done in range(history.steps + 1, total + 1):
                began = time.perf_counter()
                result = step(done - 1)
                seconds = time.perf_counter() - began
                history.steps = done
                history.seconds = time.perf_counter() - start
                setup.on_step(done, total, result.loss)
                line = _line(step, done, result, seconds) | _record(step, done, result, masters)
                lines.write(line)
                setup.log(line, done)
                history.stopped = step.stuck() or reason_to_stop(setup.spec, history, result.metrics, setup.where)
                if history.stopped:
                    break
                if (
                    setup.progress is not None and done < total and step.feed.resumable(done)
                    and due.passed(done, history.saved)
                ):
                    history.saved = done
                    lines.sync()
                    checkpointing.save(state, setup.progress, done, accelerator)
                    due.restart()
    finally:
        model.module = module
    setup.adapter.finish(model)
    if state.ema is not None:
        state.ema.copy_to_model()
    masters.finish()
    module.eval()
    return history


def _line(step: OptimizationStep, done: int, result: StepResult, seconds: float) -> dict[str, float]:
    """What is logged of step ``done``; ``tokens`` are those that the loss is over, and only texts have them."""
    rate = max(seconds, sys.float_info.min)
    line = {
        "step": done, "epoch": done / step.feed.steps_per_epoch, "loss": result.loss, **result.metrics,
        "gradient_norm": result.gradient_norm,
        "learning_rate": learning_rate(step.setup.spec, done - 1, step.setup.total_steps), "seconds": seconds,
        "examples": result.examples, "examples_per_second": result.examples / rate,
    }
    if result.tokens is not None:
        line |= {"tokens": result.tokens, "tokens_per_second": result.tokens / rate}
    return line


def _record(
    step: OptimizationStep, done: int, result: StepResult, masters: MasterWeights
) -> dict[str, float]:
    """After step ``done``: a point of the curve, and the callback of an epoch; the held-out loss, where it is due."""
    setup, state = step.setup, step.state
    per_epoch, total = step.feed.steps_per_epoch, setup.total_steps
    every = max(1, round(setup.spec.held_out_every * per_epoch))
    found = {}
    if done % every == 0 or done == total or (done == 1 and result.metrics):
        point = {"step": done, "epoch": done / per_epoch, "loss": result.loss, **result.metrics}
        point["learning_rate"] = learning_rate(setup.spec, done - 1, total)
        if setup.held_out is not None:
            found["held_out"] = held_out_loss(setup, state, setup.held_out, step.outputs)
            record_held_out(state.history, found["held_out"])
        state.history.points.append(point | found)
    epoch, rest = divmod(done, per_epoch)
    if rest == 0 and epoch in setup.spec.checkpoint_epochs:
        with state.sampled_weights(), masters.rounded():
            setup.on_epoch(epoch)
    return found
