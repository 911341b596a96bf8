"""Adapters of a text-to-image model alone, in the formats that others load: that of diffusers, and Kohya's keys.

Kohya's keys are those of sd-scripts and LyCORIS, which ComfyUI and A1111 read: a layer's path with '_' for '.', after
"lora_unet_" or "lora_te_" (of Stable Diffusion XL "lora_te1_" and "lora_te2_", its U-Net called as in Stability's own
code), then ".lora_down.weight", ".lora_up.weight" and ".alpha", or LoHa's and LoKr's names for their matrices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from upturn.adapter_layers import injection as adapters
from upturn.adapter_layers import token_embeddings
from upturn.diffusion.joint import Joint
from upturn.embeddings.unwrap import unwrapped
from upturn.errors import UserError
from upturn.export.sgm_names import sgm

if TYPE_CHECKING:
    from peft.tuners.tuners_utils import BaseTunerLayer

    from upturn.adapter_layers.token_embeddings import Word
    from upturn.models.text_to_image import TextToImage

_FIX = "Export '--what model', where adapters are folded into the weights."
_KOHYA = {"StableDiffusionPipeline": ("lora_te", ""), "StableDiffusionXLPipeline": ("lora_te1", "lora_te2")}
_SCALED = ("lokr_w1", "lokr_w1_a", "hada_w1_a")  # the factor that carries the scale: of those that there are, the first
_CLIPS = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}  # names of tokens' files for two encoders


@dataclass(frozen=True)
class Update:
    """What an adapter does to one layer: tensors as LyCORIS calls them, ``scale`` times their product, ``rank``."""

    part: str  # a component of the pipeline
    path: str  # in it
    tensors: Mapping[str, Tensor]
    scale: float
    rank: int

    @property
    def low_rank(self) -> bool:
        return "lora_down" in self.tensors


def updates(model: TextToImage, name: str) -> list[Update]:
    """Of every layer that the adapter is on."""
    inner = unwrapped(model.module)
    found = []
    for path, layer in adapters.layers(inner):
        if not adapters.has(layer, name):
            continue
        part, rest = model.pipeline.family.denoiser, path
        if isinstance(inner, Joint):
            first, _, rest = path.partition(".")
            part = first if first != "denoiser" else part
        found.append(_update(part, rest, layer, name))
    return found


@torch.no_grad()
def _update(part: str, path: str, layer: BaseTunerLayer, name: str) -> Update:
    shape = layer.get_base_layer().weight.shape
    if hasattr(layer, "lora_E"):  # AdaLoRA's singular values go into the first matrix: what is left is a LoRA
        down, up = layer.lora_A[name] * layer.lora_E[name], layer.lora_B[name]
        down, rank = down.reshape(len(down), *shape[1:]), len(down)
        up = up.reshape(shape[0], rank, *[1] * (len(shape) - 2))
        scale = float(layer.scaling[name] / (layer.ranknum[name] + 1e-5))  # peft's own
        return Update(part, path, {"lora_down": down, "lora_up": up}, scale, rank)
    if hasattr(layer, "lora_A"):
        held = {"lora_down": layer.lora_A[name].weight, "lora_up": layer.lora_B[name].weight}
        if name in layer.lora_magnitude_vector:
            magnitude = layer.lora_magnitude_vector[name].weight
            held["dora_scale"] = magnitude.reshape(-1, *[1] * (len(shape) - 1))
        return Update(part, path, held, float(layer.scaling[name]), int(layer.r[name]))
    parts = [n for n in layer.adapter_layer_names if name in getattr(layer, n)]
    return Update(
        part, path, {n: getattr(layer, n)[name] for n in parts}, float(layer.scaling[name]), int(layer.r[name])
    )


def write(model: TextToImage, form: str, folder: Path) -> None:
    """Every adapter and token of the model into ``folder``.

    diffusers  <adapter>/pytorch_lora_weights.safetensors for ``load_lora_weights``, and tokens/<token>/ for
               ``load_textual_inversion``
    kohya      <adapter>.safetensors, and <token>.safetensors for the folder of embeddings

    Raises UserError naming what the format has no way to say.
    """
    names = adapters.names(unwrapped(model.module))
    if not names and not model.words:
        raise UserError("this model has no adapters", where="what", fix="Export '--what model'.")
    _refuse(model, names)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        found = updates(model, name)
        if form == "diffusers":
            _diffusers(model, name, found, folder / name)
        else:
            _kohya(model, found, folder / f"{name}.safetensors")
    if form == "diffusers":
        token_embeddings.save(model.token_encoders, model.words, folder)
        return
    for word in model.words:
        _embedding(model, word, folder / f"{word.folder}.safetensors")


def _refuse(model: TextToImage, names: list[str]) -> None:
    """A DoRA that shares a layer: others divide by the norm of the base with this adapter alone, peft of all so far."""
    holders: dict[str, list[Any]] = {}
    for path, layer in adapters.layers(unwrapped(model.module)):
        for name in names:
            if adapters.has(layer, name):
                holders.setdefault(path, []).append(name in getattr(layer, "lora_magnitude_vector", {}))
    odd = next((path for path, kinds in holders.items() if len(kinds) > 1 and any(kinds)), None)
    if odd is not None:
        raise UserError(
            f"'{odd}' has a DoRA and another adapter, which no such format can say", where="what", fix=_FIX
        )


def _diffusers(model: TextToImage, name: str, found: list[Update], folder: Path) -> None:
    import diffusers

    pipeline = str(model.pipeline.family.index["_class_name"])
    cls = getattr(diffusers, pipeline)
    if not hasattr(cls, "save_lora_weights"):
        raise UserError(f"diffusers loads no adapters into a {pipeline}", where="format", fix=_FIX)
    odd = next((update for update in found if not update.low_rank), None)
    if odd is not None:
        raise UserError(
            f"diffusers does not load '{name}': it reads LoRA and DoRA alone", where="format",
            fix=f"Export '--format kohya'. Or: {_FIX}",
        )
    layers: dict[str, dict[str, Tensor]] = {}
    for update in found:
        encoder = model.pipeline.encoders.get(update.part)
        # libraries have called CLIP's layers "text_model.…", and files still do
        path = f"text_model.{update.path}" if encoder is not None and not hasattr(encoder, "text_model") \
            else update.path
        held = layers.setdefault(f"{update.part}_lora_layers", {})
        held[f"{path}.lora_A.weight"] = _kept(update.tensors["lora_down"])
        # the scale is in the weights: versions that read no alpha take it for the rank
        held[f"{path}.lora_B.weight"] = _kept(update.tensors["lora_up"] * update.scale)
        if "dora_scale" in update.tensors:
            magnitude = update.tensors["dora_scale"]
            sides = (1, -1, *[1] * (magnitude.ndim - 2)) if magnitude.ndim > 2 else (-1,)
            end = "" if encoder is None else ".weight"  # what reads text encoders wants it, the rest does not
            held[f"{path}.lora_magnitude_vector{end}"] = _kept(magnitude.reshape(sides))
    cls.save_lora_weights(str(folder), **layers)


def _kohya(model: TextToImage, found: list[Update], path: Path) -> None:
    from safetensors.torch import save_file

    pipeline = str(model.pipeline.family.index["_class_name"])
    if pipeline not in _KOHYA:
        raise UserError(
            f"Kohya's keys are for Stable Diffusion 1, 2 and XL, not for a {pipeline}", where="format",
            fix="Export '--format diffusers', which ComfyUI reads, too.",
        )
    first, second = _KOHYA[pipeline]
    prefixes = {"unet": "lora_unet", "text_encoder": first, "text_encoder_2": second}
    written: dict[str, Tensor] = {}
    for update in found:
        layer = update.path
        if update.part != "unet" and not hasattr(model.pipeline.encoders[update.part], "text_model"):
            layer = f"text_model.{layer}"
        if update.part == "unet" and second:
            layer = sgm(layer, model.pipeline.denoiser.config)
        key = f"{prefixes[update.part]}_{layer.replace('.', '_')}"
        written |= {f"{key}.{name}": _kept(value) for name, value in _named(update).items()}
    ranks = {update.rank for update in found}
    module = "networks.lora" if all(update.low_rank for update in found) else "lycoris.kohya"
    save_file(written, path, metadata={"format": "pt", "ss_network_module": module, "ss_network_dim": str(max(ranks))})


def _named(update: Update) -> dict[str, Tensor]:
    """One layer's tensors and alpha, whose share of the rank is the scale."""
    if update.low_rank:
        named = {f"{name}.weight": value for name, value in update.tensors.items() if name != "dora_scale"}
        named |= {name: value for name, value in update.tensors.items() if name == "dora_scale"}
        return {**named, "alpha": torch.tensor(update.scale * update.rank)}
    named = dict(update.tensors)
    # the scale is in a factor: readers leave alpha out where both of LoKr's are whole, and LyCORIS merges it in twice
    scaled = next(name for name in _SCALED if name in named)
    return {**named, scaled: named[scaled] * update.scale, "alpha": torch.tensor(float(update.rank))}


def _embedding(model: TextToImage, word: Word, path: Path) -> None:
    """A token's vectors: under its name, or where there are two encoders under theirs."""
    from safetensors.torch import save_file

    held = model.token_rows(word)
    named = {_CLIPS[name] if len(held) > 1 else word.token: row for name, row in held.items()}
    save_file({name: _kept(row) for name, row in named.items()}, path, metadata={"format": "pt"})


def _kept(value: Tensor) -> Tensor:
    return value.detach().float().cpu().contiguous().clone()
