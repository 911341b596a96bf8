"""Base class of curators: which samples are kept."""

from __future__ import annotations

from typing import ClassVar, Literal

from upturn.protocols.component import Component
from upturn.protocols.component_tools import Tools
from upturn.types import Array, Samples, Selection

VERIFIED = "verified"  # the field of a round's candidates with the verifiers' word: 1 right, 0 wrong, NaN not known
SelectionLaw = Literal["odds", "best", "top", "independent"]


class Curator(Component):
    """Base class of curators: keeps some samples, and drops the rest with a reason.

    The class attributes declare what other code needs to know: pairing checks, the plan, the theory's forecast and
    the certificate read these, and never the curator's name.
    """

    selects: ClassVar[Literal["reward", "votes", "random", "content", "none"]] = "none"
    """What decides: the rewards of the scorers, annotators' votes, chance, the samples' content, or nothing."""
    among_candidates: ClassVar[bool] = False
    """Whether it compares the candidates of one prompt, so that it needs at least two of them."""
    law: ClassVar[SelectionLaw] = "independent"
    """What it keeps, for the theory: one of K candidates by softmax(reward / ``temperature``) ("odds"), the ``keep``
    best of K ("best"), the best share of all samples ("top"), or a share that the reward does not change."""
    kept_is_assumed: ClassVar[bool] = False
    """Whether ``expected_kept`` is an assumption, since the share kept depends on rewards that are not known yet."""
    keep: int = 1  # candidates kept of each prompt, where it selects among candidates
    temperature: float = 1.0  # of the odds

    def expected_kept(self, samples: float, prompts: float) -> float:
        """How many of ``samples`` samples of ``prompts`` prompts it is expected to keep, before any is scored.

        Default: ``keep`` of each prompt for a curator among candidates, else all.
        """
        return min(samples, prompts * self.keep) if self.among_candidates else samples

    def curate(self, samples: Samples, rewards: Array, tools: Tools, key: int) -> Selection:
        """Which of N samples to keep.

        ``rewards`` (N,) float64, NaN where unscored; rows of one ``group`` are candidates of one prompt; ``key``
        seeds every random choice.
        """
        raise NotImplementedError
