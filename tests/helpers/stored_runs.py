"""Run directories whose records and files are written directly, without training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from upturn.store import parquet_tables
from upturn.store.run import Run
from upturn.store.values import write_values
from upturn.types import Mixture, Prompt, Samples, Scores, Selection, objects, real_samples, synthetic_samples

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>"
METRIC, N = "quality", 60
RECIPE = """
name: {name}
data: {{name: toy, noise: 0.5}}
models: {{policy: {{name: {model}}}}}
usd_per_hour: {price}
stages:
  - {{name: pretrain, epochs: 4, checkpoint_epochs: [1, 2, 4]}}
  - {{name: finetune, where: {{quality: clean}}, epochs: 2}}
rounds:
  count: {rounds}
  sample: {{prompts: 6, candidates: 3}}
  score: [{{name: judge_a, weight: 2.0}}, judge_b]
  curate: [threshold, choice]
  train: {{epochs: 1}}
evaluate: {{prompts: {n}, metrics: [{{name: label_agreement, as: {metric}}}, coverage, class_shares, nearest_real]}}
gate: {{metric: {metric}, guards: {{coverage: {{at_least: 0.9}}}}}}
"""


@dataclass
class StoredRun:
    """A small run of one kind, written through the store as the stages write it."""

    folder: Path
    kind: str
    rounds: int = 3
    price: float = 0.0
    prompts: tuple[Prompt, ...] = field(default=())
    run: Run = field(init=False)

    def __post_init__(self) -> None:
        recipe = RECIPE.format(
            name=self.folder.name, model="toy", rounds=self.rounds, n=N, metric=METRIC, price=self.price
        )
        self.run = Run.create(self.folder, recipe, {"machine": "a <b>machine</b>", "torch": "2"})
        if not self.prompts:
            prompts = {"text": lambda i: Prompt(f"What is {i} + {i}? {EVIL if i == 0 else ''}")}
            self.prompts = tuple(prompts.get(self.kind, lambda i: Prompt(label=i))(i) for i in range(6))

    def content(self, count: int, skill: float, seed: int) -> Any:
        rng = np.random.default_rng(seed)
        if self.kind == "text":
            words = np.where(rng.random(count) < skill, "right", "wrong")
            return [f"The answer is {word} number {i} {EVIL}" for i, word in enumerate(words)]
        if self.kind == "points":
            return (rng.normal(size=(count, 2)) * (2 - skill)).astype(np.float32)
        return rng.integers(0, int(255 * skill) + 1, (count, 8, 8, 1)).astype(np.uint8)

    def samples(self, per_prompt: int, skill: float, model: str, seed: int = 0) -> Samples:
        count = len(self.prompts) * per_prompt
        keys = np.arange(count).reshape(len(self.prompts), per_prompt)
        return synthetic_samples(self.kind, self.content(count, skill, seed), self.prompts, keys, model)  # type: ignore[arg-type]

    def real(self) -> Samples:
        return real_samples(self.kind, self.content(30, 1.0, 99), [self.prompts[i % 6] for i in range(30)], "toy")  # type: ignore[arg-type]

    def data(self) -> None:
        with self.run.commit("data", "load") as out:
            parquet_tables.write_samples(out.path / "samples.parquet", self.real())
            out.counts.update(train=24, held_out=6)
            out.info.update(classes=[f"class {i}" for i in range(5)] + [EVIL], notes=[f"2 files skipped {EVIL}"])

    def trained(self, unit: str, real: int, synthetic: int, seconds: float = 2.0) -> None:
        with self.run.commit(unit, "mix") as out:
            samples = self.real()
            parquet_tables.write_mixture(out.path / "mixture.parquet", Mixture(samples, np.ones(30)), ["data"] * 30)
            out.counts.update(real=real, synthetic=synthetic)
            out.info["real_fraction"] = real / (real + synthetic)
            out.seconds = 0.5
        with self.run.commit(unit, "train") as out:
            points = [{"step": 10 * i, "epoch": i, "loss": 3.0 / i, "held_out": 3.5 / i} for i in range(1, 5)]
            (out.path / "losses.json").write_text(json.dumps(points))
            out.info.update(model=f"model-of-{unit}", parent=None, steps=40, stopped="")
            out.seconds = seconds

    def evaluated(self, unit: str, skill: float, previews: bool = False) -> None:
        rng = np.random.default_rng(int(skill * 1000))
        values = (np.arange(N) < skill * N).astype(float)
        shares = rng.dirichlet(np.ones(6))
        evaluated = self.samples(N // 6, skill, f"model-{unit}")
        real = self.real()
        metrics = {
            METRIC: measured(values.mean(), 0.05, n=N),
            "coverage": measured(0.9 - skill / 10, 0.02, details={"if_equal": 0.93}),
            "class_shares": measured(shares.max(), 0.04, details={"shares": {
                name: {"value": float(s), "low": float(s) - 0.01, "high": float(s) + 0.01}
                for name, s in zip([*(f"class {i}" for i in range(5)), EVIL], shares, strict=True)
            }}),
            "nearest_real": measured(1.2345, 0.1, details={"held_out": 1.3, "pairs": [
                {"sample": str(evaluated.ids[i]), "real": str(real.ids[i]), "distance": 0.25 + i} for i in range(3)
            ]}),
        }
        with self.run.commit(unit, "evaluate") as out:
            (out.path / "metrics.json").write_text(json.dumps(metrics))
            write_values(out.path / "values.parquet", {METRIC: values})
            parquet_tables.write_samples(out.path / "evaluation.parquet", evaluated)
            parquet_tables.write_samples(out.path / "grid.parquet", self.samples(2, skill, f"model-{unit}"))
            if previews:
                from upturn.types import concatenate

                series = [
                    s.with_fields(epoch=np.full(len(s), e))
                    for e, s in ((e, self.samples(2, skill * e / 4, "m", 0)) for e in (1, 2, 4))
                ]
                parquet_tables.write_samples(out.path / "previews.parquet", concatenate(series))
            out.seconds = 1.0

    def base(self) -> None:
        with self.run.commit("rounds/000", "base") as out:
            source = self.run.unit("rounds/000/finetune")
            for name in ("metrics.json", "values.parquet", "grid.parquet", "evaluation.parquet"):
                (out.path / name).write_bytes((source / name).read_bytes())
            out.info.update(model="model-of-finetune", parent=None, mixture="rounds/000/finetune")

    def round(self, number: int, skill: float, decision: str | None, reason: str) -> None:
        unit = f"rounds/{number:03d}"
        drawn = self.samples(3, skill, f"m{number}", seed=number)
        with self.run.commit(unit, "sample") as out:
            parquet_tables.write_samples(out.path / "samples.parquet", drawn)
        rewards = np.linspace(0, 1, len(drawn))
        with self.run.commit(unit, "score") as out:
            parquet_tables.write_scores(
                out.path / "scores.parquet", drawn, [Scores("judge_a", rewards), Scores("judge_b", rewards / 2)]
            )
        with self.run.commit(unit, "curate") as out:
            first = rewards >= 0.2
            low = [f"below the limit: reward {reward:.2f} {EVIL}" for reward in rewards]
            why = objects(["" if ok else text for ok, text in zip(first, low, strict=True)])
            second = first & (drawn.candidate == 2)
            last = objects(["" if ok else "not chosen: one of 3" if f else "dropped by an earlier curator"
                            for ok, f in zip(second, first, strict=True)])
            parquet_tables.write_selections(
                out.path / "selections.parquet", drawn,
                [Selection("threshold", first, why), Selection("choice", second, last)],
            )
            out.counts.update(kept=int(second.sum()), dropped=int((~second).sum()))
            out.info["dropped"] = {"below the limit": int((~first).sum()), "not chosen": int((first & ~second).sum())}
        self.trained(unit, 30, int(second.sum()))
        self.evaluated(unit, skill)
        if decision is None:
            return
        with self.run.commit(unit, "gate") as out:
            found = {
                "decision": decision, "metric": METRIC, "reason": reason, "p": 0.0123, "alpha": 0.05 / 3,
                "difference": 0.0789, "low": 0.01, "high": 0.15, "incumbent": "rounds/000",
                "guards": [{"metric": "coverage", "holds": decision == "promoted", "value": 0.8, "anchor": 0.85,
                            "limit": 0.765, "reason": f"guard sentence of round {number}"}],
            }
            (out.path / "gate.json").write_text(json.dumps(found))
            out.info.update(decision=decision, reason=reason, incumbent="rounds/000")

    def stages(self) -> None:
        self.data()
        self.trained("rounds/000/pretrain", 30, 0, seconds=100.0)
        self.evaluated("rounds/000/pretrain", 0.4, previews=True)
        self.trained("rounds/000/finetune", 15, 0)
        self.evaluated("rounds/000/finetune", 0.6)
        self.base()

    def whole(self) -> StoredRun:
        self.stages()
        self.round(1, 0.75, "promoted", "quality better: +0.15")
        self.round(2, 0.65, "rejected", f"quality not better beyond chance in round two {EVIL}")
        self.round(3, 0.9, "promoted", "quality better again")
        self.run.set_state("done")
        return self


def measured(value: float, half: float, n: int = 500, note: str = "", details: Mapping[str, Any] | None = None) -> Any:
    return {
        "value": float(value), "low": float(value) - half, "high": float(value) + half, "n": n, "note": note,
        "details": dict(details or {}),
    }
