"""The lab on digits: picks follow the softmax, shares settle where planted ones do, and a lost round is redone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from upturn.errors import UserError
from upturn.lab import experiment_runner
from upturn.lab.experiments import _digit_claims
from upturn.lab.experiments import _digit_classifiers as digits
from upturn.lab.experiments import digits as lab

pytestmark = pytest.mark.slow

TINY = {
    "reward": ["class"], "n": 20, "rounds": 2, "seeds": 2, "first_steps": 3, "steps": 2, "batch": 8, "sampling_steps": 2
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Classifiers of two epochs: enough to be better than chance."""
    monkeypatch.setattr(digits, "_EPOCHS", {"judge": 2, "referee": 2})
    digits.gallery.cache_clear()
    yield
    digits.gallery.cache_clear()


def test_picks_follow_the_softmax() -> None:
    """60,000 groups of the same three rewards, within 4.5 standard errors."""
    rewards = np.array([0.0, 1.0, 2.5])
    which = digits.chosen(np.tile(rewards, (60_000, 1)), np.random.default_rng(0))
    expected = np.exp(rewards) / np.exp(rewards).sum()
    gap = np.abs(np.bincount(which) / len(which) - expected)
    assert np.all(gap < 4.5 * np.sqrt(expected * (1 - expected) / len(which)))


def test_images_and_back() -> None:
    content = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    assert np.array_equal(digits.pictures(digits.vectors(content)).reshape(content.shape), content)
    assert digits.pictures(np.array([[-7.0, 7.0]])).tolist() == [[0, 255]]


def test_near_in_the_plane() -> None:
    """Two far groups of real points; made ones in the first alone, and one in nowhere."""
    rng = np.random.default_rng(0)
    real = np.concatenate([rng.normal(size=(50, 2)), rng.normal(size=(50, 2)) + 100])
    made = np.concatenate([rng.normal(size=(99, 2)) * 0.5, [[0.0, -1000.0]]])
    found = digits.near(real, made, 1)
    assert found.precision == pytest.approx(0.99) and 0.4 < found.coverage <= 0.5
    assert 0.3 < found.recall <= 0.5
    assert digits.near(real, real[:0:-1], 1).coverage == 1.0
    of_half = digits.near(real, made, 2)
    assert of_half.precision == found.precision and of_half[1:] == digits.near(real, made[::2], 1)[1:]


def test_entropy_as_a_part_of_its_maximum() -> None:
    assert digits.entropy(np.array([[0.1] * 10, [1.0] + [0.0] * 9])) == pytest.approx([1.0, 0.0])


BIAS = np.array([1.3, 0.9, 1.0, 1.2, 0.8, 1.0, 1.1, 0.9, 0.9, 0.9])  # what a learner makes of equal shares


def planted(point: np.ndarray, advantage: np.ndarray, off: float, seeds: int = 4, rounds: int = 8) -> dict[str, Any]:
    """Shares that wander by 0.003 around a fixed point, class 3 ``off`` beside it; round 0 is of the biased learner."""
    rng = np.random.default_rng(0)
    before = point + 0.003 * rng.standard_normal((rounds + 1, seeds, 10))
    before[:, :, 3] += off
    before[0] = 0.1 * BIAS
    before /= before.sum(axis=2, keepdims=True)
    return {"before": before, "after": before * advantage}


@pytest.mark.parametrize(("off", "agrees"), [(0.0, True), (0.02, False)])
def test_shares_that_settle_elsewhere_are_found(off: float, agrees: bool) -> None:
    real = np.full(10, 0.1)
    advantage = np.linspace(0.8, 1.2, 10)
    point = 0.1 * BIAS
    for _ in range(500):  # rounds of a learner with this bias
        picked = point * advantage / (point * advantage).sum()
        point = BIAS * (real + 0.5 * picked) / (BIAS * (real + 0.5 * picked)).sum()
    experiment = lab.Digits()
    rows = list(experiment._settled(0, {"lam": 0.5, "reward": "class"}, planted(point, advantage, off), real, 8))
    z = [abs(row.simulation - row.theory) / row.standard_error for row in rows]
    assert (max(z) <= 3) == agrees
    assert agrees or int(np.argmax(z)) == 3


