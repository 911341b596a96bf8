"""Tests of the fast decoding step against the forward pass of `transformers`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from upturn import seeds
from upturn.config import components
from upturn.config.schema import Training
from upturn.models._language import generate, llama_decode, precision
from upturn.models._language.generate import Choice, decode
from upturn.training import precompute, trainer
from upturn.training.feeds import OnlineFeed
from upturn.training.setup import TrainingSetup
from upturn.types import Prompt, objects, real_samples

pytestmark = pytest.mark.slow

_SIZE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}
_CONFIG = {"model_type": "llama", **{k: v for k, v in _SIZE.items() if not k.endswith("_id") and k != "vocab_size"}}


def _module(kind: str, **more: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**_SIZE, **more})
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def _decoded(module: Any) -> generate.Decoded:
    """Uneven prompts, three candidates each: padding on the left, shared reading, rows that end and leave."""
    prompts = [np.random.default_rng(i).integers(3, 50, 3 + 4 * i).tolist() for i in range(3)]
    return decode(
        module, module.config, prompts, np.repeat(np.arange(3), 3), np.arange(9), stop=(2,), max_tokens=20,
        choice=Choice(temperature=0.7), batch=512)


@pytest.mark.parametrize("kind, more", [
    ("llama", {}), ("llama", {"num_key_value_heads": 2, "tie_word_embeddings": True, "attention_bias": True}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
    ("qwen2", {"num_key_value_heads": 2}), ("mistral", {"sliding_window": None, "num_key_value_heads": 1}),
])
@pytest.mark.parametrize("joined", [0, llama_decode._JOINED], ids=["apart", "joined"])
def test_the_fast_step_equals_the_forward_pass(
    kind: str, more: dict[str, Any], joined: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = _module(kind, **more)
    for parameter in module.parameters():  # norms and biases away from where they begin
        chance = torch.Generator().manual_seed(parameter.numel())
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=chance)
    assert llama_decode.fits(module)
    monkeypatch.setattr(llama_decode, "_JOINED", joined)
    quick = _decoded(module)
    monkeypatch.setattr(llama_decode, "fits", lambda _: False)
    plain = _decoded(module)
    assert (quick.tokens == plain.tokens).all()
    assert quick.stopped.any() and not quick.stopped.all()  # some rows left early
    torch.testing.assert_close(quick.model_log_probs, plain.model_log_probs, atol=2e-5, rtol=0)


def test_unsupported_cases_use_the_model_itself() -> None:
    assert not llama_decode.fits(_module("mistral", sliding_window=8))
    assert not llama_decode.fits(_module("gpt2"))
    mixed = _module("llama")
    mixed.lm_head.to(torch.bfloat16)
    assert not llama_decode.fits(mixed)
    assert not llama_decode.fits(_module("llama").to(torch.float16))


@pytest.mark.parametrize("kind, more", [
    ("llama", {"num_key_value_heads": 2, "tie_word_embeddings": True}), ("qwen2", {"num_key_value_heads": 2}),
])
@pytest.mark.parametrize("joined", [0, llama_decode._JOINED], ids=["apart", "joined"])
def test_the_fast_step_in_bfloat16_equals_the_forward_pass_within_its_rounding(
    kind: str, more: dict[str, Any], joined: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are compared with float32 arithmetic on the same weights: the fast step strays no further."""
    module = _module(kind, **more).to(torch.bfloat16)
    monkeypatch.setattr(llama_decode, "_JOINED", joined)
    prompt, following = torch.randint(3, 50, (4, 7)), torch.randint(3, 50, (6, 4))

    def logits(of: Any, quick: bool) -> torch.Tensor:
        cache, found = DynamicCache(config=of.config), []
        with torch.no_grad():
            of(input_ids=prompt, past_key_values=cache, use_cache=True)
            step = llama_decode.LlamaStep(of, cache, None, torch.full((4,), 7), 6)
            for tokens in following:
                whole = None if quick else of(input_ids=tokens[:, None], past_key_values=cache, use_cache=True)
                found.append(step.next(tokens) if whole is None else whole.logits[:, -1])
        return torch.stack(found).float()

    assert llama_decode.fits(module)
    quick, plain = logits(module, True), logits(module, False)
    exact = logits(module.float(), False)
    rounding = (plain - exact).abs()
    assert 0 < rounding.max() < 0.1 * exact.abs().max()
    assert (quick - exact).abs().mean() <= 1.25 * rounding.mean()


