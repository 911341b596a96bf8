"""SIGKILL at ten random instants of SFT, DPO and a round on a real chat model: resumed, it ends with the same bytes."""

from __future__ import annotations

import random
import shutil

from common import RUNS, say
from test_chat_recipes import planted
from test_kills import models, whole

from helpers import child_process as children
from helpers.smollm2 import smollm2

KILLS = 10
RECIPE = """
name: chat-kills
seed: 0
threads: 1
data: {{name: preferences, path: {data}, held_out: 0.3}}
models:
  policy: {{name: causal_lm, folder: {model}, max_length: 64, too_long: drop}}
stages:
  - {{name: sft, adapter: {{name: lora, rank: 8}}, steps: 2, batch_size: 4, learning_rate: 2.0e-4, save_every: 1}}
  - {{name: dpo, objective: dpo, adapter: {{name: lora, rank: 8}}, steps: 2, batch_size: 2, save_every: 1}}
rounds:
  count: 1
  sample: {{prompts: 4, candidates: 2, shard: 2, settings: {{max_tokens: 8}}}}
  score: length
  curate: best_of_n
  train: {{adapter: {{name: lora, rank: 8}}, steps: 2, batch_size: 4, learning_rate: 1.0e-4, save_every: 1}}
evaluate: {{prompts: 2, settings: {{temperature: 0, max_tokens: 8}}, metrics: [distinct]}}
"""


def test_killed_at_random_instants() -> None:
    text = RECIPE.format(data=planted("human"), model=smollm2())
    folder = RUNS / "chat-kills"
    shutil.rmtree(folder, ignore_errors=True)
    took = whole(text, folder / "whole")
    expected = models(folder / "whole" / "chat-kills")
    assert expected
    dice = random.Random(0)
    same = 0
    for number in range(KILLS):
        runs = folder / str(number)
        process = children.start(text, runs)
        process.join(timeout=dice.uniform(0.0, took))
        struck = process.exitcode is None
        process.kill()
        process.join()
        whole(text, runs)
        equal = models(runs / "chat-kills") == expected
        same += equal
        say(f"kill {number}", f"struck {struck}, same bytes {equal}")
        shutil.rmtree(runs)
    say("runs with the same bytes", f"{same} of {KILLS}")
    assert same == KILLS
