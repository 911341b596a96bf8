"""Analysis of votes against known answers: coverage, planted annotators found, false alarms, reliabilities.

BENCH_VOTES divides the numbers of simulations: 1 for the full numbers, 10 for a quick check.
"""

from __future__ import annotations

import math
import os
import time

import numpy as np
import pytest
from common import say

from helpers.published_agreement import PUBLISHED, point, said
from helpers.simulated_voters import Person, played, simulated_votes
from upturn.annotation.statistics.agreement import Level, alpha
from upturn.annotation.statistics.annotator_model import noisy_choice
from upturn.annotation.statistics.careless import ALPHA, checks
from upturn.annotation.statistics.comparisons import compared
from upturn.annotation.statistics.dawid_skene_choice import winners
from upturn.annotation.statistics.ranking import rank

LESS = int(os.environ.get("BENCH_VOTES", "1"))
STRENGTH = np.array([1.0, 0.4, 0.0, -0.4, -1.0])
HONEST = [Person(f"honest{i}", temperature=1.0) for i in range(8)]


@pytest.mark.parametrize(("name", "k", "nu"), [("pairs", 2, 0.0), ("pairs with ties", 2, 0.6), ("picks of 4", 4, 0.0),
                                               ("picks of 4 with ties", 4, 0.5)])
def test_intervals_of_rankings_cover(name: str, k: int, nu: float) -> None:
    """1,000 simulations of 5 players and 300 contests: 95% intervals of all strengths, and of two's difference."""
    simulations, rng = 1000 // LESS, np.random.default_rng(k + int(10 * nu))
    inside, gap, began = np.zeros((simulations, 5), dtype=bool), np.zeros(simulations, dtype=bool), time.process_time()
    for i in range(simulations):
        found = rank(played(STRENGTH, 300, k, nu, rng))
        truth = STRENGTH[[int(player) for player in found.names]]
        inside[i] = (found.low <= truth) & (truth <= found.high)
        between = found.difference("0", "1")
        gap[i] = between.low <= STRENGTH[0] - STRENGTH[1] <= between.high
    seconds = (time.process_time() - began) / simulations
    say(f"ranking, {name}: intervals that cover a strength", f"{inside.mean():.3f} ({simulations} simulations, 300 "
        f"contests of 5 players; by player {inside.mean(axis=0).min():.3f} to {inside.mean(axis=0).max():.3f}; "
        f"{1000 * seconds:.1f} ms each)")
    say(f"ranking, {name}: intervals that cover a difference of two", f"{gap.mean():.3f}")
    if LESS == 1:
        assert abs(inside.mean() - 0.95) <= 0.02 and abs(gap.mean() - 0.95) <= 0.02


@pytest.mark.parametrize("tasks", [20, 50, 200])
@pytest.mark.parametrize("agree", [0.3, 0.8])
def test_intervals_of_alpha_cover(agree: float, tasks: int) -> None:
    """Three annotators, four answers: with probability ``agree`` an answer is the task's, else one at random.

    Two then agree beyond chance with probability agree^2, which is alpha where all answers are as frequent.
    """
    simulations, rng, inside = 1000 // LESS, np.random.default_rng(tasks), []
    for _ in range(simulations):
        values = rng.integers(0, 4, (3, tasks)).astype(float)
        values = np.where(rng.random((3, tasks)) < agree, rng.integers(0, 4, tasks), values)
        found = alpha(said(values), "nominal")
        inside.append(found.low <= agree**2 <= found.high)
    say(f"alpha: intervals that cover, {tasks} tasks, alpha {agree**2:.2f}", f"{np.mean(inside):.3f}")
    assert abs(np.mean(inside) - 0.95) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / simulations)


def test_alpha_of_the_published_example() -> None:
    import krippendorff

    levels: tuple[Level, ...] = ("nominal", "ordinal", "interval")
    ours = [round(point(PUBLISHED, level), 3) for level in levels]
    theirs = [round(float(krippendorff.alpha(PUBLISHED, level_of_measurement=level)), 3) for level in levels]
    say("alpha of Krippendorff's example, nominal, ordinal, interval", f"{ours}; the package {theirs}")
    assert ours == theirs == [0.743, 0.815, 0.849]


@pytest.mark.parametrize(("tasks", "least"), [(300, 0.8), (600, 0.95)])
def test_planted_people_are_found(tasks: int, least: float) -> None:
    """Eight careful annotators who pick by softmax, a guesser, and one who takes the first place 4 times in 10."""
    crowds = 50 // LESS
    found = {"guessing": 0, "position": 0}
    wrong = 0
    for seed in range(crowds):
        people = [*HONEST, Person("guesser", 0.0), Person("first", first=0.4, temperature=1.0)]
        votes = simulated_votes(people, tasks, 4, seed, spread=2.0)[0]
        named = {c.name: set(c.people[c.named].tolist()) for c in checks(votes)}
        found["guessing"] += "guesser" in named["guessing"]
        found["position"] += "first" in named["position"]
        wrong += any(name.startswith("honest") for names in named.values() for name in names)
    for name, count in found.items():
        say(f"planted people found by '{name}' ({4 * tasks // 10} answers each, 10 people)", f"{count} of {crowds}")
    say("crowds beside them in which an honest person was named", f"{wrong} of {crowds} (stated: at most {ALPHA:.0%})")
    assert min(found.values()) >= least * crowds


@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_careful_annotators_are_not_flagged(spread: float) -> None:
    """Crowds of eight who pick by softmax of one taste; ``spread`` of it decides how much they agree."""
    crowds = 200 // LESS
    alarms = [any(c.named.any() for c in checks(simulated_votes(HONEST, 80, 3, 5000 + seed, spread=spread)[0]))
              for seed in range(crowds)]
    most = ALPHA * crowds + 2.6 * math.sqrt(ALPHA * (1 - ALPHA) * crowds)
    say(f"crowds of honest people in which one was named, taste of spread {spread}",
        f"{sum(alarms)} of {crowds} (stated: at most {ALPHA:.0%})")
    assert sum(alarms) <= most


def test_reliabilities_are_recovered() -> None:
    knows = np.linspace(0.2, 0.95, 15)
    votes, _ = simulated_votes([Person(f"p{i:02d}", k) for i, k in enumerate(knows)], 900, 5, 2)
    say("winners: largest error of 15 planted reliabilities (300 picks of 4 each)",
        f"{np.abs(winners(compared(votes)).reliability - knows).max():.3f}")
    knows = np.repeat([0.0, 0.5, 1.0], 4)
    people = [Person(f"p{i:02d}", k, temperature=1.0) for i, k in enumerate(knows)]
    votes, _ = simulated_votes(people, 480, 10, 5, spread=2.0)
    soft = noisy_choice(compared(votes))
    means = [float(soft.reliability[knows == k].mean()) for k in (0.0, 0.5, 1.0)]
    say("noisy choice: mean reliability of people planted at 0, 0.5, 1 (400 picks of 4 each)",
        ", ".join(f"{value:.2f}" for value in means) + f"; spread of taste {soft.spread:.2f}, planted 2")
    np.testing.assert_allclose(means, [0, 0.5, 1], atol=0.12)
