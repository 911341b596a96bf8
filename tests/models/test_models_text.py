"""Tests of causal language models: template, truncation, log-probs, decoding, saving."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import model_contract as contract
from helpers.tiny_language_models import GPT2, LLAMA, NEOX, built, trained, worked
from upturn import seeds
from upturn.data import tokenizers as _tokenizer
from upturn.errors import UserError
from upturn.models._language.generate import Choice, choose
from upturn.models._language.log_probs import token_log_probs
from upturn.models.causal_lm import CausalLm, TextSampling
from upturn.models.reward_text import RewardText
from upturn.types import Batch, Prompt, Samples, real_samples


def texts(rows: list[str]) -> Samples:
    return real_samples("text", rows, [Prompt()] * len(rows), "texts")


@pytest.fixture(scope="module")
def learned() -> CausalLm:
    return trained()


@pytest.mark.slow
@pytest.mark.parametrize("config", [LLAMA, GPT2, NEOX], ids=lambda c: c["model_type"])
def test_contract(config: dict[str, Any], tmp_path: Path) -> None:
    prompts = list(worked().prompts[:4])
    greedy = TextSampling(temperature=0.0, max_tokens=8)
    contract.assert_policy_contract(lambda: CausalLm(config=config), worked(20), prompts, tmp_path, settings=greedy)


# --- the template -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pain_5_one_bos_distinct_specials_and_one_template(learned: CausalLm) -> None:
    codec = learned.codec
    assert len({codec.pad, codec.bos, codec.eos}) == 3
    samples = worked(5)
    batch = learned.encode(samples).take(torch.arange(5))
    for row, sample in enumerate(samples):
        size = len(sample.prompt.text) + len(sample.content) + 2
        tokens, mask = batch["tokens"][row, :size], batch["mask"][row]
        assert tokens[0] == codec.bos and (tokens == codec.bos).sum() == 1
        assert tokens[-1] == codec.eos and (tokens == codec.eos).sum() == 1
        assert codec.decode([tokens.tolist()]) == [sample.prompt.text + sample.content]
        first = 1 + len(sample.prompt.text)
        expected = [0.0] * first + [1.0] * (len(sample.content) + 1) + [0.0] * (len(mask) - size)
        assert mask.tolist() == expected
    # what sampling reads is what training put before the completion
    rollout = learned.rollout(samples.prompts, seeds.fold(1, range(5))[:, None], TextSampling(max_tokens=3))
    for row, sample in enumerate(samples):
        count = int(rollout.state["prompt_lengths"][row])
        assert count == 1 + len(sample.prompt.text)
        assert rollout.state["prompt_tokens"][row, :count].tolist() == batch["tokens"][row, :count].tolist()


def test_without_a_prompt_everything_after_bos_is_learned() -> None:
    model = built(examples=texts(["abc", "b"]))
    batch = model.encode(texts(["abc", ""])).take(torch.arange(2))
    assert batch["mask"].tolist() == [[0, 1, 1, 1, 1], [0, 1, 0, 0, 0]]


@pytest.mark.parametrize("spec", [{"kind": "characters"}, {"kind": "bpe", "size": 300}])
def test_a_special_name_inside_a_text_is_plain_text(spec: dict[str, Any]) -> None:
    said = f"x{_tokenizer.BOS}y{_tokenizer.EOS}{_tokenizer.PAD}"
    model = built(examples=texts([said, "xyz"]), tokenizer=spec)
    row = model.encode(texts([said])).take(torch.arange(1))["tokens"][0]
    special = torch.tensor([model.codec.bos, model.codec.eos, model.codec.pad])
    assert torch.isin(row, special).sum() == 2  # the template's own BOS and EOS
    assert model.codec.decode([row.tolist()]) == [said]


@pytest.mark.parametrize("spec", [{"kind": "characters"}, {"kind": "bpe", "size": 400}])
def test_text_survives_its_tokens(spec: dict[str, Any]) -> None:
    rows = ["def f(x):\n    return  x\t# é ü 漢字 🙂", " leading", "trailing ", "a\r\nb", "don 't , stop ."]
    model = built(examples=texts(rows), tokenizer=spec)
    assert model.codec.decode(model.codec.encode(rows)) == rows


def test_tokenizers_are_a_function_of_the_texts(tmp_path: Path) -> None:
    rows = [sample.content for sample in worked(200)] + ["the theatre then there"]
    for spec in ({"kind": "characters"}, {"kind": "bpe", "size": 300}):
        saved = []
        for name in ("a", "b"):
            codec, grown = _tokenizer.settle(_tokenizer.train(spec, list(rows)), "test")
            assert not grown
            codec.save(tmp_path / name)
            saved.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
        assert saved[0] == saved[1]


def test_characters_by_frequency_and_unknown_ones_are_counted() -> None:
    model = built(examples=texts(["aaab", "aabc"]), tokenizer={"kind": "characters", "size": 2})
    assert len(model.codec.tokenizer) == 4 + 2
    model.encode(texts(["abba"]))
    assert model.notes == ()
    model.encode(texts(["abcd"]))
    assert model.notes == ("2 of 6 tokens are unknown to the tokenizer",)


def test_a_pad_token_that_is_the_end_stays_so_and_the_end_is_learned(tmp_path: Path) -> None:
    """A language model's padding is left out by masks; a reward model finds the last token by it."""
    model = built()
    model.save(tmp_path / "m")
    path = tmp_path / "m" / "tokenizer_config.json"
    said = json.loads(path.read_text())
    said |= {"pad_token": _tokenizer.EOS}
    del said["unk_token"]
    path.write_text(json.dumps(said))
    again, reward = CausalLm(folder=str(tmp_path / "m")), RewardText(folder=str(tmp_path / "m"))
    for each in (again, reward):
        each.build(worked(), 1)
    assert again.codec.tokenizer.pad_token == _tokenizer.EOS
    assert len(again.codec.tokenizer) == len(model.codec.tokenizer)
    batch = again.encode(worked(5)).take(torch.arange(5))
    ends = (batch["tokens"] == again.codec.eos) & (batch["mask"] > 0)
    assert (ends.sum(dim=1) == 1).all()
    assert reward.codec.pad not in (reward.codec.eos, reward.codec.bos)
    assert reward.codec.pad < reward.module.get_input_embeddings().weight.shape[0]  # type: ignore[operator]


