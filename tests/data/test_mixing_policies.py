"""Tests of the mixing policies: declarations match behaviour, and a user's class works in a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, get_args

import numpy as np
import pytest

from helpers.small_recipes import GAUSSIAN, small
from upturn.config import components, recipe
from upturn.data.base_mixing_policy import BaseMixingPolicy
from upturn.errors import UserError
from upturn.loop.assemble import assemble
from upturn.loop.loop import run
from upturn.plan.disk_and_theory import forecast
from upturn.protocols import MixingPolicy
from upturn.store import parquet_tables
from upturn.types import REAL, SYNTHETIC, Array, MixingCase, Prompt, real_samples

OWN = f"{__name__}:LastTwo"


@dataclass(frozen=True)
class LastTwo(BaseMixingPolicy):
    """The real rows, and what the last ``span`` rounds kept."""

    span: int = 2

    accumulates: ClassVar[bool] = True

    def rounds_used(self, number: int) -> Sequence[int]:
        return range(max(1, number - self.span + 1), number + 1)


@pytest.fixture(params=[*components.names("mixing_policy"), OWN])
def policy(request: pytest.FixtureRequest) -> MixingPolicy:
    found: MixingPolicy = components.make("mixing_policy", request.param)
    return found


def test_rounds_used_are_those_so_far_and_the_newest_is_among_them(policy: MixingPolicy) -> None:
    assert list(policy.rounds_used(0)) == []
    for number in range(1, 6):
        used = list(policy.rounds_used(number))
        assert used == sorted(set(used)) and used[-1] == number and used[0] >= 1
        assert policy.accumulates or used == [number]


def test_real_rows_are_as_many_as_declared(policy: MixingPolicy) -> None:
    data = real_samples("points", np.zeros((60, 2), np.float32) + np.arange(60)[:, None], [Prompt()] * 60, "points")
    for wanted, rounds in ((None, 4), (7, 4)):
        rows = [policy.real_rows(data, wanted, rounds, number, key=number) for number in (1, 2)]
        assert {len(part) for part in rows} == {policy.real_count(60, wanted, rounds)}
        if policy.fresh_real:
            assert not set(rows[0].ids) & set(rows[1].ids)
    with pytest.raises(UserError):
        policy.real_rows(data, 61, 4, 1, key=1)


@pytest.mark.parametrize("share", [None, 0.5, 3.0])
def test_expected_rows_are_those_that_the_subsample_draws(policy: MixingPolicy, share: float | None) -> None:
    origin: Array = np.array([REAL] * 30 + [SYNTHETIC] * 50)
    draws = [origin[policy.subsample(origin, 20, share, key)] for key in range(200)]
    expected = policy.expected_rows(30, 50, 20, share)
    for name in (REAL, SYNTHETIC):
        counts = [int((drawn == name).sum()) for drawn in draws]
        # hypergeometric, 20 of 80 with 30 real: standard deviation 1.9; of the mean of 200 draws 0.134
        assert np.mean(counts) == pytest.approx(expected[name], abs=4 * 0.134)
    assert policy.subsamples == (len(draws[0]) < len(origin))


def test_the_theory_case_has_the_declared_properties(policy: MixingPolicy) -> None:
    from upturn.theory.case import Case

    if policy.theory is None:
        return
    assert policy.theory in get_args(MixingCase)
    case = Case(
        policy.theory, n=20, real=20, rounds=3, lam=1.0, selection=(), candidates=1, temperature=1.0, guidance=1.0,
        modes=2, size=None, rewards=None,
    )
    declared = (policy.accumulates, policy.subsamples, policy.fresh_real)
    assert (case.accumulates, case.subsamples, case.fresh) == declared


def test_lambda_zero_and_size_are_accepted_only_where_the_policy_declares_it() -> None:
    for name in components.names("mixing_policy"):
        found: MixingPolicy = components.make("mixing_policy", name)
        for setting, declared in (("rounds.mix.lambda=0", found.real_only), ("rounds.mix.size=10", found.subsamples)):
            given = small(GAUSSIAN, f"rounds.mix.policy={name}", setting)
            if declared:
                assemble(given)
            else:
                with pytest.raises(UserError, match=setting.partition("=")[0].replace(".", r"\.")):
                    assemble(given)


@pytest.mark.slow
def test_a_user_defined_mixing_policy_works_in_a_recipe(tmp_path: Path) -> None:
    given = small(GAUSSIAN, f"rounds.mix.policy={{name: '{OWN}', span: 2}}", "rounds.sample.prompts=20")
    assert recipe.parse(recipe.to_yaml(given), "again") == given
    parts = assemble(given)
    assert parts.mixing == LastTwo(span=2)
    assert forecast(parts, parts.source.load(), parts.model("policy")) is None  # the theory has no such case
    done = run(given, tmp_path / "own")
    found = parquet_tables.read_mixture(done, done.unit("rounds/003") / "mixture.parquet").samples
    kept = [set(parquet_tables.read_samples(done.unit(f"rounds/{n:03d}") / "samples.parquet").ids) for n in (1, 2, 3)]
    assert [bool(kept[n] & set(found.ids)) for n in range(3)] == [False, True, True]


def test_the_name_of_a_policy_alone_stays_a_name() -> None:
    for written in ("accumulate", "{name: accumulate}"):
        given = small(GAUSSIAN, f"rounds.mix.policy={written}")
        assert given.rounds is not None and given.rounds.mix.policy == "accumulate"
        assert "policy: accumulate\n" in recipe.to_yaml(given)


def test_an_unknown_policy_is_refused_with_line_and_near_name() -> None:
    with pytest.raises(UserError, match=r"small\.yaml:13: .*mixing policy 'acumulate'.*Did you mean 'accumulate'"):
        small(GAUSSIAN.replace("policy: replace", "policy: acumulate"))
