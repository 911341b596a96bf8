"""Tests of the loop: artifacts, decisions, and equal bytes after a kill at any point."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import upturn
from helpers import child_process as children
from helpers.small_recipes import GAUSSIAN, POINTS, small
from upturn.errors import RunError, UserError
from upturn.loop import loop
from upturn.observer import Observer
from upturn.runs import status
from upturn.store import crash_points, parquet_tables
from upturn.store.checkpoints import tree_hash
from upturn.store.run import Run

pytestmark = pytest.mark.slow


def models(folder: Path) -> dict[str, str]:
    """Every model/ of a run by the hash of its bytes."""
    return {str(path.relative_to(folder)): tree_hash(path) for path in sorted(folder.rglob("model"))}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return loop.run(small(GAUSSIAN), tmp_path_factory.mktemp("runs"))


def test_a_run_writes_the_documented_artifacts(done: Run) -> None:
    assert done.state.state == "done"
    for number in range(1, 4):
        unit = done.unit(f"rounds/{number:03d}")
        for name in ("samples", "scores", "selections", "mixture", "values", "evaluation", "grid"):
            assert (unit / f"{name}.parquet").is_file(), name
        assert (unit / "metrics.json").is_file() and (unit / "gate.json").is_file() and (unit / "model").is_dir()
        kept = json.loads((unit / "stages" / "curate.json").read_text())["counts"]
        assert kept == {"kept": 150, "dropped": 450}
    assert done.verify().intact


def test_the_mixture_is_what_was_trained_on(done: Run) -> None:
    """The Gaussian's mean is the weighted mean of the mixture on disk."""
    from upturn.loop.assemble import assemble
    from upturn.loop.assembly import load_model

    parts = assemble(small(GAUSSIAN))
    for number in range(1, 4):
        unit = done.unit(f"rounds/{number:03d}")
        mixture = parquet_tables.read_mixture(done, unit / "mixture.parquet")
        real = mixture.samples.origin == "real"
        assert mixture.weights[real].sum() == pytest.approx(mixture.weights[~real].sum())
        model = load_model(parts, "policy", unit / "model", "m")
        expected = np.average(mixture.samples.content, axis=0, weights=mixture.weights)
        made = model.sample([_prompt()] * 4000, np.arange(4000)[:, None], model.Sampling())  # type: ignore[attr-defined]
        spread = made.content.std(axis=0) / np.sqrt(4000)
        assert np.all(np.abs(made.content.mean(axis=0) - expected) < 4 * spread)


def _prompt() -> upturn.types.Prompt:  # type: ignore[name-defined]
    from upturn.types import Prompt

    return Prompt()


def test_selection_raises_the_reward_and_the_gate_promotes(done: Run) -> None:
    seen = status.read(done)
    rewards = [r.metrics["reward"]["value"] for r in seen.rounds]
    assert rewards[-1] > rewards[0]
    assert seen.rounds[1].gate is not None and seen.rounds[1].gate["decision"] == "promoted"
    assert seen.incumbent.round >= 1


def test_status_json_has_the_stated_shape(done: Run) -> None:
    found = json.loads(json.dumps(status.read(done).to_json()))
    assert {"run", "state", "recipe", "rounds"} <= found.keys()
    assert [r["round"] for r in found["rounds"]] == [0, 1, 2, 3]
    assert found["rounds"][0]["stages"][0]["name"] == "fit"
    for entry in found["rounds"][1:]:
        assert set(entry["gate"]) == {"decision", "metric", "reason"}
        assert entry["real_fraction"] == pytest.approx(0.5)
        assert set(entry["metrics"]["reward"]) == {"value", "low", "high", "n"}
        assert entry["samples"] == {"kept": 150, "dropped": {"choice": 450}}
        assert set(entry["cost"]) == {"seconds", "usd"} and entry["cost"]["seconds"]["train"] > 0


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(done: Run, tmp_path: Path) -> None:
    again = loop.run(small(GAUSSIAN), tmp_path)
    other = loop.run(small(GAUSSIAN, "seed=1", "name=other"), tmp_path)
    assert models(again.folder) == models(done.folder)
    assert models(other.folder) != models(done.folder)


def test_running_again_does_nothing(done: Run) -> None:
    before = {p: p.stat().st_mtime_ns for p in done.folder.rglob("*.parquet")}

    class Counting(Observer):
        begun = 0

        def begin(self, unit: str, step: str) -> None:
            self.begun += 1

    observer = Counting()
    loop.run(small(GAUSSIAN), done.folder.parent, observer)
    assert observer.begun == 0
    assert {p: p.stat().st_mtime_ns for p in done.folder.rglob("*.parquet")} == before


def test_another_recipe_under_the_same_name_is_refused(done: Run) -> None:
    with pytest.raises(UserError, match=r"rounds.mix.lambda: 1.0 -> 0.5.*--name"):
        loop.run(small(GAUSSIAN, "rounds.mix.lambda=0.5"), done.folder.parent)


