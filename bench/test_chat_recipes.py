"""The recipes of jobs on a pre-trained chat model, end to end on SmolLM2-135M-Instruct: figures before and after.

Pairs are human judgements of which of two answers is better (shared/data/pairs). So few cannot show much, so the same
rows also get a planted preference: the shorter answer, or the answer that opens with a certain word. Rows have at most
128 tokens; LoRA of rank 16.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from common import ROOT, RUNS, run, say

from helpers.smollm2 import smollm2
from upturn.runs.status import RunStatus
from upturn.store.run import Run

PAIRS = ROOT.parent / "shared" / "data" / "pairs" / "pairs.jsonl"
OPENING = "Indeed, "
LENGTH = 128


def rows() -> list[dict[str, Any]]:
    if not PAIRS.exists():
        pytest.skip("the human judgements are not there")
    return [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").split("\n") if line]


def planted(kind: str) -> Path:
    """The pairs with another preference, in a file: "human" leaves them as they are."""
    path = RUNS / f"pairs-{kind}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    out = []
    for row in rows():
        answers = [row["chosen"], row["rejected"]]
        if kind == "shorter":
            answers.sort(key=lambda answer: len(answer[0]["content"]))
        elif kind == "opening":
            rng.shuffle(answers)
            answers[0] = [{"role": "assistant", "content": OPENING + answers[0][0]["content"]}]
        out.append({"prompt": row["prompt"], "chosen": answers[0], "rejected": answers[1]})
    path.write_text("".join(json.dumps(row) + "\n" for row in out), encoding="utf-8")
    return path


def job(name: str, recipe: str, data: Path, *settings: str, model: str = "policy") -> tuple[Run, RunStatus]:
    return run(
        f"chat-{name}", f"{recipe}.yaml", f"data.path={data}", f"models.{model}.folder={smollm2()}",
        f"models.{model}.max_length={LENGTH}", *settings,
    )


def figures(title: str, seen: RunStatus, *names: str) -> None:
    """Each metric of the model as it came, after each stage, and after each round, with its interval."""
    units = [(stage.name, stage.metrics) for stage in seen.rounds[0].stages]
    units += [(f"round {r.round}", r.metrics) for r in seen.rounds[1:]]
    for name in names:
        known = [(unit, metrics[name]) for unit, metrics in units if name in metrics]
        say(f"{title}, {name}", "; ".join(
            f"{unit} {found['value']:.4f} [{found['low']:.4f}, {found['high']:.4f}]" for unit, found in known
        ))


def first_and_last(seen: RunStatus, name: str) -> tuple[Any, Any]:
    measured = [stage.metrics[name] for stage in seen.rounds[0].stages if name in stage.metrics]
    measured += [r.metrics[name] for r in seen.rounds[1:] if name in r.metrics]
    return measured[0], measured[-1]


QUICK = (
    "evaluate.0.prompts=8", "evaluate.0.settings.max_tokens=32", "data.held_out=0.3", "stages.0.learning_rate=3.0e-4",
)


def test_sft_lowers_held_out_loss() -> None:
    _, seen = job("sft", "sft", planted("human"), "data.name=preferences", *QUICK)
    figures("SFT on the chosen answers", seen, "held_out_loss")
    before, after = first_and_last(seen, "held_out_loss")
    assert after["value"] < before["value"]


def test_dpo_on_human_judgements() -> None:
    """The figures as they are: so few pairs need not show anything."""
    _, seen = job("dpo-human", "dpo", planted("human"), *QUICK)
    figures("DPO on human judgements", seen, "preference_accuracy", "held_out_loss")


OBJECTIVES = {
    "dpo": "{name: dpo, beta: 0.1}", "kto": "{name: kto, beta: 0.1}", "simpo": "simpo", "orpo": "orpo",
}


@pytest.mark.parametrize("preference", ["shorter", "opening"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_planted_preference_is_learned(objective: str, preference: str) -> None:
    relative = objective in ("dpo", "kto")
    accuracy = f"{{name: preference_accuracy, relative: {str(relative).lower()}}}"
    _, seen = job(
        f"{objective}-{preference}", "dpo", planted(preference), *QUICK,
        f"stages.0.objective={OBJECTIVES[objective]}", f"evaluate.0.metrics=[{accuracy}, held_out_loss]",
        "stages.0.epochs=2",
    )
    figures(f"{objective}, {preference} answers are better", seen, "preference_accuracy", "held_out_loss")
    before, after = first_and_last(seen, "preference_accuracy")
    assert after["low"] > 0.5
    assert after["value"] > before["value"]


@pytest.mark.parametrize("objective", ["bradley_terry"])
@pytest.mark.parametrize("preference", ["human", "shorter", "opening"])
def test_reward_models(objective: str, preference: str) -> None:
    done, _ = job(
        f"reward-{objective}-{preference}", "reward-model", planted(preference), "data.held_out=0.3",
        f"models.reward.fit.objective={objective}", "models.reward.fit.epochs=2",
        "models.reward.fit.learning_rate=3.0e-4", model="reward",
    )
    found = next(record.info["assessment"] for record in done.records() if "assessment" in record.info)
    accuracy = found["accuracy"]
    say(f"reward model ({objective}), {preference}, held-out pair accuracy",
        f"{accuracy['value']:.4f} [{accuracy['low']:.4f}, {accuracy['high']:.4f}] of {found['pairs']} pairs")
    if preference != "human":
        assert accuracy["low"] > 0.5


def sums(count: int = 600) -> Path:
    """Sums with a verifiable answer that SmolLM2 often, not always, gets right."""
    path = RUNS / "sums.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = random.Random(1)
    out = []
    for _ in range(count):
        a, b = rng.randint(2, 60), rng.randint(2, 60)
        out.append({"question": f"What is {a} + {b}? Answer with the number only.", "answer": str(a + b)})
    path.write_text("".join(json.dumps(row) + "\n" for row in out), encoding="utf-8")
    return path


@pytest.mark.parametrize("objective", ["rloo", "grpo", "ppo"])
def test_a_verifiable_reward_rises(objective: str) -> None:
    _, seen = job(
        objective, objective, sums(), "rounds.count=1", "rounds.train.0.steps=20", "rounds.train.0.batch_size=8",
        "rounds.train.0.online.prompts=8", "rounds.train.0.online.candidates=8",
        "rounds.train.0.online.settings.max_tokens=16", "rounds.train.0.learning_rate=2.0e-4",
        "evaluate.0.prompts=60", "evaluate.0.settings.max_tokens=16",
    )
    figures(f"{objective} on sums", seen, "verifier_accuracy")
    gate = seen.rounds[1].gate
    assert gate is not None
    say(f"{objective} on sums, gate", f"{gate['decision']}: {gate['reason']}")


def test_the_loop_of_llama() -> None:
    _, seen = job(
        "loop", "rejection-sampling-dpo", sums(), "rounds.count=1", "stages=[]", "rounds.sample.prompts=48",
        "rounds.sample.settings.max_tokens=16", "evaluate.0.prompts=60", "evaluate.0.settings.max_tokens=16",
    )
    figures("rejection sampling and DPO on sums", seen, "verifier_accuracy", "held_out_loss")