# --- PAINS 1 and 2: masks and truncation ------------------------------------------------------------------------


def test_pain_2_a_truncated_completion_is_refused() -> None:
    model = built(max_length=16)
    long = real_samples("text", ["1+2=3", "1+1+1+1+1+1+1+1"], [Prompt("1+2=")] * 2, "s")
    with pytest.raises(UserError, match=r"1 of 2 rows are longer than 16 tokens.*truncated_at_most"):
        model.encode(long)


def test_pain_2_an_allowed_truncation_is_counted_and_has_no_eos_target() -> None:
    model = built(max_length=16, truncated_at_most=0.5)
    long = real_samples("text", ["1+2=3", "1+1+1+1+1+1+1+1"], [Prompt("1+2=")] * 2, "s")
    batch = model.encode(long).take(torch.arange(2))
    assert "1 of 2 rows" in model.notes[0] and "cut" in model.notes[0]
    assert batch["tokens"].shape == (2, 16)
    assert model.codec.eos not in batch["tokens"][1].tolist()
    assert batch["mask"].sum(dim=1).tolist() == [6, 11]


def test_pain_1_a_sample_with_nothing_to_learn_is_refused() -> None:
    model = built(max_length=8, truncated_at_most=1.0)
    masked = real_samples("text", ["3"], [Prompt("1+1+1+1+1=")], "s")
    with pytest.raises(UserError, match=r"prompt of 1 of 1 samples fills all 8 tokens"):
        model.encode(masked)


def test_other_kinds_are_refused() -> None:
    points = real_samples("points", np.zeros((2, 2), np.float32), [Prompt()] * 2, "p")
    with pytest.raises(UserError, match="reads text, and these samples are points"):
        built().encode(points)


# --- log-probs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_token_log_probs_and_gradient_are_those_of_log_softmax(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    base = torch.randn(3, 5, 17).mul(3).to(dtype)
    tokens, weight = torch.randint(0, 17, (3, 5)), torch.randn(3, 5)
    ours, theirs = base.clone().requires_grad_(), base.clone().requires_grad_()
    a = token_log_probs(ours, tokens)
    b = theirs.float().log_softmax(-1).gather(2, tokens[..., None])[..., 0]
    torch.testing.assert_close(a, b, rtol=1e-6, atol=2e-6)
    (a * weight).sum().backward()
    (b * weight).sum().backward()
    assert ours.grad is not None and theirs.grad is not None and ours.grad.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 2.0**-7  # one rounding of bfloat16, of values up to 1
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=tolerance * 3)


