"""Scorers of what one sample adds to all: against brute force, samples really left out, a real step of training."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from helpers.metric_cases import Tools, evidence, measure, normal, real, sampled
from upturn.errors import UserError
from upturn.models.classifier import Classifier
from upturn.scorers.coverage_gain import CoverageGain
from upturn.scorers.downstream_gain import DownstreamGain
from upturn.scorers.fld_gain import FldGain, halves
from upturn.statistics import kernel_density, memo, neighbours
from upturn.statistics.kernel_density import KernelMixture
from upturn.statistics.scaling import Scale
from upturn.types import Samples

FEATURES = [CoverageGain(), FldGain()]


def tools(train: np.ndarray, labels: list[int] | None = None, model: Any = None) -> Tools:
    """Held-out data that must not be touched: any look at it fails."""
    return Tools(real(train, labels), None, models={"judge": model})  # type: ignore[arg-type]


@pytest.mark.parametrize("scorer", FEATURES, ids=lambda s: type(s).__name__)
def test_what_every_scorer_by_features_keeps(scorer: Any) -> None:
    """Once more the same; in the order of the rows; scaled; what is not finite is unscored and changes nothing."""
    train, points = normal(120, 3, 1), normal(30, 3, 2)
    first = scorer.score(sampled(points), tools(train))
    assert first.values.shape == (30,) and np.isfinite(first.values).all() and len(set(first.explanations)) > 1
    np.testing.assert_array_equal(first.values, scorer.score(sampled(points), tools(train)).values)
    turned = scorer.score(sampled(points[::-1].copy()), tools(train)).values[::-1]
    np.testing.assert_allclose(turned, first.values, rtol=1e-4, atol=1e-7)
    twice = type(scorer)(scale=2.0).score(sampled(points), tools(train)).values
    np.testing.assert_allclose(twice, 2 * first.values)
    broken = np.concatenate([points, np.full((1, 3), math.nan, np.float32)])
    found = scorer.score(sampled(broken), tools(train))
    np.testing.assert_allclose(found.values[:30], first.values, rtol=1e-6)
    assert np.isnan(found.values[30]) and "unscored: its features" in found.explanations[30]
    assert len(scorer.score(sampled(points[:0]), tools(train)).values) == 0
    assert np.isnan(scorer.score(sampled(broken[-1:]), tools(train)).values).all()
    with pytest.raises(UserError, match="4 real training samples; at least"):
        scorer.score(sampled(points), tools(train[:4]))
    train[0] = math.inf
    with pytest.raises(UserError, match="not finite"):
        scorer.score(sampled(points), tools(train))


# --- coverage ----------------------------------------------------------------------------------------------------


def test_coverage_gain_is_the_shapley_value_over_all_orders() -> None:
    """All 720 orders of six samples, coverage counted pair by pair."""
    true, points, k = normal(25, 2, 3), normal(6, 2, 4, 0.7), 2
    radius = [sorted(math.dist(a, b) for j, b in enumerate(true) if j != i)[k - 1] for i, a in enumerate(true)]
    inside = np.array([[math.dist(a, p) <= radius[i] for p in points] for i, a in enumerate(true)])
    gained = np.zeros(6)
    orders = list(itertools.permutations(range(6)))
    for order in orders:
        covered = np.zeros(len(true), dtype=bool)
        for one in order:
            gained[one] += (inside[:, one] & ~covered).sum() / len(true)
            covered |= inside[:, one]
    found = CoverageGain(k=k).score(sampled(points), tools(true))
    np.testing.assert_allclose(found.values, gained / len(orders), atol=1e-12)
    assert len(set(found.values.round(9))) > 2
    alone = (inside & (inside.sum(axis=1, keepdims=True) == 1)).sum(axis=0)
    assert found.explanations is not None
    assert found.explanations[0] in (f"covers {inside[:, 0].sum()} real samples, {alone[0]} of them alone",
                                     "covers no real sample")


@pytest.mark.parametrize("cells", [2**24, 300])
def test_coverage_gains_sum_to_the_metric_whatever_the_blocks(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_CELLS", cells)
    memo._known.clear()
    train, points = normal(90, 3, 5), normal(60, 3, 6, 0.8, 0.3)
    given = evidence(sampled(points), train, normal(9, 3, 7))
    found = CoverageGain().score(sampled(points), tools(train)).values
    assert found.sum() == pytest.approx(measure("coverage", given, against="train").value, abs=1e-12)
    low, high = CoverageGain().bounds
    assert (found >= low).all() and (found <= high).all()


def test_one_of_two_copies_is_worth_half() -> None:
    train, point = normal(60, 2, 8), np.zeros((1, 2), np.float32)
    once = CoverageGain().score(sampled(point), tools(train)).values
    both = CoverageGain().score(sampled(np.concatenate([point, point])), tools(train)).values
    np.testing.assert_allclose(both, once[0] / 2)
    assert once[0] > 0


# --- FLD ---------------------------------------------------------------------------------------------------------


def test_fld_gain_is_the_rise_with_each_sample_really_left_out() -> None:
    train, points = normal(160, 3, 9), normal(40, 3, 10, 0.8)
    points[0] = train[0]  # a copy: narrow, and nobody's neighbour
    points[1] = 60.0  # far from all
    found = FldGain().score(sampled(points), tools(train)).values
    widths, unseen = halves(train)
    scale = Scale.of(unseen)
    whole = KernelMixture.fitted(scale(points), scale(widths))
    every = whole.log_density(scale(unseen)).mean()
    for j in range(len(points)):
        rest = KernelMixture(np.delete(whole.centres, j, axis=0), np.delete(whole.log_variances, j))
        expected = 100 / 3 * (every - rest.log_density(scale(unseen)).mean())
        assert found[j] == pytest.approx(expected, abs=5e-4)  # the parts are float32, about another centre
    # who explains nothing only takes weight: 1/M of the density's mass, in every point
    assert found[1] == pytest.approx(100 / 3 * math.log1p(-1 / 40), abs=2e-3)
    assert found.max() > 0.1


def test_fld_gain_where_one_sample_has_nearly_all_of_the_density() -> None:
    """Two far clusters with one sample each: without it, its cluster lies hundreds of nats away, and not infinitely."""
    train = np.concatenate([normal(60, 2, 11, 0.01), normal(60, 2, 12, 0.01, 5.0)])
    found = FldGain().score(sampled(np.array([[0, 0], [5, 5]], np.float32)), tools(train)).values
    assert np.isfinite(found).all() and (found > 1000).all()


@pytest.mark.slow
def test_the_fit_of_widths_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of distances none is kept: blocks are measured again, and no N x M is ever held."""
    centres, data = normal(70, 4, 13), normal(90, 4, 14)
    kept = KernelMixture.fitted(centres, data)
    held: list[int] = []
    plain = kernel_density._measured

    def watched(block: Any) -> Any:
        held.append(block.lower.numel())
        return plain(block)

    monkeypatch.setattr(kernel_density, "_KEPT", 100)
    monkeypatch.setattr(neighbours, "_CELLS", 700)
    monkeypatch.setattr(kernel_density, "_measured", watched)
    again = KernelMixture.fitted(centres, data)
    # sums round otherwise, and the fit ends where a step gains 1e-6 nats: the likelihood is what agrees
    assert again.log_density(data).mean() == pytest.approx(kept.log_density(data).mean(), abs=1e-4)
    np.testing.assert_allclose(again.log_density(data), kept.log_density(data), atol=0.05)
    assert max(held) <= 700 < 70 * 90


