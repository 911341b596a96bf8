"""The demo on three seeds, the overhead of the loop, and the accuracy of the plan."""

from __future__ import annotations

import pytest
from common import ROOT, own_share, paired, run, say

from upturn import plan
from upturn.config import recipe


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_step_of_the_recipe_is_an_improvement(seed: int) -> None:
    done, seen = run(f"digits-{seed}", "digits.yaml", f"seed={seed}")
    last = seen.incumbent.unit
    for stage in seen.rounds[0].stages:
        say(f"seed {seed} {stage.name} agreement, coverage",
            (stage.metrics["label_agreement"]["value"], stage.metrics["coverage"]["value"]))
    for r in seen.rounds[1:]:
        say(f"seed {seed} round {r.round} agreement, coverage, decision",
            (r.metrics["label_agreement"]["value"], r.metrics["coverage"]["value"], r.gate and r.gate["decision"]))
    tuned = paired(done, "label_agreement", "rounds/000/pretrain", "rounds/000/finetune")
    rounds = paired(done, "label_agreement", "rounds/000", last)
    kept = seen.incumbent.metrics["coverage"]["value"] / seen.rounds[0].metrics["coverage"]["value"]
    say(f"seed {seed} fine-tuning adds to label agreement", "{:+.3f} ({:+.3f} to {:+.3f})".format(*tuned))
    say(f"seed {seed} the rounds add", "{:+.3f} ({:+.3f} to {:+.3f})".format(*rounds))
    say(f"seed {seed} coverage kept", f"{kept:.3f}")
    say(f"seed {seed} seconds in all steps", f"{sum(record.seconds for record in done.records()):.1f}")
    say(f"seed {seed} the loop's own share of the time", f"{own_share(done):.4f}")
    assert tuned[1] > 0
    assert rounds[1] > 0
    assert kept >= 0.9
    assert own_share(done) <= 0.05


def test_the_plan_foresees_the_time() -> None:
    """Within 40% of what the run of seed 0 took."""
    done, _ = run("digits-0", "digits.yaml", "seed=0")
    foreseen = plan.plan(recipe.load(ROOT / "recipes" / "digits.yaml")).seconds
    took = sum(record.seconds for record in done.records())
    say("plan / run, seconds", f"{foreseen:.1f} / {took:.1f} = {foreseen / took:.2f}")
    assert 0.6 <= foreseen / took <= 1.4
