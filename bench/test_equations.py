"""Verified self-training against as many steps without it, and on the equations of GSM8K."""

from __future__ import annotations

import time

import pytest
from common import ROOT, paired, run, say

GSM8K = ROOT.parent / "shared" / "data" / "gsm8k"


def test_self_training_beats_the_same_steps_without_it() -> None:
    began = time.monotonic()
    done, seen = run("equations", "equations.yaml")
    took = time.monotonic() - began
    # λ = 0: the same rounds and steps on the given solutions alone, with no gate in the way
    _, control = run("equations-control", "equations.yaml", "rounds.mix.lambda=0", "gate=null")
    start = seen.rounds[0].metrics["verifier_accuracy"]["value"]
    tries = seen.rounds[0].metrics["tries/verifier_accuracy"]["value"]
    end = seen.rounds[3].metrics["verifier_accuracy"]["value"]
    without = control.rounds[3].metrics["verifier_accuracy"]["value"]
    say("greedy accuracy at the start, at 8 samples", (start, tries))
    say("greedy accuracy by round", [r.metrics["verifier_accuracy"]["value"] for r in seen.rounds])
    say("control by round", [r.metrics["verifier_accuracy"]["value"] for r in control.rounds])
    say("three rounds add", "{:+.3f} ({:+.3f} to {:+.3f})".format(
        *paired(done, "verifier_accuracy", "rounds/000", "rounds/003")))
    say("more than the control", f"{end - without:+.3f}")
    say("seconds of all steps", f"{sum(record.seconds for record in done.records()):.0f} (this call {took:.0f})")
    assert 0.2 <= start <= 0.7 and tries - start >= 0.2
    assert end - without >= 0.10
    assert sum(record.seconds for record in done.records()) <= 600


@pytest.mark.skipif(not GSM8K.is_dir(), reason="GSM8K's files are not beside the project")
def test_the_same_recipe_runs_on_the_equations_of_gsm8k() -> None:
    files = [f"data.train={GSM8K / 'train.jsonl'}", f"data.test={GSM8K / 'test.jsonl'}"]
    _, seen = run("equations-gsm8k", "equations.yaml", *files, "data.worked=4000", "models.policy.max_length=160",
                  "models.policy.config.max_position_embeddings=192", "rounds.sample.settings.max_tokens=100",
                  "evaluate.0.settings.max_tokens=100", "evaluate.1.settings.max_tokens=100")
    values = [r.metrics["verifier_accuracy"]["value"] for r in seen.rounds]
    say("GSM8K's equations, greedy accuracy by round", values)
    say("GSM8K's equations, decisions", [r.gate and r.gate["decision"] for r in seen.rounds[1:]])
    assert all(value is not None for value in values)
