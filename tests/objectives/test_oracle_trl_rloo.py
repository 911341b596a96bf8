"""TRL's RLOOTrainer and GRPOTrainer as oracles: the same advantages, loss and, after 20 optimiser steps, weights.

TRL's generation is replaced by fixed completions; all else is TRL's: prompts, padding, rewards, KL, clip, optimiser.
Our side has its own forward pass (padded on the right, full logits) over a copy of the model.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from upturn import seeds
from upturn.objectives.grpo import Grpo
from upturn.objectives.rloo import Rloo
from upturn.types import Batch, Outputs

pytestmark = pytest.mark.slow

trl = pytest.importorskip("trl")

PROMPTS, GROUP, LONGEST, STEPS, PER_ROLLOUT, RATE, BETA = 3, 4, 7, 20, 2, 1e-3, 0.1
WORDS = "one two three four five six seven eight nine ten plus minus times is"


def plain_llama(folder: Path) -> None:
    """A Llama of two layers, in float64, and a tokenizer trained on a few words, in a folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<unk>", "<pad>", "</s>"]
    raw.train_from_iterator([WORDS] * 4, trainers.BpeTrainer(vocab_size=60, special_tokens=special))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", pad_token="<pad>", eos_token="</s>", padding_side="left"
    )
    tokenizer.save_pretrained(folder)
    seeds.seed_torch(seeds.key("oracle", "rloo"))
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, pad_token_id=1, eos_token_id=2, bos_token_id=None,
        initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).double().save_pretrained(folder)


@dataclass
class Record:
    """What TRL did: one entry a rollout of prompts, completions, advantages; one entry a step of losses."""

    prompts: list[list[list[int]]] = field(default_factory=list)
    completions: list[list[list[int]]] = field(default_factory=list)
    advantages: list[torch.Tensor] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    start: Any = None
    end: Any = None
    reference: Any = None

    def generate(self, prompt_ids: list[list[int]], *_: Any) -> list[list[int]]:
        """Completions of 1 to 7 tokens, the shorter ones ended."""
        rng = seeds.generator(seeds.key("completions", len(self.prompts)))
        rows = [rng.integers(3, 30, size=rng.integers(1, LONGEST + 1)).tolist() for _ in prompt_ids]
        rows = [[*row[:-1], 2] if len(row) < LONGEST else row for row in rows]
        self.prompts.append(prompt_ids)
        self.completions.append(rows)
        return rows


def reward(ids: list[int]) -> float:
    return sum(ids) / 20 + (len(ids) % 3) / 3


def noisy(model: torch.nn.Module) -> None:
    """Away from the reference, so that there is KL from the first step."""
    base = seeds.key("oracle", "noise")
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            shape = tuple(parameter.shape)
            parameter += 0.05 * seeds.normal(seeds.fold(base, i), shape)[0].double()


