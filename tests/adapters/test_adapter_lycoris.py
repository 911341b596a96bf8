"""Tests of Kohya files as LyCORIS reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from helpers import tiny_pipelines as tiny
from helpers.joint_pipelines import joint
from helpers.textual_inversion_cases import TEXTS, assert_same, drawn, theirs, trained
from upturn.adapters.dora import Dora
from upturn.adapters.loha import Loha
from upturn.adapters.lokr import Lokr
from upturn.adapters.lora import Lora
from upturn.export import adapter_formats
from upturn.export.sgm_names import sgm

pytestmark = pytest.mark.slow

ADAPTERS = {
    "lora": Lora(rank=2, alpha=3), "loha": Loha(rank=2, alpha=3), "lokr": Lokr(rank=2, alpha=3),
    "lokr-whole": Lokr(rank=64, alpha=3), "dora": Dora(rank=2, alpha=3),
}


class Called(nn.Module):
    """A module whose layers go by the names that they have in Stability's and OpenAI's code."""

    def __init__(self, inner: nn.Module, name: Callable[[str], str]) -> None:
        super().__init__()
        self.inner, self.name = inner, name

    def named_modules(self, *rest: Any, **more: Any) -> Iterator[tuple[str, nn.Module]]:
        for path, layer in self.inner.named_modules():
            if hasattr(layer, "weight") and "norm" not in path:
                yield self.name(path), layer


def readable(pipeline: Any, kind: str) -> tuple[list[nn.Module], nn.Module]:
    encoders = [pipeline.text_encoder, *([pipeline.text_encoder_2] if kind == "sdxl" else [])]
    texts = [Called(e, lambda path, e=e: path if hasattr(e, "text_model") else f"text_model.{path}") for e in encoders]
    config = pipeline.unet.config
    return texts, Called(pipeline.unet, lambda path: sgm(path, config) if kind == "sdxl" else path)


@pytest.mark.long
@pytest.mark.parametrize("name", list(ADAPTERS))
@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_lycoris_reads_every_layer_and_draws_the_same(kind: str, name: str, tmp_path: Path) -> None:
    """U-Net and text encoders, linear layers and convolutions: in front of the layers, and merged into them."""
    from lycoris.kohya import create_network_from_weights

    adapter: Any = ADAPTERS[name]
    model = trained(joint(tiny.saved(kind, tmp_path / kind)), adapter)
    model.save(tmp_path / "saved")
    adapter_formats.write(model, "kohya", tmp_path / "out")
    file = tmp_path / "out" / f"{adapter.adapter_name}.safetensors"
    pipeline = tiny.opened(tmp_path / "saved")
    before = theirs(kind, pipeline, TEXTS, model.frame.shape)
    texts, unet = readable(pipeline, kind)
    network, _ = create_network_from_weights(1.0, str(file), None, texts if kind == "sdxl" else texts[0], unet)
    read = network.unet_loras + network.text_encoder_loras
    assert {module.lora_name for module in read} == {key.split(".")[0] for key in load_file(file)}
    assert any(module.shape[2:] for module in read) and network.text_encoder_loras
    with torch.no_grad():
        for module in read:
            module.apply_to()  # as while training: in front of the layer
        live = theirs(kind, pipeline, TEXTS, model.frame.shape)
        for module in read:
            module.restore()
            module.merge_to()
    merged = theirs(kind, pipeline, TEXTS, model.frame.shape)
    ours = drawn(model, TEXTS)
    assert not torch.allclose(ours, before, atol=1e-3)
    assert_same(ours, live)
    assert_same(ours, merged)