def test_a_fork_resumes_from_its_round(done: Run, tmp_path: Path) -> None:
    forked = loop.run(small(GAUSSIAN, "name=fork", "rounds.mix.lambda=0.25"), tmp_path, fork=(done.folder, 1))
    mine, theirs = models(forked.folder), models(done.folder)
    assert mine["rounds/001/model"] == theirs["rounds/001/model"]
    assert mine["rounds/002/model"] != theirs["rounds/002/model"]
    assert status.read(forked).rounds[2].real_fraction == pytest.approx(0.8)
    with pytest.raises(UserError, match="there is no round 9"):
        loop.run(small(GAUSSIAN, "name=fork2"), tmp_path, fork=(done.folder, 9))


def test_the_gate_rejects_and_the_next_round_starts_from_the_incumbent(tmp_path: Path) -> None:
    """A guard that nothing can meet: every round is rejected, and each samples from round 0."""
    run = loop.run(small(GAUSSIAN, "gate.guards={coverage: {at_least: 5.0}}"), tmp_path)
    seen = status.read(run)
    assert [r.gate["decision"] for r in seen.rounds[1:]] == ["rejected"] * 3  # type: ignore[index]
    assert all("coverage" in r.gate["reason"] for r in seen.rounds[1:])  # type: ignore[index]
    assert seen.incumbent.round == 0
    assert all(run.done(r.unit, "sample").info["incumbent"] == "rounds/000" for r in seen.rounds[1:])  # type: ignore[union-attr]
    assert all((run.unit(r.unit) / "model").is_dir() for r in seen.rounds)  # a rejected round keeps everything


def test_python_interface(done: Run, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(GAUSSIAN)
    seen = upturn.run(path, runs=tmp_path / "runs")
    assert seen.rounds[3].metrics["reward"]["value"] == pytest.approx(
        status.read(done).rounds[3].metrics["reward"]["value"]
    )
    assert upturn.open_run(tmp_path / "runs" / "gaussian").state == "done"


def test_pain_21_every_sample_has_its_ancestry(done: Run) -> None:
    from upturn.store import lineage

    samples = parquet_tables.read_samples(done.unit("rounds/003") / "samples.parquet")
    traced = lineage.trace(done, str(samples.ids[0]))
    text = json.dumps(traced, default=lambda v: getattr(v, "__dict__", str(v)))
    assert status.read(done).rounds[0].unit in text
    real = parquet_tables.read_samples(done.unit("data") / "samples.parquet")
    trained = real.take(real.fields["split"].astype(str) == "train")
    down = json.dumps(lineage.trace_down(done, str(trained.ids[0])), default=lambda v: getattr(v, "__dict__", str(v)))
    assert "rounds/003" in down


# killed anywhere


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("whole")
    process = children.start(POINTS, folder)
    process.join()
    assert process.exitcode == 0
    return models(folder / "points")


@pytest.mark.long
@pytest.mark.parametrize("boundary", crash_points.BOUNDARIES)
def test_killed_at_a_boundary_it_resumes_to_the_same_bytes(
    boundary: str, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """SIGKILL at the first and again at a later reach of each named boundary, then the rest: the same bytes."""
    codes = []
    for count in (1, 5):
        process = children.start(POINTS, tmp_path, f"{boundary}:{count}")
        process.join(timeout=120)
        codes.append(process.exitcode)
    assert set(codes) <= {0, -signal.SIGKILL}
    if boundary.startswith(("create", "commit", "checkpoint", "state")) and boundary != "checkpoint:old-removed":
        assert -signal.SIGKILL in codes, f"{boundary} was never reached"
    process = children.start(POINTS, tmp_path)
    process.join()
    assert process.exitcode == 0
    assert models(tmp_path / "points") == undisturbed
    assert Run.open(tmp_path / "points").verify().intact


def test_a_second_process_is_refused_while_the_first_one_works(tmp_path: Path) -> None:
    text = POINTS.replace("steps: 40", "steps: 200000")
    process = children.start(text, tmp_path)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("points/rounds/000/pretrain/stages/mix.json")):
            assert time.monotonic() < deadline and process.is_alive()
            time.sleep(0.05)
        with pytest.raises(RunError, match=f"process {process.pid} is at work"):
            loop.run(small(text), tmp_path)
    finally:
        process.kill()
        process.join()


@pytest.mark.long
def test_two_processes_share_the_training_of_a_run(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    """``--processes 2``: every round is there, and the losses and weights of round 0 are those of one process."""
    import json
    import subprocess
    import sys

    from safetensors.torch import load_file

    recipe = tmp_path / "points.yaml"
    recipe.write_text(POINTS)
    command = [sys.executable, "-m", "upturn", "run", str(recipe), "--runs", str(tmp_path), "--processes", "2"]
    subprocess.run(command, check=True, timeout=200)
    run = Run.open(tmp_path / "points")
    assert run.state.state == "done" and set(models(run.folder)) == set(undisturbed) and run.verify().intact
    assert run.fingerprint["processes"] == "2"
    alone = loop.run(small(POINTS, "name=alone", "rounds.count=0"), tmp_path)
    one, two = (load_file(next((r.unit("rounds/000") / "model").rglob("*.safetensors"))) for r in (alone, run))
    assert all((one[key] - two[key]).abs().max() < 1e-4 for key in one)
    for stage in ("pretrain", "finetune"):
        curves = [
            [json.loads(line)["loss"] for line in (r.unit(f"rounds/000/{stage}") / "steps.jsonl").open()]
            for r in (alone, run)
        ]
        assert curves[0] == pytest.approx(curves[1], rel=1e-5)
