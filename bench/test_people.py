"""The loop with simulated annotators' picks over HTTP, against the same loop with the true reward.

Both arms of a pair fork one base run, so that round 1 has the same prompts and candidates, and train equally. The arm
of the true reward keeps what ``choice`` draws at temperature 1: a softmax pick of K by the reward. The annotators'
arm keeps what ``picked`` finds in votes over HTTP: picks by softmax of the same reward, 10% of them careless, with
the chosen candidate of each four only. No real data is mixed in: every gain comes from curation.
"""

from __future__ import annotations

import numpy as np
from common import ROOT, RUNS, say
from scipy import stats

from upturn.annotation.db.used_votes import votes_of
from upturn.cli.progress_display import Lines
from upturn.config import recipe
from upturn.store.run import Run
from upturn.store.values import read_values
from upturn.web.simulated_run import run_through

SEEDS = 5
LEAST = 0.8  # of the true reward's gain
METRIC = "gold_reward"
SCORE = "{name: classifier, model: judge, quantity: log_probability}"
SMALL = (
    "threads=1", "stages.pretrain.epochs=20", "rounds.people.repeats=0", "gate=null", "models.judge.fit.epochs=15",
    "models.referee.fit.epochs=5", "grid.per_prompt=1",
    f"evaluate={{prompts: 1000, metrics: [{{name: gold_reward, scorer: {SCORE}}}]}}",
)
# long enough that the model fits its data: after a few epochs most of a gain is still to come, and noise
ROUND = (
    "rounds.count=1", "rounds.sample.prompts=1000", "rounds.mix.lambda=.inf", "rounds.train.epochs=60",
    "rounds.train.learning_rate=1.0e-3",
)
ARMS = {
    "people": ROUND,
    "true reward": (*ROUND, "rounds.people=null", f"rounds.score={SCORE}", "rounds.curate=choice"),
}


def arm(seed: int, name: str, base: Run) -> Run:
    """One arm of a pair; done before, it is only read."""
    own = f"people-{name.replace(' ', '-')}-{seed}"
    asked = recipe.load(ROOT / "recipes" / "digits-people.yaml", [f"name={own}", f"seed={seed}", *SMALL, *ARMS[name]])
    new = not (RUNS / own / "recipe.yaml").exists()
    fork = (base.folder, 0) if new else None
    if name == "people":
        return run_through(asked, RUNS, Lines(), fork)
    from upturn.loop import loop

    return loop.run(asked, RUNS, Lines(), fork)


def base_of(seed: int) -> Run:
    from upturn.loop import loop

    asked = recipe.load(
        ROOT / "recipes" / "digits-people.yaml", [f"name=people-base-{seed}", f"seed={seed}", *SMALL, "rounds.count=0"]
    )
    return loop.run(asked, RUNS, Lines())


def gain(done: Run) -> float:
    """Mean gold reward of round 1 less that of round 0, on the same prompts and noise, in nats."""
    before, after = (read_values(done.unit(f"rounds/00{n}") / "values.parquet")[METRIC] for n in (0, 1))
    return float((after - before).mean())


def test_winner_only_picks_gain_as_the_true_reward_does() -> None:
    gains: dict[str, list[float]] = {name: [] for name in ARMS}
    for seed in range(SEEDS):
        base = base_of(seed)
        for name in ARMS:
            done = arm(seed, name, base)
            gains[name].append(gain(done))
            if name == "people":
                votes = votes_of(done)
                assert votes is not None and set(votes.team) == {"simulated"} and set(votes.mode) == {"pick"}
        say(f"people: seed {seed}, gain in nats from votes and from the true reward",
            f"{gains['people'][-1]:.4f} and {gains['true reward'][-1]:.4f}")
    people, true = (np.array(gains[name]) for name in ("people", "true reward"))
    half = float(stats.t.ppf(0.975, SEEDS - 1))
    mean, error = float(people.mean()), float(people.std(ddof=1)) / SEEDS**0.5
    spare = people - LEAST * true
    lowest = float(spare.mean()) - half * float(spare.std(ddof=1)) / SEEDS**0.5
    ends = f"{mean - half * error:.4f} to {mean + half * error:.4f}"
    say("people: gain from votes, 95% over seeds", f"{mean:.4f} ({ends})")
    say("people: gain from the true reward, and the ratio of means", f"{true.mean():.4f}, {mean / true.mean():.3f}")
    say(f"people: lower 95% bound of gain from votes less {LEAST} of the true reward's, by pairs", f"{lowest:.4f}")
    assert true.mean() > 0
    assert lowest >= 0, "picks of people gain less than they should"
