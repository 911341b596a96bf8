"""How the weights of a `transformers` model are held in memory: data type, quantization, attention, checkpointing."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from upturn.errors import UserError

Dtype = Literal["float32", "bfloat16", "float16"]
Quantization = Literal["nf4", "fp4"]


@dataclass(frozen=True)
class WeightFormat:
    """``attention`` None is the library's own choice. ``quantization`` is of the linear layers but the output."""

    dtype: str = "float32"
    attention: str | None = None
    quantization: str | None = None
    gradient_checkpointing: bool = False

    def check(self) -> None:
        """ValueError for a value that there is not."""
        if self.dtype not in get_args(Dtype):
            raise ValueError(f"dtype must be one of {', '.join(get_args(Dtype))}, not {self.dtype!r}")
        if self.quantization is not None and self.quantization not in get_args(Quantization):
            raise ValueError(f"quantization must be one of {', '.join(get_args(Quantization))}, not "
                             f"{self.quantization!r}")

    def config_arguments(self) -> dict[str, Any]:
        """Of ``from_config``. UserError where the model is to be quantized: random weights are to be trained."""
        if self.quantization is not None:
            raise UserError("a model with random weights cannot be trained in 4 bits", where="model.quantization",
                            fix="Leave it out, or give 'folder:' or 'hub:'.")
        found: dict[str, Any] = {"dtype": getattr(torch, self.dtype)}
        return found if self.attention is None else {**found, "attn_implementation": self.attention}

    def read_arguments(self) -> dict[str, Any]:
        """Of ``from_pretrained``. UserError where a library is missing."""
        if self.quantization is None:
            return self.config_arguments()
        if importlib.util.find_spec("bitsandbytes") is None:
            raise UserError(
                f"'quantization: {self.quantization}' needs bitsandbytes, which is not installed",
                where="model.quantization", fix="pip install 'upturn[eight-bit]', or leave 'quantization:' out.",
            )
        from transformers import BitsAndBytesConfig

        # Dettmers et al. 2023 (QLoRA), section 3: NF4, and the constants of blocks quantized again
        quantized = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=self.quantization, bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, self.dtype),
        )
        return {**WeightFormat(self.dtype, self.attention).config_arguments(), "quantization_config": quantized}

    def refusal(self, reason: str) -> UserError | None:
        """The message where the format may be why a model cannot be read; None where it is the default."""
        if self.quantization is not None:
            return UserError(
                f"the model cannot be read in 4 bits: {reason}", where="model.quantization",
                fix="Leave it out, or use a machine and a version of bitsandbytes that support it.",
            )
        if self.attention is not None:
            return UserError(
                f"the model cannot be read with this attention: {reason}", where="model.attn_implementation",
                fix="Use sdpa or eager, or leave it out.",
            )
        return None

    def apply(self, module: Any) -> None:
        """To a model that was read: activations are computed again in the backward pass, in training mode alone.

        Chen et al. 2016, "Training deep nets with sublinear memory cost", section 3: a layer's input is kept.
        """
        if not self.gradient_checkpointing:
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # versions before 5 have this name alone
                module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        except ValueError as error:
            raise UserError(
                f"this architecture has no gradient checkpointing: {error}", where="model.gradient_checkpointing",
                fix="Leave it out, and lower 'micro_batch:' of the training.",
            ) from error


PLAIN = WeightFormat()
