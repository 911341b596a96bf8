"""Base class of metrics, and the protocol of what they measure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol

from upturn.protocols.component import Component
from upturn.protocols.component_tools import Tools
from upturn.protocols.sampler import SamplingSettings
from upturn.types import Array, Measurement, Samples

Better = Literal["higher", "lower", "neither"]


class Evidence(Protocol):
    """What a metric may look at; ``samples`` are drawn for fixed prompts and noise, the same in every round."""

    @property
    def samples(self) -> Samples:
        """The samples of the evaluation."""
        ...

    @property
    def rewards(self) -> Array:
        """(N,) by the round's scorers, NaN where unscored."""
        ...

    @property
    def tools(self) -> Tools:
        """The tools of the run."""
        ...

    @property
    def seed(self) -> int:
        """The seed of the run."""
        ...

    @property
    def settings(self) -> SamplingSettings:
        """How the samples were drawn."""
        ...


class Metric(Component):
    """Base class of metrics: a number that describes the samples of an evaluation, or the model.

    Where it is undefined (too few samples, …) the value is NaN and the note says why.
    """

    title: ClassVar[str] = ""
    """Its name in a report; "" for its name in the recipe."""
    meaning: ClassVar[str] = ""
    """One sentence for a reader who does not know it: what the number is, and what a high or a low one says."""
    reference: ClassVar[tuple[str, str] | None] = None
    """A number in its details that gives the scale, and what has that value."""
    kinds: ClassVar[frozenset[str]] = frozenset({"text", "image", "points"})
    """The kinds of content that it can measure."""
    better: ClassVar[Better] = "neither"
    """"higher", "lower" or "neither": a description, which no gate can use."""
    by_features: ClassVar[bool] = False
    """Whether it sees images through the recipe's ``features:`` alone."""
    rows_at_once: ClassVar[int] = 0
    """Rows in one forward pass of the policy over the held-out part; 0 where it makes none."""
    held_out_only: ClassVar[bool] = False
    """Whether it looks at held-out data and not at the samples of the evaluation."""
    averages_reward: ClassVar[bool] = False
    """Whether its ``values`` are the rewards of the evaluation's samples."""
    is_gold_reward: ClassVar[bool] = False
    """Whether it is a reward that no training uses, which a report plots against the reward that is trained on."""
    flags_copies: ClassVar[bool] = False
    """Whether its details have "flagged", "copied" and "baseline": whether samples are copies of training data."""
    counts_classes: ClassVar[bool] = False
    """Whether its details have "shares", the share of each class among the samples."""

    @classmethod
    def described(cls, spec: Mapping[str, Any]) -> tuple[str, str, Better]:
        """Title, meaning and better direction with the settings of a recipe, where these change them."""
        return cls.title, cls.meaning, cls.better

    def measure(self, evidence: Evidence) -> Measurement:
        """The value with its 95% interval; NaN with a note where it is undefined."""
        raise NotImplementedError
