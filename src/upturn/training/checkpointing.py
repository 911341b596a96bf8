"""Checkpoints inside a training: weights, optimizer, EMA and history, written between steps and resumed exactly."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from accelerate import Accelerator

from upturn.config import save_interval
from upturn.errors import RunError
from upturn.store import checkpoints
from upturn.training import optimizer
from upturn.training.history import History
from upturn.training.state import TrainingState

_MODEL, _OPTIMIZER, _EMA = "model.", "optimizer.", "average."  # prefixes of the names of saved tensors


class CheckpointInterval:
    """Whether the next checkpoint is due: after so many steps, or after so much time since the last one.

    Time decides only when a checkpoint is taken: a training resumed from any of them ends with the same bytes.
    """

    def __init__(self, every: int | str) -> None:
        self._steps = every if isinstance(every, int) else 0
        self._seconds = save_interval.seconds_of(every)
        self._since = time.monotonic()

    def passed(self, done: int, saved: int) -> bool:
        """After step ``done``, where the last checkpoint is of step ``saved``."""
        if self._seconds is None:
            return done // self._steps > saved // self._steps
        return time.monotonic() - self._since >= self._seconds

    def restart(self) -> None:
        """A checkpoint was taken."""
        self._since = time.monotonic()


def save(state: TrainingState, folder: Path, step: int, accelerator: Accelerator) -> None:
    """Writes step-…/ under ``folder`` in the main process, and removes older ones."""
    if not accelerator.is_main_process:
        return
    module = accelerator.unwrap_model(state.model.module)
    written = _changing(module)
    tensors = {f"{_MODEL}{name}": value for name, value in module.state_dict().items() if name in written}
    moments = optimizer.tensors(state.optimizer, state.parameters)
    tensors |= {f"{_OPTIMIZER}{name}": value for name, value in moments.items()}
    if state.ema is not None:
        tensors |= {f"{_EMA}{i}": value for i, value in enumerate(state.ema.values)}
    checkpoints.write_checkpoint(folder / f"step-{step:08d}", tensors, dict(state.history.__dict__))
    checkpoints.prune_checkpoints(folder, keep=1)


def resume(state: TrainingState, folder: Path, accelerator: Accelerator) -> None:
    """Restores the newest complete checkpoint, if there is one.

    Raises RunError where it is of another model.
    """
    # processes that start together must start from one state, so none may save before all have read
    accelerator.wait_for_everyone()
    newest = checkpoints.latest(folder)
    if newest is None:
        return
    tensors, scalars = checkpoints.read_checkpoint(newest)
    module = state.model.module
    weights = {name.removeprefix(_MODEL): value for name, value in tensors.items() if name.startswith(_MODEL)}
    missing, unknown = module.load_state_dict(weights, strict=False)
    if unknown or set(missing) & _changing(module):
        raise RunError("the saved state is of another model", where=str(newest), fix="Remove it and run again.")
    moments = {name.removeprefix(_OPTIMIZER): value for name, value in tensors.items() if name.startswith(_OPTIMIZER)}
    optimizer.restore(state.optimizer, state.parameters, moments)
    if state.ema is not None:
        state.ema.values = [tensors[f"{_EMA}{i}"].to(p.device) for i, p in enumerate(state.parameters)]
    state.history = History(**scalars)


def _changing(module: torch.nn.Module) -> set[str]:
    """Names of what a training may change: trained parameters, a shared (tied) one once, and buffers."""
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    return trained | {name for name, _ in module.named_buffers()}
