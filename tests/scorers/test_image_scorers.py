"""Scorers of images: against numpy, planted answers, and the library's own classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.dual_encoders import COLOURS, Colours, coloured, image_samples, processor, tiny_clip, tools
from upturn.errors import UserError
from upturn.scorers.aesthetic import Aesthetic
from upturn.scorers.alignment import Alignment
from upturn.scorers.safety import Safety
from upturn.scorers.zero_shot_safety import ZeroShotSafety
from upturn.types import Prompt, Samples

pytestmark = pytest.mark.slow

NAMES = list(COLOURS) * 8


def captioned(names: list[str], seed: int = 0) -> Samples:
    return image_samples(coloured(names, np.random.default_rng(seed)), [Prompt(f"a {name} thing") for name in names])


def test_alignment_is_the_cosine() -> None:
    samples = captioned([*NAMES, "red"])
    samples = image_samples(samples.content, [*samples.prompts[:-1], Prompt()])
    found = Alignment(model="dual").score(samples, tools())
    own = Colours()
    expected = (own.images(samples.content) * own.texts([p.text for p in samples.prompts])).sum(axis=1)
    np.testing.assert_allclose(found.values[:-1], expected[:-1], atol=1e-6)
    assert np.isnan(found.values[-1]) and "unscored" in found.explanations[-1]  # type: ignore[index]
    preferred = Alignment(model="dual", scale=None).score(samples, tools())
    np.testing.assert_allclose(preferred.values[:-1], own.scale * expected[:-1], atol=1e-5)
    assert len(Alignment(model="dual").score(samples.take([]), tools()).values) == 0


def test_alignment_reads_an_encoder_from_a_folder(tmp_path: Path) -> None:
    from upturn.models.dual_encoder import DualEncoder

    folder = tiny_clip(tmp_path)
    model = DualEncoder(folder=str(folder))
    model.open()
    samples = captioned(NAMES[:6])
    expected = (model.images(samples.content) * model.texts([p.text for p in samples.prompts])).sum(axis=1)
    np.testing.assert_allclose(Alignment(folder=str(folder)).score(samples, tools()).values, expected, atol=1e-6)
    with pytest.raises(ValueError, match="exactly one"):
        Alignment(model="a", folder="b")
    with pytest.raises(UserError, match="no vectors of images and texts"):
        Alignment(model="judge").score(samples, tools(models={"judge": object()}))


def test_an_aesthetic_head_from_a_file(tmp_path: Path) -> None:
    """LAION's layout: linear layers without anything between them."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    shapes = {0: (5, 3), 2: (4, 5), 10: (1, 4)}  # by number, not by spelling
    state = {f"layers.{i}.weight": rng.standard_normal(s).astype(np.float32) for i, s in shapes.items()}
    state |= {f"layers.{i}.bias": rng.standard_normal(s[0]).astype(np.float32) for i, s in shapes.items()}
    save_file(state, tmp_path / "head.safetensors")
    samples = captioned(NAMES)
    expected = Colours().images(samples.content)
    for i in shapes:
        expected = expected @ state[f"layers.{i}.weight"].T + state[f"layers.{i}.bias"]
    found = Aesthetic(model="dual", head=str(tmp_path / "head.safetensors"), scale=2.0).score(samples, tools())
    np.testing.assert_allclose(found.values, 2 * expected[:, 0], rtol=1e-4, atol=1e-5)
    save_file({"weight": np.ones((1, 7), np.float32)}, tmp_path / "wide.safetensors")
    with pytest.raises(UserError, match="reads 7 numbers, and the encoder gives 3"):
        Aesthetic(model="dual", head=str(tmp_path / "wide.safetensors")).score(samples, tools())
    with pytest.raises(UserError, match=r"is no \*.safetensors"):
        Aesthetic(model="dual", head=str(tmp_path / "head.pth")).score(samples, tools())


