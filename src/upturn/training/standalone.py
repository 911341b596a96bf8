"""A model trained from scratch on samples of equal weight, and returned: nothing of it is stored."""

from __future__ import annotations

from typing import TypeVar

from upturn.config import components
from upturn.config.schema import Training
from upturn.errors import UserError
from upturn.protocols import Objective, Trainable
from upturn.training.device import accelerator_for
from upturn.training.feeds import FixedFeed
from upturn.training.setup import TrainingSetup
from upturn.training.trainer import train
from upturn.types import Samples

M = TypeVar("M", bound=Trainable)


def trained(model: M, samples: Samples, spec: Training, build: int, key: int, where: str) -> M:
    """``model``, built by the key ``build`` and trained by ``key`` according to ``spec``, in evaluation mode.

    Raises UserError where the objective wants more than samples, and with several processes: this training runs in one.
    """
    objective: Objective = components.make("objective", spec.objective, where)
    if objective.example != "sample":
        raise UserError(f"the objective '{spec.objective['name']}' learns from more than samples", where=where,
                        fix="Use 'likelihood'.")
    if accelerator_for(spec).num_processes > 1:
        raise UserError("this training runs in one process, and several are running", where=where,
                        fix="Run it in one process.")
    model.build(samples, build)
    train(model, TrainingSetup(
        spec=spec, objective=objective, adapter=components.make("adapter", spec.adapter, where),
        feed=FixedFeed(model.encode(samples), spec.batch_size, key), key=key, where=where,
    ))
    model.module.eval()
    return model
