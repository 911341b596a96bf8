"""Metrics of images and points against closed forms, brute force, reference libraries and planted answers."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from helpers.metric_cases import Noisy, evidence, measure, normal, sampled
from upturn.config import components
from upturn.metrics._gaussian_fit import GaussianFit, distance_and_influence, moments
from upturn.metrics._spectrum import Spectrum
from upturn.metrics.class_entropy import relative_entropy
from upturn.metrics.coverage import expected_coverage
from upturn.types import Outputs, Prompt

QUICK = ["frechet", "precision", "recall", "density", "coverage", "vendi", "nearest_real", "memorisation"]
FEATURES = [
    *QUICK, "frechet_unbiased", "kid", "fld", "authenticity", "copying", "classifier_two_sample", "wasserstein",
    "sliced_wasserstein", "mauve",
]
CLASSES = ["class_shares", "class_entropy", "label_agreement"]
MINE = [*FEATURES, *CLASSES, "reward", "reward_variance", "held_out_loss"]


# --- every metric ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", MINE)
def test_contract(name):
    cls = components.find("metric", name)
    assert cls.better in {"higher", "lower", "neither"}
    assert (cls.__doc__ or "").strip().splitlines()[0].rstrip().endswith((".", ").", ";", ","))
    draw = np.random.default_rng(0)
    given = evidence(sampled(normal(120, 3, 1), 2, [0, 1, 2] * 20), normal(150, 3, 2), normal(130, 3, 3),
                     draw.standard_normal(120))
    first, again = measure(name, given), measure(name, given)
    assert first.low <= first.value <= first.high
    assert (first.value, first.low, first.high) == (again.value, again.low, again.high)
    json.dumps({"value": first.value, "details": dict(first.details)}, allow_nan=False)
    if first.values is not None:
        assert np.nanmean(first.values) == pytest.approx(first.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", MINE)
@pytest.mark.parametrize("case", ["no samples", "no held-out", "two of each", "not finite", "one place"])
def test_what_cannot_be_measured_is_undefined_and_never_crashes(name, case):
    points = {"no samples": normal(0, 2, 1), "two of each": normal(2, 2, 1)}.get(case, normal(40, 2, 1))
    train, held_out = normal(120, 2, 2), normal(120, 2, 3)
    if case == "no held-out":
        held_out = normal(0, 2, 3)
    if case == "two of each":
        train, held_out = normal(2, 2, 2), normal(2, 2, 3)
    if case == "not finite":
        points[3] = math.nan
    if case == "one place":
        points[:], train[:], held_out[:] = 1.0, 1.0, 1.0
    found = measure(name, evidence(sampled(points), train, held_out))
    json.dumps(dict(found.details), allow_nan=False)
    if math.isnan(found.value):
        assert found.note
    else:
        assert math.isfinite(found.value)
    if case == "not finite" and name in FEATURES:
        assert "1 of 40 samples have features that are not finite" in found.note
    if case == "no samples":
        assert found.note == "there are no samples"


def test_kinds_that_do_not_fit_give_a_note():
    @dataclass(frozen=True)
    class OnlyText(components.find("metric", "reward")):  # type: ignore[misc]
        kinds = frozenset({"text"})

    found = OnlyText().measure(evidence(sampled(normal(5, 2, 0)), normal(5, 2, 1), normal(5, 2, 2)))
    assert "the samples are points; this metric measures text" in found.note


# --- reward ------------------------------------------------------------------------------------------------------


def test_reward_counts_the_unscored_and_keeps_their_places():
    rewards = np.array([1.0, math.nan, 3.0, 2.0])
    found = measure("reward", evidence(sampled(normal(4, 2, 0)), normal(5, 2, 1), normal(5, 2, 2), rewards))
    assert (found.value, found.n, len(found.values)) == (2.0, 3, 4)
    assert found.note == "1 of 4 samples were not scored"
    unscored = evidence(sampled(normal(4, 2, 0)), normal(5, 2, 1), normal(5, 2, 2), np.full(4, math.nan))
    undefined = measure("reward", unscored)
    assert math.isnan(undefined.value)
    assert "no sample was scored" in undefined.note


def test_reward_variance_is_that_of_the_exponential_of_a_uniform():
    rewards = np.random.default_rng(1).random(4_000)
    given = evidence(sampled(normal(4_000, 1, 0)), normal(5, 1, 1), normal(5, 1, 2), rewards)
    found = measure("reward_variance", given)
    mean, square = math.e - 1, (math.e**2 - 1) / 2
    assert found.value == pytest.approx(np.var(np.exp(rewards), ddof=1))
    assert found.low < square - mean**2 < found.high  # one draw of a 95% interval, seed fixed
    assert found.details["mean_low"] < mean < found.details["mean_high"]
    overflowing = measure("reward_variance", replace_rewards(given, rewards * 2000))
    assert "overflows" in overflowing.note


def replace_rewards(given: Any, rewards: np.ndarray) -> Any:
    return SimpleNamespace(**(vars(given) | {"rewards": rewards}))


# --- Fréchet -----------------------------------------------------------------------------------------------------


def test_frechet_is_scipys_square_root():
    from scipy.linalg import sqrtm

    mixing = np.random.default_rng(5).standard_normal((6, 6))
    a, b = normal(300, 6, 1).astype(np.float64) @ mixing, normal(400, 6, 2, 1.3, 0.2).astype(np.float64)
    s, t = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)
    assert GaussianFit.of(a).distance(*moments(b)) == pytest.approx(expected, rel=1e-9)
    assert distance_and_influence(a, GaussianFit.of(b))[0] == pytest.approx(expected, rel=1e-9)
    found = measure("frechet", evidence(sampled(a), normal(100, 6, 3), b))
    assert found.value == pytest.approx(expected, rel=1e-4)  # float32 features


@pytest.mark.slow
def test_frechet_of_known_gaussians():
    """|m|^2 + sum (s_i - t_i)^2 for diagonal covariances; n = 10,000, so that sampling moves it by about 1.5%."""
    given = evidence(sampled(normal(10_000, 3, 1, 2.0, 1.0)), normal(10_000, 3, 2), normal(10_000, 3, 3))
    found = measure("frechet", given)
    assert found.value == pytest.approx(3 * 1 + 3 * 1, rel=0.05)
    assert found.details["floor"] < 0.01
    assert found.details["train"] == pytest.approx(found.value, rel=0.05)


def test_frechet_influence_is_the_derivative():
    n = 400
    points, target = normal(n, 4, 1).astype(np.float64), GaussianFit.of(normal(80, 4, 2, 1.2, 0.3).astype(np.float64))
    influence = distance_and_influence(points, target)[1]

    def weighted(w: np.ndarray) -> float:
        mean = w @ points
        centred = points - mean
        covariance = (centred * w[:, None]).T @ centred * n / (n - 1)
        return target.distance(mean, covariance)

    even, step = np.full(n, 1 / n), 1e-6
    for row in (0, 7, 31, 200):
        toward = np.eye(n)[row]
        slope = (weighted((1 - step) * even + step * toward) - weighted((1 + step) * even - step * toward)) / (2 * step)
        # the influence leaves out the factor n / (n - 1): 0.25%
        assert influence[row] == pytest.approx(slope, rel=0.01, abs=0.02)
    assert influence.mean() == pytest.approx(0, abs=1e-9)


def test_frechet_refuses_too_few():
    found = measure("frechet", evidence(sampled(normal(5, 6, 1)), normal(80, 6, 2), normal(80, 6, 3)))
    assert "5 samples for 6 feature dimensions; at least 7" in found.note


# --- neighbours --------------------------------------------------------------------------------------------------


def brute_force(sample: np.ndarray, true: np.ndarray, k: int) -> dict[str, float]:
    """Precision, recall, density and coverage by their definitions, one pair at a time."""
    def radius(points: np.ndarray, i: int) -> float:
        return sorted(math.dist(points[i], points[j]) for j in range(len(points)) if j != i)[k - 1]

    ball = [radius(true, i) for i in range(len(true))]
    own = [radius(sample, j) for j in range(len(sample))]
    inside = [[math.dist(true[i], sample[j]) <= ball[i] for j in range(len(sample))] for i in range(len(true))]
    reached = [any(math.dist(t, sample[j]) <= own[j] for j in range(len(sample))) for t in true]
    return {
        "precision": sum(any(row[j] for row in inside) for j in range(len(sample))) / len(sample),
        "recall": sum(reached) / len(true),
        "density": sum(map(sum, inside)) / (k * len(sample)),
        "coverage": sum(map(any, inside)) / len(true),
    }


@pytest.mark.parametrize(("k", "shift"), [(1, 0.0), (3, 1.0), (5, 0.5)])
def test_precision_recall_density_coverage_are_brute_force(k, shift):
    sample, true = normal(50, 3, 1, 0.8, shift), normal(40, 3, 2)
    expected = brute_force(sample.astype(float), true.astype(float), k)
    given = evidence(sampled(sample), normal(60, 3, 3), true)
    assert {name: measure(name, given, k=k).value for name in expected} == pytest.approx(expected, abs=1e-12)


def test_blocks_do_not_change_neighbours(monkeypatch):
    from upturn.statistics import memo, neighbours

    given = evidence(sampled(normal(90, 3, 1)), normal(70, 3, 2), normal(60, 3, 3))
    names = ["precision", "recall", "density", "coverage", "nearest_real"]
    whole = [(m.value, m.low, m.high) for m in (measure(name, given) for name in names)]
    monkeypatch.setattr(neighbours, "_CELLS", 500)
    memo._known.clear()
    assert whole == [(m.value, m.low, m.high) for m in (measure(name, given) for name in names)]


def test_lost_modes_show_in_coverage_and_not_in_precision():
    draw = np.random.default_rng(0)
    angle = np.arange(8) * np.pi / 4
    centres = 4 * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def ring(n: int, modes: int) -> np.ndarray:
        return centres[draw.integers(0, modes, n)] + 0.1 * draw.standard_normal((n, 2))

    given = evidence(sampled(ring(600, 4)), ring(800, 8), ring(400, 8))
    assert measure("precision", given).value > 0.9
    for name in ("coverage", "recall"):
        assert measure(name, given).value == pytest.approx(0.5, abs=0.08)
    assert measure("vendi", given).value < 0.75 * measure("vendi", evidence(sampled(ring(600, 8)), ring(800, 8),
                                                                           ring(400, 8))).value


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m", "k"), [(200, 200, 5), (100, 30, 3)])
def test_coverage_of_equal_distributions_is_the_formula(n, m, k):
    """Averaged over 60 draws, each with standard deviation below 0.5 / sqrt(n / k)."""
    found = [
        measure(
            "coverage", evidence(sampled(normal(m, 2, 2 * r)), normal(9, 2, 1), normal(n, 2, 2 * r + 1)), k=k
        ).value
        for r in range(60)
    ]
    assert np.mean(found) == pytest.approx(expected_coverage(n, m, k), abs=4 * 0.5 / math.sqrt(n / k) / math.sqrt(60))


@pytest.mark.slow
def test_intervals_of_subsampled_metrics_cover_their_mean():
    """40 draws of samples against one real set; the truth is the mean over the draws."""
    true, train = normal(150, 2, 1), normal(150, 2, 2)
    for name in ("coverage", "recall", "frechet", "vendi"):
        found = [measure(name, evidence(sampled(normal(100, 2, 100 + r, 0.8)), train, true)) for r in range(40)]
        truth = np.mean([m.value for m in found])
        share = np.mean([m.low <= truth <= m.high for m in found])
        assert share >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / 40), name
        # and they are not simply wide: mean half-width against the true 1.96 standard deviations
        assert np.mean([m.high - m.low for m in found]) < 2 * 3.92 * np.std([m.value for m in found]), name


# --- memorisation ------------------------------------------------------------------------------------------------


def test_planted_copies_are_found_and_fresh_samples_are_not():
    train, held_out, fresh = normal(400, 5, 1), normal(400, 5, 2), normal(500, 5, 3)
    copies = fresh.copy()
    copies[:100] = train[:100]
    clean = measure("memorisation", evidence(sampled(fresh), train, held_out))
    found = measure("memorisation", evidence(sampled(copies), train, held_out))
    # a fresh sample is a false alarm with about 1%: 4 standard errors at 500, and the threshold's own from 400
    assert clean.value <= 0.01 + 4 * math.sqrt(0.01 * 0.99 * (1 / 500 + 1 / 400))
    assert found.value == pytest.approx(0.2 + clean.value * 0.8, abs=0.01)
    assert found.low > clean.high
    assert found.details["baseline"] == pytest.approx(0.01, abs=0.0051)
    assert found.details["excess"] == pytest.approx(found.value - found.details["baseline"])
    assert found.values[:100].all()


def test_nearest_pairs_are_named():
    train, sample = normal(200, 4, 1), normal(100, 4, 2)
    sample[17] = train[55]
    sample[3] = train[8] + np.float32(1e-3)
    given = evidence(sampled(sample), train, normal(50, 4, 3))
    found = measure("nearest_real", given, pairs=2)
    first, second = found.details["pairs"]
    ids, known = given.samples.ids, given.tools.train.ids
    assert (first["sample"], first["real"], first["distance"]) == (ids[17], known[55], 0.0)
    assert (second["sample"], second["real"]) == (ids[3], known[8])
    assert second["distance"] == pytest.approx(2e-3, rel=1e-2)
    expected = np.linalg.norm(sample[:, None] - train[None], axis=2).min(axis=1)
    np.testing.assert_allclose(found.values, expected, atol=1e-5)


# --- Vendi -------------------------------------------------------------------------------------------------------


def test_vendi_of_orthogonal_samples_is_their_number():
    given = evidence(sampled(np.eye(12)), np.eye(12), np.eye(12))
    assert measure("vendi", given, kernel="cosine").value == pytest.approx(12)
    tripled = evidence(sampled(np.tile(np.eye(4), (3, 1))), np.eye(4), np.eye(4))
    assert measure("vendi", tripled, kernel="cosine").value == pytest.approx(4)
    far = sampled(1000.0 * np.arange(9)[:, None])
    assert measure("vendi", evidence(far, normal(9, 1, 0), normal(9, 1, 1)), bandwidth=1.0).value == pytest.approx(9)
    same = sampled(np.ones((9, 2)))
    assert measure("vendi", evidence(same, normal(9, 2, 0), normal(9, 2, 1))).value == pytest.approx(1)


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, math.inf])
def test_vendi_influence_is_the_derivative(order):
    points = normal(20, 3, 1).astype(np.float64)
    similarity = np.exp(-((points[:, None] - points[None]) ** 2).sum(-1) / 2)
    influence = Spectrum.of_similarity(similarity).influence(order)
    def weighted(w: np.ndarray) -> float:
        values = np.linalg.eigvalsh(np.sqrt(w)[:, None] * similarity * np.sqrt(w)[None])
        values = values[values > 0]
        if order == 1:
            return float(-(values * np.log(values)).sum())
        return float(-np.log(values.max()) if order == math.inf else np.log((values**order).sum()) / (1 - order))
    even, step = np.full(20, 1 / 20), 1e-5
    for row in range(0, 20, 5):
        toward = np.eye(20)[row]
        slope = (weighted((1 - step) * even + step * toward) - weighted((1 + step) * even - step * toward)) / (2 * step)
        assert influence[row] == pytest.approx(slope, rel=1e-4, abs=1e-5)
    assert influence.mean() == pytest.approx(0, abs=1e-9)


# --- classes -----------------------------------------------------------------------------------------------------


def test_class_metrics_follow_the_classifier():
    places = np.array([0] * 500 + [1] * 300 + [2] * 200)
    points = places[:, None] + 0.2 * np.random.default_rng(0).random((1000, 1))
    given = evidence(sampled(points, labels=[0] * 1000), normal(9, 1, 1), normal(9, 1, 2))
    shares = measure("class_shares", given)
    assert [s["value"] for s in shares.details["shares"].values()] == [0.5, 0.3, 0.2]
    assert (shares.value, shares.details["largest"]) == (0.5, "zero")
    entropy = -sum(p * math.log(p) for p in (0.5, 0.3, 0.2)) + 2 / 2000
    found = measure("class_entropy", given)
    assert found.value == pytest.approx(entropy / math.log(3))
    # delta method: sd of -log p, over sqrt(n) log C; the interval is 3.92 of them, 25% for its own noise
    spread = math.sqrt(sum(p * math.log(p) ** 2 for p in (0.5, 0.3, 0.2)) - (entropy - 0.001) ** 2)
    assert found.high - found.low == pytest.approx(3.92 * spread / math.sqrt(1000) / math.log(3), rel=0.25)
    agreement = measure("label_agreement", given)
    assert agreement.value == 0.5
    assert agreement.values.tolist() == [1.0] * 500 + [0.0] * 500
    model = given.tools.models["classifier"]
    assert max(model.rows) <= 512 < sum(model.rows)
    assert not any(model.modes)  # dropout was off
    assert model.module.training  # and is as it was


def test_entropy_is_unbiased_to_first_order():
    draw = np.random.default_rng(1)
    counts = draw.multinomial(60, [0.4, 0.3, 0.2, 0.1], size=4000)
    truth = -sum(p * math.log(p) for p in (0.4, 0.3, 0.2, 0.1)) / math.log(4)
    found = relative_entropy(counts)
    error = found.std() / math.sqrt(4000)
    assert abs(found.mean() - truth) < 4 * error + 0.0005  # the term in 1/n^2
    plug_in = found.mean() - 3 / 120 / math.log(4)
    assert truth - plug_in > 10 * error  # without the correction it would not be


def test_label_agreement_without_labels_and_with_some():
    given = evidence(sampled(np.zeros((6, 1))), normal(9, 1, 1), normal(9, 1, 2))
    assert "unconditional" in measure("label_agreement", given).note
    mixed = evidence(sampled(np.zeros((6, 1))), normal(9, 1, 1), normal(9, 1, 2))
    prompts = (Prompt(label=0), Prompt(label=1), Prompt(), Prompt(label=0), Prompt(), Prompt(label=2))
    mixed.samples = replace(mixed.samples, prompts=prompts)
    found = measure("label_agreement", mixed)
    assert (found.value, found.n) == (0.5, 4)
    assert found.note == "2 of 6 samples have a prompt without a class"
    assert np.isnan(found.values).tolist() == [False, False, True, False, True, False]
    mixed.samples = replace(mixed.samples, prompts=(Prompt(label=7), *prompts[1:]))
    assert "requests class 7" in measure("label_agreement", mixed).note


# --- held-out loss -----------------------------------------------------------------------------------------------


def test_held_out_loss_is_the_mean_over_fixed_draws_a_dimension():
    held_out = normal(600, 2, 1)
    given = evidence(sampled(normal(4, 2, 0)), normal(4, 2, 2), held_out)
    found = measure("held_out_loss", given, draws=3)
    policy = given.tools.models["policy"]
    keys = sorted({key for key, _ in policy.keys})
    assert len(keys) == 3
    assert {start for _, start in policy.keys} == {0, 256, 512}
    noise = np.stack([np.random.default_rng(key).standard_normal((10_000, 1)).astype(np.float32)[:600] for key in keys])
    expected = ((held_out[None] + noise) ** 2).sum(axis=2).mean(axis=0) / 2
    np.testing.assert_allclose(found.values, expected, rtol=1e-4)
    assert found.value == pytest.approx(expected.mean(), rel=1e-5)
    assert found.details["likelihood"] == "surrogate"
    again = measure("held_out_loss", given, draws=3)
    assert (again.values == found.values).all()  # the same noise in every round


def test_held_out_loss_masks_and_reports_what_is_not_finite():
    class Masked(Noisy):
        def forward(self, batch, draw):
            log_probs = torch.tensor([[-1.0, -3.0], [-5.0, float("nan")], [-7.0, -7.0]])
            return Outputs(log_probs, torch.tensor([[1, 1], [1, 0], [0, 0]]), dims=1)

    given = evidence(sampled(normal(4, 2, 0)), normal(4, 2, 2), normal(3, 2, 1))
    given.tools.models["policy"] = Masked()
    found = measure("held_out_loss", given)
    np.testing.assert_allclose(found.values, [2.0, 5.0, math.nan])
    assert (found.value, found.n, found.details["pooled"]) == (3.5, 2, 3.0)
    assert found.note == "1 of 3 samples are all masked"

    class Broken(Noisy):
        def forward(self, batch, draw):
            return Outputs(torch.full((3, 1), float("nan")), torch.ones(3, 1))

    given.tools.models["policy"] = Broken()
    assert "3 of 3 held-out losses are not finite" in measure("held_out_loss", given).note


# --- speed -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_feature_metrics_of_an_evaluation_are_quick():
    """1,000 samples in 64 dimensions, 1,300 training and 400 held-out ones: about 1 s on one busy core."""
    given = evidence(sampled(normal(1000, 64, 1)), normal(1300, 64, 2), normal(400, 64, 3))
    measure("coverage", given)  # imports
    begin = time.process_time()
    for name in QUICK:
        measure(name, given)
    assert time.process_time() - begin < 5.0  # a loop over pairs or a resampled eigendecomposition would take minutes
