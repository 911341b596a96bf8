"""The base of all text models: fields, template, length limit, tokenizer, files and cost."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from upturn import seeds
from upturn.data import tokenizers as _tokenizer
from upturn.data.chat_template import TRAIN_ON, ChatTemplate, TrainOn, added_tokens, named_template
from upturn.data.tokenizers import Codec
from upturn.embeddings.unwrap import unwrapped
from upturn.errors import UserError
from upturn.models._language import pretrained_weights, prompt_template
from upturn.models._language.prompt_template import TOO_LONG, Format, TooLong
from upturn.models._weight_format import Dtype, Quantization, WeightFormat
from upturn.protocols import Trainable
from upturn.store import files
from upturn.types import Batch, Draw, Kind, Ragged, Samples, TokenRows, content_id

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SETTINGS = "upturn.json"


@dataclass(eq=False)
class TextModel(Trainable, ABC):
    """A causal language model of `transformers`, with any output. Subclasses define it in the ``_`` methods.

    Exactly one of ``config`` (keys of ``AutoConfig.for_model``, with model_type; random weights), ``folder`` (local)
    and ``hub`` (a name; the local cache first) is given.
    """

    config: dict[str, Any] | None = None
    folder: str | None = None
    hub: str | None = None
    tokenizer: dict[str, Any] = field(default_factory=lambda: {"kind": "characters"})
    max_length: int | None = None
    truncated_at_most: float = 0.0  # the share of rows that "refuse" lets be cut on the right
    too_long: TooLong = "refuse"  # rows of more tokens than max_length
    chat_template: str | None = None  # a name (chatml, plain) or a Jinja file; None: the tokenizer's own
    train_on: TrainOn = "assistant"  # what of a conversation's completion is learned
    dtype: Dtype = "float32"  # of the base in memory and in files; what a stage trains is float32 while it trains
    quantization: Quantization | None = None  # the linear layers of the base in 4 bits (bitsandbytes); for adapters
    gradient_checkpointing: bool = False  # in training: less memory, a second forward pass
    attn_implementation: str | None = None  # sdpa, eager, …; None: the library's choice
    id: str = field(default="", init=False)
    notes: tuple[str, ...] = field(default=(), init=False)  # of the last encode: cut completions, unknown tokens
    module: torch.nn.Module = field(init=False, repr=False)

    kind: ClassVar[Kind] = "text"
    name: ClassVar[str]
    unread: ClassVar[int] = 0  # tokens at the end of a row that are only predicted: they cost nothing
    indent: ClassVar[int] = 1  # of upturn.json, whose bytes name a saved model

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.config, self.folder, self.hub)) != 1:
            raise ValueError(f"{self.name} needs exactly one of config, folder and hub")
        if self.config is not None and not isinstance(self.config.get("model_type"), str):
            raise ValueError("config needs a model_type, such as llama or gpt2")
        if self.max_length is not None and self.max_length < 2:
            raise ValueError("max_length must be at least 2: BOS, and one token after it")
        if not 0 <= self.truncated_at_most <= 1:
            raise ValueError("truncated_at_most must be a share between 0 and 1")
        if self.too_long not in TOO_LONG:
            raise ValueError(f"too_long must be one of {', '.join(TOO_LONG)}, not {self.too_long!r}")
        if self.train_on not in TRAIN_ON:
            raise ValueError(f"train_on must be one of {', '.join(TRAIN_ON)}, not {self.train_on!r}")
        _tokenizer.check(self.tokenizer)
        self._weights.check()

    @property
    def _weights(self) -> WeightFormat:
        return WeightFormat(self.dtype, self.attn_implementation, self.quantization, self.gradient_checkpointing)

    @abstractmethod
    def _from_config(self, config: dict[str, Any], codec: Codec) -> torch.nn.Module:
        """Random weights from torch's stream."""

    @abstractmethod
    def _from_files(self) -> tuple[torch.nn.Module, Codec]:
        """The model in ``folder`` or ``hub``."""

    @abstractmethod
    def _from_saved(self, folder: Path, settings: dict[str, Any]) -> tuple[torch.nn.Module, Codec]:
        """What ``save`` wrote, adapters on; ``settings`` are upturn.json."""

    def _stated(self) -> str:
        """The part of a new model's id besides key and files."""
        return json.dumps([self.config, self._settings()], sort_keys=True)

    def _settings(self) -> dict[str, Any]:
        """JSON-ready: the settings that ``load`` needs besides the weights."""
        return {}

    def build(self, examples: Samples, key: int) -> None:
        """Weights (and tokenizer) for these training samples; UserError where the model cannot be read or built."""
        self._need_text(examples)
        seeds.seed_torch(key)
        if self.config is not None:
            self.codec = self._trained_codec(examples)
            self._set_template(self.codec)
            self.module = self._from_config(self.config, self.codec)
        else:
            self.module, self.codec = self._from_files()
            self._set_template(self.codec)
            if len(self.codec.tokenizer) > self._bare.get_input_embeddings().weight.shape[0]:
                self._bare.resize_token_embeddings(len(self.codec.tokenizer))
            pretrained_weights.unchanged(self.module)
        self._weights.apply(self._bare)
        self._format = self._format_of(self.codec, self._positions())
        self.id = content_id(self.name, key, self._stated(), self.folder, self.hub)
        self._positions()

    def _need_text(self, samples: Samples) -> None:
        if samples.kind != "text":
            raise UserError(f"{self.name} reads text, and these samples are {samples.kind}", where="model")

    @property
    def _bare(self) -> PreTrainedModel:
        return unwrapped(self.module)

    def _positions(self) -> int:
        """Tokens in a row at most: ``max_length``, or the model's own number of positions."""
        return self._limit(self._own_positions())

    def _own_positions(self) -> int | None:
        """The model's own number of positions; None where it has no limit."""
        return getattr(self._bare.config.get_text_config(), "max_position_embeddings", None)

    def _limit(self, own: int | None) -> int:
        """Tokens in a row at most, of a model with ``own`` positions; UserError where neither states a number."""
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

    def as_tokens(self, samples: Samples, examples: Samples, key: int) -> TokenRows:
        """The rows as tokens: the tokenizer and the config are read, no weights."""
        self._need_text(samples)
        if self.config is not None:
            from transformers import AutoConfig

            codec = self._trained_codec(examples)
            own = AutoConfig.for_model(self.config["model_type"], **{
                name: value for name, value in self.config.items() if name != "model_type"
            })
        else:
            codec, own = pretrained_weights.tokenizer_and_config(self.folder, self.hub)
        self._set_template(codec)
        positions = getattr(own.get_text_config(), "max_position_embeddings", None)
        return self._format_of(codec, self._limit(positions)).rows(samples)

    def _trained_codec(self, examples: Samples) -> Codec:
        texts = prompt_template.distinct([p.text for p in examples.prompts])[0] + [str(c) for c in examples.content]
        return _tokenizer.settle(_tokenizer.train(self.tokenizer, texts), "model.tokenizer")[0]

    def _set_template(self, codec: Codec) -> None:
        """The tokenizer's template becomes the one that the recipe names, its special tokens among the tokenizer's."""
        if self.chat_template is None:
            return
        source = named_template(self.chat_template, "model.chat_template")
        codec.tokenizer.chat_template = source
        codec.tokenizer.add_special_tokens(
            {"additional_special_tokens": added_tokens(source)}, replace_extra_special_tokens=False
        )

    def _format_of(self, codec: Codec, limit: int) -> Format:
        source = codec.tokenizer.chat_template
        if isinstance(source, dict):  # several, by name
            source = source.get("default")
        chat = None if source is None else ChatTemplate(codec, source)
        return Format(codec, chat, self._learned_part, self.too_long, limit, self.truncated_at_most)

    @property
    def _learned_part(self) -> TrainOn:
        return self.train_on

    @property
    def stops(self) -> tuple[int, ...]:
        """The tokens that end a completion: the tokenizer's, those of generation_config, the template's end of turn."""
        known = self._bare.generation_config.eos_token_id if self._bare.can_generate() else None
        own = known if isinstance(known, list) else [] if known is None else [known]
        chat = self._format.chat
        turn = [] if chat is None or chat.end_of_turn is None else [chat.end_of_turn]
        return tuple(dict.fromkeys([self.codec.eos, *map(int, own), *turn]))

    def encode(self, samples: Samples) -> Batch:
        """Ragged "tokens" and "mask" (1 where a token is learned); see ``notes`` for cut rows."""
        self._need_text(samples)
        batch, self.notes = self._format.encode(samples)
        return batch

    def draw(self, batch: Batch, key: int, start: int) -> Draw | None:
        return None

    def save(self, folder: Path) -> None:
        """Writes files that ``transformers`` opens, adapters and ``upturn.json``, without paths and times."""
        pretrained_weights.save(self.module, folder)
        self.codec.save(folder)
        settings = {"model": self.name, "template": prompt_template.NAME, **self._settings()}
        text = json.dumps(settings, indent=self.indent, sort_keys=True, ensure_ascii=False)
        (folder / _SETTINGS).write_text(text + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """The weights, adapters, heads and tokenizer of ``save``; UserError where they cannot be read."""
        at = folder / _SETTINGS
        settings = files.read_json(at)
        if not isinstance(settings, dict) or settings.get("model") != self.name:
            raise UserError(f"is not the config of a {self.name}", where=str(at), fix="Use another checkpoint.")
        if settings.get("template") != prompt_template.NAME:
            raise UserError(
                f"was trained with the template {settings.get('template')!r}, not {prompt_template.NAME!r}",
                where=str(at),
            )
        self.module, self.codec = self._from_saved(folder, settings)
        self._set_template(self.codec)
        self._weights.apply(self._bare)
        self._format = self._format_of(self.codec, self._positions())
        self.id = files.tree_hash(folder)[:16]

    def _work(self) -> tuple[float, float]:
        """Multiplications and additions a token, without attention; and those of one query with one key."""
        module = self._bare
        config = module.config.get_text_config()
        read, written = module.get_input_embeddings(), module.get_output_embeddings()
        matrices = sum(p.numel() for p in module.parameters() if p.dim() > 1)
        if written is None or written.weight is not read.weight:
            matrices -= read.weight.numel()  # looked up, not multiplied; a tied embedding counts as the head
        return 2.0 * matrices, 4.0 * config.num_hidden_layers * config.hidden_size

    def flops(self, batch: Batch) -> float:
        """2 a weight and token, and 4 a layer, width and pair of tokens (Kaplan et al. 2020, table 1)."""
        column = batch.columns["tokens"]
        if isinstance(column, Ragged):
            lengths = column.lengths.double() - self.unread
        else:
            lengths = torch.full((batch.rows,), float(batch["tokens"].shape[1] - self.unread), dtype=torch.float64)
        token, pair = self._work()
        return float((token * lengths + pair * lengths**2).sum())
