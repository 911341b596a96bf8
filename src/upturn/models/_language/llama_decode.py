"""One decoding step of Llama-shaped models without the framework around it.

At a million parameters a step of `transformers` is nine parts Python to one part arithmetic: hooks, keyword
arguments, masks built again, a cache that is copied at every token. Here a step is the arithmetic alone, on the same
modules' weights, with a cache that is allocated once. Models that it cannot reproduce exactly use `transformers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from upturn.models._language.packed_rows import ATTENTION

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

_LLAMA_SHAPED = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"})
_JOINED = 1 << 22  # weights (16 MB) up to which maps are joined: above, the cost of a call is negligible


def fits(module: PreTrainedModel) -> bool:
    """Whether :class:`LlamaStep` computes the same as this model's forward pass: full causal attention, and all weights
    in float32 or all in bfloat16.

    Layers with an adapter are called as they are; sliding windows and other kinds of attention are not supported.
    """
    if type(module).__name__ not in _LLAMA_SHAPED or not type(module).__module__.startswith("transformers."):
        return False
    config = module.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    slides = type(module).__name__ == "MistralForCausalLM" and config.sliding_window is not None
    plain = config._attn_implementation in {"sdpa", "eager", ATTENTION} and kinds == {"full_attention"} and not slides
    kinds_of_weights = {parameter.dtype for parameter in module.parameters()}
    return plain and kinds_of_weights in ({torch.float32}, {torch.bfloat16})


class LlamaStep:
    """``next(tokens)`` (rows,) -> logits (rows, V) of the token after; ``keep(rows)`` leaves the others out.

    cache  of `transformers`, after the prompts were read: a layer's keys and values are (rows, heads, L, width)
    mask   (rows, L) 1 on a row's prompt, None where none was padded
    at     (rows,) position of each row's next token
    free   tokens that may follow
    """

    def __init__(
        self, module: PreTrainedModel, cache: DynamicCache, mask: Tensor | None, at: Tensor, free: int
    ) -> None:
        self.head, self.inner, self.at = module.lm_head, module.model, at
        self.used = cache.get_seq_length()
        self.blocks = [_Block(layer) for layer in self.inner.layers]
        self.kept = [
            tuple(F.pad(part, (0, 0, 0, free)) for part in (layer.keys, layer.values)) for layer in cache.layers
        ]
        self.mask = None if mask is None else F.pad(mask.bool(), (0, free), value=True)

    def next(self, tokens: Tensor) -> Tensor:
        x = self.inner.embed_tokens(tokens)
        cos, sin = self.inner.rotary_emb(x, self.at[:, None])
        first, self.used, self.at = self.used, self.used + 1, self.at + 1
        seen = None if self.mask is None else self.mask[:, None, None, : self.used]
        for block, (keys, values) in zip(self.blocks, self.kept, strict=True):
            x = block(x, cos, sin, keys, values, first, seen)
        logits: Tensor = self.head(_scaled(x, self.inner.norm) * self.inner.norm.weight)
        return logits

    def keep(self, rows: Tensor) -> None:
        self.kept = [tuple(part[rows] for part in layer) for layer in self.kept]
        self.at = self.at[rows]
        self.mask = None if self.mask is None else self.mask[rows]


def _scaled(x: Tensor, norm: LlamaRMSNorm) -> Tensor:
    """x over its root mean square (Zhang & Sennrich 2019, equation 4), in float32, not yet times the weight."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + norm.variance_epsilon)).to(x.dtype)


class _Joined:
    """Several linear maps of one normed row, side by side: (rows, D) -> (rows, sum of their outputs).

    Small plain ones are one matrix, in float32 with the norm's weight inside it; others (large, or with adapters)
    stay as they are.
    """

    def __init__(self, norm: LlamaRMSNorm, *maps: Any) -> None:
        self.norm, self.maps = norm, maps
        self.weight: Tensor | None = None
        if all(type(each) is torch.nn.Linear for each in maps) and sum(m.weight.numel() for m in maps) <= _JOINED:
            self.weight = torch.cat([each.weight for each in maps])
            self.normed = self.weight.dtype == torch.float32  # in bfloat16 the product would be rounded
            if self.normed:
                self.weight = self.weight * norm.weight
            biases = [each.bias for each in maps]
            self.bias = None if biases[0] is None else torch.cat(biases)

    def __call__(self, x: Tensor) -> Tensor:
        x = _scaled(x, self.norm)
        if self.weight is not None:
            return F.linear(x if self.normed else x * self.norm.weight, self.weight, self.bias)
        x = x * self.norm.weight
        return torch.cat([each(x) for each in self.maps], dim=-1)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021, equation 34, halves instead of pairs) of x (rows, heads, width)."""
    left, right = x.chunk(2, dim=-1)
    return torch.addcmul(x * cos, torch.cat((-right, left), dim=-1), sin)


class _Block:
    """A layer's maps, prepared once."""

    def __init__(self, layer: LlamaDecoderLayer) -> None:
        attends, feeds = layer.self_attn, layer.mlp
        self.projections = _Joined(layer.input_layernorm, attends.q_proj, attends.k_proj, attends.v_proj)
        self.fed = _Joined(layer.post_attention_layernorm, feeds.gate_proj, feeds.up_proj)
        self.out, self.down, self.bend = attends.o_proj, feeds.down_proj, feeds.act_fn
        self.width, self.scale = attends.head_dim, attends.scaling

    def __call__(
        self, x: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, at: int, seen: Tensor | None
    ) -> Tensor:
        """(rows, D); writes column ``at`` of the cache, and attends to all up to it that ``seen`` allows."""
        rows, shared = keys.shape[:2]
        heads = self.projections(x).view(rows, -1, self.width)
        turned = _turned(heads[:, :-shared], cos, sin)
        keys[:, :, at], values[:, :, at] = turned[:, -shared:], heads[:, -shared:]
        # heads that share keys take the place of query positions: one query token needs no causal mask
        grouped = turned[:, :-shared].reshape(rows, shared, -1, self.width)
        met = F.scaled_dot_product_attention(
            grouped, keys[:, :, : at + 1], values[:, :, : at + 1], attn_mask=seen, scale=self.scale)
        x = x + self.out(met.reshape(rows, -1))
        gate, up = self.fed(x).chunk(2, dim=-1)
        return x + self.down(self.bend(gate) * up)  # type: ignore[no-any-return]
