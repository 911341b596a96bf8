"""Forward passes of a training that no gradient comes back from: of the reference, and of what was before a step."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from upturn.config.schema import Online, Training
from upturn.protocols import Objective, Trainable
from upturn.training import precompute
from upturn.training.feeds import OnlineFeed
from upturn.types import Batch

_REFERENCE = "ref_log_probs"
_POLICY = frozenset({"log_probs", "values"})


@dataclass(frozen=True)
class Passes:
    """Examples that go through the model in all the steps of a training; held-out losses apart.

    trained  with gradient
    within   without, where the steps that are timed do it too
    beside   without, where they do not: once before the first step, once a draw, or in a stage that is too short
    """

    trained: int
    within: int
    beside: int

    @property
    def quiet(self) -> int:
        return self.within + self.beside


def of_a_fixed_set(
    objective: Objective, model: Trainable, examples: Batch, count: int, steps: int, batch_size: int
) -> Passes:
    """``count`` examples like ``examples``, in epochs, as the trainer refers to them: see ``feeds.FixedFeed``."""
    required = precompute.required_columns(objective)
    epochs, rest = divmod(steps, -(-count // batch_size))
    seen = epochs * count + min(rest * batch_size, count)
    policy = seen if required & _POLICY else 0
    if _REFERENCE not in objective.inputs | required:
        return Passes(seen, policy, 0)
    if model.draw(examples.take(torch.arange(1)), 0, 0) is not None:
        return Passes(seen, policy + seen, 0)  # noise and times are new in every step: nothing can be kept
    once = count <= steps * batch_size
    return Passes(seen, policy, count if once else seen)


def of_draws(objective: Objective, model: Trainable, spec: Training, online: Online, draws: int) -> Passes:
    """Sets that the policy draws, each prepared as a whole before its first step: see ``feeds.OnlineFeed``."""
    required, drawn = precompute.required_columns(objective), draws * online.prompts
    seen = drawn * online.passes
    policy = 0 if _in_one(objective, model, spec, online) or not required & _POLICY else drawn
    if _REFERENCE in required:
        return Passes(seen, 0, policy + drawn)
    return Passes(seen, seen if _REFERENCE in objective.inputs else 0, policy)


def _in_one(objective: Objective, model: Trainable, spec: Training, online: Online) -> bool:
    """Whether the pass that gives the log-probs before the step is the one that is trained."""
    feed = OnlineFeed(lambda number: Batch({}), online.prompts, spec.batch_size, online.passes, 0)
    wanted = objective.example == "rollout" and "log_probs" in precompute.required_columns(objective)
    return wanted and precompute.one_pass(feed, spec.micro_batch, model.module)
