"""A run that passes every crash point of the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from upturn.store import checkpoints, shards
from upturn.store.run import Run

STEPS = [("data", "load"), *((f"rounds/{n:03d}", s) for n in range(2) for s in ("sample", "train", "gate"))]


def small_run(folder: Path) -> None:
    """A small run to its end, from any state: each step with files, a folder, checkpoints on the way, then a
    removal, a fork and a state. Content is a function of the step alone, as in a real run, so that the whole tree has
    one hash however often it is killed."""
    run = Run.open(folder) if folder.exists() else Run.create(folder, "seed: 1\n", {"v": 1})
    run.set_state("running")
    for unit, step in STEPS:
        if run.done(unit, step):
            continue
        with run.commit(unit, step) as out:
            (out.path / f"{step}.parquet").write_text(unit + step)
            (out.path / f"{step}.json").write_text("{}")
            if step == "train":
                (out.path / "model").mkdir()
                (out.path / "model" / "w").write_text(small_training(run.unit(unit) / ".train-progress"))
            if step == "gate":
                out.info["decision"] = "rejected" if unit.endswith("1") else "promoted"
    run.prune("promoted")
    small_cache(folder.parent / "cache")
    if not (folder.parent / "fork").exists():
        Run.fork(run, 1, folder.parent / "fork")
    run.set_state("done")


def small_training(progress: Path) -> str:
    """Three steps, a checkpoint after each, from the newest there is."""
    import torch

    last = checkpoints.latest(progress)
    tensors, scalars = checkpoints.read_checkpoint(last) if last else ({"w": torch.zeros(3)}, {"step": 0})
    total = tensors["w"]
    for number in range(scalars["step"] + 1, 4):
        total = total + number
        for _ in range(2):  # the same step again, as after a kill between the checkpoint and the next step
            checkpoints.write_checkpoint(checkpoints.step_folder(progress, number), {"w": total}, {"step": number})
        checkpoints.prune_checkpoints(progress, keep=1)
    return str(total.tolist())


def small_cache(folder: Path) -> None:
    """Three rows, after any kill: present and unchanged."""
    import torch

    def make(places: Sequence[int]) -> Iterator[shards.Row]:
        yield from ({"x": torch.full((1, 2), float(place))} for place in places)

    rows = shards.Shards(folder, "rows", {"by": "a test"}).filled(["a", "b", "c"], make)["x"]
    assert rows[torch.arange(3)][:, 0].tolist() == [0.0, 1.0, 2.0]
