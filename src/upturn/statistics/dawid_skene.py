"""What is true, and how often each person is right, from answers alone: Dawid & Skene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from upturn.types import Array

_STEPS, _CLOSE = 500, 1e-7  # of expectation and maximisation; largest change of a posterior
_PSEUDO = 0.01  # answers of each kind that a person is taken to have given: keeps a probability off 0


@dataclass(frozen=True)
class Labels:
    """posterior (T, C) of each task's class;  confusion (P, C, C) answer (last) given class;  prior (C,)."""

    posterior: Array
    confusion: Array
    prior: Array

    @property
    def accuracy(self) -> Array:
        """(P,) how often a person says the class, over classes as frequent as in the prior."""
        found: Array = np.einsum("c,pcc->p", self.prior, self.confusion)
        return found


def dawid_skene(task: Array, person: Array, answer: Array, classes: int | None = None) -> Labels:
    """Expectation and maximisation for answers in C classes that mean the same in every task, such as labels.

    ``task``, ``person``, ``answer`` (N,) codes 0, 1, …. Each person has a matrix P(answer | class), each answer is
    independent given the class (Dawid & Skene 1979, Applied Statistics 28, equations 2.3 to 2.5). Begins with the
    shares of answers. Where candidates only have numbers, as in a pick of K, use :func:`winners`: a
    matrix by number would mean nothing. With one answer a task, or one person, nothing tells right from wrong: the
    answers come back, and accuracies near 1 are no evidence. Raises ValueError without an answer.
    """
    task, person, answer = (np.asarray(column, dtype=np.int64) for column in (task, person, answer))
    if not len(task):
        raise ValueError("there are no answers")
    tasks, people = int(task.max()) + 1, int(person.max()) + 1
    kinds = int(answer.max()) + 1 if classes is None else classes
    votes = np.zeros((tasks, kinds))
    np.add.at(votes, (task, answer), 1.0)
    posterior = (votes + 1 / kinds) / (votes + 1 / kinds).sum(axis=1, keepdims=True)
    for _ in range(_STEPS):
        prior = (posterior.sum(axis=0) + _PSEUDO) / (tasks + kinds * _PSEUDO)
        said = np.full((people, kinds, kinds), _PSEUDO)  # (person, answer, class)
        np.add.at(said, (person, answer), posterior[task])
        said /= said.sum(axis=1, keepdims=True)
        logs = np.tile(np.log(prior), (tasks, 1))
        np.add.at(logs, task, np.log(said[person, answer]))
        logs -= logs.max(axis=1, keepdims=True)
        fresh = np.exp(logs)
        fresh /= fresh.sum(axis=1, keepdims=True)
        moved = float(np.abs(fresh - posterior).max())
        posterior = fresh
        if moved < _CLOSE:
            break
    return Labels(posterior, said.transpose(0, 2, 1), prior)
