"""Tests of the curators: exact probabilities, orders and distances, and a reason for every dropped sample."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from upturn.config import components
from upturn.errors import UserError
from upturn.types import Array, Prompt, Samples, objects, real_samples

PROMPTS = tuple(Prompt(label=i) for i in range(10))


class FakeTools:
    """Features are the content; ``train`` is what a test puts there."""

    classes = ()

    def __init__(self, train: Samples | None = None) -> None:
        self.train = self.held_out = train if train is not None else candidate_samples(4, 1)

    def model(self, name: str) -> Any:
        raise AssertionError("no curator asks for a model")

    def embed(self, samples: Samples) -> Array:
        return samples.content.reshape(len(samples), -1).astype(np.float32)


def candidate_samples(groups: int, candidates: int, content: Array | None = None, kind: Any = "points") -> Samples:
    n = groups * candidates
    if content is None:
        content = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    return Samples(
        kind, objects([f"s{i:07d}" for i in range(n)]), tuple(PROMPTS[i // candidates % 10] for i in range(n)),
        content, objects(["synthetic"] * n), objects(["m"] * n), np.repeat(np.arange(groups), candidates),
        np.tile(np.arange(candidates), groups),
    )


def curate(spec: Any, samples: Samples, rewards: Any, key: int = 1, tools: Any = None) -> Any:
    return components.make("curator", spec).curate(samples, np.asarray(rewards, float), tools or FakeTools(), key)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return e / e.sum()


BY_REWARD: list[Any] = [
    "choice", "best_of_n", {"name": "threshold", "at_least": 0.0}, {"name": "top_fraction", "fraction": 0.3},
    {"name": "top_fraction", "fraction": 0.3, "within": "prompt"},
]  # fmt: skip


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_choice_has_the_probabilities_of_the_softmax(temperature: float) -> None:
    groups, rewards = 20_000, np.array([0.0, 1.0, -0.7, 0.4])
    spec, samples = {"name": "choice", "temperature": temperature}, candidate_samples(groups, 4)
    chosen = curate(spec, samples, np.tile(rewards, groups), key=9)
    counts = chosen.kept.reshape(groups, 4).sum(axis=0)
    assert counts.sum() == groups and (chosen.kept.reshape(groups, 4).sum(axis=1) == 1).all()
    expected = groups * softmax(rewards / temperature)
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert statistic < chi2.ppf(0.999, df=3)  # one test in a thousand fails by chance; the key is fixed


def test_choice_turns_p_into_p_times_h() -> None:
    """Ferbach et al.: on a finite support p_{t+1} = p_t * H, enumerated over all candidates exactly."""
    p, r, count = np.array([0.5, 0.2, 0.2, 0.1]), np.array([-0.5, 0.0, 1.0, 2.0]), 3
    exact = np.zeros(4)
    for drawn in itertools.product(range(4), repeat=count):
        mass = p[list(drawn)].prod()
        np.add.at(exact, list(drawn), mass * softmax(r[list(drawn)]))
    h = np.zeros(4)
    for x in range(4):
        for others in itertools.product(range(4), repeat=count - 1):
            h[x] += p[list(others)].prod() * count * np.exp(r[x]) / (np.exp(r[x]) + np.exp(r[list(others)]).sum())
    np.testing.assert_allclose(p * h, exact, atol=1e-12)
    groups = 30_000
    state = np.random.default_rng(3).choice(4, p=p, size=groups * count)
    chosen = curate("choice", candidate_samples(groups, count), r[state], key=5)
    found = np.bincount(state[chosen.kept], minlength=4) / groups
    # four standard errors of a multinomial share; what the support's own draw adds is within it
    assert (np.abs(found - exact) < 4 * np.sqrt(exact * (1 - exact) / groups)).all()


def test_a_choice_depends_on_its_own_group_alone() -> None:
    samples, rewards = candidate_samples(500, 4), np.random.default_rng(1).normal(size=2000)
    whole = curate("choice", samples, rewards, key=3).kept
    part = np.isin(samples.group, np.arange(100, 200))
    order = np.random.default_rng(2).permutation(np.flatnonzero(part))
    assert (curate("choice", samples.take(order), rewards[order], key=3).kept == whole[order]).all()
    assert (curate("choice", samples, rewards, key=4).kept != whole).any()


def test_choice_among_many_candidates_and_infinite_rewards() -> None:
    samples = candidate_samples(50, 40)
    assert curate("choice", samples, np.zeros(2000)).kept.sum() == 50
    rewards = np.zeros(2000)
    rewards[7::40] = 1e9
    assert (np.flatnonzero(curate("choice", samples, rewards).kept) % 40 == 7).all()
    assert curate("choice", samples, np.full(2000, -np.inf)).kept.sum() == 50


def test_best_of_n_keeps_the_best() -> None:
    rewards = np.random.default_rng(0).normal(size=(300, 5))
    chosen = curate({"name": "best_of_n", "keep": 2}, candidate_samples(300, 5), rewards.ravel())
    best = np.argsort(-rewards, axis=1)[:, :2]
    expected = np.zeros((300, 5), dtype=bool)
    np.put_along_axis(expected, best, True, axis=1)
    assert (chosen.kept.reshape(300, 5) == expected).all()
    dropped = chosen.reasons.reshape(300, 5)[0, np.argsort(-rewards[0])]
    assert dropped.tolist() == ["", "", *(f"best_of_n: rank {k} of 5, 2 kept" for k in (3, 4, 5))]


def test_ties_are_drawn_evenly() -> None:
    groups = 6000
    rewards = np.tile([1.0, 1.0, 1.0, 0.0], groups)
    chosen = curate("best_of_n", candidate_samples(groups, 4), rewards).kept.reshape(groups, 4)
    shares = chosen.mean(axis=0)
    assert shares[3] == 0
    assert (np.abs(shares[:3] - 1 / 3) < 4 * np.sqrt(2 / 9 / groups)).all()  # four standard errors


def test_threshold_keeps_its_limits() -> None:
    samples = candidate_samples(1, 6)
    rewards = [0.1, 0.5, 0.7, 0.9, 0.4999999, np.nan]
    chosen = curate({"name": "threshold", "at_least": 0.5, "at_most": 0.7}, samples, rewards)
    assert chosen.kept.tolist() == [False, True, True, False, False, False]
    assert chosen.reasons.tolist() == [
        "threshold: reward 0.1 below 0.5", "", "", "threshold: reward 0.9 above 0.7",
        "threshold: reward 0.4999999 below 0.5", "unscored",
    ]  # fmt: skip


def test_top_fraction_of_the_round_and_of_each_prompt() -> None:
    rewards = np.array([[9.0, 8.0, 7.0, 6.0], [1.0, 2.0, 3.0, np.nan], [5.0, 0.0, -1.0, -2.0]])
    samples = candidate_samples(3, 4)
    whole = curate({"name": "top_fraction", "fraction": 0.3}, samples, rewards.ravel())
    assert np.flatnonzero(whole.kept).tolist() == [0, 1, 2, 3]  # ceil(0.3 * 11)
    each = curate({"name": "top_fraction", "fraction": 0.5, "within": "prompt"}, samples, rewards.ravel())
    assert np.flatnonzero(each.kept).tolist() == [0, 1, 5, 6, 8, 9]
    assert each.reasons[4] == "top_fraction: rank 3 of 3 in the prompt, top 0.5 kept"
    hundred = candidate_samples(100, 1)
    assert curate({"name": "top_fraction", "fraction": 0.07}, hundred, np.arange(100.0)).kept.sum() == 7


@pytest.mark.parametrize("spec", BY_REWARD, ids=str)
def test_unscored_is_a_reason_and_never_zero(spec: Any) -> None:
    rewards = np.random.default_rng(0).normal(size=400) - 3.0  # zero would beat nearly all of them
    missing = np.random.default_rng(1).random(400) < 0.3
    rewards[missing] = np.nan
    rewards[:4] = np.nan  # a prompt without any
    chosen = curate(spec, candidate_samples(100, 4), rewards)
    assert not chosen.kept[np.isnan(rewards)].any()
    assert set(chosen.reasons[np.isnan(rewards)]) == {"unscored"}
    assert all(chosen.reasons[~chosen.kept]) and not any(chosen.reasons[chosen.kept])


@pytest.mark.parametrize("spec", [*BY_REWARD, "deduplicate", {"name": "deduplicate", "distance": 0.1}], ids=str)
def test_no_samples_and_no_scored_samples(spec: Any) -> None:
    assert curate(spec, candidate_samples(0, 4), []).kept.shape == (0,)
    chosen = curate(spec, candidate_samples(2, 4), np.full(8, np.nan))
    assert chosen.kept.all() if "deduplicate" in str(spec) else set(chosen.reasons) == {"unscored"}


@pytest.mark.parametrize("spec", BY_REWARD, ids=str)
def test_uneven_groups_and_rows_out_of_order(spec: Any) -> None:
    """What an earlier curator left, shuffled: the same rows are kept as in order."""
    samples, rewards = candidate_samples(200, 5), np.random.default_rng(0).normal(size=1000)
    left = np.flatnonzero(np.random.default_rng(1).random(1000) < 0.6)
    shuffled = np.random.default_rng(2).permutation(left)
    kept = left[curate(spec, samples.take(left), rewards[left]).kept]
    again = shuffled[curate(spec, samples.take(shuffled), rewards[shuffled]).kept]
    assert set(kept) == set(again)
    if spec in ("choice", "best_of_n"):
        assert sorted(samples.group[kept]) == sorted(set(samples.group[left].tolist()))


def test_rewards_of_other_samples_are_refused() -> None:
    with pytest.raises(UserError, match="4 samples but rewards of shape"):
        curate("choice", candidate_samples(1, 4), [1.0])


@pytest.mark.parametrize("spec", [
    {"name": "choice", "temperature": 0}, {"name": "best_of_n", "keep": 0}, "threshold",
    {"name": "threshold", "at_least": 2, "at_most": 1}, {"name": "top_fraction", "fraction": 1.1}, "top_fraction",
    {"name": "deduplicate", "distance": 0},
], ids=str)  # fmt: skip
def test_bad_fields_are_refused(spec: Any) -> None:
    with pytest.raises(UserError):
        components.make("curator", spec)


def test_equal_content_is_dropped_with_the_id_it_repeats() -> None:
    content = np.random.default_rng(0).integers(0, 255, size=(6, 4, 4, 1)).astype(np.uint8)
    content[3], content[5] = content[1], content[1]
    chosen = curate("deduplicate", candidate_samples(6, 1, content, "image"), np.full(6, np.nan))
    assert chosen.reasons.tolist() == ["", "", "", "deduplicate: equal to s0000001", "",
                                       "deduplicate: equal to s0000001"]


def test_texts_are_equal_only_as_completions_of_one_prompt() -> None:
    samples = candidate_samples(2, 2, objects(["4", "4", "4", "5"]), "text")
    samples = Samples(**{**samples.__dict__, "prompts": (Prompt("2+2"), Prompt("2+2"), Prompt("1+3"), Prompt("1+3"))})
    assert curate("deduplicate", samples, np.zeros(4)).kept.tolist() == [True, False, True, True]

    class Same(FakeTools):
        def embed(self, samples: Samples) -> Array:
            return np.zeros((len(samples), 3), dtype=np.float32)

    near = curate({"name": "deduplicate", "distance": 0.1}, samples, np.zeros(4), tools=Same())
    assert near.reasons.tolist() == ["", "deduplicate: equal to s0000000", "",
                                     "deduplicate: nearer than 0.1 to s0000002"]


def greedy(points: Array, distance: float) -> Array:
    """The definition, one row after the other."""
    kept: list[int] = []
    for row, point in enumerate(points):
        if not kept or np.linalg.norm(point - points[kept], axis=1).min() >= distance:
            kept.append(row)
    return np.array(kept)


@pytest.mark.slow
@pytest.mark.parametrize(("dims", "distance"), [(2, 0.15), (14, 2.8)])
def test_near_copies_are_dropped_as_defined(dims: int, distance: float) -> None:
    points = np.random.default_rng(dims).normal(size=(2600, dims)).astype(np.float32)  # three blocks
    samples = candidate_samples(2600, 1, points)
    chosen = curate({"name": "deduplicate", "distance": distance}, samples, np.zeros(2600))
    kept = np.flatnonzero(chosen.kept)
    assert 100 < len(kept) < 2500
    assert kept.tolist() == greedy(points, distance).tolist()
    for row in np.flatnonzero(~chosen.kept)[::50]:
        told, other = chosen.reasons[row].rsplit(" to ", 1)
        assert told == f"deduplicate: nearer than {distance:g}"
        assert chosen.kept[int(other[1:])] and np.linalg.norm(points[row] - points[int(other[1:])]) < distance


def test_copies_of_real_data_are_dropped_where_configured() -> None:
    train = real_samples("points", np.array([[0, 0], [5, 5]], np.float32), [Prompt(), Prompt()], "real")
    samples = candidate_samples(4, 1, np.array([[0, 0], [5, 5.01], [2, 2], [2, 2]], np.float32))
    spec = {"name": "deduplicate", "distance": 0.1, "against_real": True}
    chosen = curate(spec, samples, np.zeros(4), tools=FakeTools(train))
    assert chosen.reasons.tolist() == [
        f"deduplicate: equal to {train.ids[0]}", f"deduplicate: nearer than 0.1 to {train.ids[1]}", "",
        "deduplicate: equal to s0000002",
    ]
    assert curate({"name": "deduplicate"}, samples, np.zeros(4), tools=FakeTools(train)).kept.sum() == 3
    # real rows that are curated themselves are no copies of themselves
    assert curate(spec, train, np.zeros(2), tools=FakeTools(train)).kept.all()


def test_against_real_data_of_another_shape_is_refused() -> None:
    samples = candidate_samples(4, 1, np.zeros((4, 3), np.float32))
    with pytest.raises(UserError, match="cannot be compared"):
        curate({"name": "deduplicate", "against_real": True}, samples, np.zeros(4))


def test_features_that_are_no_numbers_are_refused() -> None:
    broken = candidate_samples(2, 1, np.array([[np.nan, 0], [1, 1]], np.float32))
    with pytest.raises(UserError, match="not finite"):
        curate({"name": "deduplicate", "distance": 0.1}, broken, [0, 0])


@pytest.mark.slow
@pytest.mark.parametrize("spec", [*BY_REWARD, "deduplicate"], ids=str)
def test_a_hundred_thousand_rows_are_quick(spec: Any) -> None:
    samples, rewards = candidate_samples(25_000, 4), np.random.default_rng(0).normal(size=100_000)
    curate(spec, candidate_samples(2, 4), np.zeros(8))  # imports
    took = np.inf
    for _ in range(3):  # another chance where other work on these cores slowed it
        began = time.process_time()
        curate(spec, samples, rewards)
        took = min(took, time.process_time() - began)
        if took < 1.0:
            break
    assert took < 1.0
