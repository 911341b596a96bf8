"""Layers of a U-Net of diffusers under the names that Stability's own code gives them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers.configuration_utils import FrozenDict

_BLOCK = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")
_ENDS = {
    "conv_in": "input_blocks.0.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_RESNET = {
    "conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def sgm(path: str, config: FrozenDict) -> str:
    """``config`` is the U-Net's; each of its levels is counted as so many blocks and one for the change of size."""
    if path in _ENDS:
        return _ENDS[path]
    middle = _MIDDLE.fullmatch(path)
    if middle:
        kind, number, rest = middle.groups()
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(number)}.{_inside(kind, rest)}"
    block = _BLOCK.fullmatch(path)
    if not block:
        raise ValueError(f"a U-Net of diffusers has no layer '{path}'")
    side, level, kind, number, rest = block.groups()
    first, each, at = int(level) * (int(config.layers_per_block) + 1), int(config.layers_per_block) + 1, int(number)
    attends = "Attn" in (config.down_block_types if side == "down_blocks" else config.up_block_types)[int(level)]
    if side == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{first + each}.0.op"
        return f"input_blocks.{1 + first + at}.{int(kind == 'attentions')}.{_inside(kind, rest)}"
    if kind == "upsamplers":
        return f"output_blocks.{first + each - 1}.{1 + attends}.{rest}"
    return f"output_blocks.{first + at}.{int(kind == 'attentions')}.{_inside(kind, rest)}"


def _inside(kind: str, rest: str) -> str:
    return _RESNET.get(rest, rest) if kind == "resnets" else rest
