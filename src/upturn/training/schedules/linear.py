"""Learning-rate schedule: a line to zero."""

from __future__ import annotations

from dataclasses import dataclass

from upturn.protocols import Schedule


@dataclass(frozen=True)
class Linear(Schedule):
    """1 - done (as in BERT: Devlin et al. 2019, appendix A.2)."""

    def factor(self, done: float) -> float:
        return 1 - done
