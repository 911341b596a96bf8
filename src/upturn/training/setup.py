"""The parts of one training: what is trained, on which batches, and the callbacks that report progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from upturn.config.schema import Training
from upturn.protocols import Adapter, Objective
from upturn.training.feeds import Feed
from upturn.types import Batch


@dataclass(frozen=True)
class TrainingSetup:
    """The recipe's training with every component constructed."""

    spec: Training
    objective: Objective
    adapter: Adapter
    feed: Feed
    key: int
    where: str  # named in messages
    held_out: Batch | None = None
    progress: Path | None = None  # folder of the checkpoints to resume from
    on_step: Callable[[int, int, float], None] = lambda step, total, loss: None
    on_epoch: Callable[[int], None] = lambda epoch: None  # after an epoch that the recipe lists
    log: Callable[[Mapping[str, float], int], None] = lambda values, step: None  # after each step: see ``step_log``
    note: Callable[[str], None] = lambda text: None  # what a user should know before the first step

    @property
    def total_steps(self) -> int:
        if self.spec.steps is not None:
            return self.spec.steps
        return (self.spec.epochs or 0) * self.feed.steps_per_epoch

    @property
    def uses_rollouts(self) -> bool:
        """Whether log-probs are those of a rollout's actions."""
        return self.objective.example == "rollout"
