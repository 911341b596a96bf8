"""The loop: runs the stages of every round, waits for votes, and resumes from the last finished step.

A run is a folder; every step in it is either committed or leaves nothing. To resume is to run again: what is
committed is skipped, and what is missing depends only on what is committed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from upturn.annotation.vote_mode import mode_named
from upturn.config.recipe import Recipe, to_yaml
from upturn.errors import RunError, UserError
from upturn.loop import stages
from upturn.loop.assemble import assemble
from upturn.loop.assembly import Assembly
from upturn.loop.recipe_changes import apply_changes
from upturn.loop.run_context import RunContext
from upturn.loop.stages.outcome import Waiting
from upturn.observer import Observer
from upturn.store.fingerprint import changes, fingerprint
from upturn.store.run import Run
from upturn.store.units import round_unit, stage_unit, within

_POLL = 0.05  # seconds between two looks for the run that the first process creates
Step = Callable[[], stages.Outcome]


def run(recipe: Recipe, runs: Path, observer: Observer | None = None, fork: tuple[Path, int] | None = None) -> Run:
    """Start a run, or resume it; ``fork`` starts from another run's folder, as it was after a round.

    Returns the run in state ``done`` or ``waiting``. Raises UserError before anything is computed, RunError after.
    """
    observer = observer or Observer()
    parts = assemble(recipe)
    _prepare_process(recipe)
    folder = runs / recipe.name
    if not is_first_process():
        return _follow(parts, folder)
    found = _opened(recipe, folder, observer, fork)
    with found:
        found.set_state("running")
        try:
            waiting = _through(RunContext(found, parts, observer), parts)
        except UserError as error:
            found.set_state("failed", str(error))
            raise
        except OSError as error:
            found.set_state("failed", str(error))
            raise RunError(
                f"the disk refuses: {error.strerror}", where=str(error.filename or folder),
                fix="Fix the cause and run again: every finished step is kept.",
            ) from error
        except BaseException as error:
            found.set_state("failed", f"stopped by {type(error).__name__}")
            raise
        found.set_state("waiting" if waiting else "done", waiting.missing if waiting else "")
    return found


def is_first_process() -> bool:
    """Whether this process commits and prints, of all that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def _follow(parts: Assembly, folder: Path) -> Run:
    """One of several processes, not the first: it takes part in training and commits nothing."""
    while not (folder / "state.json").exists():
        time.sleep(_POLL)
    found = Run.open(folder)
    _through(RunContext(found, parts, Observer(), follower=True), parts)
    return found


def _opened(recipe: Recipe, folder: Path, observer: Observer, fork: tuple[Path, int] | None) -> Run:
    here = fingerprint()
    if not (folder / "recipe.yaml").exists():
        if fork is not None:
            forked = Run.fork(Run.open(fork[0]), fork[1], folder, to_yaml(recipe), here)
            observer.note(f"forked from {fork[0]} after round {fork[1]}")
            return forked
        return Run.create(folder, to_yaml(recipe), here, catalog=recipe.catalog)
    if fork is not None:
        raise UserError("the run exists already", where=str(folder), fix="Give the fork another --name.")
    found = Run.open(folder)
    found = apply_changes(found, recipe, observer)
    for change in changes(found.fingerprint, here):
        observer.note(f"{change}: from here on the results may not be the same bytes")
    return found


def _through(context: RunContext, parts: Assembly) -> Waiting | None:
    """Every step in order, up to the first that waits."""
    for step in _steps(context, parts):
        outcome = step()
        if isinstance(outcome, Waiting):
            return outcome
    return None


