"""The base class of mixing policies: all real rows, and what the newest round kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn import seeds
from upturn.errors import UserError
from upturn.protocols import MixingPolicy
from upturn.types import REAL, SYNTHETIC, Array, MixingCase, Samples


@dataclass(frozen=True)
class BaseMixingPolicy(MixingPolicy):
    """Which rows a round trains on; a policy overrides what it does differently.

    The mixer (:mod:`upturn.data.mixer`) applies λ and the weights of sources, so a policy deals only with rows.
    """

    theory: ClassVar[MixingCase | None] = None
    accumulates: ClassVar[bool] = False
    fresh_real: ClassVar[bool] = False
    subsamples: ClassVar[bool] = False
    real_only: ClassVar[bool] = False

    def rounds_used(self, number: int) -> Sequence[int]:
        """Numbers of the rounds whose samples round ``number`` trains on, oldest first."""
        return range(1, number + 1) if self.accumulates else range(max(number, 1), number + 1)

    def real_count(self, available: int, wanted: int | None, rounds: int | None) -> int:
        """How many of ``available`` real rows one round gets; ``wanted`` is ``mix.real``."""
        return available if wanted is None else wanted

    def real_rows(self, real: Samples, wanted: int | None, rounds: int | None, number: int, key: int) -> Samples:
        """The real rows of round ``number``, drawn by ``key``; ``wanted`` is ``mix.real``, null for all.

        A draw is ``seeds.generator(seeds.key(key, "a name of yours"))``. Raises UserError where there are too few.
        """
        if wanted is None:
            return real
        if wanted > len(real):
            raise UserError(
                f"{wanted:,} real rows are requested, there are {len(real):,}", where="mix.real", fix="Lower it."
            )
        drawn = seeds.generator(seeds.key(key, "real rows")).choice(len(real), wanted, replace=False)
        return real.take(np.sort(drawn))

    def subsample(self, origin: Array, size: int, share: float | None, key: int) -> Array:
        """Which rows are kept where ``mix.size`` limits a mixture: ``origin`` (N,) is "real" or "synthetic"."""
        return np.arange(len(origin))

    def expected_rows(self, real: float, synthetic: float, size: int, share: float | None) -> dict[str, float]:
        """Rows by origin that the plan expects of a round."""
        return {REAL: real, SYNTHETIC: synthetic}
