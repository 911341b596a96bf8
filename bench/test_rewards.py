"""Training on rewards and preferences: DDPO and Diffusion-DPO on digits, RLOO on equations, the Llama 3.1 rounds."""

from __future__ import annotations

import pytest
from common import paired, run, say


@pytest.mark.parametrize("name", ["digits-ddpo", "digits-dpo"])
def test_the_rewarded_property_of_a_diffusion_model_rises_and_coverage_is_kept(name: str) -> None:
    done, seen = run(name, f"{name}.yaml")
    kept, before = seen.incumbent, seen.rounds[0]
    gain, low, high = paired(done, "reward", "rounds/000", kept.unit)
    coverage = kept.metrics["coverage"]["value"] / before.metrics["coverage"]["value"]
    for metric in ("reward", "label_agreement", "coverage"):
        say(f"{name}: {metric} by round", [round(r.metrics[metric]["value"], 4) for r in seen.rounds])
    say(f"{name}: the kept round ({kept.round}) adds to the reward", f"{gain:+.3f} ({low:+.3f} to {high:+.3f})")
    say(f"{name}: coverage kept", f"{coverage:.3f}")
    assert low > 0 and coverage >= 0.8


def test_verified_rewards_teach_arithmetic() -> None:
    done, seen = run("equations-rl", "equations-rl.yaml")
    gain, low, high = paired(done, "verifier_accuracy", "rounds/000", seen.incumbent.unit)
    say("equations-rl: greedy accuracy by round", [r.metrics["verifier_accuracy"]["value"] for r in seen.rounds])
    say(f"equations-rl: the kept round ({seen.incumbent.round}) adds", f"{gain:+.3f} ({low:+.3f} to {high:+.3f})")
    say("equations-rl: seconds of all steps", f"{sum(record.seconds for record in done.records()):.0f}")
    assert gain >= 0.10 and low > 0


def test_rejection_sampling_likelihood_and_dpo_in_rounds() -> None:
    done, seen = run("llama-rounds", "llama-rounds.yaml")
    gain, low, high = paired(done, "gold_reward", "rounds/000", seen.incumbent.unit)
    for metric in ("gold_reward", "reward", "reward_accuracy", "perplexity"):
        say(f"llama-rounds: {metric} by round", [r.metrics[metric]["value"] for r in seen.rounds])
    say(f"llama-rounds: the kept round ({seen.incumbent.round}) adds", f"{gain:+.3f} ({low:+.3f} to {high:+.3f})")
    assert low > 0
