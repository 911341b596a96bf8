"""Runs a recipe to its end while simulated annotators answer its polls over HTTP."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from upturn.annotation.content import ContentStore
from upturn.annotation.poll import box_of, unanswered
from upturn.annotation.simulated_annotator import SimulatedAnnotator
from upturn.config.recipe import Recipe
from upturn.config.schema import People
from upturn.errors import RunError, UserError
from upturn.loop import loop
from upturn.loop.assemble import assemble
from upturn.loop.assembly import Assembly
from upturn.loop.run_context import RunContext
from upturn.observer import Observer
from upturn.store import parquet_tables
from upturn.store.run import Run
from upturn.web.server_state import ServerState
from upturn.web.simulated_annotators import crowd, simulate


def run_through(
    recipe: Recipe, runs: Path, observer: Observer | None = None, fork: tuple[Path, int] | None = None
) -> Run:
    """``loop.run``, answered each time it waits by the people that ``rounds.people.simulated`` describes.

    Raises UserError where the recipe has none, RunError where they cannot give all that is asked.
    """
    people = recipe.rounds.people if recipe.rounds else None
    if people is None or people.simulated is None:
        raise UserError("nobody is there to vote", where="rounds.people.simulated",
                        fix="Describe them: {score: a scorer, count: 5, temperature: 1, careless: 0.1}.")
    observer, before = observer or Observer(), ""
    while True:
        run = loop.run(recipe, runs, observer, fork)
        fork = None
        if run.state.state != "waiting":
            return run
        if run.state.message == before:
            raise RunError(f"simulated people gave all they could: {before}", where=str(run.folder))
        before = run.state.message
        with run:
            given = answer(run, assemble(recipe), people)
        observer.note(f"simulated people gave {given} answers")


def answer(run: Run, parts: Assembly, people: People) -> int:
    """Everything that a waiting run asks is answered; how many answers were given."""
    simulated = people.simulated
    assert simulated is not None
    unit = unanswered(run)
    assert unit is not None, "a run that waits for people has a round that they have not answered"
    samples = parquet_tables.read_samples(run.unit(unit) / parquet_tables.SAMPLES)
    _, liked = RunContext(run, parts, Observer()).judged(samples, parts.taste)
    if np.isnan(liked).all():
        raise RunError("the taste of the simulated people says nothing of any sample", where=unit)
    liked = np.where(np.isnan(liked), np.nanmin(liked), liked)  # what cannot be judged is liked least
    rewards = dict(zip(samples.ids.astype(str).tolist(), liked.tolist(), strict=True))
    voters = [SimulatedAnnotator(temperature=simulated.temperature, careless=simulated.careless)] * simulated.count
    contents = ContentStore(run)
    try:
        with box_of(run, people) as box, crowd(ServerState(run.name, box, contents), voters) as (address, tokens):
            return simulate(address, tokens, rewards.__getitem__, voters, simulated.seed).votes
    finally:
        contents.close()
