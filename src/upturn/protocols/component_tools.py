"""Protocol of what a component is given to work with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from upturn.protocols.model import Trainable
from upturn.types import Array, Samples

INITIAL_POLICY = "policy before training"
"""The name under which :meth:`Tools.model` knows the policy as it was before its first training in this run."""


class Tools(Protocol):
    """What a component is given to work with: models, features and the real data."""

    @property
    def train(self) -> Samples:
        """The real training part."""
        ...

    @property
    def held_out(self) -> Samples:
        """The held-out part of the real data."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        ...

    def model(self, name: str) -> Trainable:
        """A model that the recipe's ``models:`` names; ``policy`` is the one in this stage."""
        ...

    def fitted(self, name: str, samples: Samples, key: int) -> Trainable:
        """Another model like that one, trained from scratch on these samples as its ``fit:`` says; it is not kept.

        Raises UserError where the recipe does not say how.
        """
        ...

    def pretrained(self, name: str, source: Mapping[str, str]) -> Trainable:
        """A model that is no part of the recipe, opened for use: ``source`` is its "folder" or its name on the "hub".

        Raises UserError where its files cannot be read.
        """
        ...

    def embed(self, samples: Samples) -> Array:
        """(N, D) by the recipe's ``features:``, cached by sample id."""
        ...
