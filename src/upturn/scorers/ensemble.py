"""Mean reward of several models, minus a penalty for their disagreement."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from upturn.embeddings.rewards import rewarded
from upturn.errors import UserError
from upturn.protocols import Scorer, Tools
from upturn.seeds import generator, key
from upturn.types import Array, Samples, Scores, objects

_REAL = 512  # real samples that give a member's mean; its error is std / 23


@dataclass
class Ensemble(Scorer):
    """Mean reward of several models less k times their disagreement: a guard against reward hacking.

    After Coste et al. 2024 ("Reward Model Ensembles Help Mitigate Overoptimization", section 3), with the standard
    deviation where their uncertainty-weighted rule has the variance, so that ``k`` has no unit. Members disagree on
    data that they were not trained on; a policy that leaves their data gains little there. Rewards are known up to a
    constant: each member is shifted to mean 0 on the same real samples first. Unscored where a member is.

    models  names under the recipe's ``models:``, equal except in name or data: the name alone gives other initial
    weights k       standard deviations (of the members, divided by their number) taken off scale   multiplies
    """

    models: list[str]
    k: float = 1.0
    scale: float = 1.0
    _zeros: dict[tuple[str, str], float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(set(self.models)) < 2:
            raise ValueError(f"an ensemble needs at least two different models, not {self.models}")
        if self.k < 0:
            raise ValueError(f"k must be at least 0, not {self.k}: a negative k would reward disagreement")

    @property
    def models_used(self) -> tuple[str, ...]:
        return tuple(self.models)

    def score(self, samples: Samples, tools: Tools) -> Scores:
        """(N,) scale (mean - k std); explanations name mean, disagreement and each member's reward."""
        if len(samples) == 0:
            return Scores("ensemble", np.zeros(0), objects([]))
        each = np.stack([self._centred(name, samples, tools) for name in self.models])
        mean, apart = each.mean(axis=0), each.std(axis=0)
        words = [
            f"mean {m:.3g}, disagreement {s:.3g} ({', '.join(f'{r:.3g}' for r in own)})" if m == m
            else "unscored: a member gives no finite reward"
            for m, s, own in zip(mean.tolist(), apart.tolist(), each.T.tolist(), strict=True)
        ]
        return Scores("ensemble", self.scale * (mean - self.k * apart), objects(words))

    def _centred(self, name: str, samples: Samples, tools: Tools) -> Array:
        model = tools.model(name)
        known = (name, model.id)
        if known not in self._zeros:
            real = tools.held_out if len(tools.held_out) else tools.train
            if len(real) == 0:
                raise UserError("there are no real samples to compare the members on", where="scorer 'ensemble'")
            order = generator(key("ensemble")).permutation(len(real))
            self._zeros[known] = float(np.nanmean(rewarded(model, name, real.take(order[:_REAL]))))
        centred: Array = rewarded(model, name, samples) - self._zeros[known]
        return centred
