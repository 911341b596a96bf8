"""TRL as oracle: the same model, data and batch give the same log-probs, losses and, after 20 steps, weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from upturn import seeds
from upturn.adapters.full import Full
from upturn.config.schema import Training
from upturn.models.causal_lm import CausalLm
from upturn.objectives.dpo import Dpo
from upturn.objectives.hinge import Hinge
from upturn.objectives.ipo import Ipo
from upturn.objectives.kto import Kto
from upturn.objectives.likelihood import Likelihood
from upturn.objectives.orpo import Orpo
from upturn.objectives.simpo import Simpo
from upturn.training import trainer
from upturn.training.feeds import FixedFeed
from upturn.training.setup import TrainingSetup
from upturn.types import Batch, Loss, Prompt, Samples, real_samples

pytestmark = pytest.mark.slow

LLAMA = {
    "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 24, "max_position_embeddings": 64,
}
BOS, PAIRS, STEPS, RATE = "<|bos|>", 6, 20, 1e-3
SAME = {"rtol": 0.0, "atol": 1e-5}


class World(NamedTuple):
    """A policy, its reference and pairs; ``plain`` is the policy's folder as `transformers` opens it."""

    policy: CausalLm
    reference: CausalLm
    prompts: list[str]
    chosen: list[str]
    rejected: list[str]
    plain: Path
    frozen: Path


def texts(equal: bool = False) -> tuple[list[str], list[str], list[str]]:
    """Sums; the right answer with its working, and a wrong one, all of uneven length."""
    rng = seeds.generator(5)
    prompts, chosen, rejected = [], [], []
    for _ in range(PAIRS):
        a, b, c = (int(x) for x in rng.integers(1, [90, 900, 30]))
        prompts.append(f"{a}+{b}+{c}=")
        chosen.append(f"{a + b}+{c}={a + b + c}")
        rejected.append(f"{a + b + int(rng.integers(1, 9))}")
    return prompts, chosen, rejected


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    prompts, chosen, rejected = texts()
    folder = tmp_path_factory.mktemp("oracle")
    samples = real_samples("text", chosen + rejected, [Prompt(p) for p in prompts + prompts], "sums")
    models = []
    for key in (1, 2):  # other weights: log-ratios that are not 0
        model = CausalLm(config=LLAMA)
        model.build(samples, key)
        model.module.double().eval()
        with torch.no_grad():
            for parameter in model.module.parameters():
                parameter.mul_(8.0 if parameter.dim() > 1 else 1.0)  # far from uniform; exact in float32, as saved
        model.save(folder / str(key))
        models.append(model)
    return World(models[0], models[1], prompts, chosen, rejected, folder / "1", folder / "2")


def rows(world: World, order: list[list[str]]) -> Samples:
    """One row a (prompt, completion), example-major."""
    contents = [column[i] for i in range(PAIRS) for column in order]
    return real_samples("text", contents, [Prompt(p) for p in world.prompts for _ in order], "sums")


def pairs(model: CausalLm, world: World) -> Batch:
    encoded = model.encode(rows(world, [world.chosen, world.rejected]))
    return Batch(encoded.columns, 2, {"ranks": torch.tensor([[1, 2]]).expand(PAIRS, 2)})


def ours(objective: Any, world: World, batch: Batch) -> Loss:
    """The objective as the trainer calls it, without the trainer."""
    batch = batch.take(torch.arange(PAIRS))
    with torch.no_grad():
        if hasattr(objective, "before"):
            out = world.policy.forward(batch, None)
            known = world.reference.forward(batch, None).log_probs
            batch = batch.with_columns(
                before_log_probs=out.log_probs, before_ref_log_probs=known, before_mask=out.mask
            )
        batch = objective.prepare(batch)
        out = world.policy.forward(batch, None)
        known = world.reference.forward(batch, None).log_probs
        loss: Loss = objective(type(out)(**{**out.__dict__, "ref_log_probs": known}), batch)
    return loss


def mean(loss: Loss) -> float:
    return float(loss.sum / loss.weight)


def opened(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64), AutoTokenizer.from_pretrained(folder)


def arguments(folder: Path, **changes: Any) -> dict[str, Any]:
    """What makes TRL's trainers train as ours, on the whole set in every step."""
    return {
        "output_dir": str(folder), "per_device_train_batch_size": PAIRS, "max_steps": STEPS, "learning_rate": RATE,
        "lr_scheduler_type": "constant", "weight_decay": 0.0, "max_grad_norm": 1.0, "optim": "adamw_torch",
        "bf16": False, "gradient_checkpointing": False, "use_cpu": True, "report_to": "none", "save_strategy": "no",
        "logging_strategy": "no", "disable_tqdm": True, "seed": 1, **changes,
    }


def preferences(world: World) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(
        {"prompt": [BOS + p for p in world.prompts], "chosen": world.chosen, "rejected": world.rejected}
    )


def dpo_trainer(world: World, folder: Path, **changes: Any) -> Any:
    from trl import DPOConfig, DPOTrainer

    model, tokenizer = opened(world.plain)
    return DPOTrainer(
        model, ref_model=opened(world.frozen)[0], args=DPOConfig(**arguments(folder, **changes)),
        train_dataset=preferences(world), processing_class=tokenizer,
    )


