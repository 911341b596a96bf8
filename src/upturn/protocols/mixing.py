"""Protocol of mixing policies: the rows that a round trains on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from upturn.types import Array, MixingCase, Samples


class MixingPolicy(Protocol):
    """Which real rows and which samples of earlier rounds a round trains on; λ and weights are applied by the mixer.

    Subclass ``upturn.data.base_mixing_policy.BaseMixingPolicy``, which has a default for everything below.
    """

    theory: ClassVar[MixingCase | None]  # the case of the theory that describes it; None: no forecast is made
    accumulates: ClassVar[bool]  # whether samples of earlier rounds stay in the mixture
    fresh_real: ClassVar[bool]  # whether each round gets real rows that no earlier round had
    subsamples: ClassVar[bool]  # whether it draws ``mix.size`` rows from the pool
    real_only: ClassVar[bool]  # whether λ = 0 is accepted, a round without synthetic rows

    def rounds_used(self, number: int) -> Sequence[int]:
        """The rounds, from 1 and ascending, whose kept samples enter the mixture of round ``number``."""
        ...

    def real_count(self, available: int, wanted: int | None, rounds: int | None) -> int:
        """How many of ``available`` real rows one round gets; ``wanted`` is ``mix.real``."""
        ...

    def real_rows(self, real: Samples, wanted: int | None, rounds: int | None, number: int, key: int) -> Samples:
        """The real rows of round ``number``. Raises UserError where there are too few."""
        ...

    def subsample(self, origin: Array, size: int, share: float | None, key: int) -> Array:
        """Rows of the pool, ascending, that are trained on; ``origin`` (N,) says which are real, ``share`` is λ."""
        ...

    def expected_rows(self, real: float, synthetic: float, size: int, share: float | None) -> dict[str, float]:
        """Expected rows by origin of a mixture whose pool has so many real and synthetic ones."""
        ...
