"""Metrics of images generated for captions: against scikit-learn, scipy, loops over the formula, planted answers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from helpers.dual_encoders import COLOURS, Colours, coloured, image_samples, tools
from upturn.config import components
from upturn.metrics.balanced_accuracy import BalancedAccuracy, balanced
from upturn.metrics.caption_alignment import CaptionAlignment
from upturn.metrics.kid import Kid
from upturn.metrics.memorisation import Memorisation
from upturn.metrics.prompt_responsiveness import PromptResponsiveness, shares
from upturn.types import Batch, Outputs, Prompt, Samples

EMOJI = Path(__file__).parents[3] / "shared" / "data" / "emoji"


def evidence(samples: Samples, seed: int = 0, **given: Any) -> Any:
    return SimpleNamespace(
        samples=samples, tools=tools(**given), seed=seed, settings=None, rewards=np.full(len(samples), np.nan)
    )


def grouped(samples: Samples, candidates: int) -> Samples:
    from dataclasses import replace

    n = len(samples)
    return replace(samples, group=np.arange(n) // candidates, candidate=np.arange(n) % candidates)


def captioned(names: list[str], seed: int = 0, drawn: list[str] | None = None) -> Samples:
    rng = np.random.default_rng(seed)
    prompts = [Prompt(f"a {name} thing") if name else Prompt() for name in names]
    return image_samples(coloured(drawn or names, rng), prompts)


NAMES = list(COLOURS) * 10


def test_alignment_is_the_cosine_and_its_place() -> None:
    samples = captioned(NAMES)
    found = CaptionAlignment(model="dual").measure(evidence(samples))
    own = Colours()
    expected = [float(own.images(s.content[None])[0] @ own.texts([s.prompt.text])[0]) for s in samples]
    assert found.values is not None
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert found.low < found.value < found.high
    assert found.details["placed"]["value"] == 1.0 and found.details["chance"] == 1.0


def test_alignment_of_images_that_ignore_their_prompts_is_at_chance() -> None:
    rng = np.random.default_rng(5)
    names = list(rng.permutation(NAMES))
    found = CaptionAlignment(model="dual").measure(evidence(captioned(NAMES, drawn=names)))
    placed = found.details["placed"]
    assert placed["low"] < 0.5 < placed["high"]
    aligned = CaptionAlignment(model="dual").measure(evidence(captioned(NAMES)))
    assert aligned.low > found.high


def test_alignment_counts_what_has_no_text_and_reports_real_images() -> None:
    samples = captioned([*NAMES, "", ""], drawn=[*NAMES, "red", "red"])
    found = CaptionAlignment(model="dual").measure(evidence(samples, held_out=captioned(NAMES, seed=8)))
    assert found.n == len(NAMES) and "2 of 42" in found.note
    assert found.values is not None and np.isnan(found.values[-2:]).all()
    assert found.details["real"]["placed"]["value"] == 1.0
    undefined = CaptionAlignment(model="dual").measure(evidence(captioned([""] * 4, drawn=["red"] * 4)))
    assert np.isnan(undefined.value) and "no prompt has a text" in undefined.note


def features(prompts: int, k: int, effect: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    middle = effect * rng.standard_normal((prompts, 5))
    return np.repeat(middle, k, axis=0) + rng.standard_normal((prompts * k, 5)), np.repeat(np.arange(prompts), k)


def test_responsiveness_is_anova() -> None:
    """One dimension: F is scipy's; and leaving a prompt out is really leaving it out."""
    from scipy.stats import f_oneway

    x, who = features(12, 3, 1.0, 1)
    x, who = x[:-1, :1], who[:-1]  # uneven groups
    whole, left_out, between, within = shares(x, who)
    assert between / within == pytest.approx(f_oneway(*[x[who == p, 0] for p in range(12)]).statistic)
    for p in (0, 11):
        kept = who != p
        again = shares(x[kept], np.unique(who[kept], return_inverse=True)[1])[0]
        assert left_out[p] == pytest.approx(again)
    x, who = features(400, 4, 1.0, 2)
    assert shares(x, who)[0] == pytest.approx(0.5, abs=0.04)  # variances 1 and 1; 4 standard errors
    assert whole < 1