def test_the_sampling_precision_rounds_the_weights_and_restores_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 on any processor: the log-probs of the model whose weights were rounded, and afterwards the same bytes."""
    model = components.make("model", {"name": "causal_lm", "config": _CONFIG}, "test")
    asked = [Prompt(f"{i}+{i}=") for i in range(4)]
    model.build(real_samples("text", objects([str(2 * i) for i in range(4)]), asked, "test"), 0)
    for parameter in model.module.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    keys = seeds.fold(3, range(16)).reshape(4, 4)
    greedy = {"temperature": 0.0, "max_tokens": 8}
    monkeypatch.setattr(precision, "multiplies_bf16", lambda device: False)
    rounded = model.sample(asked, keys, model.Sampling(precision="bf16", **greedy))
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    monkeypatch.setattr(precision, "multiplies_bf16", lambda device: True)
    narrow = model.sample(asked, keys, model.Sampling(precision="bf16", **greedy))
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    whole = model.sample(asked, keys, model.Sampling(precision="fp32", **greedy))
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))
    expected = model.sample(asked, keys, model.Sampling(**greedy))
    assert (rounded.content == expected.content).all()
    np.testing.assert_array_equal(rounded.fields["model_log_prob"], expected.fields["model_log_prob"])
    assert (rounded.fields["model_log_prob"] != whole.fields["model_log_prob"]).any()
    same = narrow.content == expected.content  # near ties may fall otherwise in bfloat16
    assert same.mean() >= 0.75
    np.testing.assert_allclose(
        narrow.fields["model_log_prob"][same], expected.fields["model_log_prob"][same], atol=0.3)


def test_a_set_drawn_for_one_step_is_passed_once_with_equal_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights after three RLOO steps, with a pass of the policy less each time."""
    def trained(single: bool) -> tuple[list[torch.Tensor], int]:
        model = components.make("model", {"name": "causal_lm", "config": _CONFIG}, "test")
        asked = [Prompt(f"{i}+{i}=") for i in range(4)]
        model.build(real_samples("text", objects([str(2 * i) for i in range(4)]), asked, "test"), 0)
        if not single:
            monkeypatch.setattr(precompute, "one_pass", lambda *_: False)
        passes = 0
        act = model.act

        def counted(batch: Any) -> Any:
            nonlocal passes
            passes += 1
            return act(batch)

        model.act = counted

        def draw(number: int) -> Any:
            keys = seeds.fold(number, range(16)).reshape(4, 4)
            rollout = model.rollout(asked, keys, model.Sampling(max_tokens=8))
            rewards = torch.tensor([float(len(str(text))) for text in rollout.samples.content]).reshape(4, 4)
            return replace(model.replay(rollout), candidates=4, given={"rewards": rewards})

        trainer.train(model, TrainingSetup(
            spec=Training(steps=3, batch_size=4, learning_rate=1e-2, precision="fp32"),
            objective=components.make("objective", {"name": "rloo"}, "test"),
            adapter=components.make("adapter", {"name": "full"}, "test"),
            feed=OnlineFeed(draw, 4, 4, 1, 1), key=1, where="test"))
        return [p.detach().clone() for p in model.module.parameters()], passes

    once, fewer = trained(True)
    twice, more = trained(False)
    assert more - fewer == 3
    for a, b in zip(once, twice, strict=True):
        # Adam moves a weight by 1e-2 a step whatever its gradient's size: float noise of 1e-7 shows as a bit more
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
