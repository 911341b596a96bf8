"""Early stopping: a held-out loss that no longer falls, or a policy too far from its reference."""

from __future__ import annotations

from collections.abc import Mapping

from upturn.config.schema import Training
from upturn.errors import UserError
from upturn.training.history import IDLE, History

_MIN_GAIN = 1e-4  # relative: a smaller gain of the held-out loss is float noise at a plateau


def record_held_out(history: History, loss: float) -> None:
    """Counts evaluations since the lowest held-out loss; call it before the point of ``loss`` is appended."""
    if not history.points or loss < history.best * (1 - _MIN_GAIN):
        history.best, history.since_best = loss, 0
    else:
        history.since_best += 1


def reason_to_stop(spec: Training, history: History, metrics: Mapping[str, float], where: str) -> str:
    """Why the training stops after this step; empty where it continues.

    Raises UserError where ``kl_limit`` is set and the objective measures no KL.
    """
    if spec.patience and history.since_best >= spec.patience:
        return f"no better held-out loss in {spec.patience} evaluations"
    limit = spec.kl_limit
    if limit is None or IDLE in metrics:
        return ""
    if "kl" not in metrics:
        raise UserError(
            "kl_limit is set, but this objective does not measure a KL", where=where,
            fix="Remove kl_limit, or use an objective with a reference that reports 'kl'.",
        )
    return f"KL to the reference is {metrics['kl']:.3g} nats, above kl_limit {limit:g}" if metrics["kl"] > limit else ""
