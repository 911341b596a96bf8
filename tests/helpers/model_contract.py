"""The contract of every model: called by the tests of each model, never collected by itself.

``assert_policy_contract(make, examples, prompts, tmp_path)`` runs all of it; ``make()`` returns a fresh model without
weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from upturn import seeds
from upturn.types import Batch, Draw, Outputs, Prompt, Samples

Make = Callable[[], Any]
EQUAL = 1e-4  # points and images across batch sizes (kernels differ, noise does not)
GREEDY = 0.999  # share of greedy texts (their characters) that must agree across batch sizes


def assert_policy_contract(
    make: Make, examples: Samples, prompts: Sequence[Prompt], tmp_path: Path, *, settings: Any = None,
) -> None:
    """The whole contract. ``settings`` default to the model's ``Sampling()``; text wants greedy settings here."""
    model = make()
    model.build(examples, key=1)
    settings = settings if settings is not None else model.Sampling()
    assert_seeded_build(make, examples)
    assert_log_probs(model, examples)
    assert_draw_is_keyed(model, examples)
    assert_candidates_share_chance(model, examples)
    assert_micro_batches(model, examples)
    assert_gradients(model, examples)
    assert_sample_columns(model, prompts, settings)
    assert_batch_size_invariance(model, prompts, settings)
    assert_save_and_load(make, model, examples, prompts, tmp_path, settings)
    assert_flops(model, examples, settings)


def log_probs(model: Any, batch: Batch, key: int = 5, start: int = 0) -> Outputs:
    return model.forward(batch, model.draw(batch, key, start))


def every(batch: Batch) -> Batch:
    """The batch with ragged columns padded, as the trainer would take it."""
    return batch.take(torch.arange(len(batch)))


def assert_seeded_build(make: Make, examples: Samples) -> None:
    """The same key gives the same weights, another key others (where there are random weights at all)."""
    first, again = make(), make()
    first.build(examples, key=7)
    torch.manual_seed(999)  # torch's own stream must not matter
    again.build(examples, key=7)
    a, b = first.module.state_dict(), again.module.state_dict()
    assert list(a) == list(b)
    for name in a:
        assert torch.equal(a[name], b[name]), f"{name} differs between two builds from one key"


def assert_log_probs(model: Any, examples: Samples) -> None:
    """(N, T) log-probs and mask, finite, one value where the mask is one."""
    batch = every(model.encode(examples))
    out = log_probs(model, batch)
    assert out.log_probs.ndim == 2 and out.log_probs.shape == out.mask.shape
    assert len(out.log_probs) == batch.rows == len(examples)
    assert out.log_probs.dtype == torch.float32 and torch.isfinite(out.log_probs[out.mask > 0]).all()
    assert (out.mask.sum(dim=1) > 0).all(), "a row in which nothing counts"
    assert out.dims >= 1 and model.likelihood in {"exact", "elbo", "surrogate"}


def assert_draw_is_keyed(model: Any, examples: Samples) -> None:
    """Chance is a function of (key, position): repeated it is the same, under another key it is not."""
    batch = every(model.encode(examples))
    one, two, other = (model.draw(batch, key, 0) for key in (3, 3, 4))
    if one is None:
        assert torch.equal(log_probs(model, batch).log_probs, log_probs(model, batch).log_probs)
        return
    assert torch.equal(one.noise, two.noise) and torch.equal(one.sigma, two.sigma)
    assert not torch.equal(one.noise, other.noise) and not torch.equal(one.sigma, other.sigma)
    assert one.sigma.shape == one.noise.shape[:2] and one.sigma.shape[0] == batch.rows
    assert (one.sigma > 0).all()


def assert_candidates_share_chance(model: Any, examples: Samples) -> None:
    """The K candidates of an example share noise level, noise and whether the condition is dropped."""
    count = len(examples) // 2 * 2
    flat = model.encode(examples.take(np.arange(count)))
    pairs = every(Batch(flat.columns, candidates=2))
    drawn = model.draw(pairs, 3, 0)
    if drawn is None:
        return
    assert torch.equal(drawn.sigma[0::2], drawn.sigma[1::2])
    assert torch.equal(drawn.noise[0::2], drawn.noise[1::2])
    if drawn.drop is not None:
        assert torch.equal(drawn.drop[0::2], drawn.drop[1::2])
    assert not torch.equal(drawn.noise[0], drawn.noise[2]), "two examples share their noise"


def assert_micro_batches(model: Any, examples: Samples) -> None:
    """A global batch split anywhere sees the same chance, and gives the same log-probs to 1e-4."""
    batch = model.encode(examples)
    n = len(batch)
    whole_batch = every(batch)
    whole, out = model.draw(whole_batch, 11, 100), log_probs(model, whole_batch, 11, 100)
    for cut in (1, n // 2, n - 1):
        for start, stop in ((0, cut), (cut, n)):
            part = batch.take(torch.arange(start, stop))
            drawn = model.draw(part, 11, 100 + start)
            if whole is not None:
                _assert_same_draw(whole, drawn, slice(start, stop))
            got = model.forward(part, drawn)
            width = got.log_probs.shape[1]
            expected, mask = out.log_probs[start:stop, :width], got.mask
            torch.testing.assert_close(got.log_probs * mask, expected * mask, rtol=1e-4, atol=1e-4)


def _assert_same_draw(whole: Draw, part: Draw, rows: slice) -> None:
    assert torch.equal(whole.sigma[rows], part.sigma) and torch.equal(whole.noise[rows], part.noise)
    assert (whole.drop is None) == (part.drop is None)
    if whole.drop is not None and part.drop is not None:
        assert torch.equal(whole.drop[rows], part.drop)


def assert_gradients(model: Any, examples: Samples) -> None:
    """Every trainable parameter gets a finite gradient."""
    model.module.train()
    model.module.zero_grad(set_to_none=True)
    out = log_probs(model, every(model.encode(examples)))
    (out.log_probs * out.mask).sum().backward()
    for name, parameter in model.module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} has no gradient"
            assert torch.isfinite(parameter.grad).all(), f"{name} has a gradient that is not finite"
    model.module.zero_grad(set_to_none=True)


