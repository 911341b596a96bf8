"""Dual encoders for tests: one with a known embedding space, and tiny ones of ``transformers`` on the disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from upturn.config import components
from upturn.types import Prompt, Samples, real_samples

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}


class Colours:
    """An image is its mean colour, a text the colour that it names; both of unit length about grey."""

    id = "colours"
    scale = 10.0

    def images(self, content: np.ndarray) -> np.ndarray:
        return _unit(content.reshape(len(content), -1, 3).mean(axis=1) - 85)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return _unit(np.array([next((c for n, c in COLOURS.items() if n in t), (255, 255, 255)) for t in texts]) - 85.0)


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def opened(name: str, source: dict[str, str]) -> Any:
    model = components.make("model", {"name": name, **source})
    model.open()
    return model


def tools(**given: Any) -> Any:
    """``protocols.Tools`` with a dual encoder by the name "dual", and pixels for features."""
    models = given.pop("models", {"dual": Colours()})
    flat: Any = lambda samples: samples.content.reshape(len(samples), -1).astype(np.float32) / 255  # noqa: E731
    empty = image_samples(np.zeros((0, 4, 4, 3), np.uint8), [])
    found = {"train": empty, "held_out": empty, "classes": (), "embed": flat, "model": models.__getitem__,
             "pretrained": opened}
    return SimpleNamespace(**{**found, **given})


def image_samples(content: np.ndarray, prompts: Sequence[Prompt], **fields: Any) -> Samples:
    return real_samples("image", content, list(prompts), "made", fields)


def coloured(names: Sequence[str], rng: np.random.Generator, size: int = 8, noise: float = 20) -> np.ndarray:
    """(N, size, size, 3) uint8 of these colours with noise."""
    base = np.array([COLOURS[name] for name in names], dtype=np.float64)[:, None, None, :]
    return np.clip(base + noise * rng.standard_normal((len(names), size, size, 3)), 0, 255).astype(np.uint8)


def processor(folder: Path, kind: str, side: int) -> None:
    """As the library writes it, in the form that every version reads."""
    given: dict[str, Any] = {
        "image_processor_type": kind, "do_resize": True, "size": {"height": side, "width": side}, "resample": 3,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.25, 0.3],
    }
    if kind == "CLIPImageProcessor":
        given |= {"size": {"shortest_edge": side}, "do_center_crop": True, "crop_size": {"height": side, "width": side},
                  "do_convert_rgb": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(given))


def tokenizer(folder: Path, length: int) -> Any:
    """A word-level one with CLIP's ends."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", "<unk>", "a", "picture", "of", *COLOURS, "cat", "dog", "house"]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        model_max_length=length,
    )
    fast.save_pretrained(folder)
    return fast


def tiny_clip(folder: Path) -> Path:
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    torch.manual_seed(0)
    shared = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = CLIPTextConfig(vocab_size=14, max_position_embeddings=8, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                          **shared)
    vision = CLIPVisionConfig(image_size=16, patch_size=4, **shared)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=12)
    CLIPModel(config).save_pretrained(folder)
    tokenizer(folder, 8)
    processor(folder, "CLIPImageProcessor", 16)
    return folder


def tiny_siglip(folder: Path) -> Path:
    import torch
    from transformers import SiglipConfig, SiglipModel, SiglipTextConfig, SiglipVisionConfig

    torch.manual_seed(0)
    shared = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = SiglipTextConfig(vocab_size=14, max_position_embeddings=8, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                            **shared)
    vision = SiglipVisionConfig(image_size=16, patch_size=4, **shared)
    SiglipModel(SiglipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())).save_pretrained(folder)
    tokenizer(folder, 8)
    processor(folder, "SiglipImageProcessor", 16)
    return folder