def sft_trainer(world: World, folder: Path) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = opened(world.plain)
    data = Dataset.from_dict({"prompt": [BOS + p for p in world.prompts], "completion": world.chosen})
    return SFTTrainer(
        model, args=SFTConfig(**arguments(folder), completion_only_loss=True), train_dataset=data,
        processing_class=tokenizer,
    )


def theirs(of: Any) -> float:
    """The loss of the trainer's first batch."""
    inputs = of._prepare_inputs(next(iter(of.get_train_dataloader())))
    of.model.eval()
    with torch.no_grad():
        return float(of.compute_loss(of.model, inputs))


def test_log_probs(world: World, tmp_path: Path) -> None:
    of = dpo_trainer(world, tmp_path)
    inputs = of._prepare_inputs(next(iter(of.get_train_dataloader())))
    found = torch.stack(of.compute_ref_log_probs(of.ref_model, inputs), dim=1)
    batch = pairs(world.reference, world).take(torch.arange(PAIRS))
    with torch.no_grad():
        own = world.reference.forward(batch, None).totals().reshape(-1, 2)
    torch.testing.assert_close(own.sort(dim=0).values, found.sort(dim=0).values.to(own), **SAME)


def test_sft_loss(world: World, tmp_path: Path) -> None:
    encoded = world.policy.encode(rows(world, [world.chosen]))
    assert mean(ours(Likelihood(), world, encoded)) == pytest.approx(theirs(sft_trainer(world, tmp_path)), abs=1e-5)


@pytest.mark.parametrize(
    ("objective", "changes"),
    [
        (Dpo(beta=0.3), {"loss_type": ["sigmoid"]}),
        (Dpo(beta=0.3, length_normalised=True), {"loss_type": ["sigmoid_norm"]}),
        (Ipo(beta=0.3, length_normalised=True), {"loss_type": ["ipo"]}),
        (Hinge(beta=0.3), {"loss_type": ["hinge"]}),
    ],
    ids=["dpo", "dpo a token", "ipo", "hinge"],
)
def test_pair_losses(world: World, tmp_path: Path, objective: Any, changes: dict[str, Any]) -> None:
    expected = theirs(dpo_trainer(world, tmp_path, beta=0.3, **changes))
    assert mean(ours(objective, world, pairs(world.policy, world))) == pytest.approx(expected, abs=1e-5)


def test_metrics_of_dpo(world: World, tmp_path: Path) -> None:
    of = dpo_trainer(world, tmp_path, beta=0.3)
    theirs(of)
    said = {name: values[0] for name, values in of._metrics["eval"].items()}
    loss = ours(Dpo(beta=0.3), world, pairs(world.policy, world))
    for own, other in {
        "accuracy": "rewards/accuracies", "margin": "rewards/margins", "chosen_reward": "rewards/chosen",
        "rejected_reward": "rewards/rejected", "chosen_log_prob": "logps/chosen", "rejected_log_prob": "logps/rejected",
    }.items():
        assert float(loss.metrics[own] / loss.weight) == pytest.approx(said[other], abs=1e-5), own


@pytest.mark.parametrize("length", [5, None], ids=["equal lengths", "one pair a batch"])
def test_added_likelihood(world: World, tmp_path: Path, length: int | None) -> None:
    """TRL averages over all tokens of a batch, we over those of a completion: alike where lengths or batches are."""
    batch_size = PAIRS
    if length is None:
        batch_size = 1
    else:
        world = world._replace(chosen=[text[:length] for text in world.chosen])
    changes = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2], "per_device_train_batch_size": batch_size}
    of = dpo_trainer(world, tmp_path, beta=0.3, **changes)
    of.model.eval()
    with torch.no_grad():
        found = [float(of.compute_loss(of.model, of._prepare_inputs(one))) for one in of.get_train_dataloader()]
    loss = ours(Dpo(beta=0.3, likelihood=0.2), world, pairs(world.policy, world))
    assert mean(loss) == pytest.approx(np.mean(found), abs=1e-5)


LABELS = [True, False, True, True, False, True]
KTO = {"beta": 0.2, "desirable_weight": 1.5, "undesirable_weight": 0.75}


def kto_trainer(world: World, folder: Path) -> Any:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    model, tokenizer = opened(world.plain)
    data = Dataset.from_dict(
        {"prompt": [BOS + p for p in world.prompts], "completion": world.chosen, "label": LABELS}
    )
    return KTOTrainer(
        model, ref_model=opened(world.frozen)[0], args=KTOConfig(**arguments(folder), **KTO), train_dataset=data,
        processing_class=tokenizer,
    )


def labelled(model: CausalLm, world: World) -> Batch:
    """The unrelated completion is that of the example before, as TRL pairs them."""
    encoded = model.encode(rows(world, [world.chosen, world.chosen[-1:] + world.chosen[:-1]]))
    return Batch(encoded.columns, 2, {"ranks": torch.tensor([[1 if good else 2, 0] for good in LABELS])})


