"""Tests of the plan: its counts equal those of the run, and its times follow a simulated clock."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from helpers.plan_recipes import ONLINE, SAMPLED, TEXT
from helpers.small_recipes import GAUSSIAN, POINTS, small
from upturn import plan
from upturn.config import components
from upturn.config.recipe import Recipe
from upturn.data.mixer import Mixer
from upturn.loop import loop
from upturn.loop.assemble import assemble
from upturn.plan import expected_counts, timing
from upturn.plan.planner import Planner
from upturn.plan.timing import Line
from upturn.protocols import SamplingSettings
from upturn.store import parquet_tables
from upturn.training.feeds import FixedFeed
from upturn.types import Array, Mixture, Prompt, Samples, real_samples, synthetic_samples

EPOCHS = POINTS.replace("steps: 40, batch_size: 64, ema: 0.9", "epochs: 3, batch_size: 64").replace(
    "train: {steps: 20, batch_size: 64", "train: {epochs: 2, batch_size: 32"
).replace("curate: [deduplicate, choice]", "curate: [choice]")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    "text", [GAUSSIAN, EPOCHS, TEXT + SAMPLED, TEXT + ONLINE], ids=["closed form", "points", "two trainings", "online"]
)
def test_a_run_does_what_was_planned(text: str, tmp_path: Path) -> None:
    recipe = small(text)
    planned = plan.plan(recipe)
    run = loop.run(recipe, tmp_path)
    for row in planned.rows:
        record = run.done(row.unit, row.step)
        assert record is not None, f"{row.unit} {row.step} is planned, and was not done"
        if row.step == "train":
            assert row.optimiser_steps == (0 if text == GAUSSIAN else record.info["steps"]), row.unit
            assert row.samples == _rows(run.unit(row.unit), online="online" in text), row.unit
        if row.step == "sample":
            assert row.samples == record.counts["samples"]
        if row.step == "evaluate":
            assert row.samples == len(parquet_tables.read_samples(run.unit(row.unit) / "evaluation.parquet"))
    timed = {(row.unit, row.step) for row in planned.rows}
    instant = {"mix", "curate", "gate", "base"}  # part of the loop's own few per cent
    assert {(r.unit, r.step) for r in run.records() if r.step not in instant} == timed
    real = [run.done(f"rounds/{n:03d}", "train" if "online" in text else "mix") for n in range(1, _count(recipe) + 1)]
    assert planned.real_fractions == pytest.approx([1.0, *[r.info["real_fraction"] for r in real if r]])


def _rows(folder: Path, online: bool) -> int:
    """Rows of what was trained on; of an online stage those of one draw."""
    import pyarrow.parquet as pq

    found = int(pq.read_table(folder / "mixture.parquet").num_rows)
    if not (online and (folder / "samples.parquet").exists()):
        return found
    return found // len(set(parquet_tables.read_samples(folder / "samples.parquet").fields["draw"]))


def _count(recipe: Recipe) -> int:
    return recipe.rounds.count if recipe.rounds else 0


@pytest.mark.parametrize("policy", ["replace", "accumulate", "accumulate_subsample", "fresh"])
@pytest.mark.parametrize("share", ["0", "0.5", "1.0", "4", ".inf", "null"])
@pytest.mark.parametrize("number", [1, 3])
def test_a_mixture_has_as_many_rows_as_foreseen(policy: Any, share: str, number: int) -> None:
    sizes = [90, *[40] * number]
    parts = [_points(size, place) for place, size in enumerate(sizes)]
    recipe = small(POINTS, f"rounds.mix.policy={policy}", "rounds.count=3", f"rounds.mix.lambda={share}")
    assert recipe.rounds is not None
    rule = components.make("mixing_policy", policy)
    mixer = Mixer(policy=rule, lambda_=recipe.rounds.mix.lambda_, rounds=3)
    made = mixer.mix(parts[0], parts[1:], key=1, round=number)
    assert expected_counts.mixed(rule, recipe.rounds.mix, sizes, 3) == len(made.samples)


def _points(count: int, place: int) -> Samples:
    content = np.random.default_rng(place).normal(size=(count, 2)).astype(np.float32)
    if place == 0:
        return real_samples("points", content, [Prompt()] * count, "points")
    keys = np.arange(count)[:, None] + 1000 * place
    return synthetic_samples("points", content, [Prompt()] * count, keys, f"model-{place}")


# --- seconds ---------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that advances only with simulated work."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now.seconds)
    return now


@dataclass(frozen=True)
class Batched(SamplingSettings):
    batch: int = 64


@dataclass
class Slow:
    """A sampler of known cost: ``fixed`` for every batch, ``each`` for every sample; it records how many it drew."""

    clock: SimpleNamespace
    fixed: float
    each: float
    sizes: list[int]

    def sample(self, prompts: list[Prompt], keys: Array, settings: Batched, guides: Any = None) -> Samples:
        self.sizes.append(keys.size)
        self.clock.seconds += self.fixed * -(-keys.size // settings.batch) + self.each * keys.size
        return synthetic_samples("points", np.zeros((keys.size, 2), np.float32), prompts, keys, "slow")


@pytest.mark.parametrize("candidates", [1, 4])
def test_sampling_is_foreseen_exactly_where_it_is_linear(clock: SimpleNamespace, candidates: int) -> None:
    policy: Any = Slow(clock, fixed=0.05, each=0.001, sizes=[])
    seen = timing.sampled(policy, [Prompt("a"), Prompt("b")], candidates, Batched(), wanted=5000)
    assert max(policy.sizes) == 64, "never more than a batch is timed"
    before = clock.seconds
    policy.sample([Prompt()] * 5000, np.zeros((5000, candidates)), Batched())
    assert seen.line(5000) == pytest.approx(clock.seconds - before, rel=1e-9)


@pytest.mark.parametrize(("each", "most"), [(0.3, 16), (0.1, 64), (0.01, 256)])
def test_slow_sampling_is_timed_on_fewer(clock: SimpleNamespace, each: float, most: int) -> None:
    policy: Any = Slow(clock, fixed=0.0, each=each, sizes=[])
    seen = timing.sampled(policy, [Prompt()], 1, Batched(512), wanted=5000)
    assert max(policy.sizes) <= most
    assert seen.line(5000) == pytest.approx(5000 * each)


def test_never_more_is_sampled_than_the_run_will(clock: SimpleNamespace) -> None:
    policy: Any = Slow(clock, fixed=0.01, each=0.001, sizes=[])
    seen = timing.sampled(policy, [Prompt()], 2, Batched(512), wanted=30)
    assert max(policy.sizes) == 60 and seen.prompts == 30
    assert len(seen.first(7)) == 14 and set(seen.first(7).group) == set(range(7))


def _work(clock: SimpleNamespace, fixed: float, each: float, calls: list[int]) -> Callable[[int], None]:
    def measure(count: int) -> None:
        calls.append(count)
        clock.seconds += fixed + each * count

    return measure


def test_timing_at_the_requested_size_takes_one_call(clock: SimpleNamespace) -> None:
    calls: list[int] = []
    line = timing.measuring_line(_work(clock, 0.5, 0.01, calls), most=100, wanted=100)
    assert calls == [100] and line(100) == pytest.approx(1.5)


def test_timing_at_another_size_takes_two_calls(clock: SimpleNamespace) -> None:
    calls: list[int] = []
    line = timing.measuring_line(_work(clock, 0.5, 0.01, calls), most=100, wanted=1000)
    assert len(calls) == 2 and line(1000) == pytest.approx(10.5)


def test_a_first_call_that_loads_something_is_repeated(clock: SimpleNamespace) -> None:
    calls: list[int] = []

    def measure(count: int) -> None:
        clock.seconds += 1.0 if calls else 9.0
        calls.append(count)

    line = timing.measuring_line(measure, most=10, wanted=10, loaded=lambda: min(len(calls), 1))
    assert len(calls) == 2 and line(10) == pytest.approx(1.0)


def test_lines_add_up() -> None:
    assert (Line(1.0, 0.5) + Line(2.0, 0.25))(4) == 6.0
    assert Line(1.0, 0.5, batch=10)(25) == 3 * 1.0 + 12.5


# --- what is timed ---------------------------------------------------------------------------------------------


def test_timing_steps_leaves_the_model_as_it_was() -> None:
    parts = assemble(small(POINTS))
    splits = parts.source.load()
    planner = Planner(parts, splits, 0.0)
    before = {name: value.clone() for name, value in planner.policy.module.state_dict().items()}
    mixture = Mixture(splits.train, np.ones(len(splits.train)))
    examples = plan.planner.encode_examples(planner.policy, mixture, parts.objective(parts.recipe.stages[0]))[0]
    seconds = timing.step_seconds(parts, planner.policy, parts.recipe.stages[0], FixedFeed(examples, 64, 0))
    assert 0 < seconds < 1
    after = planner.policy.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_texts_are_taken_to_be_as_long_as_the_data() -> None:
    """Completions of this data have up to 9 tokens with their end; no step waits for 40."""
    parts = assemble(small(TEXT, "evaluate.settings.max_tokens=40"))
    splits = parts.source.load()
    planner = Planner(parts, splits, 0.0)
    lengths = np.array([len(str(text)) + 1 for text in splits.train.content])  # a character is a token
    usual = planner.as_trained(parts.evaluators[0].settings).max_tokens
    assert np.quantile(lengths, 0.85) <= usual <= lengths.max() < 40
    short = planner.as_trained(type(parts.evaluators[0].settings)(max_tokens=2))
    assert short.max_tokens == 2


@pytest.mark.slow
def test_the_module_is_light_and_collections_go_on_after_a_plan() -> None:
    code = "import sys, upturn.plan; print(*[m for m in ('torch', 'scipy', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    plan.plan(small(GAUSSIAN, "rounds.count=0"))
    assert gc.isenabled()


@pytest.mark.slow
def test_theory_covers_mixtures_only() -> None:
    assert plan.plan(small(GAUSSIAN)).theory is not None
    assert plan.plan(small(TEXT + ONLINE)).theory is None


def test_an_assumption_is_noted_once() -> None:
    found = plan.plan(small(GAUSSIAN, "rounds.curate=[{name: threshold, at_least: 0.5}]"))
    assert [note for note in found.notes if "threshold" in note] == [
        "the curator 'threshold' is assumed to keep 50% of the samples that it reads"
    ]
