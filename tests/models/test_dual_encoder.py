"""Tests of dual encoders: the objective against its formula, planted pairs, and the models of `transformers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.dual_encoders import COLOURS, coloured, image_samples, tiny_clip, tiny_siglip
from upturn import seeds
from upturn.config import components
from upturn.config.schema import Training
from upturn.errors import UserError
from upturn.loop.stages.train import encode_examples
from upturn.models.dual_encoder import DualEncoder
from upturn.objectives.contrastive import Contrastive
from upturn.training import trainer
from upturn.training.feeds import FixedFeed
from upturn.training.history import History
from upturn.training.setup import TrainingSetup
from upturn.types import Batch, Mixture, Outputs, Prompt, Samples

pytestmark = pytest.mark.slow

EMOJI = Path(__file__).parents[3] / "shared" / "data" / "emoji"
SIZES = {"width": 16, "channels": 8, "hidden": 32}


def vectors(n: int, width: int = 6) -> torch.Tensor:
    drawn = torch.from_numpy(np.random.default_rng(3).standard_normal((n, 2 * width)))
    return drawn.requires_grad_()


def batch(captions: list[int], values: torch.Tensor, **given: torch.Tensor) -> Batch:
    return Batch({"caption": torch.tensor(captions), "before_values": values.detach()}, 1, given)


def outputs_of(values: torch.Tensor) -> Outputs:
    none = values[:, :0]
    return Outputs(none, none, values=values)


def by_hand(values: np.ndarray, captions: list[int], weights: np.ndarray) -> tuple[float, float]:
    """Loops over the formula: the weighted sum, and the sum of weights."""
    left, right = np.split(values, 2, axis=1)
    spoken = [i for i, c in enumerate(captions) if c >= 0]
    scores, total = left @ right.T, 0.0
    for i in spoken:
        same = [j for j in spoken if captions[j] == captions[i]]
        across = np.log(sum(np.exp(scores[i, j]) for j in spoken))
        down = np.log(sum(np.exp(scores[j, i]) for j in spoken))
        own = sum((across - scores[i, j]) + (down - scores[j, i]) for j in same) / len(same)
        total += weights[i] * own / 2
    return total, float(weights[spoken].sum())


@pytest.mark.parametrize("captions", [[1, 2, 3, 4, 5], [1, 2, 1, -1, 2]])
def test_contrastive_is_its_formula(captions: list[int]) -> None:
    values, weights = vectors(5), np.array([1.0, 2.0, 0.5, 1.0, 1.0])
    whole = batch(captions, values, weights=torch.from_numpy(weights))
    expected, weight = by_hand(values.detach().numpy(), captions, weights)
    direct = Contrastive()(outputs_of(values), whole)
    prepared = Contrastive()(outputs_of(values), Contrastive().prepare(whole))
    for loss in (direct, prepared):
        assert float(loss.sum.detach()) == pytest.approx(expected, rel=1e-6)  # the softmax is taken in float32
        assert float(loss.weight) == pytest.approx(weight)
    assert float(direct.metrics["silent"]) == captions.count(-1)


def test_contrastive_is_cross_entropy_where_captions_differ() -> None:
    values = vectors(5)
    left, right = values.chunk(2, dim=1)
    rows = torch.arange(5)
    scores = left @ right.T
    entropy = torch.nn.functional.cross_entropy
    expected = (entropy(scores, rows) + entropy(scores.T, rows)) / 2
    loss = Contrastive()(outputs_of(values), batch([1, 2, 3, 4, 5], values))
    assert float((loss.sum / loss.weight).detach()) == pytest.approx(float(expected.detach()), rel=1e-6)


@pytest.mark.parametrize("captions", [[1, 2, 3, 4, 5], [1, 2, 1, -1, 2]])
def test_micro_batches_change_nothing(captions: list[int]) -> None:
    """Gradients of parts of a prepared batch sum to the gradient of the whole, taken directly."""
    values = vectors(5)
    whole = batch(captions, values)
    (expected,) = torch.autograd.grad(Contrastive()(outputs_of(values), whole).sum, values)
    prepared = Contrastive().prepare(whole)
    found = torch.zeros_like(values)
    for rows in (torch.tensor([0, 1]), torch.tensor([2]), torch.tensor([3, 4])):
        loss = Contrastive()(outputs_of(values[rows]), prepared.take(rows))
        (part,) = torch.autograd.grad(loss.sum, values)
        found += part
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def planted(n: int, seed: int, noise: float = 20) -> Samples:
    """Colours above and below: "red over blue"."""
    rng = np.random.default_rng(seed)
    names = rng.choice(list(COLOURS), (n, 2))
    content = np.concatenate([coloured(names[:, 0], rng, 8, noise)[:, :4], coloured(names[:, 1], rng, 8, noise)[:, 4:]],
                             axis=1)
    return image_samples(content, [Prompt(f"{a} over {b}") for a, b in names])


def trained(model: Any, samples: Samples, epochs: int, micro: int | None = None, rate: float = 5e-3) -> History:
    objective = components.make("objective", "contrastive")
    spec = Training(epochs=epochs, batch_size=64, micro_batch=micro, learning_rate=rate, objective="contrastive")
    examples, _ = encode_examples(model, Mixture(samples, np.ones(len(samples))), objective)
    return trainer.train(model, TrainingSetup(
        spec=spec, objective=objective, adapter=components.make("adapter", "full"),
        feed=FixedFeed(examples, 64, 5), key=5, where="test", held_out=model.encode(planted(64, 9)),
    ))


def test_a_small_one_learns_what_words_mean() -> None:
    """Each word alone, too: no caption that it was trained on has one."""
    model = DualEncoder(config=SIZES)
    samples = planted(256, 1)
    model.build(samples, 2)
    history = trained(model, samples, 25)
    assert history.points[-1]["held_out"] < history.points[0]["held_out"] - 0.5
    fresh = planted(64, 7)
    texts = sorted({p.text for p in fresh.prompts})
    nearest = (model.images(fresh.content) @ model.texts(texts).T).argmax(axis=1)
    right = np.mean([texts[i] == p.text for i, p in zip(nearest, fresh.prompts, strict=True)])
    assert right > 0.5, f"{right:.2f} of pictures find their text among {len(texts)}"
    plain = image_samples(coloured(list(COLOURS), np.random.default_rng(0)), [Prompt(name) for name in COLOURS])
    single = (model.images(plain.content) @ model.texts(list(COLOURS)).T).argmax(axis=1)
    assert (single == np.arange(len(COLOURS))).sum() >= 3


def test_training_is_the_same_in_micro_batches() -> None:
    """To float32's rounding, with the same images moved and the same words left out."""
    states = []
    for micro in (None, 17):
        model = DualEncoder(config=SIZES)
        model.build(planted(128, 1), 2)
        trained(model, planted(128, 1), 2, micro, rate=1e-4)
        states.append(model.module.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=2e-5, msg=name)


