"""Simulated people against exact probabilities and planted habits; the small scorers against their formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from upturn.config import components
from upturn.errors import UserError
from upturn.types import Array, Prompt, Samples, content_id, objects, real_samples

TASTE = {"name": "closeness", "to": [0.0], "width": 1.0, "height": 4.0}


def points(values: Any, candidates: int, salt: str = "") -> Samples:
    """Points on a line, ids as the loop makes them."""
    content = np.asarray(values, np.float32).reshape(-1, 1)
    n = len(content)
    return Samples(
        "points", objects([content_id(salt, i) for i in range(n)]), tuple(Prompt() for _ in range(n)), content,
        objects(["synthetic"] * n), objects(["m"] * n), np.repeat(np.arange(n // candidates), candidates),
        np.tile(np.arange(candidates), n // candidates),
    )


def people(**fields: Any) -> Any:
    return components.make("scorer", {"name": "simulated_people", "taste": TASTE, **fields})


def random_points(groups: int, candidates: int, salt: str = "") -> Samples:
    return points(np.random.default_rng(0).normal(size=groups * candidates), candidates, salt)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_without_noise_the_best_is_picked_by_all() -> None:
    samples = random_points(400, 4)
    shares = people(noise=0, people=5).score(samples, None).values.reshape(400, 4)
    nearest = np.abs(samples.content.reshape(400, 4)).argmin(axis=1)
    assert (shares.argmax(axis=1) == nearest).all()
    assert set(np.unique(shares)) == {0.0, 1.0}


def test_with_noise_they_pick_by_the_softmax() -> None:
    groups, values = 2000, np.array([0.0, 0.8, 1.5, 2.0])
    taste = 4 * np.exp(-(values**2) / 2)
    shares = people(noise=2.0, people=5).score(points(np.tile(values, groups), 4), None).values.reshape(groups, 4)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    expected = softmax(taste / 2.0)
    error = np.sqrt(expected * (1 - expected) / (5 * groups))
    assert (np.abs(shares.mean(axis=0) - expected) < 4 * error).all()  # four standard errors of a binomial share


def test_annotators_are_independent() -> None:
    """The spread of a vote share over groups is the binomial's: people do not copy each other."""
    groups, number = 3000, 5
    shares = people(noise=1.0, people=number).score(points(np.tile([1.0, 1.0], groups), 2), None).values[::2]
    # Var of a share of 5 fair votes is 0.05; its estimate from 3,000 has a standard error of about 2.4%
    assert abs(shares.var() / (0.25 / number) - 1) < 0.1


@pytest.mark.parametrize("careless", [0.0, 0.3, 1.0])
def test_a_planted_share_of_carelessness_is_found(careless: float) -> None:
    groups, number, width = 2000, 4, 4
    samples = random_points(groups, width)
    votes = people(noise=0, people=number, careless=careless).votes(samples, None)
    best = np.abs(samples.content.reshape(groups, width)).argmin(axis=1)
    wrong = (votes.ranks.argmax(axis=1) != np.repeat(best, number)).mean()
    found = wrong * width / (width - 1)  # a random pick is right one time in four
    # four standard errors of a binomial share, scaled as it is
    share = careless * (width - 1) / width
    assert abs(found - careless) <= 4 * width / (width - 1) * np.sqrt(share * (1 - share) / (groups * number))
    assert (votes.ranks.sum(axis=1) == 1).all()


def test_ties_are_all_within_the_margin() -> None:
    samples = random_points(500, 4)
    taste = (4 * np.exp(-(samples.content[:, 0].astype(float) ** 2) / 2)).reshape(500, 4)
    votes = people(noise=0, people=1, ties=0.5).votes(samples, None)
    expected = taste >= taste.max(axis=1, keepdims=True) - 0.5
    assert (votes.ranks == expected).all() and 1 < expected.sum(axis=1).mean() < 4
    shares = people(noise=0, people=3, ties=0.5).score(samples, None).values.reshape(500, 4)
    np.testing.assert_allclose(shares, expected / expected.sum(axis=1, keepdims=True))


def test_equals_are_tied_without_noise() -> None:
    shares = people(noise=0).score(points([1.0, -1.0, 2.0, 1.0], 4), None).values
    np.testing.assert_allclose(shares, [1 / 3, 1 / 3, 0, 1 / 3])


def test_the_same_samples_get_the_same_votes() -> None:
    samples = random_points(200, 4)
    scorer = people(careless=0.2, people=7)
    first = scorer.score(samples, None).values
    np.random.seed(1)
    assert np.array_equal(first, scorer.score(samples, None).values)
    order = np.random.default_rng(1).permutation(800)
    assert np.array_equal(first[order], scorer.score(samples.take(order), None).values)
    some = np.isin(samples.group, [3, 50, 199])
    assert np.array_equal(first[some], scorer.score(samples.take(some), None).values)
    assert not np.array_equal(first, people(careless=0.2, people=7, seed=1).score(samples, None).values)
    assert not np.array_equal(first, scorer.score(random_points(200, 4, "others"), None).values)


