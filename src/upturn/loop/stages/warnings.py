"""Warnings from the figures of a training: messages, which are also kept in the record."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from upturn.observer import Observer

if TYPE_CHECKING:
    from upturn.training.history import History

_DRIFT = 0.05  # nats an action between sampler and trainer: bf16 against fp32 stays below, another template does not


def training_warnings(unit: str, history: History, observer: Observer) -> dict[str, Any]:
    """Notes to the person, and what the record keeps of it: both_fell, drift, kl, idle_steps."""
    kept: dict[str, Any] = {}
    points = history.points
    if history.stopped:
        observer.note(f"{unit}: stopped at step {history.steps}: {history.stopped}")
    if history.idle:
        kept["idle_steps"] = history.idle
        observer.note(f"{unit}: in {history.idle} of {history.steps} steps all candidates of every prompt were equal")
    if len(points) > 1 and {"chosen_log_prob", "rejected_log_prob"} <= points[0].keys() & points[-1].keys():
        changes = [points[-1][name] - points[0][name] for name in ("chosen_log_prob", "rejected_log_prob")]
        kept["chosen_change"], kept["rejected_change"] = changes
        if max(changes) < 0:
            observer.note(
                f"{unit}: the log-probs of both chosen and rejected fell ({changes[0]:.3g} and {changes[1]:.3g} nats): "
                "the model learns to say something else; add 'likelihood:' to the objective or lower the rate"
            )
    drifts = [point["drift"] for point in points if math.isfinite(point.get("drift", math.nan))]
    if drifts:
        kept["drift"] = max(drifts)
        if max(drifts) > _DRIFT:
            observer.note(
                f"{unit}: the sampler's log-probs differ from the trainer's by {max(drifts):.3g} nats an action: "
                "what is learned from is not what the policy would do (temperature, top_p, precision?)"
            )
    kls = [point["kl"] for point in points if "kl" in point]
    if kls:
        kept["kl"] = kls[-1]
    return kept
