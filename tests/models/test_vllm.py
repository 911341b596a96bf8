"""Tests of `sampler: vllm` with a fake vLLM that runs one of this package's models.

vLLM itself is not run here.
"""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from helpers.tiny_language_models import trained, worked
from upturn import seeds
from upturn.adapter_layers import injection
from upturn.config import components
from upturn.errors import RunError, UserError
from upturn.models._language import vllm as _vllm
from upturn.models.causal_lm import CausalLm, TextSampling
from upturn.store import parquet_tables
from upturn.types import Batch, Prompt, Ragged

pytestmark = pytest.mark.slow


@dataclass
class Params:
    """The fields of SamplingParams that are used, with its own defaults."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    max_tokens: int | None = 16
    stop_token_ids: list[int] = field(default_factory=list)
    logprobs: int | None = None
    detokenize: bool = True


class Engine:
    """Draws as vLLM documents it: n candidates a prompt, seeds that follow each other, raw log-probs, in any order."""

    made: ClassVar[list[Engine]] = []

    def __init__(self, model: str, **options: Any) -> None:
        from transformers import AutoModelForCausalLM

        self.module = AutoModelForCausalLM.from_pretrained(model, use_safetensors=True).eval()
        self.folder, self.options, self.asked = Path(model), options, []
        self.files = sorted(path.name for path in Path(model).iterdir())
        Engine.made.append(self)

    @torch.no_grad()
    def generate(self, prompts: list[dict[str, list[int]]], params: list[Params], use_tqdm: bool) -> list[Any]:
        self.asked.append((prompts, params))
        answers = []
        for prompt, asked in zip(prompts, params, strict=True):
            outputs = [self.one(prompt["prompt_token_ids"], asked, i) for i in range(asked.n)]
            answers.append(SimpleNamespace(outputs=outputs[::-1]))
        return answers

    def one(self, prompt: list[int], asked: Params, index: int) -> Any:
        generator = torch.Generator().manual_seed((asked.seed or 0) + index)
        tokens: list[int] = []
        logprobs: list[dict[int, Any]] = []
        while len(tokens) < (asked.max_tokens or 0):
            logits = self.module(torch.tensor([prompt + tokens])).logits[0, -1]
            heat = asked.temperature
            token = int(logits.argmax() if heat == 0
                        else torch.multinomial((logits / heat).softmax(-1), 1, generator=generator))
            tokens.append(token)
            logprobs.append({token: SimpleNamespace(logprob=float(logits.log_softmax(-1)[token]))})
            if token in asked.stop_token_ids:
                break
        finish = "stop" if tokens[-1] in asked.stop_token_ids else "length"
        return SimpleNamespace(index=index, token_ids=tokens, logprobs=logprobs, finish_reason=finish)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> type[Engine]:
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = Engine, Params  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(_vllm, "_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(Engine, "made", [])
    monkeypatch.setattr(_vllm, "_held", [])
    return Engine


@pytest.fixture(scope="module")
def learned() -> CausalLm:
    return trained(40)


KEYS = seeds.fold(7, range(12)).reshape(4, 3)


def own_log_probs(model: CausalLm, prompts: list[Prompt], engine: Engine) -> torch.Tensor:
    """(N,) log-probs of ``forward`` for the tokens that the engine drew: drawn again, they are equal."""
    asked, params = engine.asked[-1]
    rows, masks = [], []
    for prompt, one in zip(asked, params, strict=True):
        for index in range(one.n):
            drawn = engine.one(prompt["prompt_token_ids"], one, index).token_ids
            rows.append(prompt["prompt_token_ids"] + drawn)
            masks.append([0.0] * len(prompt["prompt_token_ids"]) + [1.0] * len(drawn))
    offsets = torch.tensor([0, *map(len, rows)]).cumsum(0)
    columns = {
        name: Ragged(torch.cat([torch.tensor(row) for row in values]), offsets)
        for name, values in (("tokens", rows), ("mask", masks))
    }
    out = model.forward(Batch(columns).take(torch.arange(len(rows))), None)
    return (out.log_probs * out.mask).sum(dim=1)


def test_sampling_parameters_and_their_mapping(vllm: type[Engine], learned: CausalLm, tmp_path: Path) -> None:
    prompts = [*worked(3).prompts, worked(1).prompts[0]]  # the first one twice
    samples = learned.sample(prompts, KEYS, TextSampling(sampler="vllm", max_tokens=9))
    engine = vllm.made[0]
    given, params = engine.asked[0]
    assert [len(engine.asked), len(given), len(samples)] == [1, 4, 12]
    assert given[0] == given[3] and given[0]["prompt_token_ids"][0] == learned.codec.bos
    assert all(p.n == 3 and p.max_tokens == 9 and p.stop_token_ids == [learned.codec.eos] for p in params)
    assert all((p.temperature, p.top_p, p.top_k, p.logprobs, p.detokenize) == (1.0, 1.0, -1, 0, False) for p in params)
    assert len({p.seed for p in params}) == 4 and all(0 <= p.seed < 2**62 for p in params)
    options = engine.options
    assert options["logprobs_mode"] == "raw_logprobs" and options["skip_tokenizer_init"] is True
    assert options["max_model_len"] == 64 and options["dtype"] == "bfloat16" and options["trust_remote_code"] is False
    assert "model.safetensors" in engine.files and not engine.folder.exists()  # read, and gone
    # the columns of our own sampler, the same types, and one more
    ours = learned.sample(prompts, KEYS, TextSampling(max_tokens=9))
    assert set(samples.fields) == {*ours.fields, "key_reproducible"}
    assert all(samples.fields[name].dtype == ours.fields[name].dtype for name in ours.fields)
    assert (samples.ids == ours.ids).all() and (samples.group == ours.group).all()
    assert (samples.fields["key"] == KEYS.reshape(-1)).all() and not samples.fields["key_reproducible"].any()
    assert set(samples.fields["finish"]) <= {"stop", "length"} and "stop" in samples.fields["finish"]
    for row, (p, k) in enumerate(np.ndindex(4, 3)):  # candidate k is the one whose index says so
        drawn = engine.one(given[p]["prompt_token_ids"], params[p], k)
        assert samples.fields["tokens"][row] == len(drawn.token_ids)
        assert samples.fields["finish"][row] == drawn.finish_reason
        assert samples.content[row] == learned.codec.decode([drawn.token_ids])[0]
    # its log-probs are the model's: there is no drift
    theirs = own_log_probs(learned, prompts, engine).detach().numpy()
    np.testing.assert_allclose(samples.fields["model_log_prob"], theirs, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(samples.fields["log_prob"], samples.fields["model_log_prob"])
    parquet_tables.write_samples(tmp_path / "s.parquet", samples)
    again = parquet_tables.read_samples(tmp_path / "s.parquet")
    assert not again.fields["key_reproducible"].any() and again.content.tolist() == samples.content.tolist()


def test_unknown_values_are_left_out(vllm: type[Engine], learned: CausalLm) -> None:
    prompts = list(worked(4).prompts)
    settings = TextSampling(sampler="vllm", max_tokens=5, temperature=0.7, top_p=0.9, top_k=3)
    cold = learned.sample(prompts, KEYS, settings)
    params = vllm.made[0].asked[0][1][0]
    assert (params.temperature, params.top_p, params.top_k) == (0.7, 0.9, 3)
    assert np.isnan(cold.fields["log_prob"]).all() and np.isfinite(cold.fields["model_log_prob"]).all()
    greedy = learned.sample(prompts, KEYS, TextSampling(sampler="vllm", max_tokens=5, temperature=0.0))
    ours = learned.sample(prompts, KEYS, TextSampling(max_tokens=5, temperature=0.0))
    assert greedy.content.tolist() == ours.content.tolist() and (greedy.fields["log_prob"] == 0).all()


def test_one_engine_for_equal_weights_and_a_new_one_after_a_step(vllm: type[Engine]) -> None:
    model = trained(5)
    prompts, settings = list(worked(4).prompts), TextSampling(sampler="vllm", max_tokens=4)
    model.sample(prompts[:2], KEYS[:2], settings)
    model.sample(prompts[2:], KEYS[2:], settings)  # the next shard
    assert len(vllm.made) == 1
    with torch.no_grad():
        next(model.module.parameters()).mul_(1.5)
    model.sample(prompts, KEYS, settings)
    assert len(vllm.made) == 2 and len(_vllm._held) == 1
    theirs, ours = vllm.made[1].module.state_dict(), model.module.state_dict()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_are_merged_for_it_and_untouched_here(vllm: type[Engine], dora: bool) -> None:
    from peft import LoraConfig

    model = trained(5)
    model.add_value_head(1)
    plain = {name: value.clone() for name, value in model.module.state_dict().items()}
    for name in ("first", "second"):
        seeds.seed_torch(3)
        injection.inject(model.module, name, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], use_dora=dora))
    for name, parameter in model.module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    prompts = list(worked(4).prompts)
    samples = model.sample(prompts, KEYS, TextSampling(sampler="vllm", max_tokens=6))
    engine = vllm.made[0]
    theirs = engine.module.state_dict()
    assert set(theirs) == set(plain) - {"value_head.weight", "value_head.bias"}
    adapted = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(theirs[adapted], plain[adapted])
    after = model.module.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    ours = own_log_probs(model, prompts, engine).detach().numpy()
    np.testing.assert_allclose(samples.fields["model_log_prob"], ours, rtol=1e-4, atol=1e-4)
    del model
    gc.collect()
    assert _vllm._held[0].module() is None  # an engine does not keep a model alive


@pytest.mark.parametrize("wrong", ["no log-probs", "one too few", "no stop token"])
def test_answers_that_are_not_understood_are_refused(
    vllm: type[Engine], learned: CausalLm, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    whole = Engine.generate

    def generate(self: Engine, *given: Any, **options: Any) -> list[Any]:
        answers = whole(self, *given, **options)
        first = answers[0].outputs
        if wrong == "no log-probs":
            first[0].logprobs = None
        elif wrong == "one too few":
            first.pop()
        else:
            first[0].finish_reason = "length" if first[0].finish_reason == "stop" else "stop"
        return answers

    monkeypatch.setattr(Engine, "generate", generate)
    with pytest.raises(RunError, match="vLLM"):
        learned.sample(list(worked(4).prompts), KEYS, TextSampling(sampler="vllm", max_tokens=6))


# --- recipes ----------------------------------------------------------------------------------------------------


def assembled(place: str) -> Any:
    """The parts of a shipped recipe of texts with the sampler named at ``place``."""
    from upturn.config import recipe as recipes
    from upturn.loop.assemble import assemble

    path = Path(__file__).parents[2] / "recipes" / "equations.yaml"
    return assemble(recipes.load(path, [f"{place}.sampler=vllm"]))


def test_a_recipe_names_it(vllm: type[Engine]) -> None:
    parts = assembled("rounds.sample.settings")
    assert parts.sampling.sampler == "vllm" and not parts.sampling.keyed and not vllm.made


def test_without_vllm_or_a_gpu_the_recipe_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    where = "rounds.sample.settings.sampler"
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"{where}: .*vLLM is not installed.*pip install vllm"):
        assembled("rounds.sample.settings")
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"{where}: .*no GPU"):
        assembled("rounds.sample.settings")


def test_where_noise_must_be_equal_it_is_refused(vllm: type[Engine], learned: CausalLm) -> None:
    with pytest.raises(UserError, match=r"evaluate\.0\.settings\.sampler: .*does not reproduce"):
        assembled("evaluate.0.settings")
    with pytest.raises(UserError, match="rollouts are drawn by our own sampler"):
        learned.rollout(list(worked(4).prompts), KEYS, TextSampling(sampler="vllm"))
    with pytest.raises(UserError, match="'own' or 'vllm'"):
        components.checked(TextSampling, {"sampler": "tgi"}, "s", "sampling")