def _steps(context: RunContext, parts: Assembly) -> Iterator[Step]:
    recipe = parts.recipe
    yield lambda: stages.load(context)
    for name, model in recipe.models.items():
        if model.fit is not None:
            yield lambda name=name: stages.fit(context, name)  # type: ignore[misc]
    if recipe.provenance is not None:
        yield lambda: stages.provenance(context)
    if recipe.filter is not None:
        yield lambda: stages.filter_real(context)
    if recipe.score_words is not None:
        yield lambda: stages.score_words(context)
    start: str | None = None
    if "policy" not in recipe.models:
        return
    last = ""
    for stage in recipe.all_stages:
        unit = last = stage_unit(stage.name)
        if stage not in recipe.stages:  # the model as it came; what follows reads its weights from where they are
            yield lambda unit=unit: stages.as_it_came(context, unit)  # type: ignore[misc]
        else:
            yield lambda unit=unit, stage=stage: stages.mix_real(context, unit, stage)  # type: ignore[misc]
            yield lambda unit=unit, stage=stage, start=start: stages.train(context, unit, stage, start)  # type: ignore[misc]
            start = unit
        if recipe.evaluate:
            yield lambda unit=unit: stages.evaluate(context, unit)  # type: ignore[misc]
            yield lambda unit=unit, stage=stage: stages.checkpoints(context, unit, stage)  # type: ignore[misc]
    yield lambda: stages.base(context, last)
    if recipe.rounds is None:
        return
    for number in range(1, recipe.rounds.count + 1):
        yield from _round(context, recipe, number)


def _round(context: RunContext, recipe: Recipe, number: int) -> Iterator[Step]:
    rounds = recipe.rounds
    assert rounds is not None
    unit, incumbent = round_unit(number), context.incumbent(number)
    if rounds.sample is not None:
        yield lambda: stages.sample(context, unit, number, incumbent)
        if rounds.people is not None:
            yield lambda: stages.vote(context, unit)
            if mode_named(rounds.people.mode).feedback == "correction":
                yield lambda: stages.edited(context, unit)
        for name, model in recipe.models.items():
            if model.refit is not None:
                yield lambda name=name: stages.judge(context, unit, name, number)  # type: ignore[misc]
                if not context.skipped(within(unit, name), "judge"):
                    yield lambda name=name: stages.refit(context, unit, name, incumbent)  # type: ignore[misc]
                reason = context.skipped(within(unit, name), "judge") or context.skipped(within(unit, name), "fit")
                if reason:
                    why = f"'{name}' cannot be fitted: {reason}"
                    yield lambda why=why: stages.skip(context, unit, incumbent, why)  # type: ignore[misc]
                    return
        yield lambda: stages.score(context, unit)
        yield lambda: stages.curate(context, unit)
    start = incumbent if rounds.start == "incumbent" else None
    for place, training in enumerate(rounds.train):
        # the last training gives the round's model; those before it have units of their own
        into = unit if place == len(rounds.train) - 1 else within(unit, training.label)
        if training.online is None:
            yield lambda into=into, training=training: stages.mix_round(context, into, number, training)  # type: ignore[misc]
            reason = context.skipped(into, "mix")
            if reason:
                yield lambda reason=reason: stages.skip(context, unit, incumbent, reason)  # type: ignore[misc]
                return
        yield lambda into=into, training=training, start=start: stages.train(context, into, training, start)  # type: ignore[misc]
        reason = context.skipped(into, "train")
        if reason:
            yield lambda reason=reason: stages.skip(context, unit, incumbent, reason)  # type: ignore[misc]
            return
        start = into
    yield lambda: stages.evaluate(context, unit)
    yield lambda: stages.checkpoints(context, unit, rounds.train[-1])
    yield lambda: stages.gate(context, unit, number, incumbent)
    yield lambda: stages.prune(context)


def _prepare_process(recipe: Recipe) -> None:
    """The device and the threads of this process; of several on one machine each has its share.

    Threads are part of the run's fingerprint: sums in another order round differently.
    """
    import torch

    here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
    if here > 1 and not torch.accelerator.is_available():
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")  # else accelerate connects no processes without a device
    elif torch.cuda.is_available() and here > torch.cuda.device_count():
        raise UserError(
            f"{here} processes, but this machine has {torch.cuda.device_count()} GPUs", where="--processes",
            fix="Start at most one process for each GPU.",
        )
    torch.set_num_threads(recipe.threads or max(1, (os.cpu_count() or 1) // here))
    if not torch.cuda.is_available():
        torch.use_deterministic_algorithms(True)
