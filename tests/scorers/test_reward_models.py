"""Reward models: heads, objectives over them, scorers and measures of their quality."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from upturn.adapters.full import Full
from upturn.config import components
from upturn.config.schema import Training
from upturn.data.groups import encode_groups, from_fields
from upturn.errors import UserError
from upturn.loop.stages.reward_model_quality import assess
from upturn.models._language import headed_checkpoints
from upturn.models.causal_lm import CausalLm
from upturn.models.reward_image import RewardImage
from upturn.models.reward_text import RewardText
from upturn.models.text_classifier import TextClassifier
from upturn.statistics import preference_models
from upturn.statistics.calibration import calibration_error, reliability
from upturn.training import trainer
from upturn.training.feeds import FixedFeed
from upturn.training.history import History
from upturn.training.schedule import learning_rate
from upturn.training.setup import TrainingSetup
from upturn.types import Batch, Kind, Outputs, Prompt, Samples, real_samples

pytestmark = pytest.mark.slow

LLAMA = {
    "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48, "max_position_embeddings": 64,
}
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
NEOX = {
    "model_type": "gpt_neox", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 64,
}
PAIRED = ["bradley_terry", "davidson", "graded", "rao_kupper", "vague_raters"]


def objective(name: str, **fields: Any) -> Any:
    return components.make("objective", {"name": name, **fields})


def grouped(
    content: Any, rewards: np.ndarray, kind: Kind = "text", prompts: Sequence[Prompt] = (), **more: Any
) -> Samples:
    """Samples in groups of ``rewards.shape[1]``, ranked by rewards (G, K), equals tied."""
    count, wide = rewards.shape
    every = prompts or [Prompt(f"q{g}:") for g in range(count) for _ in range(wide)]
    samples = real_samples(kind, content, every, "planted")
    ranks = 1 + (rewards[:, None, :] > rewards[:, :, None]).sum(axis=2)
    fields = {"rank": ranks.reshape(-1).astype(np.int64), "score": rewards.reshape(-1).astype(float), **more}
    changed = {"group": np.repeat(np.arange(count), wide), "candidate": np.tile(np.arange(wide), count)}
    return Samples(**{**samples.__dict__, **changed, "fields": fields})


def letters(count: int, wide: int = 2, seed: int = 0) -> Samples:
    """Texts of uneven length; the reward is how many of the letters are "a"."""
    draw = np.random.default_rng(seed)
    texts = ["".join(draw.choice(list("abcd"), size=draw.integers(3, 14))) for _ in range(count * wide)]
    return grouped(texts, np.array([t.count("a") for t in texts], dtype=float).reshape(count, wide))


def fitted(model: Any, batch: Batch, aim: Any, steps: int, **fields: Any) -> History:
    spec = Training(**{"steps": steps, "batch_size": 64, "learning_rate": 5e-3, "schedule": "constant", **fields})
    plan = TrainingSetup(spec, aim, Full(), FixedFeed(batch, spec.batch_size, 3), 3, "test")
    return trainer.train(model, plan)


def every(batch: Batch) -> Batch:
    return batch.take(torch.arange(len(batch)))


def rewards_of(model: Any, samples: Samples) -> Tensor:
    found: Tensor = model.forward(every(model.encode(samples)), None).rewards.detach()
    return found


# --- likelihoods over rewards against their formulas --------------------------------------------------------------


def batch_of(rewards: Tensor, ranks: Sequence[Sequence[int]], /, **given: Any) -> tuple[Outputs, Batch]:
    none = rewards.reshape(-1, 1)[:, :0]
    out = Outputs(none, none, rewards=rewards.reshape(-1))
    table = {"ranks": torch.tensor(ranks), **{name: torch.as_tensor(value) for name, value in given.items()}}
    return out, Batch({"x": torch.zeros(rewards.numel())}, rewards.shape[1], table)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def outcomes(name: str, first: float, second: float) -> tuple[float, float, float]:
    """P(first), P(tie), P(second), written out."""
    a, b = math.exp(first), math.exp(second)
    if name == "davidson":
        level = 1.0 * math.sqrt(a * b)
        return a / (a + b + level), level / (a + b + level), b / (a + b + level)
    if name == "rao_kupper":
        theta = math.exp(0.69)
        tie = (theta**2 - 1) * a * b / ((a + theta * b) * (theta * a + b))
        return a / (a + theta * b), tie, b / (b + theta * a)
    if name == "vague_raters":
        win, tie, lose = outcomes("rao_kupper", first, second)
        return win + tie / 2, 0.0, lose + tie / 2
    return a / (a + b), 0.0, b / (a + b)


@pytest.mark.parametrize("name", ["bradley_terry", "davidson", "rao_kupper", "vague_raters"])
def test_pairs_are_their_formula(name: str) -> None:
    rewards = torch.tensor([[0.3, -1.2], [0.5, 0.9], [2.0, 2.0], [-4.0, 3.0], [1.0, 0.0]], dtype=torch.float64)
    ranks, weights = [[1, 2], [2, 1], [1, 1], [1, 2], [1, 0]], [1.0, 2.0, 0.5, 1.5, 9.0]
    loss = objective(name)(*batch_of(rewards, ranks, weights=np.array(weights)))
    total = weight = 0.0
    knows_ties = name in ("davidson", "rao_kupper")
    for (first, second), rank, w in zip(rewards.tolist(), ranks, weights, strict=True):
        win, tie, lose = outcomes(name, first, second)
        assert win + tie + lose == pytest.approx(1, abs=1e-12)
        if rank[0] == rank[1] and not knows_ties:
            continue
        # the last is a pick: of a pair that is the same as 1 before 2
        probability = win if rank in ([1, 2], [1, 0]) else lose if rank == [2, 1] else tie
        total, weight = total - w * math.log(probability), weight + w
    assert float(loss.sum) == pytest.approx(total, rel=1e-10) and float(loss.weight) == weight
    assert float(loss.metrics["said_nothing"]) == (0 if knows_ties else 1)


def test_a_margin_asks_for_more_and_never_weighs() -> None:
    rewards = torch.tensor([[0.3, -1.2], [0.5, 0.9]], dtype=torch.float64)
    loss = objective("bradley_terry", margin=3.0)(*batch_of(rewards, [[1, 2], [2, 1]], strength=[1.0, 1 / 3]))
    expected = -math.log(sigmoid(1.5 - 3.0)) - math.log(sigmoid(0.4 - 1.0))
    assert float(loss.sum) == pytest.approx(expected, rel=1e-6) and float(loss.weight) == 2


def test_graded_labels_have_their_best_gap_at_the_label() -> None:
    strength = [0.0, 0.25, 1.0, 1.0]
    gaps = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([gaps], max_iter=60, tolerance_grad=1e-8)
    aim = objective("graded", sure=0.9)

    def closure() -> Tensor:
        optimiser.zero_grad()
        rewards = torch.stack([gaps, torch.zeros(4, dtype=torch.float64)], dim=1)
        loss: Tensor = aim(*batch_of(rewards, [[1, 2], [1, 2], [1, 2], [1, 1]], strength=strength)).sum
        loss.backward()
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    expected = [0.0, math.log(0.6 / 0.4), math.log(0.9 / 0.1), 0.0]
    np.testing.assert_allclose(gaps.detach().numpy(), expected, atol=1e-4)
    with pytest.raises(UserError, match="strengths between 0 and 1, these reach 3"):
        aim.prepare(batch_of(torch.zeros(1, 2), [[1, 2]], strength=[3.0])[1])


def test_rankings_and_picks_are_sums_over_orders() -> None:
    rewards = torch.tensor([[0.3, -1.2, 0.5, 0.1]] * 5, dtype=torch.float64)
    ranks = [[1, 2, 3, 4], [2, 0, 1, 0], [1, 0, 0, 0], [2, 2, 1, 2], [1, 1, 1, 1]]
    loss = objective("plackett_luce")(*batch_of(rewards, ranks, present=[[True] * 4] * 2 + [[True, True, True, False]]
                                                + [[True] * 4] * 2))
    worth = np.exp(rewards[0].numpy())

    def order(places: Sequence[int]) -> float:
        p, left = 1.0, list(places)
        for i in places:
            p *= worth[i] / worth[left].sum()
            left.remove(i)
        return p

    tied = sum(order((2, *rest)) for rest in itertools.permutations((0, 1, 3)))
    expected = [order((0, 1, 2, 3)), order((2, 0)), worth[0] / worth[:3].sum(), tied]
    assert float(loss.sum) == pytest.approx(-sum(math.log(p) for p in expected), rel=1e-10)
    assert float(loss.weight) == 4 and float(loss.metrics["said_nothing"]) == 1
    # pairs that are ordered right: 0>1, 2>3 of (0,1)(0,2)(0,3)(1,2)(1,3)(2,3); 2>0; 0>1 of (0,1)(0,2); 2 over all
    right = [(0.3 > -1.2) + (0.3 > 0.5) + (0.3 > 0.1) + (-1.2 > 0.5) + (-1.2 > 0.1) + (0.5 > 0.1), 1, 1 / 2, 1]
    assert float(loss.metrics["accuracy"]) == pytest.approx(right[0] / 6 + sum(right[1:]))


def test_two_candidates_are_bradley_terry() -> None:
    rewards = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ranks = [[1, 2], [2, 1], [3, 2], [1, 0]] * 5
    one, two = (objective(name)(*batch_of(rewards, ranks)) for name in ("bradley_terry", "plackett_luce"))
    assert float(one.sum) == pytest.approx(float(two.sum), rel=1e-12)
    assert {k: float(v) for k, v in one.metrics.items()} == pytest.approx({k: float(v) for k, v in two.metrics.items()})


def test_labels_are_logits_of_good() -> None:
    rewards = torch.tensor([[0.3], [-1.2], [0.5]], dtype=torch.float64)
    loss = objective("unpaired")(*batch_of(rewards, [[1], [2], [0]]))
    assert float(loss.sum) == pytest.approx(-math.log(sigmoid(0.3)) - math.log(sigmoid(1.2)))
    assert float(loss.weight) == 2 and float(loss.metrics["said_nothing"]) == 1


def test_scores_anchor_rewards_and_teach_where_no_order_is_given() -> None:
    rewards = torch.tensor([[0.3, -1.2], [0.5, 0.9]], dtype=torch.float64)
    scores = np.array([[1.0, math.nan], [2.0, 2.0]])
    loss = objective("bradley_terry", absolute=0.5, centre=0.01)(*batch_of(rewards, [[1, 2], [0, 0]], rewards=scores))
    first = -math.log(sigmoid(1.5)) + 0.5 * (0.3 - 1) ** 2 + 0.01 * (-0.9) ** 2
    second = 0.5 * ((0.5 - 2) ** 2 + (0.9 - 2) ** 2) / 2 + 0.01 * 1.4**2
    assert float(loss.sum) == pytest.approx(first + second, rel=1e-12) and float(loss.weight) == 2
    assert float(loss.metrics["zero_spread"]) == 1
    alone = objective("bradley_terry")(*batch_of(rewards, [[1, 2], [0, 0]], rewards=scores))
    assert float(alone.sum) == pytest.approx(-math.log(sigmoid(1.5))) and float(alone.weight) == 1
    with pytest.raises(UserError, match="needs scores"):
        objective("bradley_terry", absolute=0.5)(*batch_of(rewards, [[1, 2], [0, 0]]))


def test_attributes_are_a_mean_squared_error_over_what_is_known() -> None:
    target = torch.tensor([[1.0, 2.0], [math.nan, 0.5], [math.nan, math.nan]])
    predicted = torch.tensor([[0.5, 2.5], [9.0, 1.5], [3.0, 3.0]], requires_grad=True)
    batch = Batch({"attributes": target}, 1, {"weights": torch.tensor([1.0, 2.0, 5.0])})
    loss = objective("attributes")(Outputs(predicted[:, :0], predicted[:, :0], logits=predicted), batch)
    assert float(loss.sum.detach()) == pytest.approx((0.25 + 0.25) / 2 + 2 * 1.0) and float(loss.weight) == 3
    loss.sum.backward()
    assert predicted.grad is not None and predicted.grad[2].tolist() == [0, 0] and float(predicted.grad[1, 0]) == 0


@pytest.mark.parametrize("name", [*PAIRED, "plackett_luce"])
def test_gradients_against_finite_differences(name: str) -> None:
    rewards = torch.randn(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    ranks = [[1, 2], [2, 1], [1, 1], [1, 2], [0, 0], [2, 1]]
    aim = objective(name, absolute=0.1, centre=0.02)
    scores = np.random.default_rng(0).normal(size=(6, 2))
    strength = np.linspace(0.2, 1, 6)
    def loss(r: Tensor) -> Tensor:
        total: Tensor = aim(*batch_of(r, ranks, rewards=scores, strength=strength)).sum
        return total

    assert torch.autograd.gradcheck(loss, (rewards,))


@pytest.mark.parametrize("name", [*PAIRED, "plackett_luce", "unpaired"])
def test_a_loss_is_a_sum_over_examples(name: str) -> None:
    wide = 1 if name == "unpaired" else 2
    rewards = torch.randn(8, wide, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ranks = torch.randint(0, 3, (8, wide), generator=torch.Generator().manual_seed(2)).tolist()
    whole = objective(name)(*batch_of(rewards, ranks))
    parts = [objective(name)(*batch_of(rewards[i : i + 1], ranks[i : i + 1])) for i in range(8)]
    assert float(whole.sum) == pytest.approx(sum(float(p.sum) for p in parts), rel=1e-12)
    assert float(whole.weight) == sum(float(p.weight) for p in parts)
    for key, value in whole.metrics.items():
        assert float(value) == pytest.approx(sum(float(p.metrics[key]) for p in parts), rel=1e-12), key


def test_thresholds_that_make_no_sense_are_refused() -> None:
    one, yes = torch.zeros(1), torch.tensor([True])
    for wrong in (-0.1, 0.0):
        with pytest.raises(ValueError, match="threshold"):
            preference_models.rao_kupper(one, one, yes, wrong)
    assert float(preference_models.rao_kupper(one, one, ~yes, 0.0)) == pytest.approx(math.log(0.5))
    for name, field in (("davidson", {"nu": 0}), ("graded", {"sure": 0.5}), ("bradley_terry", {"margin": -1})):
        with pytest.raises(UserError, match=next(iter(field))):
            objective(name, **field)
    assert float(objective("graded")(*batch_of(torch.zeros(1, 2), [[1, 1]])).metrics["tie"]) == 1


@pytest.mark.parametrize("name", ["davidson", "rao_kupper", "vague_raters"])
def test_planted_rewards_are_recovered_from_votes(name: str) -> None:
    """Six candidates with known rewards, 30,000 votes by the model's own annotators: within 5 standard errors.

    A candidate is in 10,000 votes of information at least 0.1 each: its standard error is below 0.032.
    """
    draw = np.random.default_rng(5)
    true = np.array([-1.5, -0.6, -0.1, 0.3, 0.7, 1.2])
    pairs = np.array(list(itertools.combinations(range(6), 2)))[draw.integers(0, 15, 30_000)]
    p = np.array([outcomes(name, true[a], true[b]) for a, b in itertools.combinations(range(6), 2)])
    place = {pair: i for i, pair in enumerate(itertools.combinations(range(6), 2))}
    own = p[[place[(int(a), int(b))] for a, b in pairs]].cumsum(axis=1)
    votes = (draw.random((30_000, 1)) > own).sum(axis=1)
    ranks = torch.tensor([[1, 2], [1, 1], [2, 1]])[torch.from_numpy(votes)]
    fit = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([fit], max_iter=40)
    which = torch.from_numpy(pairs)
    empty = torch.zeros(60_000, 0)
    batch = Batch({"x": torch.zeros(60_000)}, 2, {"ranks": ranks})

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = objective(name)(Outputs(empty, empty, rewards=fit[which].reshape(-1)), batch)
        mean: Tensor = loss.sum / loss.weight
        mean.backward()
        return mean

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    found = fit.detach().numpy() - float(fit.detach().mean())
    np.testing.assert_allclose(found, true - true.mean(), atol=5 * 0.032)


# --- heads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [LLAMA, GPT2, NEOX], ids=lambda c: c["model_type"])
def test_pain_8_a_score_is_the_same_in_any_batch_and_padding(config: dict[str, Any]) -> None:
    model, samples = RewardText(config=config), letters(10)
    model.build(samples, 1)
    batch = model.encode(samples)
    whole = rewards_of(model, samples)
    assert whole.shape == (20,) and whole.std() > 1e-3
    for row in range(20):
        alone = rewards_of(model, samples.take([row]))
        assert abs(float(alone[0]) - float(whole[row])) < 1e-6
    padded = every(batch)
    for fill in (0, 1, 2, 5):  # any padding after the end, special tokens included
        tokens = torch.nn.functional.pad(padded["tokens"], (0, 7), value=fill)
        longer = Batch({"tokens": tokens, "mask": torch.nn.functional.pad(padded["mask"], (0, 7))})
        torch.testing.assert_close(model.forward(longer, None).rewards, whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=lambda c: c["model_type"])
def test_it_opens_in_transformers_with_the_same_scores(config: dict[str, Any], tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, samples = RewardText(config=config), letters(6)
    model.build(samples, 1)
    model.save(tmp_path / "a")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "a")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "a")
    assert theirs.config.num_labels == 1
    batch = every(model.encode(samples))
    tokens = torch.where(batch["mask"].flip(1).cummax(1).values.flip(1) > 0, batch["tokens"], tokenizer.pad_token_id)
    with torch.no_grad():
        got = theirs(input_ids=tokens, attention_mask=(tokens != tokenizer.pad_token_id).long()).logits[:, 0]
    torch.testing.assert_close(got, rewards_of(model, samples), atol=1e-6, rtol=0)
    text = f"{tokenizer.bos_token}{samples.prompts[0].text}{samples.content[0]}{tokenizer.eos_token}"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == batch["tokens"][0, : len(ids)].tolist()


def test_saved_and_loaded_with_the_same_bytes(tmp_path: Path) -> None:
    text, image = letters(6), images_of(6)
    weights = {"ink": 1.0, "noise": -0.5}
    cases: list[tuple[Callable[[], Any], Samples]] = [
        (lambda: RewardText(config=LLAMA), text), (lambda: RewardText(config=LLAMA, attributes=weights), text),
        (lambda: RewardImage(channels=8, hidden=16), image),
        (lambda: RewardImage(channels=8, hidden=16, attributes=weights), image),
    ]
    for number, (make, samples) in enumerate(cases):
        model, other, again = make(), make(), make()
        model.build(samples, 1)
        other.build(samples, 1)
        torch.testing.assert_close(rewards_of(model, samples), rewards_of(other, samples), atol=0, rtol=0)
        folders = [tmp_path / f"{number}{side}" for side in "ab"]
        model.module.eval()
        model.save(folders[0])
        again.load(folders[0])
        again.save(folders[1])
        for path in folders[0].iterdir():
            assert path.read_bytes() == (folders[1] / path.name).read_bytes(), path.name
            assert path.suffix in {".json", ".safetensors"}
        assert torch.equal(rewards_of(model, samples), rewards_of(again, samples))
        plain = every(again.encode(samples))
        assert 0 < again.flops(plain.take(torch.arange(2))) < again.flops(plain)
    with pytest.raises(UserError, match=r"was trained with the attributes \['ink', 'noise'\]"):
        RewardImage(channels=8, hidden=16).load(tmp_path / "3a")
    other = TextClassifier(config=LLAMA, classes=2)
    other.build(text, 1)
    other.save(tmp_path / "4a")
    with pytest.raises(UserError, match="is not the config of a reward_text"):
        RewardText(config=LLAMA).load(tmp_path / "4a")


def test_a_head_on_the_weights_of_a_language_model(tmp_path: Path) -> None:
    language, samples = CausalLm(config=LLAMA), letters(6)
    language.build(samples, 1)
    language.save(tmp_path / "lm")
    model = RewardText(folder=str(tmp_path / "lm"))
    model.build(samples, 2)
    theirs, ours = language.module.state_dict(), model.module.state_dict()
    shared = sorted(set(theirs) & set(ours))
    assert len(shared) > 10 and all(torch.equal(theirs[name], ours[name]) for name in shared)
    assert set(ours) - set(theirs) == {"score.weight"}
    other = RewardText(folder=str(tmp_path / "lm"))
    other.build(samples, 3)
    assert not torch.equal(ours["score.weight"], other.module.state_dict()["score.weight"])  # drawn from the key
    model.save(tmp_path / "rm")
    kept = RewardText(folder=str(tmp_path / "rm"))
    kept.build(samples, 9)
    assert torch.equal(ours["score.weight"], kept.module.state_dict()["score.weight"])
    with pytest.raises(UserError, match="cannot be read with a head of 2"):
        RewardText(folder=str(tmp_path / "rm"), attributes={"a": 1.0, "b": 1.0}).build(samples, 1)


def test_pain_8_a_head_under_lora_is_trained_saved_and_loaded(tmp_path: Path) -> None:
    samples = letters(60)
    model = RewardText(config=LLAMA)
    model.build(samples, 1)
    pairs, before = encode_groups(model, from_fields(samples)[0], 2), rewards_of(model, samples)
    spec = Training(steps=15, batch_size=32, learning_rate=2e-2, schedule="constant")
    lora = components.make("adapter", {"name": "lora", "rank": 2})
    trainer.train(model, TrainingSetup(spec, objective("bradley_terry"), lora, FixedFeed(pairs, 32, 3), 3, "test"))
    after = rewards_of(model, samples)
    assert float((after - before).abs().max()) > 0.1
    model.save(tmp_path / "rm")
    again, merged = RewardText(config=LLAMA), RewardText(folder=str(tmp_path / "rm"))
    again.load(tmp_path / "rm")
    torch.testing.assert_close(rewards_of(again, samples), after, atol=1e-6, rtol=0)
    merged.build(samples, 9)  # a model that begins from it has what was learned, adapters and head
    torch.testing.assert_close(rewards_of(merged, samples), after, atol=1e-5, rtol=0)


def test_truncation_is_counted_and_wrong_fields_are_refused() -> None:
    samples = letters(6)
    model = RewardText(config=LLAMA, max_length=9, truncated_at_most=1.0)
    model.build(samples, 1)
    assert torch.isfinite(rewards_of(model, samples)).all() and "were cut" in model.notes[0]
    with pytest.raises(UserError, match="are longer than"):
        short = RewardText(config=LLAMA, max_length=9)
        short.build(samples, 1)
        short.encode(samples)
    for fields, wrong in (({}, "exactly one of"), ({"config": LLAMA, "attributes": {"a": 0.0}}, "at least one weight")):
        with pytest.raises(UserError, match=wrong):
            components.make("model", {"name": "reward_text", **fields})
    with pytest.raises(UserError, match="reads text"):
        model.encode(images_of(3))
    elsewhere = torch.nn.Linear(1, 1)  # as BERT has it: a head of another name, read at the first token
    elsewhere.save_pretrained, elsewhere.config = print, SimpleNamespace(model_type="bert")  # type: ignore[assignment]
    with pytest.raises(UserError, match="'bert' is not read at the last token"):
        headed_checkpoints._headed(elsewhere, model.codec, "model")


def images_of(count: int, wide: int = 2, seed: int = 0, side: int = 8, classes: int = 0) -> Samples:
    """Noise of random brightness; the reward is the ink, turned round for odd classes."""
    draw = np.random.default_rng(seed)
    level = draw.uniform(20, 200, (count, wide))
    noise = draw.normal(0, 15, (count * wide, side, side, 1))
    content = np.clip(level.reshape(-1, 1, 1, 1) + noise, 0, 255).astype(np.uint8)
    ink = content.mean(axis=(1, 2, 3)).reshape(count, wide)
    labels = draw.integers(0, classes, count) if classes else np.zeros(count, dtype=int)
    prompts = [Prompt("", int(label) if classes else None) for label in labels for _ in range(wide)]
    sign = np.where(labels % 2 == 1, -1.0, 1.0)[:, None] if classes else 1.0
    extra = {"ink": ink.reshape(-1), "noise": np.full(count * wide, math.nan)}
    return grouped(content, ink * sign, "image", prompts, **extra)


@pytest.mark.parametrize("side", [8, 20])
def test_images_score_equally_alone_and_together(side: int) -> None:
    model, samples = RewardImage(channels=8, hidden=16), images_of(8, side=side)
    model.build(samples, 1)
    whole = rewards_of(model, samples)
    alone = torch.cat([rewards_of(model, samples.take([i])) for i in range(16)])
    torch.testing.assert_close(alone, whole, atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="content of shape"):
        model.encode(images_of(2, side=5))


# --- what they learn ----------------------------------------------------------------------------------------------


def test_a_text_reward_model_learns_a_planted_count() -> None:
    model, samples, unseen = RewardText(config=LLAMA), letters(300), letters(200, seed=1)
    model.build(samples, 1)
    before = assess(model, unseen)
    assert before["accuracy"]["value"] < 0.75
    pairs = encode_groups(model, from_fields(samples)[0], 2)
    history = fitted(model, pairs, objective("bradley_terry"), 60, batch_size=32)
    found = assess(model, unseen)
    assert history.points[-1]["accuracy"] > history.points[0]["accuracy"]
    # 159 ordered pairs: at a true share of 0.9 the standard error is 0.024; measured 1.0
    assert found["accuracy"]["value"] > 0.85 and found["accuracy"]["low"] > before["accuracy"]["value"]
    assert found["pairs"] + found["ties"] == 200 and found["log_loss"] < 0.5
    assert sum(b["count"] for b in found["bins"]) == found["pairs"]


@pytest.mark.parametrize("name", ["plackett_luce", "davidson", "bradley_terry"])
def test_an_image_reward_model_learns_the_ink_that_the_class_asks_for(name: str) -> None:
    samples, unseen = images_of(150, 3, classes=4), images_of(100, 3, seed=1, classes=4)
    model = RewardImage(channels=4, hidden=16)
    model.build(samples, 1)
    aim = objective(name)
    batch = encode_groups(model, from_fields(samples)[0], getattr(aim, "candidates", None))
    fitted(model, batch, aim, 60, learning_rate=2e-2, batch_size=32)
    found = assess(model, unseen)
    assert found["pairs"] == 300 and found["accuracy"]["value"] > 0.9


@pytest.mark.long
def test_attributes_make_the_stated_reward() -> None:
    samples = letters(150)
    own = np.array([[text.count("a"), len(text)] for text in samples.content], dtype=float)
    samples = samples.with_fields(count=own[:, 0] / 4, length=own[:, 1] / 8)
    model = RewardText(config=LLAMA, attributes={"count": 2.0, "length": -1.0})
    model.build(samples, 1)
    batch = model.encode(samples)
    out = model.forward(every(batch), None)
    assert out.logits is not None and out.logits.shape == (300, 2)
    torch.testing.assert_close(out.rewards, 2 * out.logits[:, 0] - out.logits[:, 1])
    fitted(model, batch, objective("attributes"), 220, batch_size=32, learning_rate=7e-3)
    found = assess(model, samples)["attributes"]
    assert found["count"]["correlation"] > 0.8 and found["length"]["correlation"] > 0.8
    wanted = 2 * samples.fields["count"] - samples.fields["length"]
    assert np.corrcoef(rewards_of(model, samples).numpy(), wanted)[0, 1] > 0.8 and found["count"]["count"] == 300


def test_unpaired_labels_are_learned() -> None:
    samples = images_of(200, 1)
    bright = samples.content.mean(axis=(1, 2, 3)) > 110
    samples = samples.with_fields(rank=np.where(bright, 1, 2), score=np.full(200, math.nan))
    model = RewardImage(channels=4, hidden=16)
    model.build(samples, 1)
    fitted(model, encode_groups(model, from_fields(samples)[0], None), objective("unpaired"), 60, learning_rate=2e-2)
    assert assess(model, samples)["labels"]["value"] > 0.9


def test_ulmfit_pre_train_then_classify(tmp_path: Path) -> None:
    samples = letters(120)
    labels = np.array([int(text.count("a") > 2) for text in samples.content])
    named = [Prompt(f"class {label}", int(label)) for label in labels]
    samples = dataclasses.replace(samples, prompts=tuple(named))
    language = CausalLm(config=LLAMA)
    language.build(dataclasses.replace(samples, prompts=(Prompt(),) * len(samples)), 1)
    language.save(tmp_path / "lm")
    model = TextClassifier(folder=str(tmp_path / "lm"))
    model.build(samples, 1)
    aim = components.make("objective", "likelihood")
    fitted(model, model.encode(samples), aim, 100, batch_size=32, learning_rate=7e-3)
    out = model.forward(every(model.encode(samples)), None)
    assert out.logits is not None and out.logits.shape == (240, 2)
    expected = torch.nn.functional.cross_entropy(out.logits, torch.from_numpy(labels), reduction="none")
    torch.testing.assert_close(-out.log_probs[:, 0], expected)
    assert float((out.logits.argmax(1).numpy() == labels).mean()) > 0.85
    unnamed = dataclasses.replace(samples, prompts=tuple(Prompt() for _ in named))  # the class's name is never read
    bare = model.forward(every(model.encode(unnamed)), None)
    assert torch.equal(bare.logits, out.logits) and float(bare.mask.sum()) == 0
    model.save(tmp_path / "c")
    again = TextClassifier(folder=str(tmp_path / "lm"))
    again.load(tmp_path / "c")
    torch.testing.assert_close(again.forward(every(again.encode(samples)), None).logits, out.logits, atol=1e-6, rtol=0)


# --- TRL ----------------------------------------------------------------------------------------------------------


def ordered(batch: Batch) -> Batch:
    """The pairs that are not ties: TRL knows none."""
    ranks = batch.given["ranks"]
    return batch.take(torch.nonzero(ranks[:, 0] != ranks[:, 1])[:, 0])


def trl_inputs(batch: Batch, pad: int, margin: Tensor | None = None) -> dict[str, Tensor]:
    """A batch of pairs as TRL's collator would give it: all chosen, then all rejected."""
    first = batch.given["ranks"][:, 0] == 1
    chosen = torch.where(first, 0, 1) + 2 * torch.arange(len(batch))
    rows = torch.cat([chosen, chosen ^ 1])
    inside = batch["mask"][rows].flip(1).cummax(1).values.flip(1) > 0
    inputs = {"input_ids": torch.where(inside, batch["tokens"][rows], pad), "attention_mask": inside.long()}
    return inputs if margin is None else {**inputs, "margin": margin}