def sampling_keys(prompts: Sequence[Prompt], candidates: int, base: int = 17) -> np.ndarray:
    return seeds.fold(base, range(len(prompts) * candidates)).reshape(len(prompts), candidates)


def assert_sample_columns(model: Any, prompts: Sequence[Prompt], settings: Any) -> None:
    """P * K rows, prompt-major, of the model's kind and id; equal keys give equal samples, others do not."""
    keys = sampling_keys(prompts, 2)
    training = model.module.training
    samples = model.sample(prompts, keys, settings)
    assert model.module.training == training, "sampling left the module in another mode"
    assert samples.kind == model.kind and len(samples) == 2 * len(prompts)
    assert [p.id for p in samples.prompts] == [p.id for p in prompts for _ in range(2)]
    assert (samples.fields["key"] == keys.reshape(-1)).all()
    assert (samples.origin == "synthetic").all() and (samples.source == model.id).all()
    assert len(set(samples.ids)) == len(samples)
    again = model.sample(prompts, keys, settings)
    assert all(np.array_equal(a, b) for a, b in zip(samples.content, again.content, strict=True))


def assert_batch_size_invariance(model: Any, prompts: Sequence[Prompt], settings: Any) -> None:
    """Row i depends on key i alone: alone, in small batches, in another order or all at once it is the same sample."""
    keys = sampling_keys(prompts, 3)
    whole = _content(model, prompts, keys, dataclasses.replace(settings, batch=10_000))
    for size in (1, 2, 7):
        _assert_same_content(whole, _content(model, prompts, keys, dataclasses.replace(settings, batch=size)))
    order = np.arange(len(prompts))[::-1]
    turned = _content(model, [prompts[i] for i in order], keys[order], settings)
    rows = np.arange(len(prompts) * 3).reshape(len(prompts), 3)[order].reshape(-1)
    _assert_same_content([whole[i] for i in rows], turned)


def _content(model: Any, prompts: Sequence[Prompt], keys: np.ndarray, settings: Any) -> list[Any]:
    """Generated content, as floats where the model has them (`generate`): rounding may hide or double a difference."""
    if hasattr(model, "generate"):
        flat = [prompt for prompt in prompts for _ in range(keys.shape[1])]
        return list(model.generate(flat, keys.reshape(-1), settings).cpu().numpy())
    return list(model.sample(prompts, keys, settings).content)


def _assert_same_content(a: Sequence[Any], b: Sequence[Any]) -> None:
    assert len(a) == len(b)
    if isinstance(a[0], str):
        pairs = list(zip(a, b, strict=True))
        length = sum(max(len(x), len(y), 1) for x, y in pairs)
        same = sum(max(len(x), len(y), 1) for x, y in pairs if x == y)
        assert same / length >= GREEDY or sum(x != y for x, y in pairs) <= 1, f"{same} of {length} characters agree"
    else:
        np.testing.assert_allclose(np.stack(a), np.stack(b), atol=EQUAL, rtol=EQUAL)


def assert_save_and_load(
    make: Make, model: Any, examples: Samples, prompts: Sequence[Prompt], tmp_path: Path, settings: Any,
) -> None:
    """save → load → the same log-probs and samples; equal weights give equal bytes; no pickles, no paths inside."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir(parents=True)
    model.save(first)
    loaded = make()
    loaded.load(first)
    loaded.save(second)
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    for name in files:
        raw = (first / name).read_bytes()
        assert raw == (second / name).read_bytes(), f"{name} changes when it is loaded and saved"
        assert str(tmp_path).encode() not in raw, f"{name} holds a path"
        assert name.suffix in {".json", ".safetensors", ".txt", ".jinja", ".model"}, f"{name}: a format not allowed"
    batch = every(model.encode(examples))
    model.module.eval()
    loaded.module.eval()
    assert torch.equal(log_probs(model, batch).log_probs, log_probs(loaded, every(loaded.encode(examples))).log_probs)
    keys = sampling_keys(prompts, 1)
    _assert_same_content(_content(model, prompts, keys, settings), _content(loaded, prompts, keys, settings))


def assert_flops(model: Any, examples: Samples, settings: Any) -> None:
    """Within 20% of what torch counts (matrix products and convolutions) in one forward pass; grows with the rows."""
    from torch.utils.flop_counter import FlopCounterMode

    batch = every(model.encode(examples))
    drawn = model.draw(batch, 5, 0)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.forward(batch, drawn)
    counted, claimed = counter.get_total_flops(), model.flops(batch)
    if counted > 0:
        assert abs(claimed - counted) <= 0.2 * counted, f"claims {claimed:.3g} operations, torch counts {counted:.3g}"
    half = batch.take(torch.arange(len(batch) // 2))
    assert 0 < model.flops(half) < claimed and model.sampling_flops(settings) > 0
