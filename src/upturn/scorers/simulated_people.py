"""Simulated annotators with a stated taste."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from upturn.annotation.simulated_votes import Ballots, ballots
from upturn.config import components
from upturn.protocols import Scorer, Tools
from upturn.types import Array, Groups, Samples, Scores, objects


@dataclass
class SimulatedPeople(Scorer):
    """Simulated annotators with a stated taste who pick the best candidate of each prompt, with noise, slips and ties.

    They see utility = taste + noise * Gumbel of each candidate and pick the greatest: with noise 1 candidate i
    is picked with probability softmax(taste / noise)_i (Luce 1959; Plackett 1975), with noise 0 always the best.
    Candidates whose utility is within ``ties`` of the greatest are tied with it (the threshold of Rao and Kupper 1967).
    A careless vote of an annotator on a prompt is random. Votes depend on the ids of the candidates and ``seed`` alone.

    taste     a scorer: its name, or a mapping of 'name' and its fields
    people    how many annotators vote on each prompt
    noise     in units of the taste; 0: none
    careless  share of votes that are given at random
    ties      in units of the taste; 0: never a tie, save between equals without noise
    seed      other annotators
    """

    taste: str | dict[str, Any]
    people: int = 3  # the smallest number with a majority
    noise: float = 1.0  # Bradley–Terry's own scale: the taste is in its logits
    careless: float = 0.0
    ties: float = 0.0
    seed: int = 0
    _scorer: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.people < 1:
            raise ValueError(f"people must be at least 1, not {self.people}")
        if not (0 <= self.careless <= 1 and self.noise >= 0 and self.ties >= 0):
            raise ValueError("careless must lie in [0, 1], noise and ties at or above 0: "
                             f"they are {self.careless}, {self.noise} and {self.ties}")
        self._scorer = components.make("scorer", self.taste, "simulated_people.taste")

    @property
    def models_used(self) -> tuple[str, ...]:
        scorer: Scorer = self._scorer
        return scorer.models_used

    def score(self, samples: Samples, tools: Tools) -> Scores:
        """(N,) share of the annotators who picked a candidate, a tied pick counted in parts; sums to 1 over a group.

        Unscored where the taste is, and where a candidate has no other to compare with.
        """
        cast = self._cast(samples, tools)
        shares = cast.shares()
        words = [f"picked by {share * self.people:.3g} of {self.people}, taste {taste:.4g}" if share == share
                 else "unscored: alone with its prompt" if taste == taste else "unscored: by the taste"
                 for share, taste in zip(shares.tolist(), cast.taste.tolist(), strict=True)]
        return Scores("simulated_people", shares, objects(words))

    def votes(self, samples: Samples, tools: Tools) -> Groups:
        """One group for each prompt and annotator, prompt-major: rank 1 for the pick (or all tied), 0 for the others.

        A vote gives only the pick, not the order of the others. Rewards are NaN, strengths 1.
        """
        cast = self._cast(samples, tools)
        rows, picked = cast.table()
        count, width = len(rows), rows.shape[1]
        ranks = picked.transpose(1, 0, 2).reshape(count * self.people, width).astype(np.int64)
        repeated: Array = np.repeat(rows, self.people, axis=0)
        return Groups(samples, repeated, ranks, np.full(repeated.shape, np.nan), np.ones(count * self.people))

    def _cast(self, samples: Samples, tools: Tools) -> Ballots:
        scorer: Scorer = self._scorer
        taste = scorer.score(samples, tools).values
        return ballots(samples, taste, self.people, self.noise, self.careless, self.ties, self.seed)