def trl_loss(model: torch.nn.Module, inputs: dict[str, Tensor], centre: float | None = None) -> Tensor:
    """TRL 1.16's own ``RewardTrainer.compute_loss``, on the least that it reads of a trainer."""
    from collections import defaultdict

    from trl.trainer.reward_trainer import RewardTrainer

    accelerator = SimpleNamespace(gather_for_metrics=lambda x: x, gather=lambda x: x)
    bare = SimpleNamespace(
        model=model, accelerator=accelerator, _total_train_tokens=0, _tp_size=1,
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
        args=SimpleNamespace(center_rewards_coefficient=centre),
    )
    loss: Tensor = RewardTrainer.compute_loss(bare, model, dict(inputs))
    return loss


@pytest.mark.parametrize(("margin", "centre"), [(0.0, 0.0), (1.0, 0.0), (3.0, 0.01)])
def test_the_loss_is_that_of_trl(margin: float, centre: float) -> None:
    pytest.importorskip("trl")
    samples = letters(40)
    samples = samples.with_fields(strength=np.repeat(np.random.default_rng(0).choice([0, 1 / 3, 2 / 3, 1], 40), 2))
    model = RewardText(config=LLAMA)
    model.build(samples, 1)
    batch = ordered(encode_groups(model, from_fields(samples)[0], 2))
    ours = objective("bradley_terry", margin=margin, centre=centre)(model.forward(batch, None), batch)
    extra = margin * batch.given["strength"] if margin else None
    theirs = trl_loss(model.module, trl_inputs(batch, model.codec.pad, extra), centre or None)
    assert float(ours.sum / ours.weight) == pytest.approx(float(theirs), abs=1e-6)
    grads = [torch.autograd.grad(loss, list(model.module.parameters())) for loss in (ours.sum / ours.weight, theirs)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_twenty_steps_end_where_trls_loss_ends_them() -> None:
    pytest.importorskip("trl")
    samples = letters(60)
    ours, theirs = RewardText(config=LLAMA), RewardText(config=LLAMA)
    for model in (ours, theirs):
        model.build(samples, 1)
        model.module.double()
    start = {name: value.clone() for name, value in ours.module.state_dict().items()}
    feed = FixedFeed(ordered(encode_groups(ours, from_fields(samples)[0], 2)), 8, 3)
    spec = Training(steps=20, batch_size=8, learning_rate=1e-3, schedule="linear", warmup=0.1, precision="fp32")
    trainer.train(ours, TrainingSetup(spec, objective("bradley_terry"), Full(), feed, 3, "test"))
    parameters = list(theirs.module.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    for step in range(20):
        seen: list[Batch] = []
        feed.batch(step, lambda raw, seen=seen: seen.append(raw) or raw)  # type: ignore[misc, func-returns-value]
        trl_loss(theirs.module, trl_inputs(seen[0], theirs.codec.pad)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(spec, step, 20)
        optimiser.step()
        optimiser.zero_grad()
    moved = 0.0
    for name, value in ours.module.state_dict().items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(value, theirs.module.state_dict()[name], atol=1e-6, rtol=0)
        moved = max(moved, float((value - start[name]).abs().max()))
    assert moved > 1e-3


# --- scorers, calibration, metrics --------------------------------------------------------------------------------


class Fixed:
    """A reward model with a table of rewards by content; "broken" is not finite."""

    kind, likelihood = "text", "reward"
    attributes: tuple[str, ...] = ()

    def __init__(self, name: str, table: dict[str, float]) -> None:
        self.id, self.table, self.module = name, table, torch.nn.Linear(1, 1)

    def encode(self, samples: Samples) -> Batch:
        return Batch({"r": torch.tensor([self.table.get(str(text), math.nan) for text in samples.content])})

    def draw(self, batch: Batch, key: int, start: int) -> None:
        return None

    def forward(self, batch: Batch, draw: None) -> Outputs:
        return Outputs(batch["r"][:, None][:, :0], batch["r"][:, None][:, :0], rewards=batch["r"])


def tools(real: Samples, **models: Fixed) -> Any:
    return SimpleNamespace(train=real, held_out=real, classes=(), model=lambda name: models[name])


def test_scorers_by_reward_model_and_ensemble() -> None:
    real = real_samples("text", ["r1", "r2"], [Prompt()] * 2, "real")
    samples = real_samples("text", ["same", "apart", "broken"], [Prompt()] * 3, "made")
    one = Fixed("1", {"r1": 0.0, "r2": 2.0, "same": 3.0, "apart": 6.0})
    two = Fixed("2", {"r1": 10.0, "r2": 12.0, "same": 13.0, "apart": 10.0, "broken": 1.0})  # another zero
    hand = tools(real, a=one, b=two)
    found = components.make("scorer", {"name": "reward_model", "model": "a", "scale": 2.0}).score(samples, hand)
    np.testing.assert_allclose(found.values, [6, 12, math.nan])
    ensemble = components.make("scorer", {"name": "ensemble", "models": ["a", "b"], "k": 0.5})
    found = ensemble.score(samples, hand)
    # a less 1: 2, 5; b less 11: 2, -1; means 2 and 2, disagreement 0 and 3
    np.testing.assert_allclose(found.values, [2.0, 2.0 - 0.5 * 3.0, math.nan])
    assert found.explanations is not None
    assert found.explanations[1] == "mean 2, disagreement 3 (5, -1)" and "unscored" in found.explanations[2]
    assert len(ensemble.score(samples.take([]), hand).values) == 0
    for wrong in (["a"], ["a", "a"]):
        with pytest.raises(UserError, match="at least two different models"):
            components.make("scorer", {"name": "ensemble", "models": wrong})


def test_an_ensemble_guards_against_what_no_member_knows() -> None:
    """Members fitted on dim images alone differ most on bright ones: there the guard takes most off."""
    known = images_of(120)
    dim = known.content.mean(axis=(1, 2, 3)).reshape(-1, 2).max(axis=1) < 110
    known = known.take(np.repeat(dim, 2))
    models = {}
    for i in range(3):
        model = RewardImage(channels=4, hidden=8)
        model.build(known, i)
        pairs = encode_groups(model, from_fields(known)[0], 2)
        fitted(model, pairs, objective("bradley_terry"), 40, learning_rate=1e-2)
        models[f"m{i}"] = model
    hand = tools(known, **models)  # type: ignore[arg-type]
    content = np.repeat(np.array([60, 250], dtype=np.uint8), 8 * 8).reshape(2, 8, 8, 1)
    unseen = real_samples("image", content, [Prompt()] * 2, "asked")
    with_guard, without = (
        components.make("scorer", {"name": "ensemble", "models": list(models), "k": k}).score(unseen, hand).values
        for k in (1.0, 0.0)
    )
    taken = without - with_guard
    assert (taken > 0).all() and taken[1] > 2 * taken[0]


def test_calibration_error_is_its_formula_and_finds_overconfidence() -> None:
    draw = np.random.default_rng(0)
    gap = draw.normal(0, 2, 4000)
    p = 1 / (1 + np.exp(-np.abs(gap)))
    right = (draw.random(4000) < p).astype(float)
    fair = calibration_error(p, right, 1)
    place = np.minimum(((p - 0.5) * 20).astype(int), 9)
    truth = sum(abs(right[place == b].mean() - p[place == b].mean()) * (place == b).mean() for b in range(10))
    assert fair["value"] == pytest.approx(truth, abs=1e-12)
    bins = reliability(p, right)
    assert sum(b["count"] for b in bins) == 4000
    assert sum(b["count"] * abs(b["right"] - b["confidence"]) for b in bins) / 4000 == pytest.approx(truth)
    bold = calibration_error(1 / (1 + np.exp(-3 * np.abs(gap))), right, 1)
    assert bold["low"] > fair["high"] and bold["value"] > 0.1
    # what chance alone gives: the mean of 200 data sets that are calibrated, their standard error 0.0002
    again = []
    for _ in range(200):
        error = np.bincount(place, weights=(draw.random(4000) < p) - p)
        again.append(np.abs(error).sum() / 4000)
    assert fair["by_chance"] == pytest.approx(float(np.mean(again)), abs=0.001)


def test_assess_reports_what_is_undefined() -> None:
    samples = letters(4)
    blind = Fixed("x", {str(text): 0.0 for text in samples.content})
    found = assess(blind, samples)  # type: ignore[arg-type]
    assert found["accuracy"]["value"] == 0.5 and found["log_loss"] == pytest.approx(math.log(2))
    half = Fixed("x", {str(samples.content[0]): 1.0})
    notes = assess(half, samples)["notes"]  # type: ignore[arg-type]
    assert any("not finite" in note for note in notes)
    none = dataclasses.replace(samples, fields={})
    assert assess(blind, none)["accuracy"] is None  # type: ignore[arg-type]
    undefined = samples.with_fields(rank=np.zeros(8, dtype=np.int64), score=np.full(8, math.nan))
    assert assess(blind, undefined)["notes"] == ["not one group has a rank or a score"]  # type: ignore[arg-type]


def test_gold_and_proxy_side_by_side() -> None:
    samples = letters(50, 4)
    gold = np.array([text.count("a") for text in samples.content], dtype=float)
    gold_spec = {"name": "length", "scale": 1000.0}
    long = np.array([len(text) for text in samples.content], dtype=float)
    given_evidence = SimpleNamespace(samples=samples, rewards=gold, tools=None, seed=0, settings=None)
    found = components.make("metric", {"name": "gold_reward", "scorer": gold_spec}).measure(given_evidence)
    assert found.value == pytest.approx(long.mean()) and found.details["proxy"] == pytest.approx(gold.mean())
    assert found.details["correlation"] == pytest.approx(np.corrcoef(long, gold)[0, 1])
    accuracy = components.make("metric", {"name": "reward_accuracy", "scorer": gold_spec}).measure(given_evidence)
    shares = []
    for group in range(50):
        rows = np.flatnonzero(samples.group == group)
        pairs = [(a, b) for a, b in itertools.permutations(rows, 2) if long[a] > long[b]]
        shares.append(np.mean([0.5 if gold[a] == gold[b] else float(gold[a] > gold[b]) for a, b in pairs]))
    assert accuracy.value == pytest.approx(np.mean(shares)) and accuracy.low < accuracy.value < accuracy.high
    alone = SimpleNamespace(samples=samples.take(np.arange(0, 200, 4)), rewards=gold[::4], tools=None, seed=0)
    undefined = components.make("metric", {"name": "reward_accuracy", "scorer": gold_spec}).measure(alone)
    assert math.isnan(undefined.value) and "no prompt has two candidates" in undefined.note
