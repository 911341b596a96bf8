"""Studies on the emoji of EmojiTwo: 2,008 images with names and categories."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from common import ROOT, RUNS

from upturn.cli.progress_display import Lines
from upturn.config import recipe
from upturn.loop.assemble import assemble
from upturn.loop.run_context import RunContext
from upturn.metrics._classified import classes_of
from upturn.observer import Observer
from upturn.store.run import Run
from upturn.studies import study_definition, study_runner

EMOJI = ROOT.parent / "shared" / "data" / "emoji"


def found(file: str, *only: str) -> Mapping[str, Any]:
    """results.json of a shipped study on the emoji, of all variants or of some; done before, it is only read."""
    asked = study_definition.load(ROOT / "recipes" / "studies" / file, [f"data.path={EMOJI}", f"threads={cores()}"])
    asked = asked.only(only) if only else asked
    folder = study_runner.conduct(asked, RUNS, Lines())
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


def cores() -> int:
    """Threads for a training: two on one core would wait for each other."""
    return min(2, len(os.sched_getaffinity(0)))


def real_accuracy(done: Run) -> float:
    """Balanced accuracy of the run's referee on the real held-out images."""
    context = RunContext(done, assemble(recipe.parse(done.recipe_text, "recipe.yaml")), Observer())
    held_out = context.tools.held_out
    right = classes_of(held_out, context.tools, "referee")[0] == held_out.labels
    return float(np.mean([right[held_out.labels == label].mean() for label in np.unique(held_out.labels)]))


def value(results: Mapping[str, Any], variant: str, metric: str) -> dict[str, Any]:
    of = next(v for v in results["variants"] if v["name"] == variant)
    figure: dict[str, Any] = of["metrics"][metric]
    return figure


def interval(figure: Mapping[str, Any]) -> str:
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def run_of(file: str, variant: str, *beside: str) -> Run:
    """A variant's run of a shipped study, done with those that the study's own test has ``beside`` it."""
    return Run.open(RUNS / str(found(file, variant, *beside)["name"]) / variant)
