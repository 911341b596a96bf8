"""The Gaussian lab: its sufficient statistics are those of real samples, and it finds the theory right, or wrong."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from upturn import seeds, theory
from upturn.errors import UserError
from upturn.studies import gaussian


def rows(result: dict, quantity: str) -> dict[int, dict]:
    return {row["round"]: row for row in result["checks"] if row["quantity"] == quantity}


def directly(n: int, rounds: int, replicas: int, dim: int, policy: str, ddof: int) -> tuple[np.ndarray, np.ndarray]:
    """(R, d) means and (R, d, d) covariances by drawing every sample."""
    source = seeds.generator(seeds.key("test lab directly", policy, dim))
    mean, root = np.zeros((replicas, dim)), np.tile(np.eye(dim), (replicas, 1, 1))
    pool = np.empty((replicas, 0, dim))
    for _ in range(rounds):
        x = mean[:, None] + source.standard_normal((replicas, n, dim)) @ root.swapaxes(1, 2)
        pool = np.concatenate([pool, x], axis=1) if policy == "accumulate" else x
        mean = pool.mean(axis=1)
        centred = pool - mean[:, None]
        covariance = centred.swapaxes(1, 2) @ centred / (pool.shape[1] - ddof)
        root = np.linalg.cholesky(covariance)
    return mean, covariance


@pytest.mark.parametrize(
    ("policy", "dim", "division"), [("replace", 1, "n-1"), ("replace", 3, "n"), ("accumulate", 2, "n")]
)
def test_sufficient_statistics_have_the_distribution_of_samples(policy: str, dim: int, division: str) -> None:
    """Kolmogorov–Smirnov on 6,000 replicas of either: means, variances, correlation, log det; each at p > 1e-4."""
    n, rounds, replicas = 7, 3, 6000
    stepper = gaussian._replace if policy == "replace" else gaussian._accumulate
    states = stepper(seeds.generator(seeds.key("test lab", policy, dim)), n, replicas, dim, division)
    for _ in range(rounds):
        mean, root, log_sigma, log_det = next(states)
    covariance = root @ root.swapaxes(1, 2)
    assert np.log(np.einsum("rii->ri", covariance)) / 2 == pytest.approx(log_sigma, abs=1e-10)
    real_mean, real = directly(n, rounds, replicas, dim, policy, 1 if division == "n-1" else 0)
    pairs = [(mean[:, -1], real_mean[:, -1]), (log_det, np.linalg.slogdet(real)[1])]
    pairs += [(covariance[:, i, i], real[:, i, i]) for i in range(dim)]
    if dim > 1:
        pairs.append((covariance[:, 0, 1], real[:, 0, 1]))
        pairs.append((mean[:, 0] * covariance[:, 0, 1], real_mean[:, 0] * real[:, 0, 1]))  # they hang together alike
    for ours, theirs in pairs:
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-4


@pytest.mark.parametrize("policy", ["replace", "accumulate"])
@pytest.mark.parametrize(("n", "dim", "division"), [(10, 1, None), (32, 3, "n"), (12, 2, "n-1")])
def test_theory_and_simulation_agree(policy: str, n: int, dim: int, division: theory.Division | None) -> None:
    result = gaussian.run(n, 30, 3000, policy, dim, division)
    assert result["agree"], [row for row in result["checks"] if row["z"] and abs(row["z"]) > gaussian.BOUND]
    last = {row["quantity"]: row for row in result["checks"] if row["round"] == 30}
    expected = {"variance", "drift of the mean, squared"}
    if policy == "replace":
        expected |= {"sigma", "log variance"} | ({"log det"} if dim > 1 else set())
    assert set(last) == expected


def test_a_wrong_formula_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a percent too much shrinkage a round is seen by 3,000 replicas."""
    true = theory.mean_log_variance
    monkeypatch.setattr(theory, "mean_log_variance", lambda n, t, v, d: true(n, t, v, d) - 0.005 * t)
    result = gaussian.run(100, 50, 3000)
    assert not result["agree"] and result["largest_z"] > gaussian.BOUND


def test_means_that_rare_replicas_carry_are_not_tested() -> None:
    result = gaussian.run(10, 100, 500)
    sigma, variance, log = (rows(result, name) for name in ("sigma", "variance", "log variance"))
    assert sigma[10]["meaningful"] and not sigma[100]["meaningful"]  # t ψ₁(4.5)/4 = 0.62 and 6.2
    assert variance[2]["meaningful"] and not variance[10]["meaningful"]
    assert all(row["meaningful"] for row in log.values())
    assert sigma[100]["z"] is None and "rare" in gaussian.table(result)[7][-1]


def test_log_det_survives_where_the_variance_underflows() -> None:
    result = gaussian.run(3, 2000, 50, dim=2)
    row = rows(result, "log det")[2000]
    assert np.isfinite(row["simulation"]) and abs(row["z"]) < gaussian.BOUND
    assert row["theory"] < -1500
    json.dumps(result, allow_nan=False)


def test_same_seed_same_numbers() -> None:
    first, again, other = (gaussian.run(20, 5, 100, seed=seed) for seed in (1, 1, 2))
    assert first["checks"] == again["checks"] != other["checks"]


def test_table_and_json() -> None:
    result = gaussian.run(50, 7, 200, "accumulate", 2)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    head, *lines = gaussian.table(result)
    assert head == gaussian.COLUMNS and all(len(line) == len(head) for line in lines)
    assert [line[1] for line in lines] == ["1", "2", "5", "7"] * 2


def test_ten_thousand_replicas_take_under_ten_seconds_with_start_up() -> None:
    command = [str(Path(sys.executable).with_name("upturn")), "lab", "gaussian", "--n", "100", "--rounds", "100"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*command, "--replicas", "10000", "--json"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result = json.loads(done.stdout)
    assert result["agree"] and result["replicas"] == 10_000 and len(result["checks"]) == 28
    assert seconds < 10  # of one core, so that a busy machine changes nothing


@pytest.mark.parametrize(
    "settings",
    [
        {"policy": "keep"}, {"division": "n-2"}, {"rounds": 0}, {"replicas": 1}, {"dim": 0}, {"n": 3, "dim": 3},
        {"n": 1},
    ],
)  # fmt: skip
def test_settings_that_make_no_experiment_are_refused(settings: dict) -> None:
    with pytest.raises(UserError):
        gaussian.run(**{"n": 10, "rounds": 2, "replicas": 10, **settings})
