"""Tests of estimates from a run's records against runs whose truth is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.small_recipes import GAUSSIAN, small
from upturn import theory
from upturn.errors import UserError
from upturn.loop import loop
from upturn.statistics.hessian import curvature
from upturn.theory import estimates

pytestmark = pytest.mark.slow

REPLICAS = 40
MISSES = 40 * 0.05 + 4 * math.sqrt(40 * 0.05 * 0.95)  # of 40 intervals of 95%: 2 expected, four standard errors


def twins(rng: np.random.Generator, lam: float, n: int, rounds: int, apart: float) -> tuple[list[np.ndarray], ...]:
    """Two Gaussians of known variance, each mean retrained with real data at 0: slope λ/(1+λ)."""
    means = [np.full(3, apart), np.full(3, -apart)]
    paths: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for _ in range(rounds + 1):
        noise = rng.standard_normal((300, 3))
        for i in range(2):
            paths[i].append(means[i] + noise)
            means[i] = lam / (1 + lam) * (means[i] + rng.standard_normal((n, 3)).mean(axis=0))
    return paths


@pytest.mark.slow
@pytest.mark.parametrize("lam", [0.5, 2.0])
def test_the_contraction_of_a_known_map(lam: float) -> None:
    rng = np.random.default_rng(0)
    truth, missed, told = theory.contraction_rate(lam), 0, 0
    for _ in range(REPLICAS):
        found = estimates.contraction(*twins(rng, lam, 1000, 4, 1.0))
        told += math.isfinite(found.value)
        missed += math.isfinite(found.value) and not found.low <= truth <= found.high
    assert told == REPLICAS and missed <= MISSES


def test_twins_without_information() -> None:
    rng = np.random.default_rng(1)
    same = [estimates.contraction(*twins(rng, 1.0, 50, 2, 0.0)).note for _ in range(20)]
    assert sum(note.startswith("unidentified") for note in same) >= 18
    assert "no change" in estimates.contraction(*twins(rng, 1.0, 50, 0, 1.0)).note


@pytest.mark.slow
def test_effective_lambda_of_a_categorical_and_of_a_learner_that_hears_half() -> None:
    """Features are one-hot classes: an exponential family. A learner that gives the synthetic part half its weight."""
    rng = np.random.default_rng(2)
    p, q = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.1, 0.2, 0.3, 0.4])
    eye = np.eye(4)
    for lam in (0.5, 2.0):
        missed = 0
        for _ in range(REPLICAS):
            data, kept, after = [], [], []
            data = eye[rng.choice(4, 1000, p=p)]
            for _ in range(2):
                chosen = eye[rng.choice(4, 500, p=q)]
                fitted = (data.mean(axis=0) + lam * chosen.mean(axis=0)) / (1 + lam)
                kept.append(chosen)
                after.append(eye[rng.choice(4, 1000, p=fitted)])
            found = estimates.effective_lambda(data, kept, after)
            missed += not found.low <= lam <= found.high
        assert missed <= MISSES
    alike = estimates.effective_lambda(data, [eye[rng.choice(4, 500, p=p)]], [eye[rng.choice(4, 500, p=p)]])
    assert alike.note.startswith("unidentified")


@pytest.mark.slow
@pytest.mark.parametrize("truth", [2, 4, 8])
def test_effective_candidates_is_the_k_that_was_used(truth: int) -> None:
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(REPLICAS):
        rewards = rng.normal(size=(400, truth))
        kept = np.zeros_like(rewards, dtype=bool)
        kept[np.arange(400), np.argmax(rewards + rng.gumbel(size=rewards.shape), axis=1)] = True
        groups = np.repeat(np.arange(400), truth)
        found = estimates.effective_candidates(rewards.reshape(-1), groups, kept.reshape(-1))
        missed += not found.low <= truth <= found.high
    assert missed <= MISSES


def test_effective_candidates_at_its_ends() -> None:
    rng = np.random.default_rng(4)
    rewards, groups = rng.normal(size=800), np.repeat(np.arange(200), 4)
    every = estimates.effective_candidates(rewards, groups, np.ones(800, dtype=bool))
    assert every.value == 1.0
    best = rewards >= np.quantile(rewards, 0.995)
    assert "sharper than the reward's own tilt" in estimates.effective_candidates(rewards, groups, best).note
    gain = estimates.selection_strength(rewards, groups, rewards > 0)
    assert gain.low < gain.value < gain.high
    assert gain.value == pytest.approx(rewards[rewards > 0].mean() - rewards.mean())


def test_curvature_against_closed_forms() -> None:
    """Of N(μ, e^{2s}) at its own data: 1/σ² and 2. Of a tiny network: finite differences."""
    x = torch.tensor(np.random.default_rng(5).normal(1.0, 2.0, 500))
    fit = torch.stack([x.mean(), x.std(correction=0).log()])

    def loss(theta: torch.Tensor) -> torch.Tensor:
        return (theta[1] + 0.5 * ((x - theta[0]) / theta[1].exp()) ** 2).mean()

    assert curvature(loss, fit) == pytest.approx(sorted([math.exp(-2 * float(fit[1])), 2.0]), rel=1e-9)
    torch.manual_seed(0)
    data = torch.randn(20, 2, dtype=torch.float64)

    def network(theta: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(data @ theta[:6].reshape(2, 3))
        return ((hidden @ theta[6:9] - data[:, 0]) ** 2).mean()

    at = torch.randn(9, dtype=torch.float64)
    step, columns = 1e-5, []
    for i in range(9):
        grads = []
        for sign in (1, -1):
            moved = at.clone()
            moved[i] += sign * step
            moved.requires_grad_()
            grads.append(torch.autograd.grad(network(moved), moved)[0])
        columns.append((grads[0] - grads[1]) / (2 * step))
    assert curvature(network, at) == pytest.approx(np.linalg.eigvalsh(torch.stack(columns).numpy()), abs=1e-6)
    with pytest.raises(ValueError, match="at most 2000"):
        curvature(network, torch.zeros(2001))


@pytest.mark.long
@pytest.mark.slow
def test_the_command_on_a_real_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A Gaussian in the real loop at λ = 1 and K = 4: both truths are inside their intervals."""
    from upturn.cli import app

    settings = ("rounds.sample.prompts=600", "evaluate.prompts=1500", "gate=null", "data.n=3000", "data.seed=0",
                "rounds.score={name: closeness, to: [4.0, 0.0], width: 3.0, height: 2.0}")
    loop.run(small(GAUSSIAN, *settings), tmp_path)
    loop.run(small(GAUSSIAN, *settings, "name=twin", "seed=1"), tmp_path)
    loop.run(small(GAUSSIAN, *settings, "name=other", "data.seed=1", "rounds.count=1"), tmp_path)
    app(["estimate", "gaussian", "--runs", str(tmp_path), "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    for number in ("1", "2", "3"):
        k = found["rounds"][number]["effective_candidates"]
        assert k["low"] <= 4 * 1.2 and k["high"] >= 4 / 1.2
    assert found["effective_lambda"]["low"] <= 1.0 <= found["effective_lambda"]["high"]
    app(["estimate", "gaussian", "--twin", "twin", "--runs", str(tmp_path)], standalone_mode=False)
    said = capsys.readouterr().out
    assert "contraction" in said and "unidentified" in said  # the twins start where the data put them: together
    with pytest.raises(UserError, match="same real data"):
        app(["estimate", "gaussian", "--twin", "other", "--runs", str(tmp_path)], standalone_mode=False)