# --- a classifier's error ----------------------------------------------------------------------------------------


@dataclass
class Untouched(Tools):
    embedded: list[int] = field(default_factory=list)


def classifier(train: Samples) -> Classifier:
    model = Classifier(hidden=5)
    model.build(train, 3)
    return model


def labelled(n: int, seed: int, rare: int = 4) -> tuple[np.ndarray, list[int]]:
    labels = [2] * rare + [i % 2 for i in range(n - rare)]
    return normal(n, 2, seed) + np.array(labels, np.float32)[:, None], labels


def balanced_loss(model: Any, samples: Samples) -> float:
    """By torch, in float64: the mean over classes of their mean cross-entropy."""
    with torch.no_grad():
        batch = model.encode(samples)
        log_p = model.module(batch.columns["x"].double())[0].log_softmax(dim=1)
    each = -log_p[torch.arange(len(samples)), torch.from_numpy(samples.labels)].numpy()
    return float(np.mean([each[samples.labels == c].mean() for c in np.unique(samples.labels)]))


def test_downstream_gain_is_what_a_small_step_on_the_last_layer_gains() -> None:
    """Both ways round the weights, so that the error is of second order in the step: 1e-4 of the slope."""
    points, labels = labelled(40, 15)
    model = classifier(real(points, labels))
    samples = sampled(normal(6, 2, 16) * 2, labels=[0, 1, 2, 2, 1, 0])
    found = DownstreamGain().score(samples, tools(points, labels, model)).values
    assert (np.sign(found) > 0).any() and len(set(found.round(6))) == 6
    model.module.double().eval()
    for part in model.module.modules():  # the body reads float32 on purpose; here it must not
        if hasattr(part, "mean"):
            part.forward = lambda x, part=part: (x - part.mean) / part.std  # type: ignore[method-assign]
    head, train = model.module.head, real(points, labels)
    start = {name: p.detach().clone() for name, p in head.named_parameters()}
    for row, label in enumerate(samples.labels):
        model.module.zero_grad()
        logits, _ = model.module(torch.from_numpy(samples.content[row : row + 1]).double())
        torch.nn.functional.cross_entropy(logits, torch.tensor([label])).backward()
        slopes = {name: p.grad.clone() for name, p in head.named_parameters()}
        losses = []
        for step in (1e-4, -1e-4):
            with torch.no_grad():
                for name, p in head.named_parameters():
                    p.copy_(start[name] - step * slopes[name])
            losses.append(balanced_loss(model, train))
        with torch.no_grad():
            for name, p in head.named_parameters():
                p.copy_(start[name])
        assert found[row] == pytest.approx((losses[1] - losses[0]) / 2e-4, rel=1e-4, abs=1e-6)


