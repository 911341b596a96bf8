"""Completions by vLLM on a GPU, with the model's current weights and merged adapters, in the format of our sampler.

Written against the documented interface of vLLM 0.10.1 and later (``LLM``, ``SamplingParams``, ``CompletionOutput``;
docs.vllm.ai), and tested with a fake of it. It has NOT been run with vLLM itself, nor on a GPU.

vLLM draws with generators of its own, and its results depend on the rest of the batch: each prompt gets its first
key as a seed, but a key does not reproduce a text. The samples record this (``key_reproducible`` is False).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from upturn.adapter_layers import injection
from upturn.embeddings.pretrained import quiet
from upturn.embeddings.unwrap import unwrapped
from upturn.errors import RunError, UserError
from upturn.models._language.generate import Choice, Decoded
from upturn.types import Array

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SHARE = 0.5  # of the GPU's memory: the policy itself stays on it, and vLLM reserves its share at once
_SEEDS = 1 << 62  # below half of the 64-bit range: vLLM adds the candidate's number
_GET = "Install it where there is an NVIDIA GPU (pip install vllm), or leave 'sampler' out: ours samples anywhere."


def require(where: str) -> None:
    """UserError naming ``where`` unless there is vLLM and a GPU for it."""
    if "vllm" not in sys.modules and importlib.util.find_spec("vllm") is None:
        raise UserError("the sampler is 'vllm', and vLLM is not installed", where=where, fix=_GET)
    if not _gpu():
        raise UserError("the sampler is 'vllm', and there is no GPU that torch can use", where=where, fix=_GET)


def _gpu() -> bool:
    return torch.cuda.is_available()


@dataclass(frozen=True)
class _Held:
    """An engine and the weights that it was built from."""

    module: weakref.ref[torch.nn.Module]
    state: tuple[Any, ...]
    engine: Any


_held: list[_Held] = []  # at most one: a GPU does not have memory for two


def decode(
    module: torch.nn.Module, prompts: Sequence[Sequence[int]], of: Array, keys: Array, *, stop: Sequence[int],
    max_tokens: int, positions: int, choice: Choice,
) -> Decoded:
    """P * K completions, prompt-major, of ``prompts[of[p]]`` for ``keys`` (P, K), in the fields of our own sampler.

    ``model_log_probs`` are vLLM's own ("raw": before temperature and truncation), so that they can be held against the
    trainer's. ``log_probs`` are the same at temperature 1 with every token in, 0 where greedy, and otherwise NaN: one
    pass of vLLM gives either, not both.
    """
    require("sampling.sampler")
    vllm: Any = importlib.import_module("vllm")  # it may be absent, and need not be known
    engine = _engine(unwrapped(module), positions)
    params = [
        vllm.SamplingParams(
            n=keys.shape[1], temperature=choice.temperature, top_p=choice.top_p, top_k=choice.top_k or -1,
            seed=int(first) % _SEEDS, max_tokens=max_tokens, stop_token_ids=list(stop), logprobs=0, detokenize=False,
        )
        for first in keys[:, 0]
    ]
    given = [{"prompt_token_ids": list(prompts[p])} for p in of]
    answers = engine.generate(given, params, use_tqdm=False)
    found = [one for answer in answers for one in sorted(answer.outputs, key=lambda one: int(one.index))]
    if len(found) != keys.size:
        raise RunError(f"vLLM gave {len(found)} completions for {keys.size} keys", where="sampling.sampler", fix=_OTHER)
    return _decoded(found, stop, choice)


_OTHER = "This version of vLLM is not understood: use 0.10.1 or later, or leave 'sampler' out."


def _decoded(found: Sequence[Any], stop: Sequence[int], choice: Choice) -> Decoded:
    lengths = np.array([len(one.token_ids) for one in found])
    inside = np.arange(int(lengths.max()))[None, :] < lengths[:, None]
    tokens = np.full(inside.shape, -1, dtype=np.int64)
    own = np.zeros(inside.shape, dtype=np.float32)
    tokens[inside] = [token for one in found for token in one.token_ids]
    log_probs = [one.logprobs for one in found]
    if any(steps is None or len(steps) != count for steps, count in zip(log_probs, lengths, strict=True)):
        raise RunError("vLLM returned no log-probs of its samples", where="sampling.sampler", fix=_OTHER)
    own[inside] = [
        step[token].logprob for one in found for token, step in zip(one.token_ids, one.logprobs, strict=True)
    ]
    stopped = np.array([one.finish_reason == "stop" for one in found])
    last = tokens[np.arange(len(found)), lengths - 1]
    if (np.isin(last, list(stop)) != stopped).any():
        raise RunError("vLLM's finish reasons contradict the last tokens", where="sampling.sampler", fix=_OTHER)
    plain = choice.temperature == 1.0 and not choice.top_k and choice.top_p >= 1.0
    other = 0.0 if choice.temperature == 0.0 else float("nan")
    acted = own if plain else np.where(inside, np.float32(other), np.float32(0.0))
    parts = (torch.from_numpy(part) for part in (tokens, lengths, stopped, acted, own))
    return Decoded(*parts)


def _engine(inner: PreTrainedModel, positions: int) -> Any:
    """The engine of these weights: that of the last call if not one of them has been written since."""
    state = (positions, *injection.names(inner), *((p.data_ptr(), p._version) for p in inner.parameters()))
    if _held and _held[0].module() is inner and _held[0].state == state:
        return _held[0].engine
    _held.clear()  # before the next is built: its memory is needed
    _held.append(_Held(weakref.ref(inner), state, _new_engine(inner, positions)))
    return _held[0].engine


def _new_engine(inner: PreTrainedModel, positions: int) -> Any:
    vllm: Any = importlib.import_module("vllm")
    with tempfile.TemporaryDirectory(prefix="upturn-vllm-") as folder:
        with quiet(), injection.merged(inner), injection.plain(inner):
            inner.save_pretrained(folder)
        return vllm.LLM(
            model=folder, skip_tokenizer_init=True, generation_config="vllm", trust_remote_code=False,
            max_model_len=positions, gpu_memory_utilization=_SHARE, logprobs_mode="raw_logprobs",
            # the trainer's own precision on such a GPU; float16 overflows in some models
            dtype="bfloat16" if torch.cuda.is_bf16_supported() else "float32",
        )
