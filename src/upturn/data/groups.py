"""Groups of candidates from scored samples: what preference objectives eat."""

from __future__ import annotations

import numpy as np

from upturn.types import Array, Groups, Samples


def best_and_worst(samples: Samples, rewards: Array) -> tuple[Groups, int]:
    """One pair a prompt: its candidate of highest reward and that of lowest; and how many prompts had no such pair.

    Unscored candidates take no part; a prompt whose candidates all have one reward says nothing and is counted.
    """
    order = np.lexsort((rewards, samples.group))
    order = order[~np.isnan(rewards[order])]
    _, first = np.unique(samples.group[order], return_index=True)
    last = np.append(first[1:], len(order)) - 1
    worst, best = order[first], order[last]
    spread = rewards[best] > rewards[worst]
    rows = np.stack([best[spread], worst[spread]], axis=1)
    silent = len(np.unique(samples.group)) - int(spread.sum())
    count = len(rows)
    ranks = np.tile(np.array([[1, 2]]), (count, 1))
    return Groups(samples, rows, ranks, rewards[rows], np.ones(count)), silent
