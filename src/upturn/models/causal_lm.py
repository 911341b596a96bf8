"""Causal language models, any that `transformers` knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from upturn import seeds
from upturn.errors import UserError
from upturn.models import _pretrained, _template, _tokenizer
from upturn.models._decode import Choice, Decoded, decode
from upturn.models._token_log_probs import token_log_probs
from upturn.store.files import tree_hash
from upturn.types import (
    Array,
    Batch,
    Draw,
    Kind,
    Likelihood,
    Outputs,
    Prompt,
    Ragged,
    Rollout,
    Samples,
    content_id,
    objects,
    synthetic_samples,
)

_SETTINGS = "upturn.json"
VALUE_HEAD = "value_head"


@dataclass(frozen=True)
class TextSampling:
    """How texts are drawn: ``temperature`` 0 is greedy, ``top_k`` 0 and ``top_p`` 1 leave every token in.

    ``max_tokens`` counts the end token; None is whatever the model's ``max_length`` leaves after the longest prompt.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_tokens: int | None = None
    batch: int = 512  # rows at once; a 0.1 M Llama on one thread: 2,048 rows in 2.4 s by 256, 1.7 by 512, 1.4 by 1,024

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ValueError("temperature and top_k cannot be negative, and top_p lies above 0 and at most at 1")
        if self.batch < 1 or (self.max_tokens is not None and self.max_tokens < 1):
            raise ValueError("batch and max_tokens are at least 1")