def table(**changes: float) -> list[dict[str, Any]]:
    """A finished table of one cell at λ = 1/2 with what the slides claim, and what a test changes of it."""
    values = {
        "reward, gained since the first model": 0.05, "reward, gained in the first half": 0.045,
        "reward, gained in the second half": 0.005, "settled share of 0": 1.0, "recall": 0.9,
        "precision, gained since the first model": 0.03, "recall, gained since the first model": -0.01,
        "reward, beyond picks by chance": 0.04, "precision, beyond picks by chance": 0.02,
        **changes,
    }
    return [
        {"reward": "confidence", "lam": 0.5, "scale": scale, "round": 8, "quantity": name, "simulation": value,
         "count": 4, "standard_error": 0.001, "z": value, "agrees": True}
        for name, value in values.items() for scale in (15.0, 0.0)
    ]


def test_claims_hold_where_they_do_and_nowhere_else() -> None:
    found = _digit_claims.claims(table(), 8)
    assert len(found) == 7 and all(claim.agrees for claim in found)
    wrong = {
        "reward, gained since the first model": 0.002, "reward, beyond picks by chance": 0.002,
        "reward, gained in the second half": 0.05, "settled share of 0": 3.2,
        "precision, gained since the first model": -0.03, "precision, beyond picks by chance": 0.001,
        "recall, gained since the first model": -0.12,
    }
    for place, (name, value) in enumerate(wrong.items()):
        judged = [claim.agrees for claim in _digit_claims.claims(table(**{name: value}), 8)]
        assert judged == [i != place for i in range(7)], name
        found = _digit_claims.claims(table(**{name: value}), 8)
        held, lost = _digit_claims.claim_sentences(found)
        own = f"{found[place].claim}, "
        assert "6 of 7 claims hold" in held and own in lost and own not in held


def test_the_interval_is_student_s() -> None:
    low, high = _digit_claims.interval({"simulation": 1.0, "standard_error": 0.1, "count": 4})
    assert (1 - low, high - 1) == pytest.approx((0.31824, 0.31824), abs=1e-4)


def test_a_lost_round_is_repeated_with_equal_results(quick: None) -> None:
    """A loop thrown away after retraining 1 goes on from its state: shares, rewards and pictures are the same."""
    experiment = experiment_runner.make("digits", TINY)
    cells = experiment.stacks()[0]
    assert [cell["lam"] for cell in cells] == [math.inf, math.inf, 0.5, 0.5]
    assert [cell["scale"] for cell in cells] == [15, 0, 15, 0]
    whole = list(experiment.chunks(cells, 0, {}))
    rest = list(experiment.chunks(cells, 2, whole[1].state))
    assert len(whole) == 3 and len(rest) == 1
    assert repr(rest[0].rows) == repr(whole[2].rows)
    assert np.array_equal(rest[0].state["picked"], whole[2].state["picked"])
    first = {(row.cell, row.quantity): row.simulation for row in whole[0].rows}
    assert first[0, lab.REWARD] == first[2, lab.REWARD] == first[3, lab.REWARD]  # one first model for all


def test_what_is_picked_alone_and_what_is_real(quick: None) -> None:
    """λ = ∞ reads no real picture, λ = 1/2 two of three: the shares of a training's draws."""
    from upturn.lab.experiments._digit_rounds import Loop

    experiment = experiment_runner.make("digits", TINY)
    loop = Loop(experiment, experiment.stacks()[0], {})  # type: ignore[arg-type]
    assert loop.share == pytest.approx([0, 0, 0, 0, 2 / 3, 2 / 3, 2 / 3, 2 / 3])
    loop.turn(0)
    assert loop.picked.shape == (8, 20, 64) and len(loop.models) == 8
    for value in loop.models.parameters.values():
        assert all(torch.equal(value[:2], value[at : at + 2]) for at in (2, 4, 6))


