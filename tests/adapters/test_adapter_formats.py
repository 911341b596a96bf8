"""Tests of adapters of text-to-image models: training, saving, and the formats that other tools load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers import tiny_pipelines as tiny
from helpers.joint_pipelines import joint
from helpers.textual_inversion_cases import TEXTS, assert_same, built, drawn, theirs, trained
from upturn.adapter_layers import injection
from upturn.adapters.adalora import Adalora
from upturn.adapters.dora import Dora
from upturn.adapters.full import Full
from upturn.adapters.loha import Loha
from upturn.adapters.lokr import Lokr
from upturn.adapters.lora import Lora
from upturn.adapters.textual_inversion import TextualInversion
from upturn.errors import UserError
from upturn.export import adapter_formats
from upturn.export.sgm_names import sgm

pytestmark = pytest.mark.slow

LINEAR = ["to_q", "to_v", "q_proj", "fc1"]
KOHYA = {"sd15": {"text_encoder": "lora_te_"}, "sdxl": {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}}


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sd15", "sdxl", "sd3", "flux"])
def test_lora_and_full_training_export_and_diffusers_draws_the_same(kind: str, tmp_path: Path) -> None:
    folder = tiny.saved(kind, tmp_path / kind)
    first = drawn(built(folder), TEXTS)
    model = trained(joint(folder), Lora(rank=2, alpha=3, modules=LINEAR))
    ours = drawn(model, TEXTS)
    assert not torch.allclose(ours, first, atol=1e-4)
    model.save(tmp_path / "lora")
    adapter_formats.write(model, "diffusers", tmp_path / "out")
    pipeline = tiny.opened(tmp_path / "lora")
    pipeline.load_lora_weights(str(tmp_path / "out" / "lora"))
    assert_same(ours, theirs(kind, pipeline, TEXTS, model.frame.shape))

    whole = trained(built(folder), Full())
    whole.save(tmp_path / "full")
    assert_same(drawn(whole, TEXTS), theirs(kind, tiny.opened(tmp_path / "full"), TEXTS, whole.frame.shape))


@pytest.mark.long
@pytest.mark.parametrize("adapter", [Dora(rank=2), Adalora(rank=2)], ids=["dora", "adalora"])
def test_dora_and_adalora_in_the_format_of_diffusers(adapter: Any, tmp_path: Path) -> None:
    """AdaLoRA as the LoRA that it amounts to; convolutions, too."""
    folder = tiny.saved("sd15", tmp_path / "sd15")
    model = trained(joint(folder), adapter)
    model.save(tmp_path / "saved")
    adapter_formats.write(model, "diffusers", tmp_path / "out")
    pipeline = tiny.opened(tmp_path / "saved")
    pipeline.load_lora_weights(str(tmp_path / "out" / adapter.adapter_name))
    assert_same(drawn(model, TEXTS), theirs("sd15", pipeline, TEXTS, model.frame.shape))


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_kohyas_keys_of_a_lora_are_read_by_diffusers_own_converter(kind: str, tmp_path: Path) -> None:
    """Every layer of U-Net and text encoders: convolutions, time, projections, changes of size."""
    folder = tiny.saved(kind, tmp_path / kind)
    model = trained(joint(folder), Lora(rank=2, alpha=3))
    model.save(tmp_path / "saved")
    adapter_formats.write(model, "kohya", tmp_path / "out")
    held = load_file(tmp_path / "out" / "lora.safetensors")
    assert all(name.split(".", 1)[1] in ("lora_down.weight", "lora_up.weight", "alpha") for name in held)
    assert len(held) == 3 * len(injection.layers(model.module))
    pipeline = tiny.opened(tmp_path / "saved")
    pipeline.load_lora_weights(str(tmp_path / "out"), weight_name="lora.safetensors")
    assert_same(drawn(model, TEXTS), theirs(kind, pipeline, TEXTS, model.frame.shape))


def _delta(held: dict[str, torch.Tensor], weight: torch.Tensor) -> torch.Tensor:
    """What a layer's weight becomes, from the formats' own words (LyCORIS; ComfyUI's and A1111's readers agree)."""
    alpha = float(held["alpha"])
    if "hada_w1_a" in held:
        product = (held["hada_w1_a"] @ held["hada_w1_b"]) * (held["hada_w2_a"] @ held["hada_w2_b"])
        return weight + alpha / held["hada_w1_b"].shape[0] * product.reshape(weight.shape)
    if "lokr_w1" in held or "lokr_w1_a" in held:
        ranks = [held[f"{name}_b"].shape[0] for name in ("lokr_w1", "lokr_w2") if f"{name}_b" in held]
        scale = alpha / ranks[-1] if ranks else 1.0  # two whole factors have no rank, and alpha is left out
        left, right = (
            held[name] if name in held else held[f"{name}_a"] @ held[f"{name}_b"] for name in ("lokr_w1", "lokr_w2")
        )
        if right.ndim == 4:
            left = left[:, :, None, None]
        return weight + scale * torch.kron(left, right).reshape(weight.shape)
    product = held["lora_up.weight"].flatten(1) @ held["lora_down.weight"].flatten(1)
    changed = weight + alpha / held["lora_down.weight"].shape[0] * product.reshape(weight.shape)
    rows = (-1, *[1] * (weight.ndim - 1))
    return changed * (held["dora_scale"] / changed.flatten(1).norm(dim=1).reshape(rows))


@pytest.mark.long
@pytest.mark.parametrize(("kind", "adapter"), [
    ("sd15", Loha(rank=2, alpha=3)), ("sd15", Lokr(rank=2, alpha=3)), ("sd15", Lokr(rank=64, alpha=3)),
    ("sd15", Dora(rank=2, alpha=3)), ("sdxl", Lokr(rank=2, alpha=3)),
], ids=["loha", "lokr", "lokr-whole", "dora", "sdxl-lokr"])  # fmt: skip
def test_kohyas_keys_are_merged_as_the_format_specifies(kind: str, adapter: Any, tmp_path: Path) -> None:
    """diffusers reads none of these from such a file: merged here, layer by layer, then drawn by plain diffusers."""
    folder = tiny.saved(kind, tmp_path / kind)
    model = trained(joint(folder), adapter)
    model.save(tmp_path / "saved")
    adapter_formats.write(model, "kohya", tmp_path / "out")
    held = load_file(tmp_path / "out" / f"{adapter.adapter_name}.safetensors")
    pipeline, used = tiny.opened(tmp_path / "saved"), set()
    parts = {"lora_unet_": pipeline.unet, **{p: getattr(pipeline, name) for name, p in KOHYA[kind].items()}}
    with torch.no_grad():
        for prefix, module in parts.items():
            for path, layer in module.named_modules():
                bare = prefix == "lora_unet_" or hasattr(module, "text_model")
                called = path if bare else f"text_model.{path}"
                if prefix == "lora_unet_" and kind == "sdxl" and hasattr(layer, "weight") and "norm" not in path:
                    called = sgm(path, pipeline.unet.config)
                key = f"{prefix}{called.replace('.', '_')}."
                own = {name.removeprefix(key): value for name, value in held.items() if name.startswith(key)}
                if own and hasattr(layer, "weight"):
                    layer.weight.copy_(_delta(own, layer.weight))
                    used |= {key + name for name in own}
    assert used == set(held)
    assert_same(drawn(model, TEXTS), theirs(kind, pipeline, TEXTS, model.frame.shape))
    if not isinstance(adapter, Dora):
        with pytest.raises(UserError, match="diffusers does not load"):
            adapter_formats.write(model, "diffusers", tmp_path / "other")


@pytest.mark.long
def test_tokens_and_each_adapter_have_separate_files(tmp_path: Path) -> None:
    folder = tiny.saved("sdxl", tmp_path / "sdxl")
    model = trained(built(folder), TextualInversion(tokens={"<cat>": "c"}, vectors=2))
    trained(model, Lora(rank=2, modules=["to_q"]))
    trained(model, Lora(rank=3, modules=["to_q", "to_k"], adapter_name="second"))
    adapter_formats.write(model, "kohya", tmp_path / "kohya")
    assert sorted(path.name for path in (tmp_path / "kohya").iterdir()) == \
        ["cat.safetensors", "lora.safetensors", "second.safetensors"]
    assert {name: len(rows) for name, rows in load_file(tmp_path / "kohya" / "cat.safetensors").items()} == \
        {"clip_l": 2, "clip_g": 2}
    adapter_formats.write(model, "diffusers", tmp_path / "diffusers")
    model.save(tmp_path / "saved")
    pipeline = tiny.opened(tmp_path / "saved")
    for name in ("lora", "second"):
        pipeline.load_lora_weights(str(tmp_path / "diffusers" / name), adapter_name=name)
    pipeline.set_adapters(["lora", "second"])
    tokens = str(tmp_path / "diffusers" / "tokens" / "cat")
    pipeline.load_textual_inversion(tokens, token="<cat>")
    pipeline.load_textual_inversion(
        tokens, weight_name="learned_embeds_2.safetensors", text_encoder=pipeline.text_encoder_2,
        tokenizer=pipeline.tokenizer_2,
    )
    assert_same(drawn(model, TEXTS), theirs("sdxl", pipeline, TEXTS, model.frame.shape))


def test_content_that_a_format_cannot_store_is_refused_by_name(tmp_path: Path) -> None:
    lora = Lora(rank=2, modules=["to_q"])
    for kind, form, said in (
        ("sd3", "kohya", "not for a StableDiffusion3Pipeline"),
        ("pixart", "diffusers", "no adapters into a PixArtAlphaPipeline"),
    ):
        model = trained(built(tiny.saved(kind, tmp_path / kind)), lora, steps=1)
        with pytest.raises(UserError, match=said):
            adapter_formats.write(model, form, tmp_path / "out")
    model = built(tiny.saved("sd15", tmp_path / "sd15"))
    with pytest.raises(UserError, match="no adapters"):
        adapter_formats.write(model, "kohya", tmp_path / "none")
    trained(trained(model, lora, steps=1), Dora(rank=2, modules=["to_q"]), steps=1)
    with pytest.raises(UserError, match="a DoRA and another adapter"):
        adapter_formats.write(model, "kohya", tmp_path / "both")