def test_token_log_probs_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    logits, tokens = torch.randn(4, 7, 11), torch.randint(0, 11, (4, 7))
    whole = logits.clone().requires_grad_()
    token_log_probs(whole, tokens).sum().backward()
    monkeypatch.setattr("upturn.models._language.log_probs._BLOCK", 33)
    parts = logits.clone().requires_grad_()
    token_log_probs(parts, tokens).sum().backward()
    assert whole.grad is not None
    torch.testing.assert_close(parts.grad, whole.grad)


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=lambda c: c["model_type"])
def test_pain_8_log_probs_of_a_row_do_not_depend_on_padding_or_neighbours(config: dict[str, Any]) -> None:
    model = built(config)
    examples = model.encode(worked())
    together = model.forward(examples.take(torch.arange(40)), None)
    for row in (0, 7, 39):
        alone = model.forward(examples.take(torch.tensor([row])), None)
        width = alone.log_probs.shape[1]
        torch.testing.assert_close(alone.log_probs[0], together.log_probs[row, :width], rtol=1e-5, atol=1e-5)
        assert together.mask[row, width:].sum() == 0


@pytest.mark.slow
def test_log_probs_are_those_of_transformers_own_loss(learned: CausalLm) -> None:
    batch = learned.encode(worked(6)).take(torch.arange(6))
    out = learned.forward(batch, None)
    labels = batch["tokens"].masked_fill(batch["mask"] == 0, -100)
    loss = learned.module(input_ids=batch["tokens"], labels=labels).loss
    torch.testing.assert_close(-(out.log_probs * out.mask).sum() / out.mask.sum(), loss, rtol=1e-5, atol=1e-6)


def test_probabilities_of_all_short_texts_sum_to_one() -> None:
    """The exact likelihood is normalised: over all texts of at most two characters and all longer prefixes."""
    model = built(examples=texts(["ab"]))
    model.module.eval()
    size = len(model.codec.tokenizer)
    tokens = torch.cartesian_prod(torch.tensor([model.codec.bos]), torch.arange(size), torch.arange(size))
    batch = Batch({"tokens": tokens, "mask": torch.ones(tokens.shape)})
    assert model.forward(batch, None).log_probs.sum(dim=1).exp().sum().item() == pytest.approx(1.0, abs=1e-5)


# --- decoding ---------------------------------------------------------------------------------------------------


def test_inverse_cdf_follows_the_distribution() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 12).mul(2)
    n = 200_000
    tokens, acted, own = choose(logits.expand(n, 12), seeds.uniform(seeds.fold(3, range(n))), Choice())
    share = torch.bincount(tokens, minlength=12).double() / n
    probs = logits[0].softmax(-1).double()
    error = 5 * (probs * (1 - probs) / n).sqrt() + 1e-6  # five standard errors of each share
    assert ((share - probs).abs() <= error).all()
    torch.testing.assert_close(acted, own, rtol=1e-5, atol=1e-6)


def test_temperature_top_k_and_top_p() -> None:
    probs = torch.tensor([0.05, 0.5, 0.3, 0.15])
    u = (torch.arange(4000) + 0.5) / 4000

    def drawn(choice: Choice) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, acted, own = choose(probs.log().expand(4000, 4), u, choice)
        torch.testing.assert_close(own, probs.log()[tokens], rtol=1e-5, atol=1e-5)
        share = torch.bincount(tokens, minlength=4) / 4000
        torch.testing.assert_close(acted.exp(), share[tokens], rtol=0, atol=1e-3)
        return share, acted

    expect = {
        Choice(): probs, Choice(top_k=2): torch.tensor([0, 0.625, 0.375, 0]),
        Choice(top_p=0.8): torch.tensor([0, 0.625, 0.375, 0]),
        Choice(top_p=0.81): torch.tensor([0, 0.5, 0.3, 0.15]) / 0.95,
        Choice(temperature=0.5): probs**2 / (probs**2).sum(), Choice(top_p=1e-9): torch.tensor([0, 1.0, 0, 0]),
    }
    for choice, share in expect.items():
        torch.testing.assert_close(drawn(choice)[0], share, rtol=0, atol=1e-3)
    tokens, acted, _ = choose(probs.log()[None], torch.tensor([0.99]), Choice(temperature=0.0))
    assert tokens.item() == 1 and acted.item() == 0.0


@pytest.mark.parametrize("config", [LLAMA, GPT2, NEOX], ids=lambda c: c["model_type"])
def test_greedy_is_what_transformers_generates(config: dict[str, Any]) -> None:
    """Uneven prompts in one padded batch, against generate() on each prompt alone."""
    model = built(config)
    prompts = list(worked(12).prompts)
    keys = seeds.fold(5, range(12))[:, None]
    ours = model.rollout(prompts, keys, TextSampling(temperature=0.0, max_tokens=10))
    same = 0
    for row, prompt in enumerate(prompts):
        read = torch.tensor([[model.codec.bos, *model.codec.encode([prompt.text])[0]]])
        theirs = model.module.generate(  # type: ignore[operator]
            read, attention_mask=torch.ones_like(read), do_sample=False, max_new_tokens=10
        )[0, read.shape[1] :]
        count = int(ours.mask[row].sum())
        same += ours.actions[row, :count].tolist() == theirs.tolist()[:count] and count == len(theirs)
    assert same == 12


