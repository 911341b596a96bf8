"""Adapters of `peft` inside a model, which keeps its own type: listing, activating, merging and removing them.

Injected layers replace the layers that they adapt and hold them as ``base_layer``. Adapters of one kind share
an injected layer, those of another kind are wrapped around it; either way they act in the order of injection.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from upturn.adapter_layers.heads import HEADS
from upturn.adapter_layers.new_tokens import WORDS
from upturn.embeddings.unwrap import unwrapped

if TYPE_CHECKING:
    from peft import PeftConfig
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers import PreTrainedModel

NARROW = (torch.bfloat16, torch.float16)
_OF_CONFIG = ("quantization_config",)  # what the library notes of a quantized model
_OF_MODULE = ("is_quantized", "is_loaded_in_4bit", "hf_quantizer", "quantization_method", "_weight_conversions")
ENTRY = "@entry"  # suffix of a frozen copy of an adapter; no configured adapter has such a name
_PARTS = (
    "lora_A", "lora_E", "lora_B", "lora_magnitude_vector",
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
    "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
)


def inner(module: PreTrainedModel) -> PreTrainedModel:
    """The module that carries adapters, without the wrappers of a trainer."""
    found: PreTrainedModel = unwrapped(module)
    return found


def names(module: PreTrainedModel) -> list[str]:
    """The adapters of a model, in the order of injection, without entry copies."""
    return [name for name in getattr(module, "peft_config", {}) if not name.endswith(ENTRY)]


def outermost(module: PreTrainedModel) -> list[tuple[torch.nn.Module, str, Any]]:
    """(parent, name in it, injected layer) of every adapted layer."""
    if not hasattr(module, "peft_config"):
        return []
    from peft.tuners.tuners_utils import BaseTunerLayer

    def below(parent: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str, Any]]:
        for name, child in parent.named_children():
            if isinstance(child, BaseTunerLayer):
                yield parent, name, child
            else:
                yield from below(child)

    return list(below(module))


def layers(module: PreTrainedModel) -> list[tuple[str, Any]]:
    """(path in the model without adapters, injected layer), a layer that another is wrapped around included."""
    if not hasattr(module, "peft_config"):
        return []
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = ((path, layer) for path, layer in module.named_modules() if isinstance(layer, BaseTunerLayer))
    return [(path.replace(".base_layer", ""), layer) for path, layer in found]


def has(layer: BaseTunerLayer, name: str) -> bool:
    """Whether this injected layer holds weights of the adapter."""
    return any(name in getattr(layer, part, ()) for part in _PARTS)


def tensors(module: PreTrainedModel, name: str) -> dict[str, torch.nn.Parameter]:
    """An adapter's own weights under the names that `peft` gives them in a file."""
    found: dict[str, torch.nn.Parameter] = {}
    for path, layer in layers(module):
        for part in _PARTS:
            held = getattr(layer, part, None)
            if held is None or name not in held:
                continue
            within = isinstance(held[name], torch.nn.Module)
            suffix = ".weight" if within and part in ("lora_A", "lora_B") else ""
            found[f"{path}.{part}{suffix}"] = held[name].weight if within else held[name]
    return found


def weights(module: PreTrainedModel) -> list[torch.nn.Parameter]:
    """All trainable weights: without constant parameters of `peft`, entry copies and the tokens of frozen
    encoders."""
    still = (".ranknum.", ENTRY)
    return [
        parameter for name, parameter in module.named_parameters()
        if not any(part in name for part in still) and not name.startswith(f"{WORDS}.")
    ]


@contextmanager
def plain(module: PreTrainedModel) -> Iterator[None]:
    """Inside, the model is its base alone: no adapters, no heads; names and types are those of the library."""
    taken = outermost(module)
    heads = {name: module._modules.pop(name) for name in (*HEADS, WORDS) if name in module._modules}
    for parent, name, layer in taken:
        parent._modules[name] = layer.get_base_layer()
    try:
        yield
    finally:
        for parent, name, layer in taken:
            parent._modules[name] = layer
        module._modules.update(heads)


def spelled(module: PreTrainedModel, paths: Sequence[str]) -> list[str] | str:
    """``target_modules`` of `peft` for exactly these paths: short names where exact, else paths, else a pattern.

    In a list `peft` matches ends of paths, so that a path may catch a deeper layer of another part as well.
    """
    with plain(module):
        every = [path for path, _ in module.named_modules() if path]
    for spelling in (sorted({path.rpartition(".")[2] for path in paths}), sorted(paths)):
        ends = tuple(f".{name}" for name in spelling)
        if {path for path in every if path in spelling or path.endswith(ends)} == set(paths):
            return spelling
    return "|".join(re.escape(path) for path in paths)


