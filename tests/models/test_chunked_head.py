"""Tests of log-probs computed in chunks against full logits: values, gradients, masks, memory and refusals."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from upturn.models._language import chunked_head, plain_head
from upturn.models._language.chunked_head import head_log_probs
from upturn.models.causal_lm import CausalLm
from upturn.types import Batch, Outputs

pytestmark = pytest.mark.slow

LLAMA = {
    "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "intermediate_size": 24, "max_position_embeddings": 32, "vocab_size": 50,
}
GPT2 = {
    "model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "vocab_size": 50,
    "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
}
NEOX = {
    "model_type": "gpt_neox", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 32, "vocab_size": 50,
}
GEMMA2 = {**LLAMA, "model_type": "gemma2", "head_dim": 8}  # bends its logits: 30 tanh(z / 30)
GRANITE = {**LLAMA, "model_type": "granite", "logits_scaling": 4.0}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def close(ours: Tensor | None, theirs: Tensor | None) -> None:
    assert ours is not None and theirs is not None and ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs, rtol=TOLERANCE[ours.dtype], atol=TOLERANCE[ours.dtype])


def plainly(hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, temperature: float) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias) / temperature
    return logits.log_softmax(-1).gather(2, tokens[..., None])[..., 0]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four rows of the vocabulary of 50 at once, and the chunked path whatever the size."""
    monkeypatch.setattr(chunked_head, "_CHUNK", 200)
    monkeypatch.setattr(chunked_head, "_PAYS_FROM", 0)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("learned", ["all", "hidden", "head"])
def test_values_and_gradients_are_those_of_log_softmax(
    dtype: torch.dtype, temperature: float, with_bias: bool, learned: str
) -> None:
    draw = torch.Generator().manual_seed(3)
    hidden = torch.randn(3, 7, 16, generator=draw, dtype=dtype)
    weight, bias = torch.randn(50, 16, generator=draw, dtype=dtype), torch.randn(50, generator=draw, dtype=dtype)
    tokens = torch.randint(0, 50, (3, 7), generator=draw)
    mask = (torch.rand(3, 7, generator=draw) > 0.4).to(dtype)
    upstream = torch.randn(3, 7, generator=draw, dtype=dtype)
    both = []
    for chunked in (True, False):
        h, w, b = (part.clone() for part in (hidden, weight, bias))
        h.requires_grad_(learned != "head")
        w.requires_grad_(learned != "hidden")
        b.requires_grad_(learned != "hidden")
        given = b if with_bias else None
        if chunked:
            found = head_log_probs(h, w, given, tokens, mask, temperature)
            assert (found[mask == 0] == 0).all()
        else:
            found = plainly(h, w, given, tokens, temperature) * mask
        (found * upstream).sum().backward()
        both.append((found.detach(), [part.grad for part in (h, w, b)]))
    close(both[0][0], both[1][0])
    for ours, theirs in zip(both[0][1], both[1][1], strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            close(ours, theirs)


def test_gradients_by_finite_differences(small_chunks: None) -> None:
    draw = torch.Generator().manual_seed(4)
    hidden, weight = torch.randn(2, 3, 5, generator=draw).double(), torch.randn(50, 5, generator=draw).double()
    tokens = torch.randint(0, 50, (2, 3), generator=draw)
    inputs = (hidden.requires_grad_(), weight.requires_grad_(), torch.zeros(50).double().requires_grad_())
    assert torch.autograd.gradcheck(lambda h, w, b: head_log_probs(h, w, b, tokens, None, 0.8), inputs)


def test_no_position_learned_gives_zeros_and_zero_gradients(small_chunks: None) -> None:
    hidden, weight = torch.randn(2, 3, 5, requires_grad=True), torch.randn(50, 5, requires_grad=True)
    found = head_log_probs(hidden, weight, None, torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3))
    found.sum().backward()
    assert (found == 0).all() and hidden.grad is not None and weight.grad is not None
    assert not hidden.grad.any() and not weight.grad.any()


# --- inside a model ---------------------------------------------------------------------------------------------


def model_of(config: dict[str, Any], dtype: torch.dtype = torch.float32) -> CausalLm:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(5)
    model = CausalLm(config=config)
    model.module = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).to(dtype)
    return model


def batch_of(rows: int = 4, width: int = 9) -> Batch:
    draw = torch.Generator().manual_seed(6)
    mask = torch.ones(rows, width)
    mask[:, :4], mask[0, 7:] = 0, 0
    return Batch({"tokens": torch.randint(0, 50, (rows, width), generator=draw), "mask": mask})