def test_responsiveness_is_nothing_where_prompts_are_ignored_and_its_interval_holds() -> None:
    hits, null = 0, []
    for seed in range(60):
        x, who = features(40, 4, 0.7, seed)
        content = np.zeros((len(x), 4, 4, 3), np.uint8)
        samples = image_samples(content, [Prompt(f"p{i}") for i in who])
        found = PromptResponsiveness().measure(evidence(samples, embed=lambda s, x=x: x))
        hits += found.low <= 0.49 / 1.49 <= found.high
        noise = np.random.default_rng(seed).standard_normal(x.shape)
        null.append(PromptResponsiveness().measure(evidence(samples, embed=lambda s, x=noise: x)).value)
    assert hits >= 50, f"{hits} of 60 intervals hold the truth"  # 95%: below 51 in 0.5% of cases
    assert abs(np.mean(null)) < 4 * np.std(null) / np.sqrt(60)


def test_responsiveness_has_a_note_when_it_is_undefined() -> None:
    content = np.zeros((4, 4, 4, 3), np.uint8)
    alone = PromptResponsiveness().measure(evidence(image_samples(content, [Prompt(c) for c in "abcd"])))
    assert np.isnan(alone.value) and "candidates" in alone.note
    one = PromptResponsiveness().measure(evidence(image_samples(content, [Prompt()] * 4)))
    assert np.isnan(one.value) and "1 different prompt" in one.note


def test_kid_is_its_formula() -> None:
    from sklearn.metrics.pairwise import polynomial_kernel

    rng = np.random.default_rng(0)
    generated, real = rng.standard_normal((30, 6)), rng.standard_normal((25, 6)) + 0.3
    table = {30: generated, 25: real}
    samples = image_samples(rng.integers(0, 255, (30, 4, 4, 3), dtype=np.uint8), [Prompt()] * 30)
    held = image_samples(rng.integers(0, 255, (25, 4, 4, 3), dtype=np.uint8), [Prompt()] * 25)
    found = Kid().measure(evidence(samples, held_out=held, embed=lambda s: table[len(s)]))
    def off(a: np.ndarray) -> float:
        k = polynomial_kernel(a, a, degree=3, coef0=1)
        return float((k.sum() - np.trace(k)) / (len(a) * (len(a) - 1)))
    expected = off(generated) + off(real) - 2 * polynomial_kernel(generated, real, degree=3, coef0=1).mean()
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high


@pytest.mark.slow
def test_kid_is_unbiased_and_its_interval_holds() -> None:
    """Two shifted normals: the mean of 60 estimates is the truth of a large sample, 95% intervals hold it."""
    rng = np.random.default_rng(1)
    real = rng.standard_normal((600, 4))
    held = image_samples(np.zeros((600, 2, 2, 3), np.uint8), [Prompt()] * 600)
    truth = _kid(rng.standard_normal((4000, 4)) + 0.5, held, real).value
    found = [_kid(np.random.default_rng(seed).standard_normal((80, 4)) + 0.5, held, real) for seed in range(60)]
    values = np.array([m.value for m in found])
    assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(60)
    assert sum(m.low <= truth <= m.high for m in found) >= 51


def _kid(generated: np.ndarray, held: Samples, real: np.ndarray) -> Any:
    samples = image_samples(np.zeros((len(generated), 2, 2, 3), np.uint8), [Prompt()] * len(generated))
    return Kid().measure(evidence(samples, held_out=held, embed=lambda s: real if s is held else generated))


class ByPixel:
    """A classifier that says what the first pixel holds."""

    module = torch.nn.Linear(1, 1)

    def encode(self, samples: Samples) -> Batch:
        return Batch({"class": torch.from_numpy(samples.content[:, 0, 0, 0].astype(np.int64))})

    def forward(self, batch: Batch, draw: Any) -> Outputs:
        logits = torch.nn.functional.one_hot(batch["class"], 3).float()
        return Outputs(logits[:, :0], logits[:, :0], logits=logits)


def test_balanced_accuracy_is_scikit_learns() -> None:
    from sklearn.metrics import balanced_accuracy_score, confusion_matrix

    rng = np.random.default_rng(0)
    labels = rng.choice(3, 200, p=[0.7, 0.2, 0.1])
    predicted = np.where(rng.random(200) < 0.6, labels, rng.choice(3, 200))
    content = np.tile(predicted[:, None, None, None].astype(np.uint8), (1, 2, 2, 3))
    samples = image_samples(content, [Prompt(label=int(c)) for c in labels])
    found = BalancedAccuracy(model="judge").measure(
        evidence(samples, models={"judge": ByPixel()}, classes=("a", "b", "c"))
    )
    assert found.value == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert found.values is not None and found.values.mean() == pytest.approx(found.value)
    table = confusion_matrix(labels, predicted)
    for i, own in enumerate("abc"):
        for j, other in enumerate("abc"):
            assert found.details["confusion"][own].get(other, 0) == table[i, j]


