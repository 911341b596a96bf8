"""Rows of uneven length as one sequence without padding; no token attends to another row.

Linear maps, norms and the head run on all tokens at once; attention runs row by row, equal lengths together, so that
its cost is that of the rows and no mask is built. Positions begin at 0 in every row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION = "packed_rows"  # the name of our attention in `transformers`; without packed rows it is sdpa
# largest difference of logits, relative to their own size: packed and unpacked differ by rounding alone
_CLOSE, _CLOSE_ROUNDED = 1e-4, 3e-2  # in 32 and in 16 bits
_PROBE = (3, 5, 3)  # lengths of the rows that are compared
_known: WeakKeyDictionary[torch.nn.Module, str] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class PackedRows:
    """The places of N rows of ``lengths`` (N,), at least 1, in one sequence, shortest first.

    order   (N,) the row at each place;  width  columns of the padded (N, width) tables
    counts  (how many rows, their length) for each length
    """

    lengths: Tensor
    width: int

    @cached_property
    def order(self) -> Tensor:
        return self.lengths.argsort(stable=True)

    @cached_property
    def counts(self) -> list[tuple[int, int]]:
        length, count = torch.unique(self.lengths, return_counts=True)
        return list(zip(count.tolist(), length.tolist(), strict=True))

    @cached_property
    def index(self) -> Tensor:
        """(tokens,) the place of each token of the sequence in the flat padded table."""
        span = torch.arange(self.width, device=self.lengths.device)
        inside = span[None, :] < self.lengths[self.order, None]
        return (self.order[:, None] * self.width + span[None, :])[inside]

    @property
    def positions(self) -> Tensor:
        """(1, tokens) the position of each token in its row."""
        return (self.index % self.width)[None, :]

    def pack(self, padded: Tensor) -> Tensor:
        """(1, tokens) of (N, width)."""
        return padded.reshape(-1)[self.index][None, :]

    def unpack(self, packed: Tensor) -> Tensor:
        """(N, width) of (1, tokens), 0 outside of the rows."""
        flat = packed.new_zeros(len(self.lengths) * self.width).index_copy(0, self.index, packed[0])
        return flat.view(len(self.lengths), self.width)

    def inputs(self, module: PreTrainedModel, padded: Tensor) -> dict[str, Any]:
        """What a `transformers` model is called with for the tokens of (N, width)."""
        config = module.config.get_text_config()
        if config._attn_implementation != ATTENTION:
            _register()
            module.config._attn_implementation = ATTENTION
        # a mask of four dimensions is passed on as it is; attention by rows reads none
        unread = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=padded.device)
        return {
            "input_ids": self.pack(padded), "position_ids": self.positions, "attention_mask": unread,
            "use_cache": False, "packed_rows": self,
        }


def _attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    packed_rows: PackedRows | None = None, **options: Any,
) -> tuple[Tensor, None]:
    """(1, tokens, heads, width) of causal attention within each row, for (1, heads, tokens, width)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward as plain

    if packed_rows is None:
        whole: tuple[Tensor, None] = plain(module, query, key, value, attention_mask, **options)
        return whole
    options.pop("is_causal", None)
    sizes = [count * length for count, length in packed_rows.counts]
    # split and cat: their backward passes copy each token once
    parts = [torch.split(each.transpose(1, 2), sizes, dim=1) for each in (query, key, value)]
    found = []
    for (count, length), *each in zip(packed_rows.counts, *parts, strict=True):
        rows = [part.reshape(count, length, *part.shape[2:]).transpose(1, 2) for part in each]
        met, _ = plain(module, *rows, None, is_causal=True, **options)
        found.append(met.reshape(1, count * length, *met.shape[2:]))
    return torch.cat(found, dim=1), None


def _register() -> None:
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def refusal(module: PreTrainedModel) -> str:
    """Why rows cannot be packed for this model; "" where they can."""
    if module not in _known:
        _known[module] = _refusal(module)
    return _known[module]


@torch.no_grad()
def _refusal(module: PreTrainedModel) -> str:
    """Attention over the whole text, and on three short rows the logits of the rows one by one.

    Compared by the logits, not by the model's name: what reaches attention differs between models.
    """
    config = module.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    slides = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    if kinds != {"full_attention"} or slides:
        return "it does not attend to the whole text in every layer"
    before = config._attn_implementation
    if before not in {"sdpa", "eager", ATTENTION}:
        return f"its attention is '{before}', and packed rows run with sdpa"
    device = module.get_input_embeddings().weight.device
    rows = PackedRows(torch.tensor(_PROBE, device=device), max(_PROBE))
    tokens = torch.arange(len(_PROBE) * max(_PROBE), device=device).view(len(_PROBE), -1) % config.vocab_size
    was_training = module.training
    module.eval()
    try:
        with torch.random.fork_rng():
            alone = [module(input_ids=tokens[i : i + 1, :n], use_cache=False).logits[0] for i, n in enumerate(_PROBE)]
            together = module(**rows.inputs(module, tokens)).logits[0]
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        return f"its forward pass refuses packed rows ({error})"
    finally:
        module.train(was_training)
        module.config._attn_implementation = before
    expected = torch.cat([alone[i] for i in rows.order.tolist()])
    gap = (together - expected).abs().max() / expected.abs().max().clamp_min(1e-6)
    limit = _CLOSE if together.dtype == torch.float32 else _CLOSE_ROUNDED
    return "" if together.shape == expected.shape and bool(gap <= limit) else "its tokens would attend to other rows"
