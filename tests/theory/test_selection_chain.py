"""Tests of the shares kept by chains of curators against enumeration and the curators themselves."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from upturn import theory
from upturn.config import components
from upturn.config import recipe as recipes
from upturn.plan import expected_counts
from upturn.theory import Selector
from upturn.theory.selection import after_chain, applied, selector_of
from upturn.types import Prompt, Samples, objects

P = np.array([0.3, 0.25, 0.2, 0.15, 0.1])
REWARDS = np.array([0.5, -1.0, 2.0, 1.0, 0.0])
RECIPES = Path(__file__).parents[2] / "recipes"


def enumerated(chain: list[Selector], candidates: int) -> np.ndarray:
    """Shares kept, from all len(P) ** K prompts; "top" drops the rewards below its exact quantile."""
    kept = np.zeros(len(P))
    for rows in itertools.product(range(len(P)), repeat=candidates):
        states = [(math.prod(P[list(rows)]), list(rows))]
        for selector in chain:
            after = []
            for weight, left in states:
                if selector.law == "top":
                    order = np.argsort(-REWARDS)
                    allowed = order[: 1 + int(np.searchsorted(np.cumsum(P[order]), selector.share - 1e-9))]
                    after.append((weight, [row for row in left if row in allowed]))
                elif selector.law == "best":
                    after.append((weight, sorted(left, key=lambda row: -REWARDS[row])[: selector.keep]))
                elif selector.law == "odds" and left:
                    odds = np.exp(REWARDS[left] / selector.temperature)
                    after += [(weight * o / odds.sum(), [row]) for row, o in zip(left, odds, strict=True)]
                elif selector.law == "independent":
                    for mask in itertools.product((True, False), repeat=len(left)):
                        chance = math.prod(selector.share if m else 1 - selector.share for m in mask)
                        after.append((weight * chance, [row for row, m in zip(left, mask, strict=True) if m]))
            states = after
        for weight, left in states:
            np.add.at(kept, left, weight)
    return kept / kept.sum()


ODDS, TOP, THIN = Selector("odds"), Selector("top", 0.75), Selector("independent", 0.4)


@pytest.mark.parametrize(
    "chain",
    [
        [ODDS], [Selector("odds", temperature=0.5)], [Selector("best")], [Selector("best", keep=2)], [TOP],
        [TOP, ODDS], [TOP, Selector("best")], [TOP, Selector("best", keep=2)], [THIN, ODDS], [THIN, Selector("best")],
        [TOP, THIN, ODDS], [ODDS, THIN], [TOP, THIN], [THIN, TOP], [ODDS, ODDS], [ODDS, Selector("best")],
    ],
    ids=lambda chain: "+".join(selector.law for selector in chain),
)  # fmt: skip
def test_a_chain_against_all_prompts(chain: list[Selector]) -> None:
    """P, REWARDS: the best three in four are all but the least reward, so "top" keeps whole levels of reward."""
    found = after_chain(P, REWARDS, chain, 4)
    assert found == pytest.approx(enumerated(chain, 4), abs=1e-9)
    bound = math.prod(step.amplification for step in applied(chain, 4))
    assert np.all(found / P <= bound + 1e-9)


@pytest.mark.parametrize(
    "specs",
    [
        [{"name": "top_fraction", "fraction": 0.5}, "choice"], [{"name": "top_fraction", "fraction": 0.5}, "best_of_n"],
        ["choice", {"name": "top_fraction", "fraction": 0.5}], [{"name": "subset", "count": 5_000}],
        [{"name": "subset", "count": 5_000}, "best_of_n"], [{"name": "best_of_n", "keep": 2}],
    ],
    ids=str,
)  # fmt: skip
def test_a_chain_against_its_curators(specs: list[Any]) -> None:
    """5,000 prompts of 4 candidates through the curators; shares within five standard errors of the theory's."""
    rng = np.random.default_rng(0)
    prompts, candidates = 5_000, 4
    row = rng.choice(len(P), prompts * candidates, p=P)
    content = np.stack([row, np.arange(len(row))], axis=1).astype(np.float64)  # all distinct: a subset draws by content
    samples = Samples(
        "points", objects([f"s{i}" for i in range(len(row))]), (Prompt(""),) * len(row), content,
        objects(["synthetic"] * len(row)), objects(["m"] * len(row)), np.repeat(np.arange(prompts), candidates),
        np.tile(np.arange(candidates), prompts),
    )
    noisy = REWARDS[row]
    chain = []
    for key, spec in enumerate(specs):  # each curator draws by a key of its own, as in a run
        curator = components.make("curator", spec)
        kept = curator.curate(samples, noisy, None, key).kept
        expected = curator.expected_kept(len(samples), prompts)
        chain.append(selector_of(curator, expected / len(samples)))
        samples, noisy, row = samples.take(np.flatnonzero(kept)), noisy[kept], row[kept]
    measured = np.bincount(row, minlength=len(P)) / len(row)
    found = after_chain(P, REWARDS, chain, candidates)
    assert np.all(np.abs(found - measured) < 5 * np.sqrt(np.maximum(found * (1 - found), 1e-4) / len(row)))


def test_only_a_curator_that_reads_rewards_or_votes_is_forecast_as_selection() -> None:
    """A random subset and deduplication leave the forecast as it is without curators."""
    loop = {"synthetic": 200, "real": 200, "rounds": 3, "candidates": 4, "lam": 4.0}
    nothing = theory.verdict("replace", **loop)  # type: ignore[arg-type]
    for spec in ({"name": "subset", "count": 100}, "deduplicate"):
        selector = selector_of(components.make("curator", spec), 0.25)
        assert theory.verdict("replace", **loop, selection=[selector]) == nothing  # type: ignore[arg-type]
    chosen = theory.verdict("replace", **loop, selection=[ODDS])  # type: ignore[arg-type]
    assert chosen.kept < nothing.kept


@pytest.mark.parametrize("name", components.names("curator"))
def test_every_curator_declares_what_it_selects_by(name: str) -> None:
    """A law of selection exactly where rewards or votes decide."""
    cls = components.find("curator", name)
    assert (cls.law != "independent") == (cls.selects in ("reward", "votes")) and cls.selects != "none"
    assert cls.among_candidates == (cls.law in ("odds", "best"))


def forecast(curate: list[Any]) -> theory.Verdict:
    """What the plan forecasts of the shipped recipe with these curators, on its first 1,500 worked expressions."""
    recipe = recipes.load(RECIPES / "equations.yaml")
    assert recipe.rounds is not None and recipe.rounds.sample is not None
    rounds = recipe.rounds.model_copy(update={"curate": curate})
    return theory.verdict(
        "accumulate", synthetic=expected_counts.kept(rounds), real=1500, rounds=rounds.count,
        selection=expected_counts.selection(rounds), candidates=4, bounds=(0.0, 1.0),
    )


def test_deduplication_does_not_hide_the_threshold_before_it() -> None:
    """`recipes/equations.yaml` as shipped, [threshold, deduplicate], is forecast as the threshold alone."""
    threshold = {"name": "threshold", "at_least": 1.0}
    alone, chain = forecast([threshold]), forecast([threshold, {"name": "deduplicate"}])
    assert (alone.kind, round(alone.kept, 2)) == ("collapses", 0.37)
    assert (chain.kind, chain.kept) == (alone.kind, alone.kept)
    assert forecast([{"name": "deduplicate"}]).kind == "stable"
    worse = forecast([threshold, {"name": "best_of_n"}])
    assert worse.kept < alone.kept
