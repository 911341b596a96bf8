"""Causal language models, any that `transformers` knows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch

from upturn.data.tokenizers import Codec
from upturn.errors import UserError
from upturn.models._language import chosen_adapters, pretrained_weights, prompt_template, vllm
from upturn.models._language.chunked_head import CHUNK_BYTES, head_log_probs, pays
from upturn.models._language.generate import Choice, Decoded, decode
from upturn.models._language.kv_cache_size import cached_numbers
from upturn.models._language.log_probs import token_log_probs
from upturn.models._language.packed_rows import PackedRows, refusal
from upturn.models._language.plain_head import aside, plain_head
from upturn.models._language.precision import in_precision
from upturn.models._language.text_model import TextModel
from upturn.protocols import Policy, SamplingSettings
from upturn.types import (
    PACKED,
    Array,
    Batch,
    Draw,
    Likelihood,
    Outputs,
    Prompt,
    Ragged,
    Rollout,
    Samples,
    objects,
    synthetic_samples,
)

VALUE_HEAD = "value_head"
_TABLES = 3  # of float32 logits in a training step: logits, their exponentials, gradients
_DRAWN = 20.0  # bytes a logit while sampling: logits, log-probs and probabilities of 4, sums of 8


@dataclass(frozen=True)
class TextSampling(SamplingSettings):
    """How texts are drawn: ``temperature`` 0 is greedy, ``top_k`` 0 and ``top_p`` 1 leave every token in.

    ``max_tokens`` counts the end token; None: what the model's ``max_length`` leaves after the longest prompt.
    ``precision`` bf16 rounds the weights to bfloat16 and computes in it where the processor can, else in float32.
    ``adapters`` are the adapters that act: one choice for all prompts, or one for each; a choice is "base", a name, or
    names joined by "+". None stated: all of the model's. Low-rank ones share one batch.
    ``sampler`` vllm samples with vLLM, which needs a GPU and does not reproduce a text from its key: only for the
    samples of a round.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_tokens: int | None = None
    batch: int = 512  # rows at once; a 0.1 M Llama on one thread: 2,048 rows in 2.4 s by 256, 1.7 by 512, 1.4 by 1,024
    sampler: Literal["own", "vllm"] = "own"
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of the weights while sampling; auto: as they are
    adapters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ValueError("temperature and top_k cannot be negative, and top_p must be above 0 and at most 1")
        if self.batch < 1 or (self.max_tokens is not None and self.max_tokens < 1):
            raise ValueError("batch and max_tokens must be at least 1")
        if self.adapters and self.sampler != "own":
            raise ValueError("adapters are chosen by our own sampler alone: leave 'sampler' out")

    @property
    def keyed(self) -> bool:
        """Whether a text is a function of its prompt and key."""
        return self.sampler == "own"

    @property
    def longest(self) -> int | None:
        return self.max_tokens

    def with_length(self, tokens: int) -> Self:
        return replace(self, max_tokens=min(self.max_tokens or tokens, tokens))

    def require(self, where: str) -> None:
        """UserError where the sampler cannot run on this machine."""
        if self.sampler == "vllm":
            vllm.require(f"{where}.sampler")


