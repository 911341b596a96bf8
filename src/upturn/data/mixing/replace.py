"""Mixing policy: the real rows and what the newest round kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from upturn.data.base_mixing_policy import BaseMixingPolicy
from upturn.types import MixingCase


@dataclass(frozen=True)
class Replace(BaseMixingPolicy):
    """The real rows, and what the newest round kept (Shumailov et al., Nature 2024, without real rows: λ = .inf).

    Samples of earlier rounds leave the mixture.
    """

    theory: ClassVar[MixingCase | None] = "replace"