@pytest.mark.parametrize("turned", [False, True], ids=["z is 0", "z above 0"])
def test_kto_loss(world: World, tmp_path: Path, turned: bool) -> None:
    if turned:
        world = world._replace(policy=world.reference, reference=world.policy, plain=world.frozen, frozen=world.plain)
    of = kto_trainer(world, tmp_path)
    expected = theirs(of)
    said = {name: values[0] for name, values in of._metrics["eval"].items()}
    loss = ours(Kto(**KTO), world, labelled(world.policy, world))
    assert mean(loss) == pytest.approx(expected, abs=1e-5)
    for own, other in {
        "kl": "kl", "margin": "rewards/margins", "chosen_reward": "rewards/chosen",
        "rejected_reward": "rewards/rejected", "chosen_log_prob": "logps/chosen", "rejected_log_prob": "logps/rejected",
    }.items():
        assert float(loss.metrics[own] / loss.weight) == pytest.approx(said[other], abs=1e-5), own
    assert (said["kl"] > 0) == turned


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_simpo_loss(world: World, tmp_path: Path, smoothing: float) -> None:
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    model, tokenizer = opened(world.plain)
    settings = {"beta": 2.0, "simpo_gamma": 0.7, "cpo_alpha": 0.0, "label_smoothing": smoothing}
    of = CPOTrainer(
        model, args=CPOConfig(**arguments(tmp_path), loss_type="simpo", **settings), train_dataset=preferences(world),
        processing_class=tokenizer,
    )
    loss = ours(Simpo(beta=2.0, gamma=0.7, label_smoothing=smoothing), world, pairs(world.policy, world))
    assert mean(loss) == pytest.approx(theirs(of), abs=1e-5)


def test_orpo_loss(world: World, tmp_path: Path) -> None:
    """TRL's likelihood counts the prompt's tokens, all of a batch in one mean: so no prompts, and equal lengths."""
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    world = world._replace(prompts=[""] * PAIRS, chosen=[text[:5] for text in world.chosen])
    model, tokenizer = opened(world.plain)
    of = ORPOTrainer(
        model, args=ORPOConfig(**arguments(tmp_path), beta=0.3), train_dataset=preferences(world),
        processing_class=tokenizer,
    )
    loss = ours(Orpo(beta=0.3), world, pairs(world.policy, world))
    assert mean(loss) == pytest.approx(theirs(of), abs=1e-5)


def trained(world: World, objective: Any, batch: Batch) -> dict[str, Tensor]:
    """Our trainer, 20 steps on the whole set."""
    model = CausalLm(config=LLAMA)
    model.load(world.plain)
    model.module.double()
    spec = Training(
        steps=STEPS, batch_size=PAIRS, learning_rate=RATE, schedule="constant", warmup=0.0, precision="fp32"
    )
    feed = FixedFeed(batch, PAIRS, 3)
    trainer.train(model, TrainingSetup(spec=spec, objective=objective, adapter=Full(), feed=feed, key=3, where="test"))
    return dict(model.module.named_parameters())


def differs(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name].detach() - other[name].detach()).abs().max()) for name in one)


class Wide:
    """TRL's head, log-probs from hidden states, in the model's own precision: TRL's is float32 even in float64."""

    @staticmethod
    def apply(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        logits = torch.nn.functional.linear(hidden, weight, bias)
        every = logits.log_softmax(dim=-1)
        entropy = -(every.exp() * every).sum(dim=-1)
        log_probs = every.gather(1, labels[:, None])[:, 0]
        return log_probs, entropy, (2 * every).logsumexp(dim=-1), logits.mean(dim=-1), logits.argmax(dim=-1) == labels


@pytest.mark.parametrize("kind", ["sft", "dpo", "ipo", "kto"])
def test_twenty_steps(world: World, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, AdamW, gradients clipped at 1: the weights end within 1e-6 of each other.

    Measured: 2e-8 to 6e-8 (Llama's norms are float32 in any precision); with TRL's own head up to 1e-6.
    """
    monkeypatch.setattr("trl.trainer.utils._ChunkedLogProbFunction", Wide)
    own_entry = world._replace(frozen=world.plain)  # the reference is the model at the stage's entry
    if kind == "sft":
        of: Any = sft_trainer(world, tmp_path)
        own = trained(world, Likelihood(), world.policy.encode(rows(world, [world.chosen])))
    elif kind == "kto":
        of = kto_trainer(own_entry, tmp_path)
        own = trained(world, Kto(**KTO), labelled(world.policy, world))
    else:
        of = dpo_trainer(own_entry, tmp_path, beta=0.3, loss_type=["sigmoid" if kind == "dpo" else "ipo"])
        objective = Dpo(beta=0.3) if kind == "dpo" else Ipo(beta=0.3, length_normalised=True)
        own = trained(world, objective, pairs(world.policy, world))
    start = dict(opened(world.plain)[0].named_parameters())
    of.train()
    other = dict(of.model.named_parameters())
    assert differs(own, start) > 5e-3  # 20 steps of 1e-3 have moved them
    assert differs(own, other) < 1e-6
