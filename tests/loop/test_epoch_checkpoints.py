"""Tests of checkpoints within a training: measured as separate models, sampled from equal noise, resumable."""

from __future__ import annotations

import importlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.small_recipes import POINTS, small
from upturn import plan
from upturn.errors import UserError
from upturn.loop import loop
from upturn.loop.stages.evaluate import read_measured
from upturn.report import epochs, write
from upturn.report.facts import Facts
from upturn.runs import status
from upturn.store import files, parquet_tables
from upturn.store.animation import animated
from upturn.store.checkpoints import tree_hash
from upturn.store.run import Run

pytestmark = pytest.mark.slow

UNIT = "rounds/000/pretrain"
FLAT = ("rounds.count=0", "stages.1.steps=2", "stages.0.schedule=constant", "stages.0.warmup=0")
LISTED = "stages.0.checkpoint_epochs=[0, 2, 5]"
DIGITS = """
name: digits
threads: 1
usd_per_hour: 3.6
data: digits
models: {policy: {name: pixels, size: 8, channels: 1, classes: 10, network: {name: unet, channels: [8, 16]}}}
filter: {curate: {name: subset, count: 128}}
stages: [{name: train, epochs: 3, batch_size: 64, checkpoint_epochs: [0, 1, 3]}]
evaluate: {prompts: 20, metrics: [nearest_real], settings: {steps: 3}}
grid: {prompts: 3, per_prompt: 2}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return loop.run(small(POINTS, *FLAT, LISTED), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return loop.run(small(DIGITS), tmp_path_factory.mktemp("pictures"))


def summary(run: Run, unit: str = UNIT) -> Any:
    return json.loads((run.unit(unit) / "epochs.json").read_text())


def values(folder: Path) -> dict[str, float]:
    return {name: measured.value for name, measured in read_measured(folder).items()}


def test_a_checkpoint_is_the_model_that_a_training_of_its_length_ends_with(done: Run, tmp_path: Path) -> None:
    short = loop.run(small(POINTS, *FLAT, "stages.0.steps=null", "stages.0.epochs=2",
                           "stages.0.checkpoint_epochs=[]"), tmp_path)
    assert tree_hash(short.unit(UNIT) / "model") == tree_hash(done.unit(UNIT) / "checkpoints" / "epoch-0002")
    assert values(short.unit(UNIT)) == values(done.unit(UNIT) / "epoch-0002")


def test_epoch_0_is_the_model_before_training_and_0_steps_leave_it_so(done: Run, tmp_path: Path) -> None:
    bare = loop.run(small(POINTS, *FLAT, "stages.0.steps=0", "stages.0.checkpoint_epochs=[]"), tmp_path)
    assert tree_hash(bare.unit(UNIT) / "model") == tree_hash(done.unit(UNIT) / "checkpoints" / "epoch-0000")
    assert values(bare.unit(UNIT)) == values(done.unit(UNIT) / "epoch-0000")
    assert not (bare.unit(UNIT) / "epochs.json").exists()


def test_the_final_checkpoint_is_in_the_table_and_measured_once(done: Run, pictures: Run) -> None:
    found = summary(done)
    assert [row["epoch"] for row in found["epochs"]][:3] == [0, 2, 5]
    assert len(found["epochs"]) == 4 and found["epochs"][3]["epoch"] > 5  # 40 steps end within an epoch
    last = {name: row["value"] for name, row in found["epochs"][3]["metrics"].items()}
    assert last == pytest.approx(values(done.unit(UNIT)))
    unit = pictures.unit("rounds/000/train")
    assert (unit / "epoch-0003" / "grid.parquet").samefile(unit / "grid.parquet")
    assert [row["epoch"] for row in summary(pictures, "rounds/000/train")["epochs"]] == [0, 1, 3]


def test_every_checkpoint_has_the_same_prompts_and_noise(pictures: Run) -> None:
    unit = pictures.unit("rounds/000/train")
    grids = [parquet_tables.read_samples(unit / f"epoch-000{n}" / "grid.parquet") for n in (0, 1, 3)]
    for grid in grids[1:]:
        assert grid.prompts == grids[0].prompts
        assert (grid.fields["key"] == grids[0].fields["key"]).all()
        assert not np.array_equal(grid.content, grids[0].content)
    seen = parquet_tables.read_samples(unit / "previews.parquet")
    assert np.array_equal(seen.content, np.concatenate([grid.content for grid in grids]))


def test_the_noise_of_a_cell_depends_on_its_text_and_seed_alone(tmp_path: Path) -> None:
    every = [
        loop.run(small(DIGITS, f"name={name}", "stages.0.epochs=1", "stages.0.checkpoint_epochs=[]",
                       f"grid.texts={texts}", f"grid.per_prompt={seeds}"), tmp_path)
        for name, texts, seeds in (("a", ["3", "8"], 2), ("b", ["1", "8", "5", "3"], 3))
    ]
    a, b = [parquet_tables.read_samples(run.unit("rounds/000") / "grid.parquet") for run in every]
    for text in ("3", "8"):
        mine, theirs = (np.array([p.text == text for p in grid.prompts]) for grid in (a, b))
        assert (a.fields["key"][mine] == b.fields["key"][theirs][:2]).all()
        # the same image in a batch of another size, to the grey level that rounding may turn
        assert np.abs(a.content[mine].astype(int) - b.content[theirs][:2].astype(int)).max() <= 1
    assert len(set(b.fields["key"].tolist())) == 12


def test_wordings_are_drawn_from_the_noise_of_the_first(tmp_path: Path) -> None:
    run = loop.run(small(DIGITS, "stages.0.epochs=1", "stages.0.checkpoint_epochs=[]", "grid.texts=['3']",
                         "grid.wordings=[['7', '1', '4']]"), tmp_path)
    grid = parquet_tables.read_samples(run.unit("rounds/000") / "grid.parquet")
    assert [p.text for p in grid.prompts] == [t for t in "3714" for _ in range(2)]
    keys = grid.fields["key"].reshape(4, 2)
    assert (keys[1:] == keys[1]).all() and not (keys[0] == keys[1]).any()
    assert [p.label for p in grid.prompts][::2] == [3, 7, 1, 4]


def test_a_group_of_wordings_names_several_each_once() -> None:
    for group in ("['a']", "['a', 'a']", "[]"):
        with pytest.raises(UserError, match="several prompts, each once"):
            small(DIGITS, f"grid.wordings=[{group}]")


class Killed(BaseException):
    pass


def test_a_kill_while_a_checkpoint_is_measured_resumes_to_the_same_bytes(
    done: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage: Any = importlib.import_module("upturn.loop.stages.epoch_checkpoints")
    recipe, real, calls = small(POINTS, *FLAT, LISTED), stage.measure, []

    def once(*args: Any, **more: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        real(*args, **more)

    monkeypatch.setattr(stage, "measure", once)
    with pytest.raises(Killed):
        loop.run(recipe, tmp_path)
    run = Run.open(tmp_path / "points")
    assert run.done(UNIT, "epoch-0000") and not run.done(UNIT, "epoch-0002")
    kept = (run.unit(UNIT) / "epoch-0000" / "metrics.json").stat().st_ino
    run = loop.run(recipe, tmp_path)
    assert (run.unit(UNIT) / "epoch-0000" / "metrics.json").stat().st_ino == kept
    for name in ("epoch-0000", "epoch-0002", "epoch-0005", "epochs.json", "previews.parquet", "model"):
        assert files.any_hash(run.unit(UNIT) / name) == files.any_hash(done.unit(UNIT) / name), name
    assert run.verify().intact


def test_an_evaluation_may_leave_checkpoints_out(tmp_path: Path) -> None:
    run = loop.run(small(POINTS, *FLAT, LISTED, "evaluate.checkpoints=false"), tmp_path)
    assert values(run.unit(UNIT) / "epoch-0002") == {}
    assert summary(run)["plateau"] == {}
    assert len(parquet_tables.read_samples(run.unit(UNIT) / "epoch-0002" / "grid.parquet"))


def test_epochs_that_the_training_does_not_reach_are_noted(tmp_path: Path) -> None:
    notes: list[str] = []

    class Observer(loop.Observer):
        def note(self, text: str) -> None:
            notes.append(text)

    loop.run(small(POINTS, *FLAT, "stages.0.checkpoint_epochs=[2, 99]"), tmp_path, Observer())
    assert any("before epoch 99" in note for note in notes)


@pytest.mark.parametrize(("keep", "left"), [("all", 3), ("plateau", 1), ("none", 0)])
def test_checkpoint_weights_are_kept_as_configured(keep: str, left: int, tmp_path: Path) -> None:
    run = loop.run(small(POINTS, *FLAT, LISTED, f"keep.checkpoints={keep}"), tmp_path)
    there = sorted(place.name for place in (run.unit(UNIT) / "checkpoints").glob("epoch-*"))
    found = summary(run)
    at = found["plateau"][found["headline"]]["plateau"]
    # where the plateau is the end, its weights are the model's own, and no checkpoint need stay
    assert len(there) == (left if keep != "plateau" or at in (0, 2, 5) else 0)
    if keep == "plateau" and there:
        assert there == [f"epoch-{int(at):04d}"]
    assert len(run.deletions()) == 3 - len(there) and run.verify().intact
    assert all((run.unit(UNIT) / f"epoch-000{n}" / "metrics.json").is_file() for n in (0, 2, 5))
    assert loop.run(small(POINTS, *FLAT, LISTED, f"keep.checkpoints={keep}"), tmp_path).verify().intact
    place = run.unit(UNIT) / "checkpoints" / "epoch-0000"
    if keep == "all":
        next(place.rglob("*.safetensors")).unlink()
        assert [damage.path.name for damage in run.verify().damage] == ["checkpoints"]


def test_an_animation_holds_every_moment_pixel_by_pixel(pictures: Run) -> None:
    from PIL import Image, ImageSequence

    unit = pictures.unit("rounds/000/train")
    shown = Image.open(unit / "animations" / "001.webp")
    frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(shown)]
    assert len(frames) == 3
    for number, frame in zip((0, 1, 3), frames, strict=True):
        grid = parquet_tables.read_samples(unit / f"epoch-000{number}" / "grid.parquet")
        first, second = grid.content[grid.group == 1]
        assert np.array_equal(frame[8::16, 8:128:16, 0], first[:, :, 0])  # 8 pixels drawn 16 times as large
        assert np.array_equal(frame[8::16, 168::16, 0], second[:, :, 0])  # beyond a gap of 2 times 16


def test_equal_frames_are_equal_bytes_and_uneven_ones_are_refused() -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (2, 16, 16, 3)).astype(np.uint8) for _ in range(3)]
    assert animated(frames) == animated([frame.copy() for frame in frames])
    assert io.BytesIO(animated(frames)).read(4) == b"RIFF"
    with pytest.raises(ValueError, match="one shape"):
        animated([frames[0], frames[1][:1]])


def test_the_report_has_plateau_and_cost(pictures: Run) -> None:
    facts = Facts(pictures)
    [progress] = epochs.by_epoch(facts)
    spent = epochs.cost(facts, "rounds/000/train")
    record = pictures.done("rounds/000/train", "train")
    assert spent is not None and record is not None
    assert spent.per_epoch == pytest.approx(record.info["training_seconds"] / 3)
    assert spent.usd == pytest.approx(record.info["training_seconds"] / 1000)  # 3.6 an hour
    assert spent.rate == pytest.approx(128 * 3 / record.info["training_seconds"])
    assert [column.short for column in progress.columns] == ["0", "1", "3"]
    assert len(progress.prices) == 3 and len(progress.steady) == 2
    page = write(pictures).read_text()
    assert "Training, epoch by epoch" in page and "0 → 1" in page
    steps = status.read(pictures).rounds[0].stages[0].seconds
    within = [r.seconds for r in pictures.records() if r.step.startswith("epoch-") or r.step == "checkpoints"]
    assert steps["checkpoints"] == pytest.approx(sum(within)) and len(within) == 4


def test_the_plan_has_every_step_of_the_checkpoints(pictures: Run) -> None:
    rows = {(row.unit, row.step) for row in plan.plan(small(DIGITS)).rows}
    took = {(r.unit, r.step) for r in pictures.records() if r.unit == "rounds/000/train" and r.step != "mix"}
    assert took == {key for key in rows if key[0] == "rounds/000/train"}
