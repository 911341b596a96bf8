"""Tests of checkpoints by time, and of the log of steps: complete and without repetition however often it stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.line_model import Line, examples
from upturn.adapters.full import Full
from upturn.config.schema import Training
from upturn.objectives.likelihood import Likelihood
from upturn.training import checkpointing, step_log, trainer
from upturn.training.feeds import FixedFeed
from upturn.training.schedule import learning_rate
from upturn.training.setup import TrainingSetup

SPEC = Training(epochs=4, batch_size=16, learning_rate=1e-2, ema=0.9, warmup=0.1)


class Stopped(Exception):
    pass


def setup(spec: Training, **changes: object) -> TrainingSetup:
    base = TrainingSetup(
        spec=spec, objective=Likelihood(), adapter=Full(), feed=FixedFeed(examples(), spec.batch_size, 7), key=7,
        where="test",
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / step_log.NAME).read_text().splitlines()]


def stopping_at(stop: int) -> Callable[[int, int, float], None]:
    def on_step(step: int, total: int, loss: float) -> None:
        if step == stop:
            raise Stopped

    return on_step


def weights(model: Line) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.module.parameters()])


@pytest.mark.slow
def test_every_step_is_logged_once_however_often_the_training_stops(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"save_every": 3})
    logged: list[tuple[int, float]] = []
    whole = trainer.train(
        Line(), setup(spec, progress=tmp_path / "whole", log=lambda line, step: logged.append((step, line["loss"])))
    )
    for stop in (2, 5, 5, 11, 13):
        with pytest.raises(Stopped):
            trainer.train(Line(), setup(spec, progress=tmp_path / "parts", on_step=stopping_at(stop)))
    trainer.train(Line(), setup(spec, progress=tmp_path / "parts"))
    straight, resumed = lines(tmp_path / "whole"), lines(tmp_path / "parts")
    assert [line["step"] for line in resumed] == list(range(1, 17)) == [step for step, _ in logged]
    same = ("loss", "gradient_norm", "learning_rate", "epoch", "examples")
    assert [[line[key] for key in same] for line in resumed] == [[line[key] for key in same] for line in straight]
    assert [line["loss"] for line in straight] == [loss for _, loss in logged]
    assert [line["learning_rate"] for line in resumed] == [learning_rate(spec, step, 16) for step in range(16)]
    assert {p["step"]: p["loss"] for p in whole.points}.items() <= {x["step"]: x["loss"] for x in straight}.items()
    assert [line["examples"] for line in resumed[:4]] == [16, 16, 16, 2]  # 50 examples an epoch
    assert all(line["examples_per_second"] == line["examples"] / line["seconds"] for line in resumed)


def test_a_line_that_was_cut_off_and_those_after_the_checkpoint_are_removed(tmp_path: Path) -> None:
    (tmp_path / step_log.NAME).write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    with step_log.StepLog(tmp_path, 2) as log:
        log.write({"step": 3, "loss": float("nan")})
    assert lines(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3, "loss": None}]


@pytest.mark.parametrize(("every", "seconds"), [("90 s", 90.0), ("10 min", 600.0), ("1.5h", 5400.0)])
def test_a_checkpoint_is_due_after_a_time(every: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(checkpointing.time, "monotonic", lambda: now)
    due = checkpointing.CheckpointInterval(Training(steps=1, save_every=every).save_every)
    now += seconds - 1
    assert not due.passed(10**6, 0)
    now += 1
    assert due.passed(1, 0)
    due.restart()
    assert not due.passed(2, 1)


@pytest.mark.slow
def test_a_checkpoint_at_any_time_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of one second a step: checkpoints after 3 of them, at other steps in a resumed training."""
    whole = Line()
    trainer.train(whole, setup(SPEC))
    clock = 0.0
    monkeypatch.setattr(checkpointing.time, "monotonic", lambda: clock)
    spec = SPEC.model_copy(update={"save_every": "3 s"})
    for stop, saved in ((5, 3), (8, 6), (8, 6), (10, 9)):
        seen: list[int] = []

        def on_step(step: int, total: int, loss: float, stop: int = stop, seen: list[int] = seen) -> None:
            nonlocal clock
            clock += 1
            seen.append(step)
            if step == stop:
                raise Stopped

        with pytest.raises(Stopped):
            trainer.train(Line(), setup(spec, progress=tmp_path, on_step=on_step))
        assert (tmp_path / f"step-{saved:08d}").is_dir()
    resumed = Line()
    trainer.train(resumed, setup(spec, progress=tmp_path))
    assert torch.equal(weights(whole), weights(resumed))
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 17))
