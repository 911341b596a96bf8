"""The steps of a run in the order in which they happen, and their titles for readers."""

from __future__ import annotations

from collections.abc import Mapping

CHECKPOINTS = "checkpoints"
STEP_TITLES: Mapping[str, str] = {
    "load": "loading data", "provenance": "checking provenance", "filter": "filtering data",
    "score_words": "adding score words", "sample": "sampling", "vote": "collecting votes", "edit": "collecting edits",
    "judge": "collecting comparisons", "fit": "fitting helper models", "score": "scoring", "curate": "curation",
    "mix": "mixing", "train": "training", "evaluate": "evaluation", CHECKPOINTS: "evaluating checkpoints",
    "gate": "gate", "base": "linking",
}


def step_group(step: str) -> str:
    """The step under which the time of a recorded step is counted: every ``epoch-NNNN`` evaluates a checkpoint."""
    return CHECKPOINTS if step.startswith("epoch-") else step