@pytest.mark.parametrize("rates", [(0.5, 0.5, 0.5, 0.5), (0.95, 0.9, 0.2, 0.05)])
def test_the_interval_of_balanced_accuracy_holds(rates: tuple[float, ...]) -> None:
    hits, rng = 0, np.random.default_rng(2)
    for _ in range(300):
        labels = np.repeat(np.arange(4), [40, 20, 15, 25])
        right = rng.random(100) < np.array(rates)[labels]
        _, low, high = balanced(np.where(right, labels, (labels + 1) % 4), labels, np.arange(100))
        hits += low <= np.mean(rates) <= high
    assert hits >= 274, f"{hits} of 300"  # 285 expected; below 274 in 0.3% of cases


def image_data(n: int, seed: int, size: int = 16) -> np.ndarray:
    """Smooth random images: as unlike each other as photographs are."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (n, 3, 4, 4)))
    fine = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 255)
    return fine.permute(0, 2, 3, 1).numpy().astype(np.uint8)


def assert_memorisation_flags_copies(real: np.ndarray, held: np.ndarray, few: int) -> None:
    """A model that copies ``few`` training images, with noise, is flagged with the pairs; held-out ones are not."""
    rng = np.random.default_rng(0)
    prompts = [Prompt("x")] * len(real)
    which = rng.integers(0, few, 100)
    copies = np.clip(real[which] + 3 * rng.standard_normal(real[which].shape), 0, 255).astype(np.uint8)
    half = len(held) // 2
    given = {"held_out": image_samples(held[:half], prompts[:half])}
    small = image_samples(real[:few], prompts[:few])
    flagged = Memorisation().measure(evidence(image_samples(copies, [Prompt("x")] * 100), train=small, **given))
    assert flagged.low > 0.9 and flagged.details["flagged"]
    assert flagged.details["copied"] == len(set(which.tolist()))
    ids = {str(name): row for row, name in enumerate(small.ids)}
    generated = {str(name): row for row, name in enumerate(image_samples(copies, [Prompt("x")] * 100).ids)}
    for pair in flagged.details["pairs"]:
        assert ids[pair["real"]] == which[generated[pair["sample"]]]
    fresh = image_samples(held[half:], prompts[: len(held) - half])
    free = Memorisation().measure(evidence(fresh, train=image_samples(real, prompts), **given))
    assert free.low < 0.06, f"{free.value:.2f} of images that were never trained on are flagged"
    assert not free.details["flagged"]


def test_memorisation_flags_copies_with_their_pairs() -> None:
    assert_memorisation_flags_copies(image_data(1000, 1), image_data(300, 2), few=20)


@pytest.mark.slow
@pytest.mark.skipif(not EMOJI.is_dir(), reason="the emoji images are not here")
@pytest.mark.parametrize("size", [16, 32])
def test_metrics_work_on_emoji_with_texts(size: int) -> None:
    source = components.make("source", {
        "name": "imagefolder", "path": str(EMOJI), "size": size, "label": "category", "together": "name",
        "held_out": 0.2,
    })
    splits = source.load()
    real, held = splits.train, splits.held_out
    keep = np.random.default_rng(0).permutation(len(held))
    assert_memorisation_flags_copies(real.content, held.content[keep], few=20)
    few = held.take(keep[:150])
    given = {"train": real.take(np.arange(300)), "held_out": held.take(keep[150:])}
    flat: Any = lambda s: s.content.reshape(len(s), size, size, 3).mean(axis=(1, 2)) / 255.0  # noqa: E731
    for name in ("frechet", "precision", "recall", "coverage", "nearest_real", "kid"):
        found = components.make("metric", {"name": name}).measure(evidence(few, embed=flat, **given))
        assert np.isfinite([found.value, found.low, found.high]).all(), f"{name}: {found.note}"


@pytest.mark.slow
def test_held_out_loss_of_images_with_texts_repeats_itself() -> None:
    rng = np.random.default_rng(0)
    samples = image_samples(coloured(NAMES[:12], rng, 16), [Prompt(f"a {name} thing") for name in NAMES[:12]])
    model = components.make("model", {"name": "text_to_image", "config": {
        "channels": [32, 32], "text_width": 32, "text_layers": 1, "layers": 1, "vocabulary": 520,
    }})
    model.build(samples, 1)
    given = {"held_out": samples, "models": {"policy": model}}
    metric = components.make("metric", {"name": "held_out_loss", "draws": 2})
    first, again = (metric.measure(evidence(samples, **given)) for _ in range(2))
    assert np.isfinite(first.value) and first.value == again.value
    assert first.values is not None and len(first.values) == 12