@dataclass(eq=False)
class CausalLm(TextModel, Policy):
    """A causal language model of `transformers`: [BOS] prompt completion [EOS], learned after the prompt.

    Exactly one of ``config`` (keys of ``AutoConfig.for_model``, with model_type; random weights), ``folder`` (local)
    and ``hub`` (a name; the local cache first) is given. safetensors only, never remote code. Dropout is 0 unless
    the config states it, so that log-probs are a function of weights and text alone.

    ``tokenizer`` ({kind: characters | bpe, size: N}) is trained on the training part where a config is given.
    ``max_length`` counts BOS and EOS; None is the model's number of positions. Log-probs are exact, (N, T) nats a
    token, T one less than the longest row. Nothing attends to the padding on the right: attention is causal.
    """

    likelihood: ClassVar[Likelihood] = "exact"
    name: ClassVar[str] = "causal_lm"
    bf16_weights: ClassVar[bool] = True
    unread: ClassVar[int] = 1  # the last token is only predicted
    indent: ClassVar[int] = 2
    Sampling: ClassVar[type] = TextSampling

    def _from_config(self, config: dict[str, Any], codec: Codec) -> torch.nn.Module:
        return pretrained_weights.from_config(config, codec, self._weights)

    def _from_files(self) -> tuple[torch.nn.Module, Codec]:
        return pretrained_weights.from_files(self.folder, self.hub, self._weights)

    def _from_saved(self, folder: Path, settings: dict[str, Any]) -> tuple[torch.nn.Module, Codec]:
        return pretrained_weights.load(folder, self._weights)

    def _stated(self) -> str:
        return json.dumps(self.config)

    @property
    def conditional(self) -> bool:
        """Completions depend on the prompt, even an empty one."""
        return True

    def forward(self, batch: Batch, draw: Draw | None) -> Outputs:
        """log p of token t + 1 given tokens 0 … t: (N, T) nats, T = row length - 1; the mask is shifted equally.

        Where whole logits would be large, they are never computed, and log-probs are 0 wherever the mask is. With the
        column ``PACKED`` rows are read without their padding, and log-probs are 0 on it.
        """
        inputs, tokens, mask = batch["tokens"][:, :-1], batch["tokens"][:, 1:], batch["mask"][:, 1:]
        if PACKED not in batch.columns:
            log_probs, values = self._read({"input_ids": inputs, "use_cache": False}, tokens, mask)
            return Outputs(log_probs, mask, values=values)
        rows = PackedRows((batch[PACKED] - 1).clamp_min(1), tokens.shape[1])
        log_probs, values = self._read(rows.inputs(self._bare, inputs), rows.pack(tokens), rows.pack(mask))
        return Outputs(rows.unpack(log_probs), mask, values=None if values is None else rows.unpack(values))

    def _read(
        self, inputs: Mapping[str, Any], tokens: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(N, T) log-probs of tokens (N, T), and (N, T) values where there is a value head."""
        head, values = self._chunked(tokens), self._values
        if head is None:
            out = self.module(**inputs, output_hidden_states=values is not None)
            log_probs = token_log_probs(out.logits, tokens)
            return log_probs, None if values is None else _valued(values, out.hidden_states[-1])
        with aside(self._bare, head):
            hidden = self.module(**inputs).logits
        log_probs = head_log_probs(hidden, head.weight, head.bias, tokens, mask)
        return log_probs, None if values is None else _valued(values, hidden)

    def _chunked(self, tokens: torch.Tensor) -> torch.nn.Linear | None:
        """The head, where computing it in chunks pays and it is a plain linear map."""
        config = self._bare.config.get_text_config()
        return plain_head(self._bare) if pays(tokens.numel(), config.vocab_size) else None

    def refuses_packing(self) -> str:
        return refusal(self._bare)

    def act(self, batch: Batch) -> Outputs:
        """The same as ``forward``: the actions of a text are its tokens."""
        return self.forward(batch, None)

    @property
    def _values(self) -> Any:
        """The value head, None where there is none."""
        return getattr(self._bare, VALUE_HEAD, None)

    def add_value_head(self, key: int) -> None:
        """A linear map from the last hidden state to reward, ``Outputs.values``: zero at first, kept if present.

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
        different, which = prompt_template.distinct_prompts(prompts)
        read = self._format.prompt_tokens(different)
        # max_length is of rows that are trained on; a text that is sampled may use every position of the model
        limit, longest = self._own_positions() or self._positions(), max(map(len, read))
        wanted = self._positions() - longest if settings.max_tokens is None else settings.max_tokens
        if wanted < 1 or wanted > limit - longest:
            raise UserError(
                f"the longest prompt has {longest} tokens and {max(wanted, 1)} more are requested, but a text has "
                f"{self._positions() if settings.max_tokens is None else limit} tokens at most",
                where="sampling.max_tokens", fix="Lower max_tokens, shorten the prompts, or raise max_length.",
            )
        choice = Choice(settings.temperature, settings.top_k, settings.top_p)
        was_training = self.module.training
        self.module.eval()
        try:
            if settings.sampler == "vllm":
                decoded = vllm.decode(
                    self.module, read, which, keys, stop=self.stops, max_tokens=wanted, positions=limit,
                    choice=choice,
                )
            else:
                with in_precision(self.module, settings.precision):
                    decoded = self._decode(read, which, keys, settings, partial(
                        decode, self.module, self._bare.config, stop=self.stops, max_tokens=wanted,
                        batch=settings.batch, choice=choice,
                    ))
        finally:
            self.module.train(was_training)
        return decoded, [read[i] for i in which]

    def _decode(
        self, read: list[list[int]], which: Array, keys: Array, settings: TextSampling, decode: Callable[..., Decoded]
    ) -> Decoded:
        """The completions of prompts ``read[which[p]]``, of each with the adapters that ``settings`` choose for it."""
        repeats, flat = keys.shape[1], keys.reshape(-1)
        stated = chosen_adapters.choices(self._bare, settings.adapters, len(which))
        if stated is None:
            return decode(read, np.repeat(which, repeats), flat)
        read, which, chosen = chosen_adapters.distinct(read, which, stated)
        of = np.repeat(which, repeats)
        return chosen_adapters.decode_chosen(
            self._bare, of, chosen, lambda rows, adapters: decode(read, of[rows], flat[rows], adapters=adapters)
        )

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
        distribution drawn from) and "model_log_prob" (temperature 1, nothing left out); "key_reproducible", False,
        where vLLM drew; "adapters", those that acted, where ``settings`` choose.
        UserError where a text could outgrow the model's positions.
        """
        if guides:
            raise UserError("causal_lm cannot be guided by another model", where="sampling")
        samples = self._samples(prompts, keys, self._write(prompts, keys, settings)[0])
        if settings.adapters:
            stated = settings.adapters * (len(prompts) // len(settings.adapters))
            samples = samples.with_fields(adapters=objects(list(np.repeat(stated, keys.shape[1]))))
        return samples if settings.keyed else samples.with_fields(key_reproducible=np.zeros(len(samples), dtype=bool))

    def rollout(self, prompts: Sequence[Prompt], keys: Array, settings: TextSampling) -> Rollout:
        """Tokens as actions (N, T), 0 after the end, with behaviour log-probs.

        state: "prompt_tokens" (N, P) int64 padded with 0 on the right, "prompt_lengths" (N,), BOS counted, and
        "model_log_probs" (N, T): the log-probs by ``forward`` of the same tokens (``replay`` makes its batch).
        """
        if not settings.keyed:
            raise UserError(f"rollouts are drawn by our own sampler, not by '{settings.sampler}'",
                            where="sampling.sampler", fix="Leave 'sampler' out.")
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
        # token t + 1 is predicted at token t: one entry less than tokens, since nothing predicts BOS
        behaviour, keep = torch.cat([none, rollout.log_probs], dim=1)[:, 1:], keep[:, 1:]
        fewer = torch.nn.functional.pad((before + taken - 1).cumsum(0), (1, 0))
        return Batch({**columns, "behaviour": Ragged(behaviour[keep], fewer)})

    @property
    def vocabulary(self) -> int:  # type: ignore[override]
        return int(self._bare.config.get_text_config().vocab_size)

    def logits_bytes(self, tokens: int) -> float:
        """Whole tables: logits, log-probs and their gradients; in chunks one of each, of a chunk."""
        whole = 4.0 * tokens * self.vocabulary
        return _TABLES * (CHUNK_BYTES if pays(tokens, self.vocabulary) else whole)

    def sampling_bytes(self, settings: TextSampling, rows: int, tokens: int) -> tuple[float, float]:
        """Keys and values of all layers, and for each row logits, log-probs, probabilities and their sums."""
        config = self._bare.config.get_text_config()
        size = self._bare.get_input_embeddings().weight.element_size()
        return cached_numbers(config) * size * rows * tokens, _DRAWN * rows * self.vocabulary

    def sampling_flops(self, settings: TextSampling) -> float:
        """For one text of ``max_tokens``; a text ends earlier at an end token."""
        tokens = settings.max_tokens or self._positions()
        token, pair = self._work()
        return token * tokens + pair * tokens * (tokens + 1) / 2  # with a cache a token attends to those before it


def _valued(head: torch.nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
    """(N, T) values in float32 by the value head for hidden states (N, T, D)."""
    return torch.nn.functional.linear(hidden.float(), head.weight.float(), head.bias.float())[..., 0]