def test_its_page_and_sentences(quick: None, tmp_path: Path) -> None:
    from upturn import report

    found = experiment_runner.conduct("digits", TINY, tmp_path, workers=1)
    assert {row["quantity"] for row in found["checks"]} >= {lab.REWARD, lab.ENTROPY, "settled share of 9", "share of 0"}
    assert 2 <= len(found["sentences"]) <= 4  # of two λ, what holds and what does not
    page = report.write_lab(tmp_path).read_text(encoding="utf-8")
    assert "the reward rises" in page and "beyond picks by chance" in page and lab.Digits.title in page


def test_the_classifier_s_temperature_divides_its_logits(quick: None) -> None:
    """Log-odds of two classes shrink by it; who is judged the likeliest does not change."""
    made = np.random.default_rng(0).integers(0, 256, size=(50, 64), dtype=np.uint8)
    sharp, soft = (np.log(digits.gallery(0, t).look(made).judged) for t in (1.0, 4.0))
    assert np.allclose(soft[:, 1:] - soft[:, :1], (sharp[:, 1:] - sharp[:, :1]) / 4, atol=1e-9)


def test_picks_by_chance_are_what_others_are_compared_with(quick: None) -> None:
    """No fixed point is asked of them, and they are no claim; what is beyond them is so by repetition."""
    found = experiment_runner.make("digits", TINY)
    rows = [row for chunk in found.chunks(found.stacks()[0], 0, {}) for row in chunk.rows]
    assert {row.cell for row in rows if row.formula == "fixed_point"} == {2}
    beyond = {row.cell for row in rows if lab.BEYOND in row.quantity}
    assert beyond == {0, 2}
    by = {(row.cell, row.quantity, row.round): row.simulation for row in rows}
    for cell in beyond:  # one round is the last half of two
        gap = by[cell, lab.REWARD, 2] - by[cell + 1, lab.REWARD, 2]
        assert by[cell, f"{lab.REWARD}, {lab.BEYOND}", 2] == pytest.approx(gap, abs=1e-12)


def test_a_scale_of_zero_picks_by_chance(quick: None) -> None:
    """A vast scale picks the greatest reward of every K, zero any of them: 400 picks, within 4.5 standard errors."""
    from upturn.lab.experiments._digit_rounds import Loop

    experiment = experiment_runner.make("digits", {**TINY, "n": 400})
    loop = Loop(experiment, experiment.stacks()[0], {})  # type: ignore[arg-type]
    made = np.random.default_rng(0).integers(0, 256, size=(1600, 64), dtype=np.uint8)
    groups = made.reshape(400, 4, 64)
    rewards = loop.gallery.look(made).judged[:, 0].reshape(400, 4)
    best, any_of = (loop._look(made, 1, scale)["picked"] for scale in (1e9, 0.0))
    assert np.array_equal(best, groups[np.arange(400), rewards.argmax(axis=1)])
    place = (groups == any_of[:, None]).all(axis=2).argmax(axis=1)
    assert np.all(np.abs(np.bincount(place, minlength=4) - 100) < 4.5 * np.sqrt(400 * 0.25 * 0.75))


@pytest.mark.parametrize("settings", [
    {"lam": [0.0]}, {"scale": [math.inf]}, {"scale": [-1.0, 0.0]}, {"temperature": 0.0},
    {"temperature": math.inf}, {"depth": 0}, {"seeds": 1}, {"favourite": 10}, {"n": 5},
    {"reward": ["taste"]},
])
def test_settings_that_make_no_experiment_are_refused(settings: dict) -> None:
    with pytest.raises(UserError):
        experiment_runner.make("digits", {**TINY, **settings})