def test_chance_moves_only_what_is_learned_from() -> None:
    model = DualEncoder(config=SIZES)
    samples = planted(8, 1)
    model.build(samples, 2)
    plain = model.encode(samples)
    learned = plain.with_given(weights=torch.ones(8))
    assert model.draw(plain, 3, 0) is None
    drawn = model.draw(learned, 3, 0)
    assert drawn is not None
    later = model.draw(learned.take(torch.arange(5, 8)), 3, 5)
    assert later is not None and torch.equal(later.noise, drawn.noise[5:])
    still, moved = model.forward(plain, None), model.forward(learned, drawn)
    assert still.values is not None and moved.values is not None
    assert not torch.allclose(still.values, moved.values)


def test_a_small_one_is_saved_whole(tmp_path: Path) -> None:
    model = DualEncoder(config=SIZES)
    samples = planted(40, 1)
    model.build(samples, 2)
    model.save(tmp_path / "a")
    again = DualEncoder(folder=str(tmp_path / "a"))
    again.open()
    again.save(tmp_path / "b")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    np.testing.assert_array_equal(model.images(samples.content), again.images(samples.content))
    np.testing.assert_allclose(
        np.concatenate([again.images(samples.content[:1]), again.images(samples.content[1:])]),
        again.images(samples.content), atol=1e-5,
    )
    np.testing.assert_allclose(np.linalg.norm(again.texts(["red", "", "no such word"]), axis=1), 1, atol=1e-5)
    with pytest.raises(UserError, match="was built for images of"):
        again.images(np.zeros((1, 16, 16, 3), np.uint8))
    rewards = model.forward(model.encode(samples), None).rewards
    assert rewards is not None
    expected = model.scale * (model.images(samples.content) * model.texts([p.text for p in samples.prompts])).sum(1)
    np.testing.assert_allclose(rewards.detach().numpy(), expected, rtol=1e-4, atol=1e-4)


def test_files_that_are_not_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        DualEncoder()
    with pytest.raises(UserError, match="has no field 'widht'"):
        DualEncoder(config={"widht": 3})
    with pytest.raises(UserError, match="no weights before it is trained"):
        DualEncoder(config={}).open()
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="cannot be read as a dual encoder"):
        DualEncoder(folder=str(tmp_path)).open()
    with pytest.raises(UserError, match="there is no folder"):
        DualEncoder(folder=str(tmp_path / "nothing")).open()


