"""Mixing policy: real rows that no earlier round has seen, and what the newest round kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.data.base_mixing_policy import BaseMixingPolicy
from upturn.errors import UserError
from upturn.types import MixingCase, Samples


@dataclass(frozen=True)
class Fresh(BaseMixingPolicy):
    """Slice t of the real rows in round t, and what the newest round kept (Alemohammad et al., ICLR 2024, fresh loop).

    ``mix.real`` is the size of a slice; null: the real rows are cut into rounds + 1 slices. Slice 0 is for round 0.
    """

    theory: ClassVar[MixingCase | None] = "fresh"
    fresh_real: ClassVar[bool] = True

    def real_count(self, available: int, wanted: int | None, rounds: int | None) -> int:
        return wanted if wanted is not None else available // ((rounds or 0) + 1)

    def real_rows(self, real: Samples, wanted: int | None, rounds: int | None, number: int, key: int) -> Samples:
        """Rows are ordered by their content id, which is a hash: slices are disjoint and the same for every seed.

        Raises UserError where there are too few real rows for the round.
        """
        size = self.real_count(len(real), wanted, rounds)
        start, stop = number * size, (number + 1) * size
        if size == 0 or stop > len(real):
            need = stop if size else (rounds or 0) + 1
            raise UserError(
                f"policy fresh needs {need:,} real rows by round {number}, there are {len(real):,}", where="mix",
                fix="Lower 'real', run fewer rounds, add data, or use another policy.",
            )
        order = np.argsort(real.ids.astype(str), kind="stable")
        return real.take(np.sort(order[start:stop]))
