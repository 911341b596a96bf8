"""Tests of several adapters on one base: chosen for each prompt, in one batch, against separate runs and `peft`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.tiny_language_models import GPT2, LLAMA, built, worked
from upturn import seeds
from upturn.adapter_layers import injection, row_adapters
from upturn.adapters.adalora import Adalora
from upturn.adapters.dora import Dora
from upturn.adapters.loha import Loha
from upturn.adapters.lora import Lora
from upturn.adapters.sora import Sora
from upturn.errors import UserError
from upturn.models.causal_lm import TextSampling
from upturn.types import Prompt

pytestmark = pytest.mark.slow


def with_adapters(kind: dict[str, Any], *adapters: Any) -> Any:
    """A model with adapters that change it by much, as if trained: normal weights of scale 0.3."""
    model = built(kind)
    for number, adapter in enumerate(adapters):
        adapter.attach(model, 1, number)
        seeds.seed_torch(100 + number)
        with torch.no_grad():
            for parameter in injection.tensors(model.module, adapter.adapter_name).values():
                parameter.copy_(0.3 * torch.randn_like(parameter))
    model.module.eval()
    return model


THREE = (
    Lora(rank=3, adapter_name="one"), Lora(rank=5, modules=["q_proj", "down_proj"], adapter_name="two"),
    Adalora(rank=2, adapter_name="three"),
)


def sampled(model: Any, choices: tuple[str, ...], rows: Any = slice(None), **settings: Any) -> list[str]:
    prompts = list(worked(12).prompts)[rows]
    keys = seeds.fold(3, range(24)).reshape(12, 2)[rows]
    samples = model.sample(prompts, keys, TextSampling(max_tokens=8, adapters=choices, **settings))
    return [str(text) for text in samples.content]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_mixed_batch_is_the_separate_runs(temperature: float) -> None:
    """Twelve prompts, six choices of three adapters, two candidates each, finished rows leaving the batch."""
    model = with_adapters(LLAMA, *THREE)
    kinds = ("one", "two", "three", "base", "one+three", "one+two+three")
    choices = tuple(kinds[i % 6] for i in range(12))
    mixed = sampled(model, choices, temperature=temperature)
    assert row_adapters.fits(model.module, ["one", "two", "three"])
    for place, kind in enumerate(kinds):
        rows = slice(place, None, 6)
        alone = sampled(model, (kind,), rows, temperature=temperature)
        assert [mixed[2 * i + j] for i in range(12)[rows] for j in range(2)] == alone
    assert len(sampled(model, choices, temperature=temperature, precision="bf16")) == 24
    assert sampled(model, (), temperature=temperature) == sampled(model, ("one+two+three",), temperature=temperature)
    assert len(set(map(tuple, (sampled(model, (kind,), temperature=temperature) for kind in kinds)))) == len(kinds)


@pytest.mark.parametrize("kind", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_rows_have_the_logits_of_peft(kind: dict[str, Any], tmp_path: Path) -> None:
    """Each row's logits are those of `peft` with that adapter alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = with_adapters(kind, Lora(rank=3, adapter_name="one"), Sora(rank=4, adapter_name="two"))
    model.save(tmp_path)
    ids = torch.randint(3, 15, (4, 7), generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), row_adapters.rows_of(model.module, [("one",), ("two",), ()]) as rows:
        rows.select(torch.tensor([0, 1, 2, 0]))
        ours = model.module(input_ids=ids).logits
        rows.keep(torch.tensor([1, 3]))
        fewer = model.module(input_ids=ids[[1, 3]]).logits
    torch.testing.assert_close(fewer, ours[[1, 3]], atol=1e-5, rtol=1e-5)
    base = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(ours[2], base(input_ids=ids[2:3]).logits[0], atol=1e-5, rtol=1e-5)
        for name, place in (("one", 0), ("two", 1), ("one", 3)):
            plain = AutoModelForCausalLM.from_pretrained(tmp_path)
            theirs = PeftModel.from_pretrained(plain, tmp_path / "adapters" / name).eval()
            expected = theirs(input_ids=ids[place : place + 1]).logits[0]
            torch.testing.assert_close(ours[place], expected, atol=1e-4, rtol=1e-4)


def test_adapters_that_are_no_low_rank_update_take_a_batch_each() -> None:
    model = with_adapters(LLAMA, Lora(rank=3, adapter_name="one"), Dora(rank=2), Loha(rank=2))
    assert not row_adapters.fits(model.module, ["one", "dora"])
    choices = tuple(("one", "dora", "loha", "one+dora")[i % 4] for i in range(12))
    mixed = sampled(model, choices)
    for place in range(4):
        alone = sampled(model, (choices[place],), slice(place, None, 4))
        assert [mixed[2 * i + j] for i in range(12)[place::4] for j in range(2)] == alone
    assert sampled(model, ()) == sampled(model, ("one+dora+loha",)), "all are on again"


def test_a_choice_is_refused_that_does_not_fit() -> None:
    model = with_adapters(LLAMA, *THREE)
    with pytest.raises(UserError, match="no adapter 'four'"):
        sampled(model, ("four",))
    with pytest.raises(UserError, match="5 choices of adapters for 12 prompts"):
        sampled(model, ("one",) * 5)
    with pytest.raises(ValueError, match="own sampler"):
        TextSampling(adapters=("one",), sampler="vllm")
    keys = np.array([[1]])
    field = model.sample([Prompt("")], keys, TextSampling(max_tokens=1, adapters=("one",))).fields["adapters"]
    assert field.tolist() == ["one"]
