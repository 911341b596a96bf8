"""Dual encoders of ``transformers``: any that AutoModel opens and that computes features of images and texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from upturn.embeddings.pretrained import located, quiet, without_dropout
from upturn.embeddings.processors import Reader
from upturn.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
    from transformers.utils import ModelOutput

_FIXED = frozenset({"siglip", "siglip2"})  # trained on texts padded to their full length: the library's docs ask for it
_LONGEST = 77  # tokens, where the config gives no limit (CLIP's)
_EVERYTHING = "100TB"  # one file of weights whatever its size
_FIX = "It needs config.json, model.safetensors, a tokenizer and an image processor's config: CLIP, SigLIP, AltCLIP, …"


class TransformersEncoder(nn.Module):
    """The library's model with the interface of the small one: unit vectors and the scale of their cosines."""

    def __init__(self, inner: PreTrainedModel) -> None:
        super().__init__()
        self.inner = inner

    @property
    def scale(self) -> Tensor:
        found = getattr(self.inner, "logit_scale", None)
        return torch.ones(()) if found is None else found.reshape(()).exp()

    def image(self, pixels: Tensor) -> Tensor:
        return _unit(self.inner.get_image_features(pixel_values=pixels))

    def text(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        return _unit(self.inner.get_text_features(input_ids=ids, attention_mask=mask))

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        return self.image(pixels), self.text(ids, mask), self.scale


def _unit(out: ModelOutput) -> Tensor:
    features = out if isinstance(out, Tensor) else out.pooler_output
    return nn.functional.normalize(features.float(), dim=-1)


def read(folder: str | None, hub: str | None) -> tuple[TransformersEncoder, Reader]:
    """UserError where it is no dual encoder, a file is missing, or weights would have been random."""
    return located(folder, hub, _read)


def _read(name: str, where: str, local: bool) -> tuple[TransformersEncoder, Reader]:
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

    plain: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    try:
        with quiet():
            config = AutoConfig.from_pretrained(name, **plain)
            without_dropout(config, {})
            for part in ("text_config", "vision_config"):
                if hasattr(getattr(config, part, None), "to_dict"):
                    without_dropout(getattr(config, part), {})
            inner, report = AutoModel.from_pretrained(
                name, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **plain
            )
            tokenizer = AutoTokenizer.from_pretrained(name, **plain)
            processor = AutoImageProcessor.from_pretrained(name, **plain)
    except Exception as error:  # the readers of weights, JSON and tokenizers raise exceptions of any class
        lines = str(error).strip().splitlines()
        raise UserError(f"'{name}' cannot be read as a dual encoder: {lines[0] if lines else repr(error)}", where=where,
                        fix=_FIX) from error
    if not (hasattr(inner, "get_image_features") and hasattr(inner, "get_text_features")):
        raise UserError(f"a '{config.model_type}' computes no features of images and texts", where=where, fix=_FIX)
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise UserError(f"{len(missing)} weights are missing (the first is {missing[0]}) and would have been random",
                        where=where, fix="Give a whole dual encoder.")
    return TransformersEncoder(inner.eval()), Reader(
        tokenizer, processor, _length(tokenizer, config), config.model_type in _FIXED
    )


def _length(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int:
    """Tokens of a text at most."""
    text = getattr(config, "text_config", config)
    places = getattr(text, "max_position_embeddings", None) or _LONGEST
    if "roberta" in str(getattr(text, "model_type", "")) or getattr(text, "type_vocab_size", 0) == 1:
        places -= 1 + (getattr(text, "pad_token_id", None) or 0)  # positions are counted from behind the padding's
    return min(int(places), int(tokenizer.model_max_length))


def save(module: TransformersEncoder, reader: Reader, folder: Path) -> None:
    """What ``read`` opens, without paths; equal weights give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    inner: Any = module.inner
    inner.config._name_or_path = ""
    inner.name_or_path = ""
    with quiet():
        inner.save_pretrained(str(folder), max_shard_size=_EVERYTHING)
        reader.tokenizer.name_or_path = ""
        reader.tokenizer.save_pretrained(str(folder))
        reader.processor.save_pretrained(str(folder))
