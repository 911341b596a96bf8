"""Tests of the mixer: exact ratios, equal mixtures for equal keys, no row lost or duplicated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upturn.config import components
from upturn.data import mixer as mixing
from upturn.data.mixer import Mixer
from upturn.data.ratio import Ratio
from upturn.errors import RunError, UserError
from upturn.types import Mixture, Prompt, Samples, concatenate, real_samples, synthetic_samples


def real(n: int, source: str = "points") -> Samples:
    return real_samples("points", np.arange(2 * n, dtype=np.float32).reshape(n, 2), [Prompt(label=0)] * n, source)


def kept(n: int, round: int) -> Samples:
    keys = np.arange(n).reshape(n, 1) + 1000 * round
    return synthetic_samples("points", np.full((n, 2), round, np.float32), [Prompt(label=0)] * n, keys, f"m{round}")


def mixed_by(policy: str = "replace", **fields: Any) -> Mixer:
    return Mixer(components.make("mixing_policy", policy), **fields)


def expected_real_fraction(policy: str, share: Any, round: int, sizes: list[int]) -> float:
    return mixing.expected_real_fraction(components.make("mixing_policy", policy), share, round, sizes)


def real_share(mixture: Mixture) -> float:
    return float(mixture.weights[mixture.samples.origin == "real"].sum() / mixture.weights.sum())


POLICIES = ["replace", "accumulate", "accumulate_subsample", "fresh"]
ratios = st.one_of(st.none(), st.floats(0.01, 50), st.just(0.0), st.just(math.inf), st.just("only"))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(POLICIES), ratios, st.integers(8, 60), st.lists(st.integers(1, 30), min_size=1, max_size=5),
    st.integers(0, 2**62),
)
def test_ratio_is_exact_weights_mean_one_and_no_row_is_doubled(
    policy: Any, share: Any, n: int, sizes: list[int], key: int
) -> None:
    mixer = mixed_by(policy=policy, lambda_=share, rounds=len(sizes) if policy == "fresh" else None)
    data, rounds = real(n), [kept(size, i + 1) for i, size in enumerate(sizes)]
    mixture = mixer.mix(data, rounds, key, round=len(sizes))
    ids = list(mixture.samples.ids)
    assert len(set(ids)) == len(ids) == len(mixture.weights)
    assert mixture.weights.mean() == pytest.approx(1.0) and (mixture.weights > 0).all()
    if share is not None:
        number = math.inf if share == "only" else share
        assert real_share(mixture) == pytest.approx(1 / (1 + number), abs=1e-12)
    else:
        assert (mixture.weights == 1.0).all()
    known = set(concatenate([data, *rounds]).ids)
    assert set(ids) <= known
    again = mixer.mix(data, rounds, key, round=len(sizes))
    assert list(again.samples.ids) == ids and (again.weights == mixture.weights).all()


def test_replace_has_the_real_rows_and_the_newest_round() -> None:
    mixture = mixed_by(policy="replace", lambda_=1.0).mix(real(10), [kept(5, 1), kept(7, 2)], key=1, round=2)
    assert list(mixture.samples.ids) == [*real(10).ids, *kept(7, 2).ids]
    # 17 rows of mean weight 1, half of it on 10 real rows and half on 7 synthetic ones
    np.testing.assert_allclose(mixture.weights, [17 / 2 / 10] * 10 + [17 / 2 / 7] * 7)


def test_accumulate_loses_no_row_of_any_round() -> None:
    mixture = mixed_by(policy="accumulate", lambda_=None).mix(real(10), [kept(5, 1), kept(7, 2)], key=1, round=2)
    assert list(mixture.samples.ids) == [*real(10).ids, *kept(5, 1).ids, *kept(7, 2).ids]
    assert (mixture.weights == 1).all() and real_share(mixture) == 10 / 22
    groups = mixture.samples.group
    assert len(set(groups)) == 22


def test_only_and_zero_leave_the_other_part_out() -> None:
    assert set(mixed_by(lambda_="only").mix(real(4), [kept(3, 1)], 0, 1).samples.origin) == {"synthetic"}
    mixture = mixed_by(lambda_=0.0).mix(real(4), [kept(3, 1)], 0, 1)
    assert list(mixture.samples.ids) == list(real(4).ids) and (mixture.weights == 1).all()


def test_yaml_spells_lambda_as_a_number_only_null_or_inf() -> None:
    for given_, share in ((0.5, 2 / 3), ("only", 0.0), (math.inf, 0.0), (None, 0.5)):
        mixer = mixed_by(lambda_=components.typed(Ratio, given_, "mix.lambda"))
        assert real_share(mixer.mix(real(4), [kept(4, 1)], 0, 1)) == pytest.approx(share)
    with pytest.raises(UserError, match=r"mix\.lambda"):
        components.typed(Ratio, "most", "mix.lambda")


def test_subsample_keeps_its_size_draws_from_all_rounds_and_changes_with_the_key() -> None:
    mixer = mixed_by(policy="accumulate_subsample", lambda_=None, size=300)
    rounds = [kept(300, i) for i in (1, 2, 3)]
    mixture = mixer.mix(real(300), rounds, key=5, round=3)
    assert len(mixture.samples) == 300
    other = mixer.mix(real(300), rounds, key=6, round=3)
    assert set(other.samples.ids) != set(mixture.samples.ids)
    counts = {name: int((mixture.samples.source == name).sum()) for name in ("points", "m1", "m2", "m3")}
    # hypergeometric: mean 75, variance 300 * 1/4 * 3/4 * 900/1199 = 42
    assert all(abs(count - 75) < 4 * math.sqrt(42) for count in counts.values()), counts


def test_subsample_with_lambda_draws_the_stated_numbers_of_rows() -> None:
    mixer = mixed_by(policy="accumulate_subsample", lambda_=0.5, size=90)
    mixture = mixer.mix(real(100), [kept(50, 1), kept(50, 2)], key=5, round=2)
    assert (mixture.samples.origin == "real").sum() == 60
    np.testing.assert_allclose(mixture.weights, 1.0)


def test_fresh_slices_are_disjoint_cover_the_data_and_leave_one_for_round_zero() -> None:
    mixer = mixed_by(policy="fresh", rounds=4)
    data = real(100)
    seen = [set(mixer.real_rows(data, round).ids) for round in range(5)]
    assert [len(part) for part in seen] == [20] * 5 and set().union(*seen) == set(data.ids)
    for round in range(1, 5):
        mixture = mixer.mix(data, [kept(10, 1)], key=round, round=round)
        assert set(mixture.samples.ids[mixture.samples.origin == "real"]) == seen[round]
    with pytest.raises(UserError, match="policy fresh needs 120 real rows by round 5, there are 100"):
        mixer.mix(data, [kept(10, 1)], key=1, round=5)


def test_fresh_slices_are_no_run_of_neighbouring_rows() -> None:
    part = mixed_by(policy="fresh", real=100).real_rows(real(400), 0)
    rows = part.content[:, 0] / 2
    # the mean of 100 of 0..399 without replacement: standard error 115.5 / 10 * sqrt(300/399) = 10
    assert abs(rows.mean() - 199.5) < 4 * 10.02


def test_a_number_of_real_rows_is_drawn_again_in_each_round() -> None:
    mixer = mixed_by(real=20, lambda_=1.0)
    first, second = (mixer.mix(real(100), [kept(5, 1)], key=key, round=1) for key in (1, 2))
    chosen = [set(m.samples.ids[m.samples.origin == "real"]) for m in (first, second)]
    assert [len(part) for part in chosen] == [20, 20] and chosen[0] != chosen[1]
    with pytest.raises(UserError, match=r"mix\.real: 200 real rows are requested, there are 100"):
        mixed_by(real=200).mix(real(100), [kept(5, 1)], 0, 1)


def test_weights_a_source_share_out_the_real_part_and_leave_lambda_exact() -> None:
    data = concatenate([real(10, "jsonl:a"), real(30, "jsonl:b"), real(20, "points")])
    mixer = mixed_by(lambda_=0.5, weights={"jsonl:a": 3.0, "jsonl": 2.0, "points": 0.0})
    mixture = mixer.mix(data, [kept(8, 1)], 0, 1)
    total = {name: mixture.weights[mixture.samples.source == name].sum() for name in ("jsonl:a", "jsonl:b", "m1")}
    assert total["jsonl:a"] / total["jsonl:b"] == pytest.approx(10 * 3 / (30 * 2))
    assert real_share(mixture) == pytest.approx(2 / 3) and "points" not in set(mixture.samples.source)
    with pytest.raises(UserError, match=r"mix\.weights\.jsnl: there is no source 'jsnl'.*jsonl:a, jsonl:b"):
        mixed_by(weights={"jsnl": 1.0}).mix(data, [kept(8, 1)], 0, 1)


def test_a_round_that_kept_nothing_is_never_silently_all_real() -> None:
    with pytest.raises(RunError, match=r"nothing was kept that round 2 could train on, and λ = 0\.5"):
        mixed_by().mix(real(5), [kept(3, 1), kept(3, 2).take([])], 0, 2)
    mixture = mixed_by(lambda_=None).mix(real(5), [kept(3, 1), kept(3, 2).take([])], 0, 2)
    assert len(mixture.samples) == 5
    assert len(mixed_by().mix(real(5), [], 0, 0).samples) == 5  # before round 1 there is nothing to keep
    with pytest.raises(RunError, match="nothing to train on"):
        mixed_by(lambda_="only").mix(real(5), [], 0, 0)


@pytest.mark.parametrize("fields", [
    {"lambda_": -0.1}, {"lambda_": math.nan}, {"real": 0}, {"size": 5}, {"policy": "fresh"}, {"weights": {"a": -1.0}},
    {"weights": {"a": math.inf}},
])
def test_impossible_settings_are_refused_before_anything_runs(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        mixed_by(**fields)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("share", [None, 0.0, 0.5, 1.0, 3.0, "only"])
def test_expected_real_fraction_is_the_measured_one(policy: Any, share: Any) -> None:
    sizes = [40, 10, 30, 20]
    mixer = mixed_by(policy=policy, lambda_=share, real=40 if policy == "fresh" else None)
    data = real(40 * 4 if policy == "fresh" else 40)
    rounds = [kept(size, i + 1) for i, size in enumerate(sizes[1:])]
    for round in (1, 2, 3):
        draws = 60 if policy == "accumulate_subsample" else 1
        found = [real_share(mixer.mix(data, rounds[:round], key, round)) for key in range(draws)]
        expected = expected_real_fraction(policy, share, round, sizes)
        # 40 rows drawn of at most 100, 60 times: standard error of the share at most sqrt(.25 / 40 / 60) = 0.0102
        tolerance = 4 * 0.0102 if draws > 1 and share is None else 1e-12
        assert np.mean(found) == pytest.approx(expected, abs=tolerance)
    assert expected_real_fraction(policy, share, 0, sizes) == 1.0


def test_expected_real_fraction_carries_the_last_size_forward() -> None:
    assert expected_real_fraction("accumulate", None, 4, [100, 50]) == 100 / 300
    assert expected_real_fraction("replace", None, 9, [100, 300, 100]) == 0.5