@pytest.mark.parametrize("make", [tiny_clip, tiny_siglip])
def test_the_librarys_are_read_as_the_library_does(make: Any, tmp_path: Path) -> None:
    """Vectors of images and texts against its own processor and model, on images that must be resized."""
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    folder = make(tmp_path / "theirs")
    model = DualEncoder(folder=str(folder))
    model.build(planted(2, 0), 1)
    ramp = np.linspace(0, 255, 24)
    content = np.stack([np.stack([ramp[:, None] + 0 * ramp, 0 * ramp[:, None] + ramp, np.full((24, 24), shade)], axis=2)
                        for shade in (0, 90, 200)]).astype(np.uint8)
    texts = ["a picture of red", "cat", "dog house green blue yellow a picture of a cat"]
    inner, tokens = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    prepared = AutoImageProcessor.from_pretrained(folder)(
        images=[Image.fromarray(row) for row in content], return_tensors="pt"
    )
    padded = tokens(texts, padding="max_length", truncation=True, max_length=8, return_tensors="pt")
    if make is tiny_siglip:
        padded.pop("attention_mask")
    with torch.no_grad():
        theirs = inner(pixel_values=prepared["pixel_values"], **padded)
    cosines = (model.images(content) * theirs.image_embeds.numpy()).sum(axis=1)
    assert cosines.min() > 0.9995
    np.testing.assert_allclose(model.texts(texts), theirs.text_embeds.numpy(), atol=1e-5)
    assert model.scale == pytest.approx(float(inner.logit_scale.exp().detach()))
    samples = image_samples(content, [Prompt(text) for text in texts])
    encoded = model.encode(samples)
    assert model.notes == ("1 of 3 texts are cut to 8 tokens",)
    model.save(tmp_path / "ours")
    again = DualEncoder(folder=str(tmp_path / "ours"))
    again.open()
    assert again.id == model.id
    np.testing.assert_array_equal(again.images(content), model.images(content))
    before, after = (m.forward(m.encode(samples), None).rewards for m in (model, again))
    assert before is not None and after is not None
    torch.testing.assert_close(before, after)
    assert model.flops(encoded) > 0


def test_the_librarys_are_trained_too(tmp_path: Path) -> None:
    model = DualEncoder(folder=str(tiny_clip(tmp_path / "clip")))
    samples = planted(64, 1)
    model.build(samples, 2)
    history = trained(model, samples, 6, micro=20, rate=3e-3)
    assert history.points[-1]["loss"] < history.points[0]["loss"] - 0.3


def test_preferences_train_its_rewards() -> None:
    """As PickScore was: two images of one prompt, the better is the one of the requested colour."""
    rng = np.random.default_rng(4)
    names = rng.choice(list(COLOURS), 96)
    others = np.array([rng.choice([c for c in COLOURS if c != name]) for name in names])
    both = np.stack([names, others], axis=1).reshape(-1)
    samples = image_samples(coloured(both, rng), [Prompt(name) for name in np.repeat(names, 2)])
    model = DualEncoder(config={**SIZES, "words": 1.0})
    model.build(samples, 1)
    objective = components.make("objective", "bradley_terry")
    encoded = model.encode(samples)
    given = {"ranks": torch.tensor([[1, 2]] * 96), "weights": torch.ones(96)}
    pairs = Batch(encoded.columns, 2, given)
    spec = Training(epochs=12, batch_size=32, learning_rate=5e-3, objective="bradley_terry")
    trainer.train(model, TrainingSetup(
        spec=spec, objective=objective, adapter=components.make("adapter", "full"), feed=FixedFeed(pairs, 32, 1),
        key=seeds.key("pairs"), where="test",
    ))
    rewards = model.forward(encoded, None).rewards
    assert rewards is not None
    gaps = rewards.detach().reshape(-1, 2)
    assert float((gaps[:, 0] > gaps[:, 1]).float().mean()) > 0.85


@pytest.mark.long
@pytest.mark.skipif(not EMOJI.is_dir(), reason="the emoji pictures are not here")
def test_on_real_images_it_finds_names_that_it_never_saw() -> None:
    """Held-out names among held-out images, six epochs: recall@10 at least twice, the category twice chance."""
    source = components.make("source", {
        "name": "imagefolder", "path": str(EMOJI), "size": 16, "label": "category", "together": "name",
    })
    splits = source.load()
    model = DualEncoder(config={"channels": 16}, captions={"name": "template", "template": "${name}, ${category}"})
    model.build(splits.train, 1)
    trained_emoji(model, splits.train)
    held = splits.held_out
    texts = [f"{p.fields['name']}, {p.fields['category']}" for p in held.prompts]
    scores = model.texts(texts) @ model.images(held.content).T
    rank = (scores > scores.diagonal()[:, None]).sum(axis=1)
    chance = 10 / len(held)
    shares = np.bincount(held.labels) / len(held)
    assert np.mean(rank < 10) > 2 * chance
    assert np.mean(held.labels[scores.argmax(axis=1)] == held.labels) > 2 * float((shares**2).sum())


def trained_emoji(model: DualEncoder, samples: Samples) -> None:
    objective = components.make("objective", "contrastive")
    examples, _ = encode_examples(model, Mixture(samples, np.ones(len(samples))), objective)
    spec = Training(epochs=6, batch_size=256, learning_rate=2e-3, weight_decay=0.05, objective="contrastive")
    trainer.train(model, TrainingSetup(
        spec=spec, objective=objective, adapter=components.make("adapter", "full"), feed=FixedFeed(examples, 256, 1),
        key=1, where="test",
    ))
