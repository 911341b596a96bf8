"""Groups of candidates: from fields of the data, from rewards, and as the batches of objectives."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from upturn.errors import UserError
from upturn.types import Array, Batch, Column, Groups, Ragged, Samples, Stacks

if TYPE_CHECKING:
    import torch

    from upturn.protocols import Trainable

RANK, SCORE, STRENGTH = "rank", "score", "strength"  # fields of samples that order the candidates of a group


def from_fields(samples: Samples) -> tuple[Groups, tuple[str, ...]]:
    """The groups of real data by the fields "rank", "score" and "strength", and notes that count groups without order.

    "rank" (N,) 1 is best, equal is a tie, 0 unknown; "score" (N,) NaN where there is none; "strength" (N,) of the first
    row of a group, 1 where it is absent or NaN. A group without any rank and any score is left out. UserError where
    there is neither "rank" nor "score", or no group is ordered.
    """
    found = samples.fields
    if RANK not in found and SCORE not in found:
        raise UserError(
            f"the data has no order of candidates: a field '{RANK}' or '{SCORE}' is expected; "
            f"found: {', '.join(sorted(found)) or 'none'}", where="data",
            fix="Use the source 'preferences', or samples that were scored.",
        )
    rows = _rows(samples.group, samples.candidate)
    scores = np.asarray(found.get(SCORE, np.full(len(samples), np.nan)), dtype=np.float64)
    own = np.asarray(found.get(RANK, np.zeros(len(samples))), dtype=np.int64)
    strength = np.asarray(found.get(STRENGTH, np.ones(len(samples))), dtype=np.float64)[rows[:, 0]]
    rewards, ranks = _looked_up(scores, rows, np.nan), _looked_up(own, rows, 0)
    ranked = (ranks > 0).any(axis=1) | (~np.isnan(rewards)).any(axis=1)
    if not ranked.any():
        raise UserError("not one group has a rank or a score", where="data", fix="Look at the columns of the data.")
    groups = Groups(samples, rows, ranks, rewards, np.where(np.isnan(strength), 1.0, strength))
    notes = []
    if not ranked.all():
        notes.append(f"{int((~ranked).sum()):,} of {len(rows):,} groups have neither a rank nor a score: left out")
        groups = _chosen(groups, np.flatnonzero(ranked))
    several = (groups.rows >= 0).sum(axis=1) > 1
    tied = several & (_high(groups.ranks) == _low(groups.ranks)) & ((groups.ranks > 0).sum(axis=1) > 1)
    if tied.any():
        notes.append(f"{int(tied.sum()):,} of {len(groups):,} groups are ties: only objectives that know ties learn "
                     "from them")
    return groups, tuple(notes)


def preferred(samples: Samples) -> Array:
    """(N,) bool: which rows imitation learns of samples with the field "rank"; all rows without it.

    Those of the best rank in their group, so all of a tie; a lone candidate where its label is good (rank 1). A group
    without any rank says of no candidate that it is bad: all of it stays.
    """
    if RANK not in samples.fields or not len(samples):
        return np.ones(len(samples), dtype=bool)
    ranks = np.asarray(samples.fields[RANK], dtype=np.int64)
    _, member, sizes = np.unique(samples.group, return_inverse=True, return_counts=True)
    best = np.full(len(sizes), np.iinfo(np.int64).max)
    np.minimum.at(best, member[ranks > 0], ranks[ranks > 0])
    best[sizes == 1] = np.where(best[sizes == 1] == np.iinfo(np.int64).max, best[sizes == 1], 1)
    unranked = best[member] == np.iinfo(np.int64).max
    found: Array = unranked | (ranks == best[member])
    return found


def first_of_each(samples: Samples) -> Array:
    """(G,) the first row of each group, in order: one occurrence of each prompt, however many candidates it has."""
    _, first = np.unique(samples.group, return_index=True)
    rows: Array = np.sort(first)
    return rows


def whole(samples: Samples, kept: Array) -> Array:
    """(N,) bool: ``kept`` without the groups of which a candidate is not kept, so that no comparison is taken apart."""
    _, member = np.unique(samples.group, return_inverse=True)
    torn = np.zeros(int(member.max(initial=-1)) + 1, dtype=bool)
    torn[member[~kept]] = True
    found: Array = kept & ~torn[member]
    return found


def by_reward(samples: Samples, rewards: Array, candidates: int | None = None) -> Groups:
    """All candidates of each prompt, ranked by their rewards (N,): the highest is 1, equals are ties, NaN is unranked.

    ``candidates`` 2 leaves the best and the worst of each, as :func:`pairs` does; None all. Prompts whose candidates
    all have one reward stay, as ties: the objectives count them.
    """
    rows = _rows(samples.group, samples.candidate)
    table = _looked_up(np.asarray(rewards, dtype=np.float64), rows, np.nan)
    order = np.argsort(-table, axis=1, kind="stable")  # NaN is last
    ordered = np.take_along_axis(table, order, axis=1)
    falls = np.zeros(rows.shape, dtype=np.int64)
    falls[:, 1:] = ordered[:, 1:] < ordered[:, :-1]
    ranks = np.empty_like(rows)
    np.put_along_axis(ranks, order, falls.cumsum(axis=1) + 1, axis=1)
    groups = Groups(samples, rows, np.where(np.isnan(table), 0, ranks), table, np.ones(len(rows)))
    return _of_width(groups, candidates)


def pairs(groups: Groups) -> Groups:
    """Two candidates per group: the first of best rank and the last of worst; of a tie two that are tied.

    Of a pick, where all but the one of rank 1 are unranked, the pick and the first of the others: their ranks stay
    (1, 0). Where no candidate is ranked, the first two. UserError where no group has two candidates.
    """
    there = groups.rows >= 0
    if not (there.sum(axis=1) > 1).any():
        raise UserError("pairs are requested, and no group has two candidates", where="data",
                        fix="Use an objective for unpaired labels, or give several candidates per prompt.")
    groups = _chosen(groups, np.flatnonzero(there.sum(axis=1) > 1))
    there, width = groups.rows >= 0, groups.rows.shape[1]
    ranked, place = groups.ranks > 0, np.arange(width)
    unranked = np.iinfo(np.int64).max
    best = np.where(ranked, groups.ranks, np.where(there, unranked - 1, unranked)).argmin(axis=1)
    other = there & (place != best[:, None])
    # ranked ones by their rank, the last of equals; then the unranked, the first of them
    worth = np.where(ranked, groups.ranks * width + place, -1 - place)
    worst = np.where(other, worth, np.iinfo(np.int64).min).argmax(axis=1)
    both = np.stack([best, worst], axis=1)
    def taken(values: Array) -> Array:
        return np.take_along_axis(values, both, axis=1)
    return replace(groups, rows=taken(groups.rows), ranks=taken(groups.ranks), rewards=taken(groups.rewards))


def ordered_pairs(groups: Groups) -> tuple[Array, Array, Array, int]:
    """(M,) rows of the better and of the worse candidate of every ordered pair, (M,) its group, and how many tie.

    Candidates without a rank are worse than a pick, and are in no pair otherwise.
    """
    ranks, there = groups.ranks, groups.rows >= 0
    pick = ranks.max(axis=1, initial=0)[:, None] == 1
    placed = np.where(pick & there & (ranks == 0), 2, np.where(there, ranks, 0))
    known = placed > 0
    both = known[:, :, None] & known[:, None, :]
    which, better, worse = np.nonzero(both & (placed[:, :, None] < placed[:, None, :]))
    ranked = both & (ranks[:, :, None] > 0) & (ranks[:, None, :] > 0)
    ties = np.triu(ranked & (placed[:, :, None] == placed[:, None, :]), k=1)
    return groups.rows[which, better], groups.rows[which, worse], which, int(ties.sum())


def encode_groups(
    model: Trainable, groups: Groups, candidates: int | None, weights: Array | None = None
) -> Batch:
    """The batch of an objective with ``example`` "group"; a row that is in many groups is encoded once.

    ``candidates`` is the objective's: 2 gives the pairs of :func:`pairs`, None whole groups, padded to the largest by
    repeating the first row with "present" False. ``given``: "ranks" (E, K) int64, "rewards" (E, K) float32,
    "strength" (E,), "weights" (E,) float32 (1 where not given; (G,) for the groups as they are given) and "present"
    (E, K) bool. UserError where groups do not have as many candidates, ValueError for other numbers of them.
    """
    import torch

    weights = np.ones(len(groups)) if weights is None else np.asarray(weights, dtype=np.float64)
    if candidates == 2 and len(groups):
        weights = weights[(groups.rows >= 0).sum(axis=1) > 1]
    groups = _of_width(groups, candidates)
    present = groups.rows >= 0
    wide = groups.rows.shape[1] if len(groups) else 1
    rows = np.where(present, groups.rows, groups.rows[:, :1]).reshape(-1)
    used, index = np.unique(rows, return_inverse=True)
    encoded = model.encode(groups.samples.take(used))
    which = torch.from_numpy(index.reshape(-1).astype(np.int64))
    columns = {name: _gathered(column, which) for name, column in encoded.columns.items()}
    given = {
        "ranks": torch.from_numpy(np.where(present, groups.ranks, 0)),
        "rewards": torch.from_numpy(np.where(present, groups.rewards, np.nan).astype(np.float32)),
        "strength": torch.from_numpy(groups.strength.astype(np.float32)),
        "weights": torch.from_numpy(weights.astype(np.float32)),
        "present": torch.from_numpy(present),
    }
    return Batch(columns, wide, given)


def without_empty(batch: Batch) -> Batch:
    """The examples all of whose rows have something that is learned: a text that is too long may have been dropped."""
    import torch

    mask = batch.columns.get("mask")
    if not isinstance(mask, Ragged):
        return batch
    kept = (mask.sums.reshape(-1, batch.candidates) > 0).all(dim=1)
    if bool(kept.all()):
        return batch
    examples = kept.nonzero()[:, 0]
    rows = (examples[:, None] * batch.candidates + torch.arange(batch.candidates)).reshape(-1)
    columns = {name: _gathered(column, rows) for name, column in batch.columns.items()}
    return Batch(columns, batch.candidates, {name: values[examples] for name, values in batch.given.items()})


def _of_width(groups: Groups, candidates: int | None) -> Groups:
    if candidates is None:
        return groups
    if candidates != 2:
        raise ValueError(f"an objective takes pairs (2) or whole groups (None), not {candidates} candidates")
    return pairs(groups) if len(groups) else groups


def _gathered(column: Column, rows: torch.Tensor) -> Column:
    """These rows of a column; ragged ones stay ragged, and stacked ones where they lie."""
    import torch

    if isinstance(column, Stacks):
        return column.gathered(rows)
    if not isinstance(column, Ragged):
        return column[rows]
    lengths = column.lengths[rows]
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    shift = (column.offsets[:-1][rows] - offsets[:-1]).repeat_interleave(lengths)
    return Ragged(column.values[shift + torch.arange(int(offsets[-1]))], offsets)


def _rows(group: Array, candidate: Array) -> Array:
    """(G, K) rows of each group in order of candidate, -1 where a group has fewer; groups in order of first row."""
    order = np.lexsort((candidate, group))
    if not len(order):
        return np.zeros((0, 1), dtype=np.int64)
    starts = np.flatnonzero(np.diff(group[order], prepend=group[order[0]] - 1))
    sizes = np.diff(np.append(starts, len(order)))
    which = np.repeat(np.arange(len(starts)), sizes)
    table = np.full((len(starts), int(sizes.max())), -1, dtype=np.int64)
    table[which, np.arange(len(order)) - starts[which]] = order
    first: Array = np.minimum.reduceat(order, starts)
    ordered: Array = table[np.argsort(first, kind="stable")]
    return ordered


def _looked_up(values: Array, rows: Array, absent: float) -> Array:
    """``values`` (N,) at ``rows`` (G, K), ``absent`` where there is none."""
    if not len(values):
        return np.full(rows.shape, absent, dtype=values.dtype)
    return np.where(rows >= 0, values[rows], np.asarray(absent, dtype=values.dtype))


def _chosen(groups: Groups, which: Array) -> Groups:
    rows, ranks, rewards = groups.rows[which], groups.ranks[which], groups.rewards[which]
    return Groups(groups.samples, rows, ranks, rewards, groups.strength[which])


def _high(ranks: Array) -> Array:
    found: Array = ranks.max(axis=1, initial=0)
    return found


def _low(ranks: Array) -> Array:
    found: Array = np.where(ranks > 0, ranks, np.iinfo(np.int64).max).min(axis=1, initial=np.iinfo(np.int64).max)
    return found
