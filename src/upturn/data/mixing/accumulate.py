"""Mixing policy: the real rows and what every round so far kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from upturn.data.base_mixing_policy import BaseMixingPolicy
from upturn.types import MixingCase


@dataclass(frozen=True)
class Accumulate(BaseMixingPolicy):
    """The real rows, and what every round so far kept (Gerstgrasser et al., COLM 2024, section 2).

    The mixture grows by one round's kept samples in each round. λ = 0 is allowed: a control run on real rows alone.
    """

    theory: ClassVar[MixingCase | None] = "accumulate"
    accumulates: ClassVar[bool] = True
    real_only: ClassVar[bool] = True