@contextmanager
def merged(module: PreTrainedModel) -> Iterator[None]:
    """Inside, the base holds the merged weights of all adapters, for use with ``plain``."""
    with torch.no_grad():
        whole = [(layer.get_base_layer().weight, _effective(layer, names(module))) for _, _, layer in outermost(module)]
    kept = [weight.data for weight, _ in whole]
    for weight, effective in whole:
        weight.data = effective.to(weight.dtype)
    try:
        yield
    finally:
        for (weight, _), own in zip(whole, kept, strict=True):
            weight.data = own


def inject(module: PreTrainedModel, name: str, config: PeftConfig) -> None:
    """Put an adapter into the model, frozen and on, its first weights from torch's stream."""
    from peft import inject_adapter_in_model

    config.inference_mode = True  # the stage chooses what is trained; AdaLoRA refuses two that are not frozen
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning that there is an adapter already, which is intended
        inject_adapter_in_model(config, module, name)
    for _, layer in layers(module):
        if hasattr(layer.get_base_layer(), "groups") and not hasattr(layer, "groups"):
            layer.groups = layer.get_base_layer().groups  # an outer adapter of another kind reads them
    widen(module, name)
    dropout(module, name, 0.0)
    activate([layer for _, layer in layers(module)], names(module))


def widen(module: PreTrainedModel, name: str) -> None:
    """An adapter in float32, also on a base of fewer bits: its steps are smaller than those can say."""
    for parameter in tensors(module, name).values():
        if parameter.dtype in NARROW:
            parameter.data = parameter.data.float()


@torch.no_grad()
def copy_entry(module: PreTrainedModel, name: str) -> None:
    """A frozen copy of an adapter, in the same layers, off, under its name and ``ENTRY``; an older one is replaced."""
    twin, trained = name + ENTRY, [p for p in module.parameters() if p.requires_grad]
    config = copy.deepcopy(module.peft_config[name])
    for _, layer in layers(module):
        if has(layer, twin):
            layer.delete_adapter(twin)
        if has(layer, name):
            svd = hasattr(layer, "lora_E")
            rank = len(layer.lora_E[name]) if svd else layer.r[name]
            scale = {"alpha": layer.alpha[name]} if hasattr(layer, "alpha") else {"lora_alpha": layer.lora_alpha[name]}
            layer.update_layer(twin, rank, config=config, **scale)
            if svd:
                layer.ranknum[twin].copy_(layer.ranknum[name])
    module.peft_config[twin] = config
    widen(module, twin)
    values = tensors(module, name)
    for key, parameter in tensors(module, twin).items():
        parameter.copy_(values[key])
    dropout(module, twin, 0.0)
    activate([layer for _, layer in layers(module)], names(module))
    module.requires_grad_(False)  # peft changes requires_grad
    for parameter in trained:
        parameter.requires_grad_(True)


def activate(injected: Iterable[Any], active: Iterable[str]) -> None:
    """These adapters are on in these layers, in this order. Unlike `peft`'s own, it leaves ``requires_grad`` alone."""
    wanted = list(active)
    for layer in injected:
        layer._active_adapter = wanted


def dropout(module: PreTrainedModel, name: str, share: float) -> None:
    """Sets the dropout of an adapter's input in training: only the adapter that a stage trains has any."""
    for _, layer in layers(module):
        if name in getattr(layer, "lora_dropout", ()):
            layer.lora_dropout[name] = torch.nn.Dropout(share) if share else torch.nn.Identity()


@torch.no_grad()
def write(module: PreTrainedModel, name: str, values: Mapping[str, Tensor]) -> None:
    """Weights into an adapter that is there, each of whose ranks becomes that of the weights.

    Raises KeyError naming the first weight that is missing, belongs nowhere or has another shape.
    """
    config = module.peft_config[name]
    for path, layer in layers(module):
        given = values.get(f"{path}.lora_E") if name in getattr(layer, "lora_E", {}) else None
        if given is not None and len(given) != len(layer.lora_E[name]):
            layer.update_layer(name, len(given), config.lora_alpha, config=config)
            layer.ranknum[name].fill_(float(config.init_r))  # the scale stays that of the first rank
    widen(module, name)
    own = tensors(module, name)
    odd = sorted(own.keys() ^ values.keys())
    if odd:
        raise KeyError(f"{odd[0]} {'is missing' if odd[0] in own else 'belongs to no layer'}")
    for key, parameter in own.items():
        if parameter.shape != values[key].shape:
            raise KeyError(f"{key} is {tuple(values[key].shape)}, and the layer's {tuple(parameter.shape)}")
        parameter.copy_(values[key])


