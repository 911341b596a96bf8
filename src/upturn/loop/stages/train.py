"""A model trained on a mixture: the policy's stages and rounds, and the judges before them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from upturn import seeds
from upturn.config.schema import Training
from upturn.data.groups import encode_groups, from_fields, without_empty
from upturn.data.labelled import labelled, labels_of
from upturn.errors import RunError, UserError
from upturn.loop.assembly import load_model
from upturn.loop.run_context import RunContext
from upturn.loop.stages.mix import learned
from upturn.loop.stages.online import Draws, keep_draws
from upturn.loop.stages.outcome import Done, Outcome
from upturn.loop.stages.reward_model_quality import assess
from upturn.loop.stages.score_words import with_words, with_words_in_prompts
from upturn.loop.stages.warnings import training_warnings
from upturn.loop.tools import where
from upturn.protocols import ClosedForm, Objective, Trainable, ValueHead
from upturn.store import parquet_tables
from upturn.store.checkpoints import tree_hash
from upturn.store.commit import Draft
from upturn.store.promotion import SKIPPED
from upturn.store.units import DATA, model_unit, unit_round
from upturn.store.weights import link_equal
from upturn.training import step_log
from upturn.training.feeds import Feed, FixedFeed, OnlineFeed, steps_of_a_draw
from upturn.training.tracking import tracking
from upturn.types import Batch, Mixture, Samples

if TYPE_CHECKING:
    from upturn.training.history import History

_HEAD = 2**62 + 1  # the index of the value head's key among the keys of the steps
_HELD_OUT = 512  # samples in the held-out loss of the training curve: its noise there is below what a plateau shows


def fit(context: RunContext, name: str) -> Outcome:
    """A helper model (a judge) on the part of the real data that the recipe names."""
    unit, spec = model_unit(name), context.parts.recipe.models[name].fit
    assert spec is not None
    if context.finished(unit, "fit"):
        return Done()
    if context.parts.recipe.models[name].ready:
        return _taken(context, unit, name)
    own = context.tools.train if spec.split == "train" else context.tools.held_out
    other = context.tools.held_out if spec.split == "train" else context.tools.train
    samples, _ = learned(context.parts.objective(spec), where(own, spec.where, f"models.{name}.fit"))
    model = context.parts.model(name)
    model.build(samples, context.key("build", name))
    if context.follower:
        fitted(context, unit, model, spec, Mixture(samples, np.ones(len(samples))), other)
        context.wait_for(unit, "fit")
        return Done()
    with context.committing(unit, "fit") as out:
        mixture = Mixture(samples, np.ones(len(samples)))
        parquet_tables.write_mixture(out.path / "mixture.parquet", mixture, [DATA] * len(samples))
        with context.computing(out):
            history = fitted(context, unit, model, spec, mixture, other)
            out.info.update(assessed(model, other, name, context.key("assess", name)))
        finish(context, out, unit, model, history, parent=None)
    shutil.rmtree(context.progress(unit), ignore_errors=True)
    return Done()


def _taken(context: RunContext, unit: str, name: str) -> Outcome:
    """A helper model as it comes: nothing of this data is in it, but the run keeps it, as it keeps all it used."""
    if context.follower:
        context.wait_for(unit, "fit")
        return Done()
    from upturn.training.history import History

    with context.committing(unit, "fit") as out:
        _without_mixture(context, out.path)
        model = context.parts.model(name)
        model.build(context.tools.train, context.key("build", name))
        out.info.update(assessed(model, context.tools.held_out, name, context.key("assess", name)))
        finish(context, out, unit, model, History(), parent=None)
    return Done()


def _without_mixture(context: RunContext, folder: Path) -> None:
    """The mixture of a model that this run does not train: no rows."""
    nothing = context.tools.train.take([])
    parquet_tables.write_mixture(folder / "mixture.parquet", Mixture(nothing, np.zeros(0)), [])


def as_it_came(context: RunContext, unit: str) -> Outcome:
    """The pre-trained policy before any stage: nothing of this data is in it, and what follows is compared with it."""
    if context.finished(unit, "train"):
        return Done()
    if context.follower:
        context.wait_for(unit, "train")
        return Done()
    from upturn.training.history import History

    with context.committing(unit, "train") as out:
        _without_mixture(context, out.path)
        with context.computing(out):
            policy: Trainable = context.parts.model("policy")
            policy.build(context.tools.train, context.key("build", "policy"))
        finish(context, out, unit, policy, History(), parent=None)
    return Done()


def train(context: RunContext, unit: str, spec: Training, start: str | None) -> Outcome:
    """The policy on the unit's mixture, from the weights of unit ``start`` or from nothing."""
    if context.finished(unit, "train"):
        return Done()
    mixture = None
    if spec.online is None:
        stored = parquet_tables.read_mixture(context.run, context.run.unit(unit) / "mixture.parquet")
        mixture = Mixture(with_words_in_prompts(context, stored.samples), stored.weights)
    held_out = with_words_in_prompts(context, with_words(context, context.tools.held_out))
    if start is None:
        policy: Trainable = context.parts.model("policy")
        policy.build(context.tools.train if mixture is None else mixture.samples, context.key("build", "policy"))
        parent = None
    else:
        parent = context.policy(start).id
        policy = load_model(context.parts, "policy", context.model_folder(start), parent)
    if context.follower:
        fitted(context, unit, policy, spec, mixture, held_out)
        context.wait_for(unit, "train")
        return Done()
    with context.committing(unit, "train") as out:
        with context.computing(out):
            history = fitted(context, unit, policy, spec, mixture, held_out)
        if spec.online is not None:
            each = steps_of_a_draw(spec.online.prompts, spec.batch_size, spec.online.passes)
            keep_draws(context, unit, context.progress(unit), -(-history.steps // each), out)
        if history.learned_nothing or out.info.get("rewards_equal"):
            skipped(out, history)
        else:
            finish(context, out, unit, policy, history, parent, start)
    shutil.rmtree(context.progress(unit), ignore_errors=True)
    return Done()


def assessed(model: Trainable, held_out: Samples, name: str, key: int) -> dict[str, Any]:
    """Of a reward model, what it is worth on preferences that it was not fitted on; of others nothing."""
    if model.likelihood != "reward" or not len(held_out):
        return {}
    return {"assessment": assess(model, held_out, name, key)}


def skipped(out: Draft, history: History) -> None:
    """A training in a round in which all candidates of every prompt were equal: no model, and the reason."""
    out.info[SKIPPED] = f"in all {history.steps} steps the candidates of every prompt had equal rewards"
    out.info.update(steps=history.steps, idle_steps=history.idle)


def finish(
    context: RunContext, out: Any, unit: str, model: Trainable, history: History, parent: str | None,
    start: str | None = None,
) -> None:
    """Saves the model and its checkpoints; what is as in unit ``start`` (a tokenizer, an earlier adapter) is linked."""
    model.save(out.path / "model")
    if start is not None:
        link_equal(context.model_folder(start), out.path / "model")
    progress = context.progress(unit)
    for kept in sorted(progress.glob("epoch-*")):
        target = out.path / "checkpoints" / kept.name
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(kept, target, copy_function=os.link)  # one disk: a frozen base stays one file
        link_equal(out.path / "model", target)
    (out.path / "losses.json").write_text(json.dumps(history.points, indent=1))
    if (progress / step_log.NAME).exists():
        shutil.copyfile(progress / step_log.NAME, out.path / step_log.NAME)
    if history.points:
        out.info.update(epochs=history.points[-1]["epoch"], training_seconds=history.seconds)
    identity = f"model-{tree_hash(out.path / 'model')[:16]}"
    out.info.update(model=identity, parent=parent, steps=history.steps, stopped=history.stopped, mixture=unit)
    out.info.update(training_warnings(unit, history, context.observer))


def fitted(
    context: RunContext, unit: str, model: Trainable, spec: Training, mixture: Mixture | None, held_out: Samples
) -> History:
    """In closed form where the model can and the objective is likelihood; by gradient steps elsewhere.

    Without a mixture the policy learns from what it draws itself.
    """
    from upturn.training import trainer
    from upturn.training.history import History
    from upturn.training.setup import TrainingSetup

    objective = context.parts.objective(spec)
    if mixture is not None and isinstance(model, ClosedForm) and objective.maximum_likelihood:
        model.fit(mixture.samples, mixture.weights)
        return History(steps=1)
    progress = context.progress(unit)
    progress.mkdir(parents=True, exist_ok=True)
    key = context.key("train", unit)
    if "values" in objective.inputs:
        assert isinstance(model, ValueHead)  # checked when the recipe was read
        model.add_value_head(int(seeds.fold(key, _HEAD)[0]))
    feed: Feed
    if mixture is None:
        assert spec.online is not None
        draws = Draws(context, unit, model, spec.online, objective, progress)
        feed = OnlineFeed(draws, spec.online.prompts, spec.batch_size, spec.online.passes, key)
    else:
        feed = FixedFeed(_encoded(context, unit, model, mixture, objective), spec.batch_size, key)
    recipe = context.parts.recipe
    with tracking(None if context.follower else recipe.tracker, context.run.folder, f"{recipe.name}/{unit}") as track:
        keep = (lambda epoch: None) if context.follower else _keeper(model, progress)
        if 0 in spec.checkpoint_epochs:
            keep(0)

        def log(line: Mapping[str, float], step: int) -> None:
            track(line, step)
            context.observer.advance(step, setup.total_steps, _progress_text(line))

        setup = TrainingSetup(
            spec=spec, objective=objective, adapter=context.parts.adapter(spec), feed=feed, key=key, where=unit,
            held_out=_held_out(model, held_out, objective), progress=progress,
            on_epoch=keep, log=log, note=lambda text: context.observer.note(f"{unit}: {text}"),
        )
        history = trainer.train(model, setup)
    if history.learned_nothing and unit_round(unit) <= 0:  # a round is skipped instead
        raise RunError(
            "in no step is there anything to train on: every group is a tie", where=unit,
            fix="Check the ranks or scores of the data, or use an objective that learns from ties (davidson, graded).",
        )
    return history


def _progress_text(line: Mapping[str, float]) -> str:
    """Of a line of the log, what a person reads while the training runs."""
    unit = "tokens" if "tokens_per_second" in line else "examples"
    return f"loss {line['loss']:.4f}, {line[f'{unit}_per_second']:,.0f} {unit}/s"


def _encoded(context: RunContext, unit: str, model: Trainable, mixture: Mixture, objective: Objective) -> Batch:
    examples, messages = encode_examples(model, mixture, objective)
    for note in (*messages, *model.notes):  # what encoding cut or did not know
        context.observer.note(f"{unit}: {note}")
    if len(examples) == 0:
        raise UserError("there is nothing to train on: the mixture is empty", where=unit)
    return examples


def _keeper(model: Trainable, progress: Path) -> Callable[[int], None]:
    def keep(epoch: int) -> None:
        target = progress / f"epoch-{epoch:04d}"
        partial = progress / f".epoch-{epoch:04d}.tmp"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        model.save(partial)
        partial.rename(target)

    return keep


def encode_examples(model: Trainable, mixture: Mixture, objective: Objective) -> tuple[Batch, Sequence[str]]:
    """Samples with their weights, or the groups that their fields describe, as many candidates as the objective takes.

    An objective that is ``unrelated`` gets, after each row, the same prompt with another example's content.
    """
    if objective.example != "group":
        encoded = model.encode(mixture.samples)
        weights = torch.from_numpy(mixture.weights.astype(np.float32))
        return without_empty(Batch(encoded.columns, 1, {**encoded.given, "weights": weights})), ()
    groups, messages = from_fields(mixture.samples)
    if objective.unrelated:
        return labelled(model, groups), messages
    # a group has one weight: that of the annotator who voted, else 1
    shares = mixture.weights[groups.rows[:, 0]]
    batch = encode_groups(model, groups, objective.candidates, shares)
    return without_empty(batch), messages


def count_examples(samples: Samples, objective: Objective) -> int:
    """How many examples :func:`encode_examples` makes of samples, without encoding them."""
    if objective.example != "group":
        return len(samples)
    groups, _ = from_fields(samples)
    if objective.unrelated:
        return len(labels_of(groups)[0])
    return int(((groups.rows >= 0).sum(axis=1) >= (objective.candidates or 1)).sum())


def _held_out(model: Trainable, held_out: Samples, objective: Objective) -> Batch | None:
    held_out, _ = learned(objective, held_out)
    if objective.example != "sample" or len(held_out) == 0:
        return None
    return without_empty(model.encode(held_out.take(np.arange(min(_HELD_OUT, len(held_out))))))
