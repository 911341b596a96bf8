"""How much generated samples improve a classifier: against planted answers, with classifiers of a few lines."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from helpers.metric_cases import Tools, normal, real, sampled
from upturn import seeds
from upturn.config import recipe
from upturn.errors import UserError
from upturn.loop.assemble import assemble
from upturn.metrics.downstream_accuracy import DownstreamAccuracy, filling
from upturn.statistics.intervals import stratified_mean
from upturn.types import Batch, Outputs, Samples


class Means:
    """The nearest class mean of what it was trained on; a class that it never saw is infinitely far."""

    def __init__(self, samples: Samples) -> None:
        self.module = torch.nn.Linear(1, 1)
        x, labels = torch.from_numpy(np.asarray(samples.content)), samples.labels
        self.means = torch.stack([
            x[labels == c].mean(dim=0) if (labels == c).any() else torch.full_like(x[0], torch.inf) for c in range(3)
        ])

    def encode(self, samples: Samples) -> Batch:
        return Batch({"x": torch.from_numpy(np.asarray(samples.content))})

    def draw(self, batch: Batch, key: int, start: int) -> None:
        return None

    def forward(self, batch: Batch, draw: None) -> Outputs:
        far = (batch["x"][:, None] - self.means).square().sum(dim=2)
        return Outputs(torch.zeros(batch.rows, 1), torch.ones(batch.rows, 1), logits=-far.nan_to_num(posinf=1e9))


@dataclass
class Training(Tools):
    """Remembers what each model was trained on."""

    requests: list[tuple[str, Samples, int]] = field(default_factory=list)

    def fitted(self, name: str, samples: Samples, key: int) -> Means:
        if name == "untold":
            raise UserError("the recipe does not say how 'untold' is trained")
        self.requests.append((name, samples, key))
        return Means(samples)


def evidence_of(samples: Samples, train: Samples, held_out: Samples) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(samples=samples, rewards=np.zeros(len(samples)), tools=Training(train, held_out), seed=3,
                           settings=None)


def of_classes(counts: list[int], seed: int, shift: float = 0.0) -> tuple[np.ndarray, list[int]]:
    labels = [c for c, count in enumerate(counts) for _ in range(count)]
    points = normal(len(labels), 2, seed) * 0.5 + 3 * np.array(labels, np.float32)[:, None]
    points[np.array(labels) == 2] += shift
    return points.astype(np.float32), labels


def planted() -> Any:
    """Of class 2 only two training points, 5 away from their place; generated ones are where they should be."""
    train = real(*of_classes([40, 30, 2], 1, shift=-4.5))
    return evidence_of(sampled(*_labelled_points([5, 20, 60], 2)), train, real(*of_classes([30, 20, 50], 3)))


def _labelled_points(counts: list[int], seed: int) -> tuple[np.ndarray, int, list[int]]:
    points, labels = of_classes(counts, seed)
    return points, 1, labels


def test_filling_up_a_rare_class_raises_accuracy_and_is_reported() -> None:
    evidence = planted()
    found = DownstreamAccuracy(repeats=2).measure(evidence)
    details: Any = found.details
    assert found.value > 0.97 and found.low <= found.value <= found.high
    assert details["without"]["value"] < 0.75 and found.values is None
    assert details["difference"]["value"] == pytest.approx(found.value - details["without"]["value"])
    assert details["difference"]["low"] > 0.2
    assert details["recall"]["two"]["with"] > 0.95 > 0.3 > details["recall"]["two"]["without"]
    won = details["recall"]["two"]["difference"]
    assert 0.5 < won["low"] <= won["value"] <= won["high"]
    assert np.mean([r["with"] for r in details["recall"].values()]) == pytest.approx(found.value)
    assert details["added"] == {"one": 10, "two": 38} and found.n == 48  # 40 is the largest class
    json.dumps(dict(details), allow_nan=False)
    alone, filled = evidence.tools.requests[0][1], evidence.tools.requests[2][1]
    assert (len(alone), len(filled)) == (72, 120)
    assert np.bincount(filled.labels).tolist() == [40, 40, 40]
    keys = [key for _, _, key in evidence.tools.requests]
    assert keys[:2] == keys[2:] and keys[0] != keys[1]  # the same beginnings with and without
    assert (evidence.tools.held_out.labels >= 0).all() and not set(filled.ids) & set(evidence.tools.held_out.ids)


def test_without_is_found_once_for_all_rounds() -> None:
    evidence, metric = planted(), DownstreamAccuracy(repeats=2)
    first = metric.measure(evidence)
    before = len(evidence.tools.requests)
    again = metric.measure(evidence)
    assert (before, len(evidence.tools.requests)) == (4, 6)
    assert (first.value, first.low, first.details) == (again.value, again.low, again.details)
    evidence.tools.train = evidence.tools.train.take(np.arange(60))  # other data: another answer
    metric.measure(evidence)
    assert len(evidence.tools.requests) == 10


def test_filling_takes_the_first_of_each_class_up_to_the_largest() -> None:
    chosen = filling(np.array([0, 0, 0, 1, 1, 2]), np.array([2, 0, 1, -1, 1, 2, 2, 3, 3, 3, 3]))
    assert chosen.tolist() == [0, 2, 5, 7, 8, 9]  # two of 2, one of 1, none of 0, three of a class that is not there
    assert filling(np.array([0, 1]), np.array([0, 1, 1])).tolist() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samples": sampled(normal(4, 2, 1))}, "no prompt has a class"),
        ({"train": real(normal(4, 2, 1))}, "no training sample has a class"),
        ({"held_out": real(normal(4, 2, 1))}, "no held-out sample has a class"),
        ({"model": "untold"}, "does not say how 'untold' is trained"),
        ({"samples": sampled(normal(0, 2, 1))}, "there are no samples"),
    ],
)
def test_an_undefined_metric_has_a_note(change: dict[str, Any], words: str) -> None:
    evidence = planted()
    name = change.pop("model", "classifier")
    evidence.samples = change.pop("samples", evidence.samples)
    for part, samples in change.items():
        setattr(evidence.tools, part, samples)
    found = DownstreamAccuracy(model=name).measure(evidence)
    assert np.isnan(found.value) and words in found.note


def test_nothing_to_fill_gives_a_note() -> None:
    evidence = planted()
    evidence.samples = sampled(normal(5, 2, 1), labels=[0] * 5)
    found = DownstreamAccuracy(repeats=1).measure(evidence)
    assert found.value == found.details["without"]["value"] and "nothing was added" in found.note


def test_intervals_within_strata_cover_and_are_no_wider_than_they_need() -> None:
    """400 draws of shares 0.9 (30 rows), 0.6 (60) and 0.75 (90): the error of the mean of three means is known."""
    shares, sizes = (0.9, 0.6, 0.75), (30, 60, 90)
    strata = np.repeat([0, 1, 2], sizes)
    rng, covered, widths = np.random.default_rng(0), 0, []
    for draw in range(400):
        values = (rng.random(180) < np.repeat(shares, sizes)).astype(float)
        low, high = stratified_mean(values, strata, draw, resamples=400)
        covered += low <= np.mean(shares) <= high
        widths.append(high - low)
    error = np.sqrt(sum(p * (1 - p) / n for p, n in zip(shares, sizes, strict=True))) / 3
    # 95% within four standard errors (0.044), and one more percent, as a percentile interval of 30 rows may miss
    assert covered / 400 > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 400) - 0.01
    assert np.mean(widths) == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert np.isnan(stratified_mean(np.ones(3), np.array([0, 0, 1]), 1)).all()


RECIPE = """
name: rare
threads: 1
data: {name: digits, held_out: 0.9, rare: 1, rare_share: 0.05}
models:
  policy: {name: pixels, size: 8, channels: 1, classes: 10, network: {name: mlp, width: 16, depth: 1}}
  student: {name: classifier, channels: 4, hidden: 8, fit: {steps: 6, batch_size: 32}}