def oracle(folder: Path, kind: str, steps: int, rewards: Any, **settings: Any) -> Record:
    """A run of TRL's trainer on the CPU, and what it did."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = WORDS.split()
    prompts = [" ".join(words[i : i + 2 + i % 3]) for i in range(2 * PROMPTS)]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    arguments = getattr(trl, f"{kind}Config")(
        output_dir=str(folder / "out"), per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP, beta=BETA,
        max_completion_length=LONGEST, num_iterations=PER_ROLLOUT, steps_per_generation=1, shuffle_dataset=False,
        max_steps=steps, learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=0.0, weight_decay=0.0,
        optim="adamw_torch", use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
        save_strategy="no", disable_tqdm=True, logging_strategy="no", **settings,
    )  # fmt: skip
    trainer = getattr(trl, f"{kind}Trainer")(
        model=model, reward_funcs=rewards, args=arguments, train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )  # fmt: skip
    noisy(trainer.model)
    record = Record(start=copy.deepcopy(trainer.model.state_dict()), reference=trainer.ref_model.state_dict())
    score, loss = trainer._generate_and_score_completions, trainer._compute_loss

    def scored(inputs: Any) -> Any:
        found = score(inputs)
        record.advantages.append(found["advantages"].clone())
        return found

    def computed(*inputs: Any) -> Any:
        found = loss(*inputs)
        record.losses.append(float(found.detach()))
        return found

    trainer._generate_single_turn = record.generate if kind == "RLOO" else lambda *a: (record.generate(*a), None)
    trainer._generate_and_score_completions, trainer._compute_loss = scored, computed
    trainer.train()
    record.end = trainer.model.state_dict()
    return record


class Ours:
    """A copy of the model, a forward pass of our own, and the trainer's few lines."""

    def __init__(self, folder: Path, record: Record) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
        self.model.load_state_dict(record.start)
        self.reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
        self.reference.load_state_dict(record.reference)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, weight_decay=0.0)
        self.record = record

    def encode(self, turn: int) -> Batch:
        """Padded on the right; ``acts`` is 1 where the next token is of the completion."""
        pairs = list(zip(self.record.prompts[turn], self.record.completions[turn], strict=True))
        width = max(len(p) + len(c) for p, c in pairs)
        ids, mask, acts = (torch.zeros(len(pairs), width, dtype=torch.long) for _ in range(3))
        for i, (prompt, completion) in enumerate(pairs):
            both = [*prompt, *completion]
            ids[i, : len(both)], mask[i, : len(both)] = torch.tensor(both), 1
            acts[i, len(prompt) - 1 : len(both) - 1] = 1
        rewards = torch.tensor([reward(c) for c in self.record.completions[turn]]).reshape(-1, GROUP)
        return Batch({"ids": ids, "attends": mask, "acts": acts[:, :-1].double()}, GROUP, {"rewards": rewards})

    def forward(self, model: torch.nn.Module, batch: Batch) -> Outputs:
        logits = model(input_ids=batch["ids"], attention_mask=batch["attends"]).logits[:, :-1]
        log_probs = logits.log_softmax(dim=-1).gather(2, batch["ids"][:, 1:, None])[..., 0]
        return Outputs(log_probs, batch["acts"])

    @torch.no_grad()
    def draw(self, turn: int) -> Batch:
        batch = self.encode(turn)
        before, ref = self.forward(self.model, batch), self.forward(self.reference, batch)
        return batch.with_columns(
            behaviour=before.log_probs, before_log_probs=before.log_probs, before_ref_log_probs=ref.log_probs,
            before_mask=before.mask,
        )  # fmt: skip

    def step(self, objective: Any, batch: Batch, size: int) -> float:
        """One step, in micro-batches of ``size`` examples."""
        self.optimizer.zero_grad()
        total = weight = 0.0
        for start in range(0, len(batch), size):
            micro = batch.take(torch.arange(start, min(start + size, len(batch))))
            out = self.forward(self.model, micro)
            out = Outputs(out.log_probs, out.mask, ref_log_probs=micro["before_ref_log_probs"])
            loss = objective(out, micro)
            loss.sum.backward()
            total, weight = total + float(loss.sum.detach()), weight + float(loss.weight)
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad /= weight
        self.optimizer.step()
        return total / weight


def by_words(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [reward(ids) for ids in completion_ids]


def follow(folder: Path, record: Record, objective: Any) -> None:
    """Advantages and losses of every step within 1e-5, weights at the end within 1e-6."""
    ours = Ours(folder, record)
    assert len(record.losses) == STEPS
    far = moved = 0.0
    for step in range(STEPS):
        turn, again = divmod(step, PER_ROLLOUT)
        if not again:
            batch = objective.prepare(ours.draw(turn))
            assert torch.allclose(batch.given["advantages"].reshape(-1), record.advantages[turn].double(), atol=1e-5)
        loss = ours.step(objective, batch, size=2)
        assert loss == pytest.approx(record.losses[step], abs=1e-5)
    for name, value in ours.model.state_dict().items():
        far = max(far, float((value - record.end[name]).abs().max()))
        moved = max(moved, float((record.start[name] - record.end[name]).abs().max()))
    assert moved > 10 * RATE  # it did learn
    assert far < 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    plain_llama(path)
    return path


def test_rloo_is_trls(folder: Path) -> None:
    record = oracle(folder, "RLOO", STEPS, by_words)
    follow(folder, record, Rloo(beta=BETA))


@pytest.mark.parametrize(
    ("settings", "objective"),
    [
        ({"loss_type": "grpo"}, Grpo(beta=BETA)),
        ({"loss_type": "dapo", "scale_rewards": "none", "use_bias_correction_kl": False, "epsilon_high": 0.28},
         Grpo(beta=BETA, scale_by_std=False, length="batch", clip_high=0.28, kl="k3")),
    ],
    ids=["grpo", "dapo"],
)  # fmt: skip
def test_grpo_is_trls(folder: Path, settings: dict[str, Any], objective: Grpo) -> None:
    record = oracle(folder, "GRPO", STEPS, by_words, **settings)
    follow(folder, record, objective)


def test_unscored_completions_are_left_out_as_trl_does(folder: Path) -> None:
    """Advantages: the baseline is of the scored alone, and a completion alone in its group has none."""

    def gaps(completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        return [None if i in (1, 4, 5, 6) else reward(ids) for i, ids in enumerate(completion_ids)]

    record = oracle(folder, "RLOO", 1, gaps)
    batch = Ours(folder, record).draw(0)
    batch.given["rewards"].view(-1)[[1, 4, 5, 6]] = torch.nan
    batch = Rloo(beta=BETA).prepare(batch)
    assert torch.allclose(batch.given["advantages"].reshape(-1), record.advantages[0].double(), atol=1e-5)
    assert batch.given["row_weights"].tolist() == [[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]]