def trained_once(model: CausalLm, monkeypatch: pytest.MonkeyPatch, chunked: bool) -> tuple[Outputs, dict[str, Tensor]]:
    """One pass and its gradients; the path is checked, not supposed."""
    monkeypatch.setattr(chunked_head, "_PAYS_FROM", 0 if chunked else 1 << 60)
    asked = []
    monkeypatch.setattr("upturn.models.causal_lm.head_log_probs", lambda *a: asked.append(1) or head_log_probs(*a))
    model.module.zero_grad()
    out = model.forward(batch_of(), None)
    loss = (out.log_probs * out.mask).sum() if out.values is None else (out.log_probs * out.mask + out.values**2).sum()
    loss.backward()
    assert bool(asked) == chunked
    return out, {n: p.grad.clone() for n, p in model.module.named_parameters() if p.grad is not None}


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "config", [LLAMA, {**LLAMA, "tie_word_embeddings": True}, GPT2, NEOX], ids=["llama", "tied", "gpt2", "neox"]
)
def test_a_model_learns_the_same(config: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(config, dtype)
    if dtype == torch.float32:  # which a value head is
        model.add_value_head(1)
        torch.nn.init.normal_(model._values.weight)
    head = model.module.get_output_embeddings()
    (ours, mine), (theirs, full) = trained_once(model, monkeypatch, True), trained_once(model, monkeypatch, False)
    assert model.module.get_output_embeddings() is head  # it stood aside, and is back
    close(ours.log_probs, theirs.log_probs * theirs.mask)
    if dtype == torch.float32:
        close(ours.values, theirs.values)
    assert mine.keys() == full.keys() and len(mine) > 10
    for name in mine:
        close(mine[name], full[name])


@pytest.mark.usefixtures("small_chunks")
def test_under_lora_the_frozen_head_needs_no_second_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import LoraConfig

    from upturn.adapter_layers import injection

    model = model_of(LLAMA)
    injection.inject(model.module, "a", LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    model.module.requires_grad_(False)
    for name, parameter in model.module.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    (ours, mine), (theirs, full) = trained_once(model, monkeypatch, True), trained_once(model, monkeypatch, False)
    close(ours.log_probs, theirs.log_probs * theirs.mask)
    assert mine.keys() == full.keys() and len(mine) == 8
    for name in mine:
        close(mine[name], full[name])


@pytest.mark.usefixtures("small_chunks")
def test_the_same_bits_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of({**LLAMA, "attention_dropout": 0.3})
    model.module.train()
    runs = []
    for _ in range(2):
        plain_head._known.clear()  # what is tried once must not take from the stream that dropout draws from
        torch.manual_seed(9)
        out, gradients = trained_once(model, monkeypatch, True)
        runs.append((out.log_probs, gradients, torch.rand(3)))
    torch.manual_seed(9)
    again, _ = trained_once(model, monkeypatch, True)  # known by now
    assert torch.equal(runs[0][0], runs[1][0]) and torch.equal(runs[0][0], again.log_probs)
    assert all(torch.equal(runs[0][1][name], runs[1][1][name]) for name in runs[0][1])
    assert torch.equal(runs[0][2], runs[1][2]) and torch.equal(runs[0][2], torch.rand(3))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("config", [GEMMA2, GRANITE], ids=["gemma2", "granite"])
def test_capped_or_scaled_logits_take_the_whole_table(config: dict[str, Any]) -> None:
    model = model_of(config)
    out = model.forward(batch_of(), None)
    assert plain_head.plain_head(model.module) is None
    logits = model.module(input_ids=batch_of()["tokens"][:, :-1]).logits
    close(out.log_probs, logits.log_softmax(-1).gather(2, batch_of()["tokens"][:, 1:, None])[..., 0])


def test_a_cap_is_seen_even_where_all_logits_are_zero() -> None:
    model = model_of(GEMMA2)
    torch.nn.init.zeros_(model.module.get_output_embeddings().weight)
    assert plain_head.plain_head(model.module) is None


def test_a_head_with_an_adapter_or_a_hook_is_not_plain() -> None:
    from peft import LoraConfig

    from upturn.adapter_layers import injection

    hooked = model_of(LLAMA)
    assert plain_head.plain_head(hooked.module) is hooked.module.lm_head
    hooked.module.lm_head.register_forward_hook(lambda *_: None)
    assert plain_head.plain_head(hooked.module) is None
    adapted = model_of(LLAMA)
    injection.inject(adapted.module, "a", LoraConfig(r=2, target_modules=["lm_head"]))
    assert plain_head.plain_head(adapted.module) is None


@pytest.mark.usefixtures("small_chunks")
def test_bfloat16_by_autocast() -> None:
    model, batch = model_of(LLAMA), batch_of()
    with torch.autocast("cpu", torch.bfloat16):
        ours = model.forward(batch, None)
    (ours.log_probs * ours.mask).sum().backward()
    exact = plainly(
        model.module(input_ids=batch["tokens"][:, :-1], output_hidden_states=True).hidden_states[-1],
        model.module.lm_head.weight, None, batch["tokens"][:, 1:], 1.0,
    )
    assert ours.log_probs.dtype == torch.float32 and model.module.lm_head.weight.grad.dtype == torch.float32
    torch.testing.assert_close(ours.log_probs, exact * ours.mask, rtol=0.02, atol=0.02)  # 8 bits of mantissa


def test_the_rule_counts_bytes_of_logits() -> None:
    assert chunked_head.pays(8 * 256, 32_000) and not chunked_head.pays(8 * 256, 64)
    assert chunked_head.pays(1 << 14, 1 << 10) and not chunked_head.pays((1 << 14) - 1, 1 << 10)


MEMORY = """
import torch
torch.set_num_threads(1)
from transformers import LlamaConfig, LlamaForCausalLM
from upturn.models._language import chunked_head
from upturn.models.causal_lm import CausalLm
from upturn.types import Batch
torch.manual_seed(0)
model = CausalLm(config={"model_type": "llama"})
model.module = LlamaForCausalLM(LlamaConfig(
    vocab_size=32000, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16))
def step(rows, width):
    batch = Batch({"tokens": torch.randint(0, 32000, (rows, width)), "mask": torch.ones(rows, width)})
    model.forward(batch, None).log_probs.sum().backward()
def peak():  # of this process alone: getrusage would count what it was forked from
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
step(1, 3)
levels = [peak()]
for pays_from in (0, 1 << 60):
    chunked_head._PAYS_FROM = pays_from
    step(4, 257)
    levels.append(peak())
print(*levels)
"""


@pytest.mark.long
def test_peak_memory_at_a_vocabulary_of_32_thousand() -> None:
    """Whole: 131 MB of logits and as much of gradient. By chunks: 34 MB, and its gradient. The peak only rises."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    before, chunked, whole = (int(part) / 1024 for part in done.stdout.split())
    assert chunked - before < 110 and whole - chunked > 130, (before, chunked, whole)  # MiB
