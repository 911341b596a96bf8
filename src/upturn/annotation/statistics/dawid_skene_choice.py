"""Estimates the best candidate and each annotator's reliability: Dawid & Skene for candidates that differ by task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from upturn.annotation.statistics.comparisons import Compared
from upturn.types import Array

_STEPS, _CLOSE = 500, 1e-6  # EM steps at most; stops when no reliability changes by more
_BEGIN = 0.7  # initial reliability: above chance, so that agreement raises it
_PRIOR = 1.0  # pseudo-counts of informed answers and of guesses per annotator: reliabilities stay inside (0, 1)
_BLOCKS = 20  # of sets left out in turn


@dataclass(frozen=True)
class Winners:
    """posterior (I + 2 G,) of each outcome of each set (see ``Compared.slots``);  reliability (P,) in [0, 1].

    error    (P,) standard error of the reliability, by leaving out a twentieth of the sets at a time; NaN below 20
    answers  (P,) how many answers of the annotator it is based on
    """

    posterior: Array
    reliability: Array
    error: Array
    answers: Array


def winners(found: Compared) -> Winners:
    """Expectation and maximisation. With the annotator's probability r an answer is the set's true outcome, else it is
    a guess: "tie" or "all bad" at their overall rates, all displayed candidates equally likely.

    Dawid & Skene (1979) with one number per annotator instead of a matrix, as candidates differ from task to
    task. The mixture with guesses is that of Hovy et al. 2013 ("Learning whom to trust with MACE", section 2.1), with
    the same guess distribution for all. r is the share of answers that are not guesses; r + (1 - r) / K are correct.
    Where no task has two annotators, r is not identified and stays near its initial value.
    """
    fitted = _AnswerMixture.of(found)
    reliability, posterior = fitted.run(np.full(len(found.answers.people), _BEGIN), np.ones(len(found)))
    counts = np.bincount(found.answers.person, minlength=len(reliability))
    return Winners(posterior, reliability, _errors(found, fitted, reliability), counts)


def _errors(found: Compared, fitted: _AnswerMixture, reliability: Array) -> Array:
    if found.sets < _BLOCKS:
        return np.full(len(reliability), np.nan)
    parts = [
        fitted.run(reliability, (found.group % _BLOCKS != block).astype(np.float64))[0] for block in range(_BLOCKS)
    ]
    spread: Array = np.sqrt((_BLOCKS - 1) * np.var(parts, axis=0))
    return spread


@dataclass(frozen=True)
class _AnswerMixture:
    found: Compared
    slots: Array  # (I + 2 G,) the set of each outcome
    slot: Array  # (N,) the outcome that a vote names
    guess: Array  # (N,) probability that a guess names it

    @classmethod
    def of(cls, found: Compared) -> _AnswerMixture:
        slot, count = found.slot, len(found.set_of)
        special = slot >= count
        bad = special & ((slot - count) % 2 == 1)
        total = len(found) + 2.0
        shares = np.array([(special & ~bad).sum() + 1.0, bad.sum() + 1.0]) / (total + 1.0)
        among = (1 - shares.sum()) / np.maximum(found.answers.counts, 1)
        return cls(found, found.slots, slot, np.where(special, shares[bad.astype(np.int64)], among))

    def run(self, reliability: Array, counted: Array) -> tuple[Array, Array]:
        """(P,) reliabilities and (I + 2 G,) posteriors, from these at first and the votes (N,) that count."""
        found, person = self.found, self.found.answers.person
        count, weight = len(found.set_of), found.weight * counted
        people = np.bincount(person, weights=counted, minlength=len(reliability))
        prior = np.array([1.0, 1.0]) / 3  # of a tie and of all bad
        for _ in range(_STEPS):
            each = np.minimum(reliability, 1 - 1e-9)[person]
            odds = each / ((1 - each) * self.guess)
            logs = np.bincount(self.slot, weights=weight * np.log1p(odds), minlength=len(self.slots))
            logs[:count] += np.log((1 - prior.sum()) / found.size[found.set_of])
            logs[count:] += np.tile(np.log(prior), found.sets)
            posterior = within(logs, self.slots, found.sets)
            known = posterior[self.slot] * odds / (1 + odds) * counted
            fresh = (np.bincount(person, weights=known, minlength=len(people)) + _PRIOR) / (people + 2 * _PRIOR)
            prior = (posterior[count:].reshape(-1, 2).sum(axis=0) + 1) / (found.sets + 3)
            moved = float(np.abs(fresh - reliability).max(initial=0.0))
            reliability = fresh
            if moved < _CLOSE:
                break
        return reliability, posterior


def within(logs: Array, part: Array, parts: int) -> Array:
    """Softmax of ``logs`` within each part: (M,) that sums to 1 over rows of one number."""
    top = np.full(parts, -np.inf)
    np.maximum.at(top, part, logs)
    mass = np.exp(logs - top[part])
    share: Array = mass / np.bincount(part, weights=mass, minlength=parts)[part]
    return share
