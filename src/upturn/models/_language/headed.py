"""The base of text models with a head: [BOS] prompt completion [EOS] in, A numbers out, read at the last token."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from upturn.data.chat_template import TrainOn
from upturn.data.tokenizers import Codec
from upturn.models._language import headed_checkpoints
from upturn.models._language.text_model import TextModel
from upturn.types import Batch


@dataclass(eq=False)
class HeadedText(TextModel):
    """A causal language model of `transformers` with a linear head on the state of the last token, EOS.

    Exactly one of ``config`` (random weights), ``folder`` and ``hub`` is given, as in causal_lm; a folder may be that
    of a causal_lm of an earlier stage or run (the head is then new) or of a model with such a head (it is kept).
    Padding is on the right and nothing attends to it: a score is the same in any batch.
    ``AutoModelForSequenceClassification`` opens the saved folder.
    """

    @property
    def _outputs(self) -> int:
        return 1

    @property
    def _learned_part(self) -> TrainOn:
        return "all"  # the head is read at the last token of a conversation, whoever wrote it

    def _from_config(self, config: dict[str, Any], codec: Codec) -> torch.nn.Module:
        return headed_checkpoints.from_config(config, codec, self._outputs, self._weights)

    def _from_files(self) -> tuple[torch.nn.Module, Codec]:
        return headed_checkpoints.from_files(self.folder, self.hub, self._outputs, self._weights)[:2]

    def _settle(self, settings: dict[str, Any]) -> None:
        """Take over the settings of ``_settings``."""

    def _from_saved(self, folder: Path, settings: dict[str, Any]) -> tuple[torch.nn.Module, Codec]:
        self._settle(settings)
        return headed_checkpoints.load(folder, self._outputs, self._weights)

    def _read(self, batch: Batch) -> Tensor:
        """(N, A) outputs of the head, at least float32.

        The library reads it at the last token that is not padding, so all padding becomes its padding token.
        (Where the padding token is the tokenizer's unknown one and a *cut* completion ends in it, it is read earlier,
        the same in any batch, as the library does with the saved model.)
        """
        tokens, mask = batch["tokens"], batch["mask"] > 0
        places = torch.arange(tokens.shape[1], device=tokens.device)
        last = torch.where(mask, places, 0).amax(dim=1, keepdim=True)
        tokens = torch.where(places > last, self.codec.pad, tokens)
        logits: Tensor = self.module(input_ids=tokens, use_cache=False).logits
        return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
