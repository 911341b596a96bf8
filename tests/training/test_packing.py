"""Tests of packed rows: log-probs, gradients and trainings equal those of padded rows; bins; order; resumption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.tiny_language_models import GPT2, LLAMA, NEOX, built, pairs, worked
from upturn import seeds
from upturn.adapters.full import Full
from upturn.adapters.lora import Lora
from upturn.config.schema import Training
from upturn.data.groups import encode_groups, from_fields
from upturn.errors import UserError
from upturn.models.causal_lm import CausalLm
from upturn.models.reward_text import RewardText
from upturn.objectives.dpo import Dpo
from upturn.objectives.likelihood import Likelihood
from upturn.training import trainer
from upturn.training.feeds import FixedFeed
from upturn.training.packing import PackedFeed, bins, consecutive, packed, with_lengths
from upturn.training.setup import TrainingSetup
from upturn.types import PACKED, Batch

pytestmark = pytest.mark.slow

SPEC = Training(epochs=2, batch_size=40, learning_rate=1e-2, warmup=0.0, clip=1e9)


def plan(examples: Batch, spec: Training, **changes: Any) -> TrainingSetup:
    base = TrainingSetup(spec=spec, objective=Likelihood(), adapter=Full(),
                         feed=FixedFeed(examples, spec.batch_size, 7), key=7, where="test")
    return replace(base, **changes)


def flat(model: CausalLm) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.module.parameters()])


@pytest.mark.parametrize("config", [LLAMA, GPT2, NEOX], ids=lambda config: config["model_type"])
def test_packed_rows_give_the_log_probs_and_gradients_of_padded_rows(config: dict[str, Any]) -> None:
    model = built(config)
    model.add_value_head(3)
    torch.nn.init.normal_(model.module.value_head.weight)
    encoded = model.encode(worked())
    assert model.refuses_packing() == ""
    found = []
    for batch in (encoded, with_lengths(encoded)):
        taken = batch.take(torch.tensor([5, 0, 17, 3, 3, 29, 11]))
        model.module.zero_grad()
        out = model.forward(taken, None)
        ((out.log_probs + 0.3 * out.values) * out.mask).sum().backward()
        grads = torch.cat([p.grad.reshape(-1) for p in model.module.parameters() if p.grad is not None])
        found.append((out.log_probs * out.mask, out.values * out.mask, grads))
    for padded, one in zip(*found, strict=True):
        assert padded.abs().max() > 0.1
        torch.testing.assert_close(one, padded, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("limit", [1, 50, 100_000])
@pytest.mark.parametrize("adapter", [Full(), Lora(rank=2)], ids=["full", "lora"])
def test_a_packed_training_is_the_padded_one(adapter: Any, limit: int) -> None:
    """All examples in every batch, so that the order does not matter: the same weights for any number of tokens."""
    one, two = built(), built()
    encoded = one.encode(worked())
    trainer.train(one, plan(encoded, SPEC, adapter=adapter, held_out=one.encode(worked(9))))
    history = trainer.train(two, plan(encoded, SPEC.model_copy(update={"pack_tokens": limit}), adapter=adapter,
                                      held_out=one.encode(worked(9))))
    torch.testing.assert_close(flat(two), flat(one), atol=2e-4, rtol=1e-3)
    assert history.points[-1]["loss"] < history.points[0]["loss"]


def test_packed_pairs_and_their_cached_reference_are_the_padded_ones() -> None:
    found = []
    for limit in (None, 70):
        model = built()
        groups = encode_groups(model, from_fields(pairs())[0], 2)
        spec = Training(epochs=3, batch_size=12, learning_rate=1e-3, warmup=0.0, pack_tokens=limit)
        history = trainer.train(model, plan(groups, spec, objective=Dpo()))
        found.append((flat(model), torch.tensor([point["loss"] for point in history.points])))
    torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=1e-3)


def test_every_example_is_in_one_bin_and_no_bin_is_too_full() -> None:
    tokens = seeds.generator(1).integers(1, 60, 200).tolist()
    found = bins(tokens, 64)
    assert sorted(place for part in found for place in part) == list(range(200))
    assert max(sum(tokens[place] for place in part) for part in found) <= 64
    assert len(found) <= 1.25 * sum(tokens) / 64  # 11/9 of the optimum and more is the worst of such rules
    assert bins([5, 900, 5], 64) == [[1], [0, 2]]
    assert [part.tolist() for part in consecutive(torch.tensor([9, 2, 3, 4]), torch.arange(4), 6)] == [[0], [1, 2], [3]]


def test_the_order_is_random_and_a_function_of_seed_and_epoch() -> None:
    encoded = with_lengths(built().encode(worked()))
    orders = [
        [feed.batch(step)[PACKED].tolist() for step in range(2 * feed.steps_per_epoch)]
        for feed in (PackedFeed(encoded, 8, key, 64) for key in (1, 1, 2))
    ]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][:5] != orders[0][5:]
    assert sorted(n for part in orders[0][:5] for n in part) == sorted(encoded[PACKED].tolist())


def test_stopped_and_resumed_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    spec = Training(epochs=2, batch_size=8, learning_rate=1e-2, pack_tokens=40, save_every=3)
    whole = built()
    trainer.train(whole, plan(whole.encode(worked()), spec))

    class Stop(Exception):
        pass

    def stop(step: int, total: int, loss: float) -> None:
        if step == 5:
            raise Stop

    half = built()
    with pytest.raises(Stop):
        trainer.train(half, plan(half.encode(worked()), spec, progress=tmp_path, on_step=stop))
    resumed = built()
    trainer.train(resumed, plan(resumed.encode(worked()), spec, progress=tmp_path))
    assert torch.equal(flat(resumed), flat(whole))


def test_models_that_cannot_pack_are_refused() -> None:
    spec = SPEC.model_copy(update={"pack_tokens": 64})
    with pytest.raises(UserError, match="cannot pack rows"):
        packed(TrainingSetup(spec=spec, objective=Likelihood(), adapter=Full(),
                             feed=FixedFeed(Batch({}), 16, 7), key=7, where="test"), RewardText(config=LLAMA))
    sliding = built({**LLAMA, "model_type": "mistral", "sliding_window": 4})
    assert "whole text" in sliding.refuses_packing()
    state_space = built({"model_type": "mamba", "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4},
                        max_length=64)
    assert state_space.refuses_packing() != ""
    with pytest.raises(ValueError, match="not both"):
        Training(epochs=1, micro_batch=2, pack_tokens=9)