@torch.no_grad()
def merge(module: PreTrainedModel, chosen: Sequence[str] | None = None) -> None:
    """The chosen adapters into the base, and all removed; None: all, the same function within rounding.

    A quantized base becomes one of plain linear layers: 4 bits cannot say what an adapter adds.
    """
    wanted = [name for name in names(module) if chosen is None or name in chosen]
    _become(module, {path: _effective(layer, wanted) for path, (_, _, layer) in _paths(module)})


@torch.no_grad()
def add(module: PreTrainedModel, updates: Mapping[str, Tensor]) -> None:
    """Matrices (out, in), by the path of an adapted layer, into the base's weights, and all adapters removed."""
    weights = {}
    for path, (_, _, layer) in _paths(module):
        weight, update = _values(layer.get_base_layer().weight), updates.get(path)
        if update is not None:
            flipped = bool(getattr(layer, "fan_in_fan_out", False))
            weights[path] = weight + (update.T if flipped else update.reshape(weight.shape))
    _become(module, weights)


def _become(module: PreTrainedModel, weights: Mapping[str, Tensor]) -> None:
    for parent, name, layer in outermost(module):
        parent._modules[name] = layer.get_base_layer()
    if quantized(module):
        _dequantize(module)
    for path, weight in weights.items():
        module.get_submodule(path).weight.copy_(weight)
    if hasattr(module, "peft_config"):
        del module.peft_config


def _paths(module: PreTrainedModel) -> list[tuple[str, tuple[torch.nn.Module, str, Any]]]:
    """``outermost`` with the path of each layer in the model without adapters."""
    known = {id(layer): path for path, layer in module.named_modules()}
    return [(known[id(layer)], (parent, name, layer)) for parent, name, layer in outermost(module)]


def _effective(outer: BaseTunerLayer, active: list[str]) -> Tensor:
    """The merged weight of a layer with all its adapters.

    ``peft`` merges a layer's own adapters correctly, but not DoRA wrapped around AdaLoRA: its merge takes the norm of
    the merged weight, while the forward pass takes that of the base.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    chain = [outer]
    while isinstance(chain[-1].base_layer, BaseTunerLayer):
        chain.append(chain[-1].base_layer)
    base = _values(outer.get_base_layer().weight)
    weight = base.clone()
    for layer in reversed(chain):
        flipped = bool(getattr(layer, "fan_in_fan_out", False))  # weights (in, out), as GPT-2 has them
        for name in active:
            if not has(layer, name):
                continue
            delta = layer.get_delta_weight(name)
            weight = weight + delta
            if name in getattr(layer, "lora_variant", ()):  # DoRA: magnitude over norm, a row of the output each
                magnitude = layer.lora_magnitude_vector[name]
                norm = magnitude.get_weight_norm(base, delta.T if flipped else delta, scaling=1)
                factor = (magnitude.weight / norm).reshape(-1)
                weight = weight * (factor if flipped else factor.reshape(-1, *[1] * (weight.ndim - 1)))
    return weight


def quantized(module: PreTrainedModel) -> bool:
    """Whether the base is in 4 bits (bitsandbytes)."""
    return any(hasattr(parameter, "quant_state") for parameter in module.parameters())


def _dequantize(module: PreTrainedModel) -> None:
    """Linear layers of plain weights in place of those in 4 bits (the library's own fails where the dtype is text)."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            weight: Any = getattr(child, "weight", None)
            if hasattr(weight, "quant_state"):
                linear: Any = child
                plain_layer = torch.nn.Linear(linear.in_features, linear.out_features, bias=False, device="meta")
                plain_layer.weight = torch.nn.Parameter(_values(weight), requires_grad=False)
                plain_layer.bias = linear.bias
                parent._modules[name] = plain_layer
    for owner, names_of in ((module.config, _OF_CONFIG), (module, _OF_MODULE)):
        for name in names_of:
            if name in vars(owner):
                delattr(owner, name)


def _values(weight: Tensor) -> Tensor:
    """The numbers of a weight that may be quantized (bitsandbytes)."""
    state = getattr(weight, "quant_state", None)
    if state is None:
        return weight
    from bitsandbytes.functional import dequantize_4bit

    found: Tensor = dequantize_4bit(weight.data, state)
    return found
