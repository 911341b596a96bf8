"""What text models with a head share: [BOS] prompt completion [EOS] in, A numbers out, read at the last token."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from upturn import seeds
from upturn.errors import UserError
from upturn.models import _pretrained, _reward_weights, _template, _tokenizer
from upturn.store import files
from upturn.types import Batch, Draw, Kind, Ragged, Samples, content_id

_SETTINGS = "upturn.json"


@dataclass(eq=False)
class HeadedText:
    """A causal language model of `transformers` with a linear head on the state of the last token, EOS.

    Exactly one of ``config`` (random weights), ``folder`` and ``hub`` says which, as in causal_lm; a folder may be that
    of a causal_lm of an earlier stage or run (the head is then new) or of a model with such a head (it is kept).
    Padding stands on the right and nothing attends to it: a score is the same in any batch.
    """

    config: dict[str, Any] | None = None
    folder: str | None = None
    hub: str | None = None
    tokenizer: dict[str, Any] = field(default_factory=lambda: {"kind": "characters"})
    max_length: int | None = None
    truncated_at_most: float = 0.0  # the share of completions that may be cut; none, unless it is allowed
    id: str = field(default="", init=False)
    notes: tuple[str, ...] = field(default=(), init=False)  # of the last encode: what was cut or unknown, counted
    module: torch.nn.Module = field(init=False, repr=False)

    kind: ClassVar[Kind] = "text"
    name: ClassVar[str]

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.config, self.folder, self.hub)) != 1:
            raise ValueError(f"{self.name} needs exactly one of config, folder and hub")
        if self.config is not None and not isinstance(self.config.get("model_type"), str):
            raise ValueError("config needs a model_type, such as llama or gpt2")
        if self.max_length is not None and self.max_length < 2:
            raise ValueError("max_length is at least 2: BOS and EOS")
        if not 0 <= self.truncated_at_most <= 1:
            raise ValueError("truncated_at_most is a share between 0 and 1")
        _tokenizer.check(self.tokenizer)

    def _settings(self) -> dict[str, Any]:
        """JSON-ready: what ``load`` must know beside the weights."""
        return {}

    def _settle(self, settings: dict[str, Any]) -> None:
        """Take over what ``_settings`` wrote."""

    @property
    def _outputs(self) -> int:
        return 1

    def build(self, examples: Samples, key: int) -> None:
        """Weights (and tokenizer) for these training samples; UserError where the model cannot be had."""
        self._need_text(examples)
        seeds.seed_torch(key)
        if self.config is not None:
            texts = _template.distinct([p.text for p in examples.prompts])[0] + [str(c) for c in examples.content]
            self.codec, _ = _tokenizer.settle(_tokenizer.train(self.tokenizer, texts), "model.tokenizer")
            self.module = _reward_weights.from_config(self.config, self.codec, self._outputs)
        else:
            self.module, self.codec, _ = _reward_weights.from_files(self.folder, self.hub, self._outputs)
        said = json.dumps([self.config, self._settings()], sort_keys=True)
        self.id = content_id(self.name, key, said, self.folder, self.hub)
        self._positions()

    def _need_text(self, samples: Samples) -> None:
        if samples.kind != "text":
            raise UserError(f"{self.name} reads text, and these samples are {samples.kind}", where="model")

    def _positions(self) -> int:
        """Tokens in a row at most: ``max_length``, or the model's own number of positions."""
        own = getattr(_pretrained.bare(self.module).config.get_text_config(), "max_position_embeddings", None)
        if self.max_length is None and own is None:
            raise UserError(
                "this model has no limit of its own", where="model.max_length", fix="State max_length in tokens."
            )
        if self.max_length is not None and own is not None and self.max_length > own:
            raise UserError(
                f"max_length is {self.max_length}, and the model has only {own} positions", where="model.max_length",
                fix="Lower max_length, or give the config more positions.",
            )
        return int(own if self.max_length is None else self.max_length)  # type: ignore[arg-type]

    def encode(self, samples: Samples) -> Batch:
        """Ragged "tokens" and "mask" as causal_lm has them; see ``notes`` for what was cut."""
        self._need_text(samples)
        batch, self.notes = _template.encode(self.codec, samples, self._positions(), self.truncated_at_most)
        return batch

    def draw(self, batch: Batch, key: int, start: int) -> Draw | None:
        return None

    def _read(self, batch: Batch) -> Tensor:
        """(N, A) what the head says, at least float32.

        The library reads it at the last token that is not padding: so whatever a batch was padded with becomes that.
        (Where the padding token is the tokenizer's unknown one and a *cut* completion ends in it, it is read earlier,
        in any batch alike, as the library does with the saved model.)
        """
        tokens, mask = batch["tokens"], batch["mask"] > 0
        places = torch.arange(tokens.shape[1], device=tokens.device)
        last = torch.where(mask, places, 0).amax(dim=1, keepdim=True)
        tokens = torch.where(places > last, self.codec.pad, tokens)
        said: Tensor = self.module(input_ids=tokens, use_cache=False).logits
        return said.float() if said.dtype in (torch.bfloat16, torch.float16) else said

    def save(self, folder: Path) -> None:
        """What ``AutoModelForSequenceClassification`` and ``AutoTokenizer`` open, and ``upturn.json``."""
        _pretrained.save(self.module, folder)
        self.codec.save(folder)
        settings = {"model": self.name, "template": _template.NAME, **self._settings()}
        (folder / _SETTINGS).write_text(files.to_json(settings), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """The weights, the head and the tokenizer of ``save``; UserError where they cannot be read."""
        settings = files.read_json(folder / _SETTINGS)
        if not isinstance(settings, dict) or settings.get("model") != self.name:
            raise UserError(f"is not the config of a {self.name}", where=str(folder / _SETTINGS))
        if settings.get("template") != _template.NAME:
            raise UserError(f"was trained with the template {settings.get('template')!r}, not {_template.NAME!r}",
                            where=str(folder / _SETTINGS))
        self._settle(settings)
        self.module, self.codec = _reward_weights.load(folder, self._outputs)
        self.id = files.tree_hash(folder)[:16]

    def flops(self, batch: Batch) -> float:
        """2 a weight and token, and 4 a layer, width and pair of tokens (Kaplan et al. 2020, table 1)."""
        module = _pretrained.bare(self.module)
        config = module.config.get_text_config()
        matrices = sum(p.numel() for p in module.parameters() if p.dim() > 1)
        matrices -= module.get_input_embeddings().weight.numel()  # looked up, not multiplied
        column = batch.columns["tokens"]
        if isinstance(column, Ragged):
            lengths = column.lengths.double()
        else:
            lengths = torch.full((column.shape[0],), float(column.shape[1]), dtype=torch.float64)
        pair = 4.0 * config.num_hidden_layers * config.hidden_size
        return float((2.0 * matrices * lengths + pair * lengths**2).sum())