@dataclass(eq=False)
class CausalLm:
    """A causal language model of `transformers`: [BOS] prompt completion [EOS], learned after the prompt.

    Exactly one of ``config`` (keys of ``AutoConfig.for_model``, with model_type; random weights), ``folder`` (local)
    and ``hub`` (a name; the local cache first) says which. safetensors only, never remote code. Dropout is 0 unless
    the config states it, so that log-probs are a function of weights and text alone.

    ``tokenizer`` ({kind: characters | bpe, size: N}) is trained on the training part where a config is given.
    ``max_length`` counts BOS and EOS; None is the model's number of positions. Log-probs are exact, (N, T) nats a
    token, T one less than the longest row. Nothing attends to the padding on the right: attention is causal.
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
    likelihood: ClassVar[Likelihood] = "exact"
    Sampling: ClassVar[type] = TextSampling

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.config, self.folder, self.hub)) != 1:
            raise ValueError("causal_lm needs exactly one of config, folder and hub")
        if self.config is not None and not isinstance(self.config.get("model_type"), str):
            raise ValueError("config needs a model_type, such as llama or gpt2")
        if self.max_length is not None and self.max_length < 2:
            raise ValueError("max_length is at least 2: BOS, and one token to learn")
        if not 0 <= self.truncated_at_most <= 1:
            raise ValueError("truncated_at_most is a share between 0 and 1")
        _tokenizer.check(self.tokenizer)

    def build(self, examples: Samples, key: int) -> None:
        """Weights (and tokenizer) for these training samples; UserError where the model cannot be had."""
        seeds.seed_torch(key)
        if self.config is not None:
            self._need_text(examples)
            texts = _template.distinct([p.text for p in examples.prompts])[0] + [str(c) for c in examples.content]
            trained = _tokenizer.train(self.tokenizer, texts)
            self.codec, _ = _tokenizer.settle(trained, "model.tokenizer")
            self.module = _pretrained.from_config(self.config, self.codec)
        else:
            self.module, self.codec = _pretrained.from_files(self.folder, self.hub)
        self.id = content_id("causal_lm", key, json.dumps(self.config), self.folder, self.hub)
        self._positions()

    def _need_text(self, samples: Samples) -> None:
        if samples.kind != "text":
            raise UserError(f"causal_lm reads text, and these samples are {samples.kind}", where="model")

    @property
    def conditional(self) -> bool:
        """What it writes depends on the prompt, be it empty."""
        return True

    @property
    def _bare(self) -> Any:
        return _pretrained.bare(self.module)

    def _positions(self) -> int:
        """Tokens in a row at most: ``max_length``, or the model's own number of positions."""
        own = getattr(self._bare.config.get_text_config(), "max_position_embeddings", None)
        if self.max_length is None and own is None:
            raise UserError(
                "this model has no limit of its own", where="model.max_length", fix="State max_length in tokens."
            )
        if self.max_length is not None and own is not None and self.max_length > own:
            raise UserError(
                f"max_length is {self.max_length}, and the model has only {own} positions", where="model.max_length",
                fix="Lower max_length, or give the config more positions.",
            )
        return int(self.max_length if self.max_length is not None else own)  # type: ignore[arg-type]

    def encode(self, samples: Samples) -> Batch:
        """Ragged "tokens" and "mask" (1 where a token is learned); see ``notes`` for what was cut."""
        self._need_text(samples)
        batch, self.notes = _template.encode(self.codec, samples, self._positions(), self.truncated_at_most)
        return batch

    def draw(self, batch: Batch, key: int, start: int) -> Draw | None:
        return None

    def forward(self, batch: Batch, draw: Draw | None) -> Outputs:
        """log p of token t + 1 given tokens 0 … t: (N, T) nats, T = row length - 1; the mask is shifted alike."""
        tokens = batch["tokens"]
        out = self.module(input_ids=tokens[:, :-1], use_cache=False, output_hidden_states=self._values is not None)
        said = Outputs(token_log_probs(out.logits, tokens[:, 1:]), batch["mask"][:, 1:])
        if self._values is None:
            return said
        return replace(said, values=self._values(out.hidden_states[-1].float())[..., 0])

    def act(self, batch: Batch) -> Outputs:
        """The same: what a text does is its tokens."""
        return self.forward(batch, None)

    @property
    def _values(self) -> Any:
        """The value head, None where there is none."""
        return getattr(self._bare, VALUE_HEAD, None)

    def add_value_head(self, key: int) -> None:
        """A line from the last hidden state to nats of reward, ``Outputs.values``; zero at first, kept where it is.

        It is a submodule ``value_head`` of the module, so that it is trained, saved and resumed with it.
        """
        if self._values is None:
            head = torch.nn.Linear(self._bare.get_input_embeddings().weight.shape[1], 1)
            torch.nn.init.zeros_(head.weight)
            torch.nn.init.zeros_(head.bias)
            self._bare.add_module(VALUE_HEAD, head)

    def _write(
        self, prompts: Sequence[Prompt], keys: Array, settings: TextSampling
    ) -> tuple[Decoded, list[list[int]]]:
        if not keys.size:
            raise UserError("there are no prompts to sample from", where="sampling", fix="Give at least one.")
        texts, which = _template.distinct([prompt.text for prompt in prompts])
        read = _template.prompt_tokens(self.codec, texts)
        limit, longest = self._positions(), max(map(len, read))
        room = limit - longest
        wanted = room if settings.max_tokens is None else settings.max_tokens
        if room < 1 or wanted > room:
            raise UserError(
                f"the longest prompt has {longest} tokens and {max(wanted, 1)} more are asked for, but a text has "
                f"{limit} tokens at most",
                where="sampling.max_tokens", fix="Lower max_tokens, shorten the prompts, or raise max_length.",
            )
        was_training = self.module.training
        self.module.eval()
        try:
            decoded = decode(
                self.module, self._bare.config, read, np.repeat(which, keys.shape[1]), keys.reshape(-1),
                stop=self.codec.eos, max_tokens=wanted, batch=settings.batch,
                choice=Choice(settings.temperature, settings.top_k, settings.top_p),
            )
        finally:
            self.module.train(was_training)
        return decoded, [read[i] for i in which]

    def _samples(self, prompts: Sequence[Prompt], keys: Array, decoded: Decoded) -> Samples:
        written = (decoded.lengths - decoded.stopped.long()).tolist()
        rows = [row[:count] for row, count in zip(decoded.tokens.tolist(), written, strict=True)]
        finish = np.where(decoded.stopped.numpy(), "stop", "length").astype(object)
        fields = {
            "finish": finish, "tokens": decoded.lengths.numpy(),
            "log_prob": decoded.log_probs.double().sum(dim=1).numpy(),
            "model_log_prob": decoded.model_log_probs.double().sum(dim=1).numpy(),
        }
        return synthetic_samples("text", objects(self.codec.decode(rows)), prompts, keys, self.id, fields)

    def sample(
        self, prompts: Sequence[Prompt], keys: Array, settings: TextSampling, guides: Mapping[str, Any] = {}
    ) -> Samples:
        """P * K completions for ``keys`` (P, K); each depends on its prompt and key, not on its batch.

        Fields: "finish" ("stop" or "length"), "tokens" (the end token counted), "log_prob" (nats under the
        distribution drawn from) and "model_log_prob" (temperature 1, nothing left out). UserError where a text could
        outgrow the model's positions.
        """
        if guides:
            raise UserError("causal_lm cannot be guided by another model", where="sampling")
        return self._samples(prompts, keys, self._write(prompts, keys, settings)[0])

    def rollout(self, prompts: Sequence[Prompt], keys: Array, settings: TextSampling) -> Rollout:
        """Tokens as actions (N, T), 0 after the end, with behaviour log-probs.

        state: "prompt_tokens" (N, P) int64 padded with 0 on the right, "prompt_lengths" (N,), BOS counted, and
        "model_log_probs" (N, T): what ``forward`` says of the same tokens (``replay`` makes its batch).
        """
        decoded, read = self._write(prompts, keys, settings)
        mask = (decoded.tokens >= 0).float()
        width = max(map(len, read))
        padded = torch.tensor([row + [0] * (width - len(row)) for row in read])
        lengths = torch.tensor([len(row) for row in read])
        repeats = keys.shape[1]
        state = {
            "prompt_tokens": padded.repeat_interleave(repeats, 0),
            "prompt_lengths": lengths.repeat_interleave(repeats), "model_log_probs": decoded.model_log_probs,
        }
        samples = self._samples(prompts, keys, decoded)
        return Rollout(samples, decoded.tokens.clamp(min=0), decoded.log_probs, mask, state)

    def replay(self, rollout: Rollout) -> Batch:
        """The batch whose ``forward`` gives the log-probs of a rollout's own tokens, in their order.

        Columns "tokens", "mask" as ``encode``, and "behaviour", the rollout's log-probs where ``forward`` has its own.
        """
        before, taken = rollout.state["prompt_lengths"], rollout.mask.sum(dim=1).long()
        inside = torch.arange(rollout.state["prompt_tokens"].shape[1])[None, :] < before[:, None]
        keep = torch.cat([inside, rollout.mask.bool()], dim=1)
        none = torch.zeros_like(inside, dtype=torch.float32)
        offsets = torch.nn.functional.pad((before + taken).cumsum(0), (1, 0))
        rows = {
            "tokens": torch.cat([rollout.state["prompt_tokens"], rollout.actions], dim=1),
            "mask": torch.cat([none, rollout.mask], dim=1),
        }
        columns = {name: Ragged(values[keep], offsets) for name, values in rows.items()}
        # token t + 1 is foretold at token t: one place less than tokens, BOS being the one that nothing foretells
        said, keep = torch.cat([none, rollout.log_probs], dim=1)[:, 1:], keep[:, 1:]
        fewer = torch.nn.functional.pad((before + taken - 1).cumsum(0), (1, 0))
        return Batch({**columns, "behaviour": Ragged(said[keep], fewer)})

    def save(self, folder: Path) -> None:
        """What ``AutoModelForCausalLM`` and ``AutoTokenizer`` open, adapters, ``upturn.json``; no paths, no times."""
        _pretrained.save(self.module, folder)
        self.codec.save(folder)
        settings = {"model": "causal_lm", "template": _template.NAME}
        (folder / _SETTINGS).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """The weights, adapters and tokenizer of ``save``; UserError where they cannot be read."""
        self.module, self.codec = _pretrained.load(folder)
        path = folder / _SETTINGS
        try:
            template = json.loads(path.read_text(encoding="utf-8"))["template"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"cannot be read: {error}", where=str(path), fix="Use another checkpoint.") from error
        if template != _template.NAME:
            raise UserError(f"was trained with the template {template!r}, not {_template.NAME!r}", where=str(path))
        self.id = tree_hash(folder)[:16]

    def _work(self) -> tuple[float, float]:
        """Multiplications and additions a token, without attention; and those of one query with one key."""
        module = self._bare
        config = module.config.get_text_config()
        read, written = module.get_input_embeddings(), module.get_output_embeddings()
        matrices = sum(p.numel() for p in module.parameters() if p.dim() > 1)
        if written is None or written.weight is not read.weight:
            matrices -= read.weight.numel()  # looked up, not multiplied; where it is tied it stands for the head
        return 2.0 * matrices, 4.0 * config.num_hidden_layers * config.hidden_size

    def flops(self, batch: Batch) -> float:
        """2 a weight and token, and 4 a layer, width and pair of tokens (Kaplan et al. 2020, table 1)."""
        column = batch.columns["tokens"]
        if isinstance(column, Ragged):
            lengths = column.lengths.double() - 1  # the last token is only predicted
        else:
            lengths = torch.full((column.shape[0],), column.shape[1] - 1.0, dtype=torch.float64)
        token, pair = self._work()
        return float((token * lengths + pair * lengths**2).sum())

    def sampling_flops(self, settings: TextSampling) -> float:
        """For one text of ``max_tokens``; it ends earlier where the model says so."""
        tokens = settings.max_tokens or self._positions()
        token, pair = self._work()
        return token * tokens + pair * tokens * (tokens + 1) / 2  # with a cache a token meets those before it
