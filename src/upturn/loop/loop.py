"""stages × rounds: stops, waits, resumes, promotes.

A run is a folder; every step in it is either committed or it never happened. To resume is to run again: what is
committed is passed over, and what is missing is a function of what is there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from upturn.annotation.vote_mode import mode_named
from upturn.config.recipe import Recipe, differences, parse, to_yaml
from upturn.errors import RunError, UserError
from upturn.loop import stages
from upturn.loop.assemble import assemble
from upturn.loop.assembly import Assembly
from upturn.loop.stages.context import Waiting, Work, round_unit, stage_unit
from upturn.observer import Watch
from upturn.store.fingerprint import changes, fingerprint
from upturn.store.run import Run

_POLL = 0.05  # seconds between two looks for the run that the first process makes
Step = Callable[[], stages.Outcome]


def run(recipe: Recipe, runs: Path, watch: Watch | None = None, fork: tuple[Path, int] | None = None) -> Run:
    """Start a run, or go on with it; ``fork`` starts from another run's folder as it was after a round.

    Returns the run in state ``done`` or ``waiting``. Raises UserError before anything is spent, RunError after.
    """
    watch = watch or Watch()
    parts = assemble(recipe)
    _set_threads(recipe)
    folder = runs / recipe.name
    if not is_first_process():
        return _follow(parts, folder)
    found = _opened(recipe, folder, watch, fork)
    with found:
        found.set_state("running")
        try:
            waiting = _through(Work(found, parts, watch), parts)
        except UserError as error:
            found.set_state("failed", str(error))
            raise
        except OSError as error:
            found.set_state("failed", str(error))
            raise RunError(
                f"the disk refuses: {error.strerror}", where=str(error.filename or folder),
                fix="Mend that and run again: all that was finished is kept.",
            ) from error
        except BaseException as error:
            found.set_state("failed", f"stopped by {type(error).__name__}")
            raise
        found.set_state("waiting" if waiting else "done", waiting.missing if waiting else "")
    return found


def is_first_process() -> bool:
    """Whether this process commits, and speaks, for all that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def _follow(parts: Assembly, folder: Path) -> Run:
    """One of several processes that is not the first: it shares the training and commits nothing."""
    while not (folder / "state.json").exists():
        time.sleep(_POLL)
    found = Run.open(folder)
    _through(Work(found, parts, Watch(), follower=True), parts)
    return found


def _opened(recipe: Recipe, folder: Path, watch: Watch, fork: tuple[Path, int] | None) -> Run:
    here = fingerprint()
    if not (folder / "recipe.yaml").exists():
        if fork is not None:
            made = Run.fork(Run.open(fork[0]), fork[1], folder, to_yaml(recipe), here)
            watch.note(f"forked from {fork[0]} after round {fork[1]}")
            return made
        return Run.create(folder, to_yaml(recipe), here, catalog=recipe.catalog)
    if fork is not None:
        raise UserError("the run exists already", where=str(folder), fix="Give the fork another --name.")
    found = Run.open(folder)
    changed = differences(parse(found.recipe_text, str(folder / "recipe.yaml")), recipe)
    if changed:
        raise UserError(
            f"the run was started with another recipe: {'; '.join(changed[:3])}"
            f"{f' and {len(changed) - 3} more' if len(changed) > 3 else ''}",
            where=str(folder), fix="Give this one another --name, or start it '--from' the old run.",
        )
    for change in changes(found.fingerprint, here):
        watch.note(f"{change}: from here on the bytes may differ from an undisturbed run's")
    return found


def _through(work: Work, parts: Assembly) -> Waiting | None:
    """Every step in order; the first that waits ends the turn."""
    for step in _steps(work, parts):
        outcome = step()
        if isinstance(outcome, Waiting):
            return outcome
    return None


def _steps(work: Work, parts: Assembly) -> Iterator[Step]:
    recipe = parts.recipe
    yield lambda: stages.load(work)
    for name, model in recipe.models.items():
        if model.fit is not None:
            yield lambda name=name: stages.fit(work, name)  # type: ignore[misc]
    if recipe.provenance is not None:
        yield lambda: stages.provenance(work)
    if recipe.filter is not None:
        yield lambda: stages.filter_real(work)
    if recipe.score_words is not None:
        yield lambda: stages.score_words(work)
    start: str | None = None
    for stage in recipe.stages:
        unit = stage_unit(stage.name)
        yield lambda unit=unit, stage=stage: stages.mix_real(work, unit, stage)  # type: ignore[misc]
        yield lambda unit=unit, stage=stage, start=start: stages.train(work, unit, stage, start)  # type: ignore[misc]
        yield lambda unit=unit: stages.evaluate(work, unit)  # type: ignore[misc]
        yield lambda unit=unit, stage=stage: stages.checkpoints(work, unit, stage)  # type: ignore[misc]
        start = unit
    assert start is not None
    yield lambda: stages.base(work, start)
    if recipe.rounds is None:
        return
    for number in range(1, recipe.rounds.count + 1):
        yield from _round(work, recipe, number)


def _round(work: Work, recipe: Recipe, number: int) -> Iterator[Step]:
    rounds = recipe.rounds
    assert rounds is not None
    unit, incumbent = round_unit(number), work.incumbent(number)
    if rounds.sample is not None:
        yield lambda: stages.sample(work, unit, number, incumbent)
        if rounds.people is not None:
            yield lambda: stages.vote(work, unit)
            if mode_named(rounds.people.mode).feedback == "correction":
                yield lambda: stages.edited(work, unit)
        for name, model in recipe.models.items():
            if model.refit is not None:
                yield lambda name=name: stages.judge(work, unit, name, number)  # type: ignore[misc]
                yield lambda name=name: stages.refit(work, unit, name, incumbent)  # type: ignore[misc]
        yield lambda: stages.score(work, unit)
        yield lambda: stages.curate(work, unit)
    start = incumbent if rounds.start == "incumbent" else None
    for place, turn in enumerate(rounds.train):
        # the last training makes the round's model; those before it stand in folders of their own
        into = unit if place == len(rounds.train) - 1 else f"{unit}/{turn.label}"
        if turn.online is None:
            yield lambda into=into, turn=turn: stages.mix_round(work, into, number, turn)  # type: ignore[misc]
        yield lambda into=into, turn=turn, start=start: stages.train(work, into, turn, start)  # type: ignore[misc]
        start = into
    yield lambda: stages.evaluate(work, unit)
    yield lambda: stages.checkpoints(work, unit, rounds.train[-1])
    yield lambda: stages.gate(work, unit, number, incumbent)
    yield lambda: stages.prune(work)


def _set_threads(recipe: Recipe) -> None:
    """Threads are part of the promise of the same bytes: sums in another order round differently."""
    import torch

    torch.set_num_threads(recipe.threads or os.cpu_count() or 1)
    if not torch.cuda.is_available():
        torch.use_deterministic_algorithms(True)