def test_downstream_gain_reports_what_it_cannot_score() -> None:
    points, labels = labelled(30, 17)
    model = classifier(real(points, labels))
    mixed = sampled(normal(3, 2, 18), labels=[0, None, 2])  # type: ignore[list-item]
    found = DownstreamGain(scale=3.0).score(mixed, tools(points, labels, model))
    assert np.isnan(found.values).tolist() == [False, True, False]
    assert found.explanations is not None and found.explanations[1] == "unscored: the prompt has no label"
    assert "'judge' gives its label 0." in found.explanations[0]
    one = DownstreamGain().score(mixed.take([2]), tools(points, labels, model)).values
    assert found.values[2] == pytest.approx(3 * one[0])
    assert np.isnan(DownstreamGain().score(sampled(normal(2, 2, 1)), tools(points, labels, model)).values).all()
    assert len(DownstreamGain().score(mixed.take([]), tools(points, labels, model)).values) == 0
    with pytest.raises(UserError, match="the training data has no labels"):
        DownstreamGain().score(mixed, tools(points, None, model))
    with pytest.raises(UserError, match="label 3 does not fit"):
        DownstreamGain().score(sampled(normal(1, 2, 1), labels=[3]), tools(points, labels, model))


def test_downstream_gain_of_a_rare_class_that_is_not_known_is_high() -> None:
    """A judge that has only learned the two common classes: samples of the third are worth most."""
    points, labels = labelled(60, 19, rare=3)
    model = classifier(real(points, labels))
    with torch.no_grad():
        model.module.head.bias.copy_(torch.tensor([2.0, 2.0, -4.0]))
    fresh = normal(30, 2, 20) + np.repeat([0, 1, 2], 10)[:, None].astype(np.float32)
    samples = sampled(fresh, labels=[0] * 10 + [1] * 10 + [2] * 10)
    found = DownstreamGain().score(samples, tools(points, labels, model))
    means = found.values.reshape(3, 10).mean(axis=1)
    assert means[2] > 2 * max(means[0], means[1]) and np.median(found.values[20:]) > found.values[:20].max()


def test_a_model_without_features_is_named() -> None:
    points, labels = labelled(30, 21)
    odd = SimpleNamespace(module=torch.nn.Linear(1, 1))
    odd.encode = classifier(real(points, labels)).encode
    odd.draw = lambda batch, key, start: None
    odd.forward = lambda batch, drawn: SimpleNamespace(logits=None, features=None)
    with pytest.raises(UserError, match="the model 'judge' has no logits"):
        DownstreamGain().score(sampled(points[:2], labels=[0, 1]), tools(points, labels, odd))
