"""The Gaussian lab: its sufficient statistics are those of real samples, and it finds the theory right, or wrong."""

from __future__ import annotations

import itertools
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from helpers.lab_runs import failed, lab, path
from upturn import seeds, theory
from upturn.errors import UserError
from upturn.lab.experiments import _gaussian_rounds as gaussians
from upturn.lab.rows import BOUND

pytestmark = pytest.mark.slow

STEPPERS = {
    "replace": gaussians.replace, "accumulate": gaussians.accumulate, "accumulate_subsample": gaussians.subsample,
    "fresh": lambda rng, of: gaussians.blend(rng, of, True),
    "fixed_real": lambda rng, of: gaussians.blend(rng, of, False),
}


def directly(setup: gaussians.Setup, rounds: int, policy: str) -> tuple[np.ndarray, np.ndarray]:
    """(R, d) means and (R, d, d) covariances by drawing every sample, weighed as each policy weighs them."""
    source = seeds.generator(seeds.key("test lab directly", policy, setup.dim))
    shape = (setup.replicas, setup.n, setup.dim)
    mean, root = np.zeros((setup.replicas, setup.dim)), np.tile(np.eye(setup.dim), (setup.replicas, 1, 1))
    pool, weights, real = np.empty((setup.replicas, 0, setup.dim)), np.empty(0), np.empty(0)
    w = 1 / (1 + setup.lam)
    for t in range(rounds):
        x = mean[:, None] + source.standard_normal(shape) @ root.swapaxes(1, 2)
        if policy in ("fresh", "fixed_real") and t > 0:
            real = source.standard_normal(shape) if policy == "fresh" else real
            pool = np.concatenate([real, x], axis=1)
            weights = np.repeat([w / setup.n, (1 - w) / setup.n], setup.n)
        else:
            real = x if t == 0 else real
            pool = np.concatenate([pool, x], axis=1) if policy == "accumulate" else x
            weights = np.full(pool.shape[1], 1 / pool.shape[1])
        mean = np.einsum("n,rnd->rd", weights, pool)
        centred = pool - mean[:, None]
        divided = 1 - np.square(weights).sum() if setup.division == "n-1" else 1.0
        covariance = np.einsum("n,rni,rnj->rij", weights, centred, centred) / divided
        root = np.linalg.cholesky(covariance)
    return mean, covariance


@pytest.mark.parametrize(
    ("policy", "dim", "division"),
    [("replace", 1, "n-1"), ("replace", 3, "n"), ("accumulate", 2, "n"), ("fresh", 2, "n-1"), ("fixed_real", 2, "n")],
)
def test_sufficient_statistics_have_the_distribution_of_samples(policy: str, dim: int, division: Any) -> None:
    """Kolmogorov–Smirnov on 6,000 replicas of either: means, variances, correlation, log det; each at p > 1e-4."""
    setup = gaussians.Setup(7, 6000, dim, division, 0.5)
    states = STEPPERS[policy](seeds.generator(seeds.key("test lab", policy, dim)), setup)
    mean, root, log_sigma, log_det = next(itertools.islice(states, 2, None))
    covariance = root @ root.swapaxes(1, 2)
    assert np.log(np.einsum("rii->ri", covariance)) / 2 == pytest.approx(log_sigma, abs=1e-10)
    real_mean, real = directly(setup, 3, policy)
    pairs = [(mean[:, -1], real_mean[:, -1]), (log_det, np.linalg.slogdet(real)[1])]
    pairs += [(covariance[:, i, i], real[:, i, i]) for i in range(dim)]
    if dim > 1:
        pairs.append((covariance[:, 0, 1], real[:, 0, 1]))
        pairs.append((mean[:, 0] * covariance[:, 0, 1], real_mean[:, 0] * real[:, 0, 1]))  # they hang together alike
    for ours, theirs in pairs:
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-4


@pytest.mark.parametrize(("n", "dim", "division"), [(10, 1, ""), (32, 3, "n"), (12, 2, "n-1")])
def test_theory_and_simulation_agree(tmp_path: Path, n: int, dim: int, division: str) -> None:
    policies = ["replace", "accumulate", "accumulate_subsample", "fresh", "fixed_real"]
    result = lab(
        tmp_path, "gaussian", n=[n], dim=[dim], division=[division], rounds=20, replicas=2000, policy=policies
    )
    assert result["agree"], failed(result)
    last = {(row["policy"], row["quantity"]) for row in result["checks"] if row["round"] == 20 and row["formula"]}
    assert {(p, q) for p in policies for q in ("variance", "drift of the mean, squared")} <= last
    assert (("replace", "log det") in last) == (dim > 1)


def test_a_wrong_formula_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a percent too much shrinkage a round is seen by 3,000 replicas."""
    true = theory.mean_log_variance
    monkeypatch.setattr(theory, "mean_log_variance", lambda n, t, v, d: true(n, t, v, d) - 0.005 * t)
    result = lab(tmp_path, "gaussian", rounds=50, replicas=3000)
    assert not result["agree"] and result["largest_z"] > BOUND
    assert [said["formula"] for said in result["verdict"] if not said["agrees"]] == ["mean_log_variance"]


def test_means_that_rare_replicas_carry_are_not_tested(tmp_path: Path) -> None:
    result = lab(tmp_path, "gaussian", n=[10], rounds=100, replicas=500)
    sigma, variance, log = (path(result, name) for name in ("sigma", "variance", "log variance"))
    assert sigma[10]["meaningful"] and not sigma[100]["meaningful"]  # t ψ₁(4.5)/4 = 0.62 and 6.2
    assert variance[2]["meaningful"] and not variance[10]["meaningful"]
    assert all(row["meaningful"] for row in log.values())
    assert sigma[100]["z"] is None


def test_log_det_survives_where_the_variance_underflows(tmp_path: Path) -> None:
    result = lab(tmp_path, "gaussian", n=[3], rounds=2000, replicas=50, dim=[2])
    row = path(result, "log det")[2000]
    assert np.isfinite(row["simulation"]) and abs(row["z"]) < BOUND
    assert row["theory"] < -1500
    json.dumps(result, allow_nan=False)


def test_same_seed_same_numbers(tmp_path: Path) -> None:
    first, again, other = (
        lab(tmp_path / str(i), "gaussian", n=[20], rounds=5, replicas=100, seed=seed)
        for i, seed in enumerate((1, 1, 2))
    )
    assert first["checks"] == again["checks"] != other["checks"]


def test_ten_thousand_replicas_take_under_ten_seconds_with_start_up(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("upturn")), "lab", "gaussian", "--n", "100", "--rounds", "100"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*command, "--replicas", "10000", "--json", "--to", str(tmp_path)], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result = json.loads(done.stdout)
    assert result["agree"] and result["replicas"] == 10_000 and len(result["checks"]) == 28
    assert seconds < 10  # of one core, so that a busy machine changes nothing


@pytest.mark.parametrize(
    "settings",
    [
        {"policy": ["keep"]}, {"division": ["n-2"]}, {"rounds": 0}, {"replicas": 1}, {"dim": [0]},
        {"n": [3], "dim": [3]}, {"n": [1]},
    ],
)  # fmt: skip
def test_settings_that_make_no_experiment_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        lab(tmp_path, "gaussian", **{"n": [10], "rounds": 2, "replicas": 10, **settings})