def test_an_aesthetic_head_fitted_on_scores_finds_the_planted_taste() -> None:
    rng = np.random.default_rng(1)
    train = captioned(NAMES, 1)
    liked = 5 + 2 * Colours().images(train.content)[:, 0]
    scores = np.where(rng.random(len(train)) < 0.1, np.nan, liked + 0.05 * rng.standard_normal(len(train)))
    train = train.with_fields(stars=np.array([f"{s:.4f}" if s == s else "" for s in scores], dtype=object))
    fresh = captioned(NAMES, 2)
    found = Aesthetic(model="dual", column="stars").score(fresh, tools(train=train))
    np.testing.assert_allclose(found.values, 5 + 2 * Colours().images(fresh.content)[:, 0], atol=0.1)
    with pytest.raises(UserError, match="the data has no field 'likes'"):
        Aesthetic(model="dual", column="likes").score(fresh, tools(train=train))


def test_an_aesthetic_head_fitted_on_preferences_orders_by_the_planted_taste() -> None:
    """Bradley–Terry voters who like red: gaps of the head are gaps of the taste."""
    rng = np.random.default_rng(3)
    names = list(rng.choice(list(COLOURS), 600))
    train = captioned(names, 4)
    taste = 1.5 * Colours().images(train.content)[:, 0]
    gap = taste[0::2] - taste[1::2]
    first = rng.random(300) < 1 / (1 + np.exp(-gap))
    ranks = np.stack([np.where(first, 1, 2), np.where(first, 2, 1)], axis=1).reshape(-1)
    from dataclasses import replace

    rows = np.arange(600)
    train = replace(train.with_fields(rank=ranks), group=rows // 2, candidate=rows % 2)
    fresh = captioned(NAMES, 5)
    found = Aesthetic(model="dual", column="rank").score(fresh, tools(train=train)).values
    assert np.corrcoef(found, Colours().images(fresh.content)[:, 0])[0, 1] > 0.9


def tiny_classifier(folder: Path) -> Path:
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        image_size=16, patch_size=4, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        id2label={0: "normal", 1: "gore", 2: "nsfw"}, label2id={"normal": 0, "gore": 1, "nsfw": 2},
    )
    model = ViTForImageClassification(config)
    model.classifier.weight.data *= 40  # so that its probabilities differ between images
    model.save_pretrained(folder)
    processor(folder, "ViTImageProcessor", 16)
    return folder


def test_safety_is_the_classifiers_word(tmp_path: Path) -> None:
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    folder = tiny_classifier(tmp_path)
    samples = captioned(NAMES)
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    prepared = AutoImageProcessor.from_pretrained(folder)(
        images=[Image.fromarray(row) for row in samples.content], return_tensors="pt"
    )
    with torch.no_grad():
        unsafe = model(**prepared).logits.softmax(dim=1)[:, 1:].sum(dim=1).numpy()
    threshold = float(np.median(unsafe))
    found = Safety(unsafe=["Gore", "NSFW"], folder=str(folder), threshold=threshold).score(samples, tools())
    sure = np.abs(unsafe - threshold) > 2e-3
    assert sure.sum() > 10 and set(found.values.tolist()) == {0.0, 1.0}
    np.testing.assert_array_equal(found.values[sure], (unsafe < threshold)[sure])
    with pytest.raises(UserError, match=r"no label 'violence'.*normal, gore, nsfw"):
        Safety(unsafe=["violence"], folder=str(folder)).score(samples, tools())
    with pytest.raises(UserError, match="cannot be read as an image classifier"):
        Safety(unsafe=["x"], folder=str(tmp_path.parent)).score(samples, tools())


def test_safety_by_words() -> None:
    samples = captioned(NAMES)
    found = ZeroShotSafety(model="dual", unsafe=["red"], safe=["green", "blue"]).score(samples, tools())
    own = Colours()
    odds = np.exp(own.scale * own.images(samples.content) @ own.texts(["red", "green", "blue"]).T)
    np.testing.assert_array_equal(found.values, odds[:, 0] / odds.sum(axis=1) < 0.5)
    assert found.values[0] == 0 and found.values[1] == 1
    assert found.explanations is not None and found.explanations[0].startswith("unsafe: red")
    with pytest.raises(ValueError, match="words of both kinds"):
        ZeroShotSafety(model="dual", unsafe=["red"])
