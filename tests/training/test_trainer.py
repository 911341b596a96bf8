"""Tests of the trainer against hand-written loops, other batch splits and process counts, and resumption."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.line_model import Line, examples
from upturn.adapters.full import Full
from upturn.config.schema import Training
from upturn.errors import RunError
from upturn.objectives.dpo import Dpo
from upturn.objectives.likelihood import Likelihood
from upturn.training import trainer
from upturn.training.device import accelerator_for
from upturn.training.ema import Ema
from upturn.training.feeds import FixedFeed
from upturn.training.schedule import learning_rate
from upturn.training.setup import TrainingSetup
from upturn.types import Batch, Ragged

pytestmark = pytest.mark.slow


def plan(spec: Training, batch: Batch | None = None, **changes: object) -> TrainingSetup:
    batch = examples() if batch is None else batch
    base = TrainingSetup(
        spec=spec, objective=Likelihood(), adapter=Full(), feed=FixedFeed(batch, spec.batch_size, 7), key=7,
        where="test",
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def weights(model: Line) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.module.parameters()])


SPEC = Training(epochs=4, batch_size=16, learning_rate=1e-2, ema=0.9, warmup=0.1)


def test_a_step_is_the_textbook_step() -> None:
    """One AdamW step on the weighted mean loss, written out with torch alone."""
    given = {"weights": np.linspace(0.5, 2.0, 50, dtype=np.float32)}
    batch = examples(given=given)
    spec = Training(steps=1, batch_size=50, learning_rate=1e-2, schedule="constant", warmup=0.0, clip=1e9)
    ours, theirs = Line(noisy=False), Line(noisy=False)
    trainer.train(ours, plan(spec, batch))
    optimiser = torch.optim.AdamW(theirs.module.parameters(), lr=1e-2, weight_decay=0.0)
    w = batch.given["weights"]
    nll = 0.5 * (batch["y"] - theirs.module(batch["x"])) ** 2 + 0.5 * math.log(2 * math.pi)
    ((w[:, None] * nll).sum() / w.sum()).backward()
    optimiser.step()
    torch.testing.assert_close(weights(ours), weights(theirs), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("micro", [1, 5, 16])
def test_pain_6_micro_batches_do_not_change_the_loss(micro: int) -> None:
    whole, parts = Line(), Line()
    one = trainer.train(whole, plan(SPEC))
    two = trainer.train(parts, plan(SPEC.model_copy(update={"micro_batch": micro})))
    torch.testing.assert_close(weights(whole), weights(parts), atol=2e-5, rtol=1e-4)
    assert [p["loss"] for p in one.points] == pytest.approx([p["loss"] for p in two.points], abs=1e-5)


def test_micro_batches_of_pairs_do_not_change_dpo() -> None:
    ranks = np.tile([[1, 2], [2, 1]], (12, 1))
    pairs = examples(24, candidates=2, given={"ranks": ranks})
    changes = {"objective": Dpo(beta=0.5), "feed": FixedFeed(pairs, 10, 7)}
    results = []
    for micro in (None, 3):
        model = Line()
        trainer.train(model, plan(SPEC.model_copy(update={"micro_batch": micro}), pairs, **changes))
        assert not torch.equal(weights(model), weights(Line()))
        results.append(weights(model))
    torch.testing.assert_close(*results, atol=2e-5, rtol=1e-4)


@pytest.mark.long
def test_pain_6_two_processes_do_not_change_the_loss(tmp_path: Path) -> None:
    """Two real gloo processes against one: the same weights after 16 steps, uneven batches included."""
    script = tmp_path / "child.py"
    script.write_text(textwrap.dedent(f"""
        import sys, torch
        sys.path[:0] = {[str(Path(__file__).parents[n]) for n in range(2)]!r}
        torch.set_num_threads(1)
        from test_trainer import SPEC, plan, weights
        from helpers.line_model import Line
        from upturn.training import trainer
        from upturn.training.device import accelerator_for
        from upturn.training.schedule import learning_rate
        from upturn.training.setup import TrainingSetup
        model = Line()
        history = trainer.train(model, plan(SPEC))
        if int(__import__("os").environ.get("RANK", 0)) == 0:
            torch.save((weights(model), [p["loss"] for p in history.points]), sys.argv[1])
    """))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alone = tmp_path / "one.pt"
    subprocess.run([sys.executable, str(script), str(alone)], check=True)
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    both = tmp_path / "two.pt"
    children = [
        subprocess.Popen(
            [sys.executable, str(script), str(both)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"},
        )
        for rank in range(2)
    ]
    assert [child.wait(timeout=120) for child in children] == [0, 0]
    one, two = torch.load(alone), torch.load(both)
    torch.testing.assert_close(one[0], two[0], atol=2e-5, rtol=1e-4)
    assert one[1] == pytest.approx(two[1], abs=1e-5)


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [1, 3, 7, 11])
def test_pain_3_a_resumed_stage_ends_with_the_same_bytes(tmp_path: Path, at: int) -> None:
    spec = SPEC.model_copy(update={"save_every": 3})
    held_out = examples(20)
    whole = Line()
    straight = trainer.train(whole, plan(spec, progress=tmp_path / "whole", held_out=held_out))

    def stop(step: int, total: int, loss: float) -> None:
        if step == at:
            raise Stop

    for _ in range(2):  # stopped twice at the same step: nothing is counted twice
        with pytest.raises(Stop):
            trainer.train(Line(), plan(spec, progress=tmp_path / "parts", held_out=held_out, on_step=stop))
    resumed = Line()
    seen: list[int] = []
    history = trainer.train(
        resumed,
        plan(spec, progress=tmp_path / "parts", held_out=held_out, on_step=lambda step, total, loss: seen.append(step)),
    )
    assert seen[0] == at - at % 3 + (1 if at % 3 else 0) or seen[0] == at - 2
    assert torch.equal(weights(whole), weights(resumed))
    assert [{**p} for p in history.points] == straight.points
    assert history.steps == straight.steps == 16


def test_the_average_is_the_recursion() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0]))
    average = Ema([parameter], 0.5)
    expected = 1.0
    for step in range(1, 30):
        parameter.data.fill_(float(step))
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert float(average.values[0]) == pytest.approx(expected, rel=1e-6)
    with average.applied():
        assert float(parameter.detach()) == pytest.approx(expected, rel=1e-6)
    assert float(parameter.detach()) == 29.0


@pytest.mark.parametrize(("schedule", "middle"), [("constant", 1.0), ("linear", 0.5), ("cosine", 0.5)])
def test_schedules_are_closed_form(schedule: str, middle: float) -> None:
    spec = Training(steps=1000, learning_rate=1.0, schedule=schedule, warmup=0.1)
    assert learning_rate(spec, 0, 1000) == pytest.approx(1 / 101)
    assert learning_rate(spec, 100, 1000) == pytest.approx(1.0)
    assert learning_rate(spec, 550, 1000) == pytest.approx(middle)


def test_nan_is_one_clear_message() -> None:
    batch = examples()
    batch["x"][3] = float("nan")
    with pytest.raises(RunError, match=r"test, step \d+: the loss is not a number") as caught:
        trainer.train(Line(), plan(SPEC, batch))
    assert "learning_rate" in str(caught.value)


def test_pain_1_a_batch_with_nothing_to_learn_is_refused() -> None:
    batch = examples(given={"weights": np.zeros(50, dtype=np.float32)})
    with pytest.raises(RunError, match="nothing is trained on"):
        trainer.train(Line(), plan(SPEC, batch))


def test_it_stops_at_a_plateau() -> None:
    spec = Training(epochs=200, batch_size=50, learning_rate=1e-9, patience=3)
    history = trainer.train(Line(), plan(spec, held_out=examples(20)))
    assert history.steps == 4
    assert "held-out" in history.stopped


def test_checkpoint_epochs_have_the_average_and_do_not_change_training() -> None:
    seen: dict[int, torch.Tensor] = {}
    model, undisturbed = Line(), Line()
    spec = SPEC.model_copy(update={"checkpoint_epochs": (1, 3)})
    trainer.train(model, plan(spec, on_epoch=lambda epoch: seen.update({epoch: weights(model)})))
    trainer.train(undisturbed, plan(SPEC))
    assert sorted(seen) == [1, 3]
    assert torch.equal(weights(model), weights(undisturbed))
    assert not torch.equal(seen[1], seen[3])


def test_each_epoch_has_every_example_once_in_a_new_order() -> None:
    batch = Batch({"x": torch.arange(23)})
    feed = FixedFeed(batch, 5, 3)
    epochs = [torch.cat([feed.batch(e * 5 + s)["x"] for s in range(5)]).tolist() for e in range(3)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert FixedFeed(batch, 5, 3).batch(7)["x"].tolist() == feed.batch(7)["x"].tolist()


def test_uneven_texts_are_bucketed_by_length() -> None:
    lengths = torch.from_numpy(np.random.default_rng(0).integers(1, 200, size=1000))
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    batch = Batch({"tokens": Ragged(torch.arange(int(offsets[-1])), offsets)})
    feed = FixedFeed(batch, 20, 1)
    sizes = [feed.batch(step)["tokens"].shape for step in range(feed.steps_per_epoch)]
    padded = sum(rows * width for rows, width in sizes)
    assert sum(rows for rows, _ in sizes) == 1000
    assert padded < 1.1 * int(lengths.sum())  # random batches of 20 would pad to about twice the tokens
    firsts = [int(feed.batch(step)["tokens"][0, 0]) for step in range(feed.steps_per_epoch)]
    assert firsts != sorted(firsts)


def test_precomputed_values_fit_every_part_of_a_draw() -> None:
    """Rows of uneven length, a draw taken in halves: columns "before_…" have the places of the tokens."""
    from upturn.training.feeds import OnlineFeed

    def draw(number: int) -> Batch:
        offsets = torch.tensor([0, 3, 5, 12, 14])
        return Batch({"tokens": Ragged(torch.arange(14), offsets)})

    feed = OnlineFeed(draw, 4, 2, 1, 3)
    seen = [feed.batch(step, lambda b: b.with_columns(before_log_probs=b["tokens"][:, 1:].float())) for step in (0, 1)]
    for part in seen:
        assert part["tokens"].shape[1] == 7
        torch.testing.assert_close(part["before_log_probs"], part["tokens"][:, 1:].float())
    assert sorted(part["tokens"][i, 0].item() for part in seen for i in range(2)) == [0, 3, 5, 12]


def test_two_stages_of_one_process_have_each_their_precision() -> None:
    """A referee is fitted in float32 before the policy trains in bfloat16, and the other way round."""
    seen = [accelerator_for(SPEC.model_copy(update={"precision": asked})).mixed_precision
            for asked in ("fp32", "bf16", "bf16", "fp32")]
    assert seen == ["no", "bf16", "bf16", "no"]