def test_votes_are_groups_that_agree_with_the_shares() -> None:
    samples = random_points(100, 4)
    left = samples.take(np.random.default_rng(0).random(400) < 0.7)  # uneven groups
    scorer = people(people=3, ties=0.4)
    votes, shares = scorer.votes(left, None), scorer.score(left, None).values
    sizes = np.bincount(left.group, minlength=100)
    assert len(votes) == 3 * (sizes > 1).sum() and votes.rows.shape == votes.ranks.shape == votes.rewards.shape
    assert set(np.unique(votes.ranks)) == {0, 1} and not votes.ranks[votes.rows < 0].any()
    assert np.isnan(votes.rewards).all() and (votes.strength == 1).all()
    counted = np.zeros(len(left))
    part = votes.ranks / votes.ranks.sum(axis=1, keepdims=True) / 3
    np.add.at(counted, votes.rows[votes.rows >= 0], part[votes.rows >= 0])
    compared = sizes[left.group] > 1
    np.testing.assert_allclose(counted[compared], shares[compared])
    for rows in votes.rows:
        assert len(set(left.group[rows[rows >= 0]].tolist())) == 1


def test_what_cannot_be_compared_is_unscored() -> None:
    samples = points([0.0, 1.0, np.nan, np.nan, 3.0, np.nan], 2)
    found = people(noise=0).score(samples, None)
    np.testing.assert_array_equal(found.values, [1, 0, np.nan, np.nan, np.nan, np.nan])
    assert found.explanations is not None
    assert found.explanations.tolist() == [
        "picked by 3 of 3, taste 4", "picked by 0 of 3, taste 2.426", "unscored: by the taste",
        "unscored: by the taste", "unscored: alone with its prompt", "unscored: by the taste",
    ]  # fmt: skip
    assert len(people().score(samples.take([]), None).values) == 0
    assert len(people().votes(samples.take([0]), None)) == 0


@pytest.mark.parametrize("fields", [
    {"people": 0}, {"noise": -1}, {"careless": 1.5}, {"ties": -0.1}, {"taste": "inc"}, {"taste": {"width": 1}},
    {"taste": {"name": "closeness", "wide": 1}},
], ids=str)  # fmt: skip
def test_bad_fields_are_refused_before_anything_runs(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        people(**fields)


def test_a_nearest_name_is_offered_for_a_misspelt_taste() -> None:
    with pytest.raises(UserError, match=r"simulated_people.taste: there is no scorer 'inc'. Did you mean 'ink'"):
        people(taste="inc")


def test_the_taste_shows_the_model_it_needs() -> None:
    assert people(taste={"name": "classifier", "model": "critic"}).models_used == ("critic",)
    assert people().models_used == ()


# the small scorers


def test_closeness_is_its_formula_and_bounded() -> None:
    content = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    content[0], content[1] = [1, 2, 3], np.nan
    samples = real_samples("points", content, [Prompt()] * 50, "x")
    spec = {"name": "closeness", "to": [1.0, 2.0, 3.0], "width": 2.0, "height": 5.0}
    found = components.make("scorer", spec).score(samples, None)
    distance = np.linalg.norm(content - np.array([1, 2, 3]), axis=1)
    np.testing.assert_allclose(found.values, 5 * np.exp(-(distance**2) / 8), rtol=1e-6)
    assert found.values[0] == 5 and found.unscored.tolist() == [False, True] + [False] * 48
    assert found.explanations[:2].tolist() == ["at distance 0", "unscored: not a finite point"]


def test_ink_and_length() -> None:
    content = np.zeros((3, 4, 4, 3), np.uint8)
    content[1], content[2, :2] = 255, 255
    samples = real_samples("image", content, [Prompt()] * 3, "x")
    np.testing.assert_allclose(components.make("scorer", "ink").score(samples, None).values, [0, 1, 0.5])
    text = real_samples("text", ["", "abc"], [Prompt()] * 2, "x")
    short = components.make("scorer", {"name": "length", "scale": -1}).score(text, None)
    np.testing.assert_allclose(short.values, [0, -0.003])


@pytest.mark.parametrize(("spec", "kind"), [
    ("ink", "text"), ("length", "points"), ("closeness", "text"), ({"name": "closeness", "to": [0, 0, 0]}, "points"),
], ids=str)  # fmt: skip
def test_another_kind_is_refused(spec: Any, kind: Any) -> None:
    content: Any = ["a"] if kind == "text" else np.zeros((1, 2), np.float32)
    with pytest.raises(UserError) as caught:
        components.make("scorer", spec).score(real_samples(kind, content, [Prompt()], "x"), None)
    assert caught.value.fix


@pytest.mark.parametrize("fields", [{"width": 0}, {"to": []}, {"to": [float("nan")]}], ids=str)
def test_a_bad_place_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        components.make("scorer", {"name": "closeness", **fields})