stages: [{name: pretrain, steps: 5}]
rounds:
  count: 1
  sample: {prompts: 6, candidates: 3, where: {rare: "yes"}, settings: {steps: 3}}
  score:
    - {name: downstream_gain, model: student}
    - {name: coverage_gain, weight: 0.1}
    - {name: fld_gain, weight: 0.001}
  curate: best_of_n
  train: {steps: 3}
evaluate:
  - {name: main, prompts: 12, settings: {steps: 3}, metrics: [coverage]}
  - name: rare
    prompts: 20
    settings: {steps: 3}
    where: {rare: "yes"}
    metrics: [{name: downstream_accuracy, model: student, repeats: 1}, reward]
gate: {metric: rare/downstream_accuracy, alpha: 0.05}
grid: {prompts: 2, per_prompt: 1}
"""


@pytest.mark.slow
def test_a_run_requests_the_rare_class_and_trains_the_recipes_own_classifier_from_scratch(tmp_path: Any) -> None:
    from upturn.loop import loop
    from upturn.runs import status
    from upturn.store import parquet_tables

    parsed = recipe.parse(RECIPE, "rare.yaml")
    done = loop.run(parsed, tmp_path)
    unit = done.unit("rounds/001")
    assert {p.label for p in parquet_tables.read_samples(unit / "samples.parquet").prompts} == {1}
    assert {p.label for p in parquet_tables.read_samples(unit / "evaluation-rare.parquet").prompts} == {1}
    assert len({p.label for p in parquet_tables.read_samples(unit / "evaluation.parquet").prompts}) > 3
    first, last = status.read(done).rounds
    found = last.metrics["rare/downstream_accuracy"]
    assert 0 < found["value"] <= 1 and set(found["details"]["added"]) == {"1"}
    assert found["details"]["without"] == first.metrics["rare/downstream_accuracy"]["details"]["without"]
    assert last.gate["decision"] in ("promoted", "rejected") and last.gate["metric"] == "rare/downstream_accuracy"


@pytest.mark.slow
def test_a_plan_counts_the_trainings_and_does_not_do_them() -> None:
    """60,000 steps would take minutes here; that they are foreseen shows in every evaluation."""
    from upturn import plan

    few, many = (
        sum(row.seconds for row in plan.plan(recipe.parse(RECIPE, "rare.yaml", [f"models.student.fit.steps={n}"])).rows
            if row.step == "evaluate")
        for n in (6, 60_000)
    )
    assert many > 10 * few


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "words", "remedy"),
    [
        ("evaluate.rare.where.rare=maybe", "no sample has rare = 'maybe'", "Values there: no, yes"),
        ("data.rare=null", "the data has no field 'rare'", "It has: quality"),
    ],
)
def test_a_where_of_an_evaluation_that_fits_nothing_is_refused_before_anything_is_trained(
    tmp_path: Any, setting: str, words: str, remedy: str
) -> None:
    from upturn import plan
    from upturn.loop import loop

    parsed = recipe.parse(RECIPE, "rare.yaml", [setting, "rounds.sample.where={}"])
    for attempt in (lambda: loop.run(parsed, tmp_path), lambda: plan.plan(parsed)):
        with pytest.raises(UserError, match=words) as caught:
            attempt()
        assert "evaluate.rare.where" in str(caught.value) and remedy in str(caught.value)
    assert not list(tmp_path.glob("**/model.safetensors"))


def test_another_model_of_the_recipe_is_a_function_of_samples_and_key(tmp_path: Any) -> None:
    from upturn.embeddings.inference import forwarded
    from upturn.training.standalone import trained

    parsed = recipe.parse(RECIPE, "rare.yaml")
    parts, spec = assemble(parsed), parsed.models["student"].fit
    samples = parts.source.load().train
    assert spec is not None
    logits = [
        forwarded(trained(parts.model("student"), samples, spec, seeds.key("b", k), k, "x"), "x", samples, "logits")
        for k in (1, 1, 2)
    ]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert np.abs(logits[0] - logits[2]).max() > 1e-3
    odd = spec.model_copy(update={"objective": {"name": "dpo"}})
    with pytest.raises(UserError, match="'dpo' learns from more than samples"):
        trained(parts.model("student"), samples, odd, 1, 1, "x")
