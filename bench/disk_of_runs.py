"""Disk after SFT, DPO and two rounds with LoRA of rank 8 on one base, over the size of the base; then of a second run.

    python bench/disk_of_runs.py MODEL_FOLDER [RUNS]     RUNS: 2 by default

Few steps of few tokens: what is stored does not depend on their number. Every file counts once, whatever its number of
hard links. Prints the largest files, and the time of the whole.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from upturn.config import recipe
from upturn.loop import loop
from upturn.store.bases import FOLDER

RECIPE = """
name: first
threads: 2
data: {{name: preferences, path: {rows}}}
models:
  policy: {{name: causal_lm, folder: {base}, max_length: 64}}
stages:
  - {{name: sft, steps: 1, batch_size: 1, learning_rate: 1.0e-4, adapter: {{name: lora, rank: 8, adapter_name: sft}}}}
  - {{name: dpo, objective: dpo, steps: 1, batch_size: 1, learning_rate: 1.0e-4, adapter: &dpo
        {{name: lora, rank: 8, adapter_name: dpo}}}}
rounds:
  count: 2
  sample: {{prompts: 2, candidates: 2, settings: {{max_tokens: 2}}}}
  score: length
  mix: {{policy: replace, lambda: 1.0}}
  train: {{objective: dpo, steps: 1, batch_size: 1, learning_rate: 1.0e-4, adapter: *dpo}}
evaluate: {{prompts: 1, settings: {{max_tokens: 2}}, metrics: [reward]}}
grid: {{prompts: 1, per_prompt: 1}}
"""


def size(folder: Path) -> dict[str, int]:
    """Bytes of every file below ``folder``, each once, by its first name."""
    found: dict[tuple[int, int], tuple[str, int]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            seen = path.stat()
            found.setdefault((seen.st_dev, seen.st_ino), (path.relative_to(folder).as_posix(), seen.st_size))
    return dict(found.values())


def main(base: Path, count: int = 2) -> None:
    weights = (base / "model.safetensors").stat().st_size
    runs = Path(tempfile.mkdtemp(prefix="disk"))
    try:
        rows = runs / "rows.jsonl"
        rows.write_text("\n".join(
            json.dumps({"prompt": f"Count {i}.", "chosen": f"{i}, {i + 1}.", "rejected": "No."}) for i in range(24)
        ))
        began, before = time.process_time(), 0
        for name in ("first", "second", "third")[:count]:
            loop.run(recipe.parse(RECIPE.format(rows=rows, base=base), "disk.yaml", [f"name={name}"]), runs)
            files = size(runs)
            total = sum(files.values())
            share = (total - before) / weights
            print(f"{name} run: {share:.3f} of the base ({weights / 1e6:.0f} MB) added", flush=True)
            before = total
        for path, number in sorted(files.items(), key=lambda item: -item[1])[:12]:
            print(f"  {number / 1e6:8.2f} MB  {path}")
        print(f"bases stored: {len(list((runs / FOLDER).iterdir()))}; {time.process_time() - began:.0f} CPU seconds")
    finally:
        shutil.rmtree(runs)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
