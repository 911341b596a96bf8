"""How one simulated annotator answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SimulatedAnnotator:
    """Noise and habits of one simulated annotator.

    temperature  of the softmax over rewards that a pick is drawn from (Luce 1959); 0: always the best
    careless     share of tasks that are answered at random
    first        share of tasks where the first on the screen is taken, whatever it is: a position bias
    ties         in units of the reward: two within it are about the same
    """

    temperature: float = 1.0
    careless: float = 0.0
    first: float = 0.0
    ties: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.careless <= 1 and 0 <= self.first <= 1 and self.temperature >= 0 and self.ties >= 0):
            raise ValueError("careless and first lie in [0, 1], temperature and ties are 0 or more")


RANDOM = SimulatedAnnotator(careless=1.0)  # answers at random
LEFT = SimulatedAnnotator(first=0.7)  # takes the first in seven of ten tasks