def test_the_sampler_and_the_trainer_agree(learned: CausalLm) -> None:
    """Behaviour log-probs of a rollout are forward's on the same tokens, whatever left the batch meanwhile."""
    prompts = list(worked(30).prompts)
    rollout = learned.rollout(prompts, seeds.fold(9, range(120)).reshape(30, 4), TextSampling(batch=50, max_tokens=30))
    ends = rollout.mask.sum(dim=1)
    assert ends.min() < ends.max(), "the case needs texts of uneven length"
    replayed = learned.replay(rollout)
    batch = replayed.take(torch.arange(len(replayed)))
    out = learned.forward(batch, None)
    assert int(out.mask.sum()) == int(rollout.mask.sum())
    ours = out.log_probs[out.mask.bool()]
    torch.testing.assert_close(ours, rollout.log_probs[rollout.mask.bool()], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours, batch["behaviour"][out.mask.bool()], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rollout.state["model_log_probs"], rollout.log_probs, rtol=1e-4, atol=1e-4)
    sums = rollout.samples.fields["log_prob"]
    np.testing.assert_allclose(sums, (rollout.log_probs * rollout.mask).sum(dim=1).numpy(), rtol=1e-5)


def test_samples_have_no_special_tokens_and_record_how_they_ended(learned: CausalLm) -> None:
    prompts = list(worked(10).prompts)
    samples = learned.sample(prompts, seeds.fold(2, range(40)).reshape(10, 4), TextSampling(max_tokens=9))
    for sample in samples:
        assert "<|" not in sample.content
        stopped = sample.fields["finish"] == "stop"
        assert sample.fields["tokens"] == len(sample.content) + stopped or not stopped
        assert stopped or sample.fields["tokens"] == 9
    assert set(samples.fields["finish"]) == {"stop", "length"}
    assert len({s.content for s in samples if s.group == 0}) > 1, "candidates of one prompt have keys of their own"


def test_samples_depend_on_their_key_not_on_their_batch(learned: CausalLm) -> None:
    prompts = list(worked(40).prompts)
    keys = seeds.fold(4, range(160)).reshape(40, 4)
    settings = TextSampling(max_tokens=25)
    whole = learned.sample(prompts, keys, settings).content
    parts = learned.sample(prompts, keys, dataclasses.replace(settings, batch=20)).content
    assert np.mean(whole == parts) >= 0.99  # a token flips where a uniform number falls within rounding of an edge
    alone = learned.sample(prompts[5:6], keys[5:6], settings).content
    assert alone.tolist() == whole[20:24].tolist()


def test_a_text_longer_than_the_model_is_refused() -> None:
    model = built()
    prompts, keys = [Prompt("1+1=")], np.array([[1]])
    with pytest.raises(UserError, match=r"has 5 tokens and 60 more.*64 tokens at most.*Lower max_tokens"):
        model.sample(prompts, keys, TextSampling(max_tokens=60))
    assert model.sample(prompts, keys, TextSampling(max_tokens=59)).fields["tokens"][0] <= 59
    with pytest.raises(UserError, match="at most"):
        model.sample([Prompt("1" * 63)], keys, TextSampling())


def test_no_prompts_are_refused() -> None:
    with pytest.raises(UserError, match="no prompts to sample from"):
        built().sample([], np.zeros((0, 2), np.int64), TextSampling())


class Wrapped(torch.nn.DataParallel):
    """What a trainer puts around a model: only calls reach the inside."""

    calls = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return super().forward(*args, **kwargs)


def test_a_wrapped_module_is_called_sampled_and_saved(tmp_path: Path) -> None:
    model = built()
    plain = model.sample(worked(4).prompts, seeds.fold(1, range(4))[:, None], TextSampling(max_tokens=5)).content
    model.save(tmp_path / "plain")
    wrapped = Wrapped(model.module)
    model.module = wrapped
    again = model.sample(worked(4).prompts, seeds.fold(1, range(4))[:, None], TextSampling(max_tokens=5)).content
    assert wrapped.calls == 5 and plain.tolist() == again.tolist()
    model.forward(model.encode(worked(4)).take(torch.arange(4)), None)
    assert wrapped.calls == 6
    model.save(tmp_path / "wrapped")
    for path in (tmp_path / "plain").iterdir():
        assert path.read_bytes() == (tmp_path / "wrapped" / path.name).read_bytes()


