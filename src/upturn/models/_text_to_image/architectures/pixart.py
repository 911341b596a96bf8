"""PixArt: a transformer that attends to T5's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from upturn.diffusion.joint import Read
from upturn.embeddings.unwrap import unwrapped
from upturn.models._text_to_image.architectures.architecture import Family, padded
from upturn.models._text_to_image.architectures.stable_diffusion import VAES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOKENS = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}  # the pipelines' own max_sequence_length
_LARGE = 128  # latents a side from which the transformer takes resolution and aspect ratio as inputs


class PixArt(Family):
    """Chen et al. 2023 (alpha) and 2024 (sigma). The half of the output that is a learned variance is ignored, in
    sampling as in the pipeline; nothing trains it. Captions are lowercased, as the pipeline does."""

    pipelines: ClassVar[tuple[str, ...]] = tuple(_TOKENS)
    denoiser: ClassVar[str] = "transformer"
    components: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "transformer": ("PixArtTransformer2DModel", "Transformer2DModel"), "vae": VAES,
        "text_encoder": ("T5EncoderModel",), "tokenizer": ("T5Tokenizer", "T5TokenizerFast"),
    }
    trains: ClassVar[tuple[str, ...]] = ()

    def tokens(self, name: str, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Read:
        return padded(tokenizer, [text.lower().strip() for text in texts], _TOKENS[self.index["_class_name"]])

    def read(self, name: str, encoder: nn.Module, tokens: Read) -> Read:
        return {"hidden": encoder(tokens["ids"], attention_mask=tokens["mask"])[0], "mask": tokens["mask"]}

    def denoise(self, denoiser: nn.Module, x: Tensor, time: Tensor, text: Read, factor: int) -> Tensor:
        config: Any = unwrapped(denoiser).config
        added: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if config.sample_size == _LARGE:
            high, wide = (factor * side for side in x.shape[-2:])
            added = {"resolution": x.new_tensor([[high, wide]]).expand(len(x), -1),
                     "aspect_ratio": x.new_full((len(x), 1), high / wide)}
        out: Tensor = denoiser(
            x, encoder_hidden_states=text["hidden"], encoder_attention_mask=text["mask"], timestep=time,
            added_cond_kwargs=added, return_dict=False,
        )[0]
        return out[:, : x.shape[1]]
