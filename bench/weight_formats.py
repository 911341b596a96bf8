"""Memory, CPU time and loss of LoRA on one base held in several ways: float32, bfloat16, 4 bits, checkpointed.

    python bench/weight_formats.py MODEL_FOLDER [ROWS TOKENS STEPS]

Each in a process of its own: resident memory after the model was read, and its peak while it trains (Linux: the peak
is reset before). The same rows and steps everywhere; losses are of the same batches before each step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

FORMATS = {
    "float32": {},
    "float32, checkpointed": {"gradient_checkpointing": True},
    "bfloat16": {"dtype": "bfloat16"},
    "bfloat16, checkpointed": {"dtype": "bfloat16", "gradient_checkpointing": True},
    "nf4 (QLoRA), bfloat16": {"dtype": "bfloat16", "quantization": "nf4"},
    "nf4, checkpointed": {"dtype": "bfloat16", "quantization": "nf4", "gradient_checkpointing": True},
}
_STATUS = Path("/proc/self/status")


def memory(name: str) -> float:
    """MB: "VmRSS" is resident now, "VmHWM" its peak."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def child(folder: str, rows: int, tokens: int, steps: int, fields: dict[str, object]) -> None:
    import gc

    import torch

    from upturn.adapters.lora import Lora
    from upturn.models.causal_lm import CausalLm
    from upturn.types import Prompt, real_samples

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    text = Path(__file__).parents[1].joinpath("docs", "theory.md").read_text(encoding="utf-8")
    parts = [text[i * 4 * tokens:(i + 1) * 8 * tokens] for i in range(rows)]
    samples = real_samples("text", parts, [Prompt()] * rows, "theory")
    model = CausalLm(folder=folder, max_length=tokens, too_long="truncate_right", **fields)
    model.build(samples, 1)
    Lora(rank=8).attach(model, steps, 1)
    batch = model.encode(samples)
    batch = batch.take(torch.arange(len(batch)))
    own = [p for p in model.module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(own, lr=1e-3)
    model.module.train()
    gc.collect()
    held = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    losses, began = [], time.process_time()
    for _ in range(steps):
        out = model.forward(batch, None)
        loss = -(out.log_probs * out.mask).sum() / out.mask.sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    held_by = {t.data_ptr(): t.numel() * t.element_size() for t in model.module.state_dict().values()}  # tied: once
    weights = sum(held_by.values()) / 2**20
    print(json.dumps({
        "weights": weights, "held": held, "peak": memory("VmHWM"), "losses": losses,
        "seconds": (time.process_time() - began) / steps,
    }))


def main() -> None:
    folder, *rest = sys.argv[1:]
    rows, tokens, steps = map(int, rest or (4, 256, 4))
    print(f"{rows} rows of {tokens} tokens, {steps} steps, LoRA of rank 8")
    print(f"{'format':24} {'weights MB':>10} {'held MB':>8} {'training MB':>11} {'CPU s/step':>10}  losses")
    for name, fields in FORMATS.items():
        given = [sys.executable, __file__, "--child", folder, str(rows), str(tokens), str(steps), json.dumps(fields)]
        done = subprocess.run(given, capture_output=True, text=True)
        if done.returncode:
            print(f"{name:24} {done.stderr.strip().splitlines()[-1]}")
            continue
        found = json.loads(done.stdout.strip().splitlines()[-1])
        losses = " ".join(f"{loss:.4f}" for loss in found["losses"])
        print(f"{name:24} {found['weights']:10.0f} {found['held']:8.0f} {found['peak'] - found['held']:11.0f} "
              f"{found['seconds']:10.2f}  {losses}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        child(sys.argv[2], *map(int, sys.argv[3:6]), json.loads(sys.argv[6]))
    else:
        main()
