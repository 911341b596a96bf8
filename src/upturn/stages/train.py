"""A model trained on a mixture: the policy's stages and rounds, and the judges before them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from upturn.assemble import load_model, where
from upturn.errors import UserError
from upturn.feeds import FixedFeed
from upturn.protocols import ClosedForm, Objective, Trainable
from upturn.recipe import Training
from upturn.stages.work import DATA, Done, Outcome, Work
from upturn.store import tables
from upturn.store.checkpoints import tree_hash
from upturn.tracking import tracking
from upturn.types import Batch, Mixture, Samples

if TYPE_CHECKING:
    from upturn.trainer import History

_HELD_OUT = 512  # samples in the held-out loss of the training curve: its noise there is below what a plateau shows


def fit(work: Work, name: str) -> Outcome:
    """A helper model (a judge) on the part of the real data that the recipe names."""
    unit, spec = f"models/{name}", work.parts.recipe.models[name].fit
    assert spec is not None
    if work.finished(unit, "fit"):
        return Done()
    own = work.tools.train if spec.split == "train" else work.tools.held_out
    other = work.tools.held_out if spec.split == "train" else work.tools.train
    samples = where(own, spec.where, f"models.{name}.fit")
    model = work.parts.model(name)
    model.build(samples, work.key("build", name))
    if work.follower:
        _fitted(work, unit, model, spec, Mixture(samples, np.ones(len(samples))), other)
        work.wait_for(unit, "fit")
        return Done()
    with work.committing(unit, "fit") as out:
        mixture = Mixture(samples, np.ones(len(samples)))
        tables.write_mixture(out.path / "mixture.parquet", mixture, [DATA] * len(samples))
        with work.computing(out):
            history = _fitted(work, unit, model, spec, mixture, other)
        _finish(work, out, unit, model, history, parent=None)
    shutil.rmtree(_progress(work, unit), ignore_errors=True)
    return Done()


def train(work: Work, unit: str, spec: Training, start: str | None) -> Outcome:
    """The policy on the unit's mixture, from the weights of unit ``start`` or from nothing."""
    if work.finished(unit, "train"):
        return Done()
    mixture = tables.read_mixture(work.run, work.run.unit(unit) / "mixture.parquet")
    if start is None:
        policy: Trainable = work.parts.model("policy")
        policy.build(mixture.samples, work.key("build", "policy"))
        parent = None
    else:
        parent = work.policy(start).id
        policy = load_model(work.parts, "policy", work.model_folder(start), parent)
    if work.follower:
        _fitted(work, unit, policy, spec, mixture, work.tools.held_out)
        work.wait_for(unit, "train")
        return Done()
    with work.committing(unit, "train") as out:
        with work.computing(out):
            history = _fitted(work, unit, policy, spec, mixture, work.tools.held_out)
        _finish(work, out, unit, policy, history, parent)
    shutil.rmtree(_progress(work, unit), ignore_errors=True)
    return Done()


def _finish(work: Work, out: Any, unit: str, model: Trainable, history: History, parent: str | None) -> None:
    model.save(out.path / "model")
    progress = _progress(work, unit)
    for kept in sorted(progress.glob("epoch-*")):
        target = out.path / "checkpoints" / kept.name
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(kept, target)
    (out.path / "losses.json").write_text(json.dumps(history.points, indent=1))
    identity = f"model-{tree_hash(out.path / 'model')[:16]}"
    out.info.update(model=identity, parent=parent, steps=history.steps, stopped=history.stopped, mixture=unit)


def _progress(work: Work, unit: str) -> Path:
    return work.run.unit(unit) / ".train-progress"


def _fitted(
    work: Work, unit: str, model: Trainable, spec: Training, mixture: Mixture, held_out: Samples
) -> History:
    """In closed form where the model can and the objective is likelihood; by gradient steps elsewhere."""
    from upturn import trainer

    objective = work.parts.objective(spec)
    if isinstance(model, ClosedForm) and spec.objective["name"] == "likelihood":
        model.fit(mixture.samples, mixture.weights)
        return trainer.History(steps=1)
    progress = _progress(work, unit)
    progress.mkdir(parents=True, exist_ok=True)
    key = work.key("train", unit)
    examples = encode_examples(model, mixture, objective)
    for note in getattr(model, "notes", ()):  # what encoding cut or did not know: never silent
        work.watch.note(f"{unit}: {note}")
    if len(examples) == 0:
        raise UserError("there is nothing to train on: the mixture is empty", where=unit)
    recipe = work.parts.recipe
    with tracking(None if work.follower else recipe.tracker, work.run.folder, f"{recipe.name}/{unit}") as log:
        plan = trainer.Plan(
            spec=spec, objective=objective, adapter=work.parts.adapter(spec),
            feed=FixedFeed(examples, spec.batch_size, key), key=key, where=unit,
            held_out=_held_out(model, held_out, objective), progress=progress,
            on_step=lambda step, total, loss: work.watch.advance(step, total, f"loss {loss:.4f}"),
            on_epoch=(lambda epoch: None) if work.follower else _keeper(model, progress), log=log,
        )
        return trainer.train(model, plan)


def _keeper(model: Trainable, progress: Path) -> Callable[[int], None]:
    def keep(epoch: int) -> None:
        target = progress / f"epoch-{epoch:04d}"
        partial = progress / f".epoch-{epoch:04d}.tmp"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        model.save(partial)
        partial.rename(target)

    return keep


def encode_examples(model: Trainable, mixture: Mixture, objective: Objective) -> Batch:
    """Samples with their weights, or pairs: two rows a pair, the better first, as the mix stage wrote them."""
    encoded = model.encode(mixture.samples)
    weights = torch.from_numpy(mixture.weights.astype(np.float32))
    if objective.example == "group":
        pairs = len(mixture.samples) // 2
        ranks = torch.tensor([[1, 2]]).expand(pairs, 2)
        return Batch(encoded.columns, 2, {**encoded.given, "ranks": ranks, "weights": weights.reshape(-1, 2)[:, 0]})
    return Batch(encoded.columns, 1, {**encoded.given, "weights": weights})


def _held_out(model: Trainable, held_out: Samples, objective: Objective) -> Batch | None:
    if objective.example != "sample" or len(held_out) == 0:
        return None
    return model.encode(held_out.take(np.arange(min(_HELD_OUT, len(held_out)))))
