"""Examples for KTO: candidates labelled desirable or undesirable, each with an unrelated completion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from upturn.protocols import Trainable
from upturn.types import Array, Batch, Groups


def labels_of(groups: Groups) -> tuple[Array, Array]:
    """(n,) rows of ``groups.samples`` that have a label, and (n,) 1 where desirable, 2 where not.

    Desirable is the better half of a group's ranks; a lone candidate carries its label as its rank.
    """
    ranked = (groups.rows >= 0) & (groups.ranks > 0)
    middle = np.maximum(groups.ranks.max(axis=1, keepdims=True), 2) / 2
    tied = (groups.ranks.max(axis=1, keepdims=True) == 1) & (ranked.sum(axis=1, keepdims=True) > 1)
    ranked &= ~tied  # all equal: neither good nor bad
    return groups.rows[ranked], np.where(groups.ranks <= middle, 1, 2)[ranked]


def labelled(model: Trainable, groups: Groups) -> Batch:
    """Examples of two rows: a candidate, and its prompt with the next prompt's content; ranks (E, 2) are (label, 0).

    The second rows measure how far the policy has moved on completions unrelated to the prompt
    (Ethayarajh et al. 2024, section 4.1: the reference point).
    """
    import torch

    rows, label = labels_of(groups)
    samples = groups.samples.take(rows)
    order = np.argsort(samples.group, kind="stable")
    starts = np.flatnonzero(np.diff(samples.group[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(order)))
    # the row as far into the next group as this one is into its own, or that group's last
    turn = np.repeat(np.roll(np.arange(len(starts)), -1), sizes)
    within = np.arange(len(order)) - np.repeat(starts, sizes)
    other = np.empty_like(order)
    other[order] = order[starts[turn] + np.minimum(within, sizes[turn] - 1)]
    twice = samples.take(np.repeat(np.arange(len(samples)), 2))
    content = twice.content.copy()
    content[1::2] = samples.content[other]
    encoded = model.encode(replace(twice, content=content))
    ranks = torch.from_numpy(np.stack([label, np.zeros_like(label)], axis=1).astype(np.int64))
    strength = torch.ones(len(rows))
    return Batch(encoded.columns, 2, {**encoded.given, "ranks": ranks, "strength": strength})
