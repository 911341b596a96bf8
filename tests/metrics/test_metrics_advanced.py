"""Feature likelihood, authenticity, copying, classifier tests, classes and calibration: formulas, planted answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from helpers.metric_cases import evidence, measure, normal, real, sampled
from upturn.metrics.fld import Likelihood
from upturn.metrics.pit import from_uniform, transforms
from upturn.models.gaussian import Gaussian
from upturn.statistics.kernel_density import KernelMixture

# --- feature likelihood divergence ---------------------------------------------------------------------------------


def test_the_density_is_that_of_the_mixture():
    from scipy.special import logsumexp
    from scipy.stats import multivariate_normal

    centres, points = normal(7, 3, 1), normal(11, 3, 2)
    logs = normal(7, 1, 3)[:, 0]
    parts = [multivariate_normal(c, math.exp(s) * np.eye(3)).logpdf(points) for c, s in zip(centres, logs, strict=True)]
    found = KernelMixture(centres, logs).log_density(points)
    np.testing.assert_allclose(found, logsumexp(parts, axis=0) - math.log(7), atol=1e-5)


def by_gradient(centres: np.ndarray, data: np.ndarray, steps: int, rate: float) -> tuple[np.ndarray, float]:
    """The same fit by Adam, as the paper's authors have it: log variances, and the mean log density with the floor."""
    x, mu = torch.from_numpy(data.astype(np.float64)), torch.from_numpy(centres.astype(np.float64))
    dims, squared = x.shape[1], torch.cdist(x, mu, compute_mode="donot_use_mm_for_euclid_dist").square()
    far = 0.9**2 * (x - x.mean(dim=0)).square().sum(dim=1)
    logs = ((squared.min(dim=0).values + 1e-3) / dims).log().requires_grad_()
    floor = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logs, floor], lr=rate)

    def density() -> torch.Tensor:
        def log(distance: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
            return -distance / (2 * width.exp()) - dims / 2 * (width + math.log(2 * math.pi))
        inner = (log(squared, logs) - math.log(len(mu))).logsumexp(dim=1)
        return torch.logaddexp(inner, log(far, floor)).mean()

    for _ in range(steps):
        optimiser.zero_grad()
        (-density() / dims).backward()
        optimiser.step()
    return logs.detach().numpy(), float(density().detach())


@pytest.mark.slow
def test_widths_are_as_likely_as_a_long_ascent_finds():
    centres, data = normal(40, 4, 1), normal(60, 4, 2)
    theirs, likeliest = by_gradient(centres, data, 3000, 0.02)
    assert likeliest > by_gradient(centres, data, 0, 0.1)[1]  # 0 steps: only a look at the start
    ours = KernelMixture.fitted(centres, data).log_variances
    used = theirs < 5  # of the rest nothing is known but that no point is near
    found = KernelMixture(centres, ours).log_density(data).mean()
    assert found == pytest.approx(KernelMixture(centres, theirs.astype(np.float32)).log_density(data).mean(), abs=0.05)
    assert np.median(np.abs(ours - theirs)[used]) < 0.05


@pytest.mark.slow
def test_fld_is_the_reference_s_up_to_its_optimiser():
    """Theirs stops after 50 steps of Adam at 0.5, ours where the likelihood no longer grows."""
    sample, train, held_out = normal(300, 8, 1, 0.8), normal(600, 8, 2), normal(300, 8, 3)
    found = measure("fld", evidence(sampled(sample), train, held_out))
    centre, spread = held_out.mean(axis=0), held_out.std(axis=0, ddof=1)
    sample, train, held_out = ((part - centre) / spread for part in (sample, train, held_out))
    def mean(centres: np.ndarray, data: np.ndarray) -> float:
        logs = by_gradient(centres, data, 50, 0.5)[0].astype(np.float32)
        return float(KernelMixture(centres.astype(np.float32), logs).log_density(held_out).mean())
    theirs = 100 / 8 * (mean(train[:300], train[300:]) - mean(sample, train))
    # other halves of the training data: 100/8 nats times the error of a mean of 300 log densities, about 0.1
    assert found.value == pytest.approx(theirs, abs=4)
    assert found.low < found.value < found.high


@pytest.mark.slow
def test_fld_sees_what_is_worse_in_quality_variety_and_novelty():
    train, held_out = normal(800, 5, 1), normal(400, 5, 2)
    def fld(sample: np.ndarray) -> float:
        return measure("fld", evidence(sampled(sample), train, held_out)).value
    fresh = fld(normal(400, 5, 3))
    assert abs(fresh) < 5
    for worse in (normal(400, 5, 3, 1.0, 1.0), np.tile(normal(20, 5, 3), (20, 1))):
        assert fld(worse) > fresh + 3  # its interval is 1.4 to either side
    copies = measure("fld", evidence(sampled(train[:400]), train, held_out))
    assert copies.value > fresh + 50
    assert copies.details["memorised"] > 100
    assert measure("fld", evidence(sampled(normal(400, 5, 3)), train, held_out)).details["memorised"] < 20


def test_subsets_by_mask_equal_subsets_alone():
    centres, points = normal(60, 3, 1), normal(20, 3, 2)
    logs = normal(60, 1, 3)[:, 0]
    mask = np.random.default_rng(4).random(60) < 0.75
    whole = Likelihood.of(KernelMixture(centres, logs), points)
    assert whole.mean == pytest.approx(KernelMixture(centres, logs).log_density(points).mean(), abs=1e-6)
    alone = KernelMixture(centres[mask], logs[mask]).log_density(points).mean()
    # beyond the 32 largest parts, others count in proportion
    assert whole.of_subsets(mask[None])[0] == pytest.approx(alone, abs=0.02)


# --- copies --------------------------------------------------------------------------------------------------------


def test_authenticity_is_brute_force_and_finds_copies():
    train, fresh = normal(80, 3, 1), normal(60, 3, 2)
    apart = np.linalg.norm(train[:, None].astype(float) - train[None], axis=2) + np.diag(np.full(80, np.inf))
    across = np.linalg.norm(fresh[:, None].astype(float) - train[None], axis=2)
    expected = across.min(axis=1) > apart.min(axis=1)[across.argmin(axis=1)]
    found = measure("authenticity", evidence(sampled(fresh), train, normal(70, 3, 3)))
    np.testing.assert_array_equal(found.values, expected)
    noisy = train[:60] + 1e-3 * fresh
    assert measure("authenticity", evidence(sampled(noisy), train, normal(70, 3, 3))).value == 0.0


def test_copying_in_one_cell_is_mann_and_whitneys_u():
    from scipy.stats import mannwhitneyu

    train, held_out, sample = normal(200, 3, 1), normal(90, 3, 2), normal(110, 3, 3, 1.1)
    found = measure("copying", evidence(sampled(sample), train, held_out), cells=1)
    def distances(part: np.ndarray) -> np.ndarray:
        return np.linalg.norm(part[:, None].astype(float) - train[None], axis=2).min(axis=1)
    theirs = mannwhitneyu(
        distances(sample), distances(held_out), alternative="less", use_continuity=False, method="asymptotic"
    )
    assert found.details["p"] == pytest.approx(theirs.pvalue, abs=1e-6)
    assert found.details["chance"] == 1.0


def test_copying_tells_copies_from_new_data_and_from_bad_data():
    train, held_out = normal(900, 3, 1), normal(300, 3, 2)
    def c_t(sample: np.ndarray) -> float:
        return measure("copying", evidence(sampled(sample), train, held_out)).value
    assert abs(c_t(normal(300, 3, 3))) < 3 * 1.0  # a z-score: beyond 3 in 1 of 400
    assert c_t(train[:300] + 0.02 * normal(300, 3, 3)) < -5
    assert c_t(normal(300, 3, 3, 2.0)) > 3


# --- a classifier --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_classifier_is_as_good_as_bayes_and_no_better_than_chance():
    from scipy.special import ndtr

    held_out = normal(2000, 3, 2)
    equal = measure("classifier_two_sample", evidence(sampled(normal(2000, 3, 1)), normal(9, 3, 3), held_out))
    assert equal.low <= 0.5 <= equal.high and equal.details["p"] > 0.01
    shifted = normal(2000, 3, 1)
    shifted[:, 0] += 1
    found = measure("classifier_two_sample", evidence(sampled(shifted), normal(9, 3, 3), held_out))
    # of 2,000 test rows: a standard error of 0.010; the classifier may lose 0.03 on Bayes' rule
    assert ndtr(0.5) - 0.06 < found.value < ndtr(0.5) + 0.03
    assert found.details["p"] < 1e-6
    narrow = measure("classifier_two_sample", evidence(sampled(normal(2000, 3, 1, 0.5)), normal(9, 3, 3), held_out))
    assert narrow.low > 0.6  # no line parts them


# --- classes -------------------------------------------------------------------------------------------------------


def test_per_class_is_the_metric_of_each_class_and_names_the_worst():
    rng = np.random.default_rng(0)
    labels = [0, 1, 2] * 40
    points = {part: normal(120, 2, seed) for part, seed in (("sampled", 1), ("train", 2), ("held_out", 3))}
    points["sampled"][1::3] += 3  # class 1 is where no real one is
    given = evidence(sampled(points["sampled"], 1, labels), points["train"], points["held_out"], rng.random(120))
    given.tools.train, given.tools.held_out = (real(points[part], labels) for part in ("train", "held_out"))
    found = measure("per_class", given, metric="precision")
    own = evidence(sampled(points["sampled"][1::3]), points["train"][1::3], points["held_out"][1::3])
    assert found.value == measure("precision", own).value
    assert found.details["worst"] == "one" and set(found.details["classes"]) == {"zero", "one", "two"}
    values = [entry["value"] for entry in found.details["classes"].values()]
    assert found.value == min(values) and found.details["mean"] == pytest.approx(np.mean(values))
    farthest = measure("per_class", given, metric={"name": "frechet"})
    assert farthest.details["worst"] == "one"
    assert farthest.value == max(entry["value"] for entry in farthest.details["classes"].values())


def test_per_class_without_classes_has_a_note():
    unlabelled = evidence(sampled(normal(40, 2, 1)), normal(40, 2, 2), normal(40, 2, 3))
    found = measure("per_class", unlabelled, metric="density")
    assert math.isnan(found.value) and "unconditional" in found.note


# --- extrapolation -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_unbiased_frechet_distance_is_that_of_many_samples():
    """Two Gaussians whose distance is known: 0.2^2 a dimension. 20 draws of 200 in 10 dimensions."""
    dims, truth = 10, 10 * 0.2**2
    given = [evidence(sampled(normal(200, dims, seed, 1.2)), normal(9, dims, 1), normal(9, dims, 2))
             for seed in range(10, 30)]
    held_out = real(normal(5000, dims, 0))
    for one in given:
        one.tools.held_out = held_out
    names = ("frechet", "frechet_unbiased")
    plain, unbiased = np.array([[measure(name, one).value for one in given] for name in names])
    error = unbiased.std(ddof=1) / math.sqrt(20)
    assert abs(unbiased.mean() - truth) < 4 * error + 0.02  # the held-out part's own bias is 0.01
    assert plain.mean() - truth > 3 * abs(unbiased.mean() - truth)


# --- calibration ---------------------------------------------------------------------------------------------------


class Standardising:
    """A Gaussian of independent coordinates, as wide as it says."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def standardised(self, samples):
        return np.asarray(samples.content, dtype=np.float64) / self.scale


def pit(scale: float):
    given = evidence(sampled(normal(5, 2, 1)), normal(5, 2, 2), normal(2000, 2, 3))
    given.tools.models["policy"] = Standardising(scale)
    return measure("pit", given)


def test_pit_of_a_right_model_is_what_chance_gives():
    right, narrow = pit(1.0), pit(0.5)
    assert right.value < 3 * right.details["by_chance"] and right.details["p"] > 1e-3
    # the mean square of 4,000 normals: a standard error of 0.022
    assert right.details["spread"] == pytest.approx(1.0, abs=0.09)
    assert narrow.details["spread"] == pytest.approx(4.0, abs=0.36)
    assert narrow.low > right.high


def test_the_area_between_distribution_and_diagonal_is_its_integral():
    values = np.random.default_rng(0).random(7) ** 2
    grid = (np.arange(200_000) + 0.5) / 200_000
    level = np.searchsorted(np.sort(values), grid, "right") / 7
    assert from_uniform(values) == pytest.approx(np.abs(level - grid).mean(), abs=1e-5)
    uniform = transforms(np.random.default_rng(1).standard_normal((20_000, 3)))
    assert np.abs(np.quantile(uniform, [0.25, 0.5, 0.75], axis=0).T - [0.25, 0.5, 0.75]).max() < 0.015


def test_a_fitted_gaussian_standardises_its_points():
    points = normal(400, 3, 1) @ np.array([[1, 0.5, 0], [0, 2, 0.3], [0, 0, 0.7]], dtype=np.float32) + 5
    model, samples = Gaussian(), real(points)
    model.build(samples, 0)
    model.fit(samples, np.ones(400))
    white = model.standardised(samples)
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(white.T @ white / 400, np.eye(3), atol=0.01)  # fitted with n or n - 1