# --- weights ----------------------------------------------------------------------------------------------------


def test_saved_models_open_with_transformers(learned: CausalLm, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    learned.save(tmp_path / "model")
    module = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    sample = worked(1)[0]
    assert tokenizer.pad_token_id == learned.codec.pad != tokenizer.eos_token_id == learned.codec.eos
    ids = tokenizer(sample.prompt.text + sample.content, add_special_tokens=False)["input_ids"]
    row = torch.tensor([[tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]])
    batch = learned.encode(worked(1)).take(torch.arange(1))
    assert torch.equal(batch["tokens"], row)
    theirs = module(row[:, :-1]).logits.log_softmax(-1).gather(2, row[:, 1:, None])[..., 0]
    learned.module.eval()
    torch.testing.assert_close(learned.forward(batch, None).log_probs, theirs, rtol=1e-5, atol=1e-6)
    # generate() stops by itself with what is saved
    written = module.generate(**tokenizer(sample.prompt.text, return_tensors="pt"), max_new_tokens=4)
    assert written.shape[1] <= len(sample.prompt.text) + 5


def test_equal_weights_are_equal_bytes_wherever_they_came_from(tmp_path: Path) -> None:
    model = built()
    model.save(tmp_path / "one")
    from_folder = CausalLm(folder=str(tmp_path / "one"))
    from_folder.build(worked(), 5)
    from_folder.save(tmp_path / "elsewhere" / "two")
    loaded = CausalLm(config=LLAMA)
    loaded.load(tmp_path / "elsewhere" / "two")
    loaded.save(tmp_path / "three")
    saved = ("one", "elsewhere/two", "three")
    files = [{p.name: p.read_bytes() for p in (tmp_path / where).iterdir()} for where in saved]
    assert files[0] == files[1] == files[2]
    assert set(files[0]) == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "upturn.json",
    }
    assert not any(str(tmp_path).encode() in content for content in files[0].values())


def test_dropout_is_off_unless_it_is_stated() -> None:
    model = built(GPT2)
    model.module.train()
    batch = model.encode(worked(4)).take(torch.arange(4))
    assert torch.equal(model.forward(batch, None).log_probs, model.forward(batch, None).log_probs)
    stated = built({**GPT2, "resid_pdrop": 0.5})
    stated.module.train()
    assert not torch.equal(stated.forward(batch, None).log_probs, stated.forward(batch, None).log_probs)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "exactly one of config, folder and hub"),
        ({"config": LLAMA, "folder": "x"}, "exactly one"),
        ({"config": {"hidden_size": 3}}, "model_type"),
        ({"config": LLAMA, "tokenizer": {"kind": "words"}}, "characters and bpe"),
        ({"config": LLAMA, "tokenizer": {"kind": "bpe"}}, "at least 259"),
        ({"config": LLAMA, "tokenizer": {"kind": "bpe", "szie": 300}}, "no key 'szie'"),
        ({"config": LLAMA, "truncated_at_most": 2.0}, "share between 0 and 1"),
    ],
)
def test_bad_fields(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CausalLm(**fields)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "lama"}, "no causal language model 'lama'.*Did you mean 'llama'"),
        ({**LLAMA, "hiden_size": 3}, "no key 'hiden_size'.*Did you mean 'hidden_size'"),
        ({**LLAMA, "vocab_size": 3}, "vocab_size is 3"),
        ({"model_type": "llama", "hidden_size": 33, "num_attention_heads": 4}, "no llama can be built"),
    ],
)
def test_bad_configs(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        built(config)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        CausalLm(folder=str(tmp_path / "none")).build(worked(), 1)
    model = built()
    model.save(tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        CausalLm(config=LLAMA).load(tmp_path / "m")
    weights.unlink()
    torch.save(model.module.state_dict(), tmp_path / "m" / "pytorch_model.bin")  # a pickle is never opened
    with pytest.raises(UserError, match="cannot be read"):
        CausalLm(config=LLAMA).load(tmp_path / "m")


def test_missing_weights_are_never_random(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = built()
    model.save(tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights are missing \(the first is lm_head.weight\)"):
        CausalLm(folder=str(tmp_path / "m")).build(worked(), 1)


def test_a_hub_name_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="'nobody/nothing' is neither in the local cache nor can it be fetched"):
        CausalLm(hub="nobody/nothing").build(worked(), 1)
