"""Protocols of what some models can do beyond their base class."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from upturn.types import Array, Samples


@runtime_checkable
class Pretrained(Protocol):
    """Capability of a model: it can be used without training, from its files."""

    def open(self) -> None:
        """Read the weights that its fields ``folder`` or ``hub`` name. Raises UserError where they cannot be read."""
        ...


@runtime_checkable
class ClosedForm(Protocol):
    """Capability of a model: its weighted maximum likelihood needs no gradient steps."""

    def fit(self, samples: Samples, weights: Array) -> None:
        """Sets the weights to the maximum of the weighted likelihood; ``weights`` (N,) are relative."""
        ...


@runtime_checkable
class ValueHead(Protocol):
    """Capability of a policy: it can carry a head for the values of states, which PPO needs."""

    def add_value_head(self, key: int) -> None:
        """Add it with fresh weights from ``key``; nothing where it is there."""
        ...


@runtime_checkable
class Standardises(Protocol):
    """Capability of a model of points: it can turn them into independent standard normal numbers."""

    def standardised(self, samples: Samples) -> Array:
        """(N, d) float64."""
        ...


@runtime_checkable
class FromFiles(Protocol):
    """Capability of a model: its weights come from ``config`` (train from scratch), ``folder`` or ``hub``."""

    config: dict[str, Any] | None
    folder: str | None
    hub: str | None
