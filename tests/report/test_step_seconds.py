"""Seconds by step in the report: every step before training has its own label."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from upturn.config import recipe as recipes
from upturn.report.bars import times
from upturn.report.titles import STEPS
from upturn.runs.status import RoundStatus, RunStatus

RECIPE = recipes.load(Path(__file__).parents[2] / "recipes" / "points.yaml", ["usd_per_hour=3600"])


def test_filter_and_provenance_are_not_drawn_as_fitting() -> None:
    setup = {"load": 1.0, "filter": 2.0, "provenance": 3.0, "score_words": 4.0, "models/a": 5.0, "models/b": 6.0}
    zero = RoundStatus(0, "rounds/000", "done", None, None, {}, None, {}, {}, 0.0)
    status = RunStatus("run", Path("run"), "done", "", RECIPE, (zero,), setup)
    found = times(cast(Any, SimpleNamespace(status=status, recipe=RECIPE)))
    assert found is not None
    (bar,) = found.bars
    lengths = {segment.title.split(":")[0]: segment.share * 21 for segment in bar.segments}
    assert {name: round(length) for name, length in lengths.items()} == {
        STEPS["load"]: 1, STEPS["provenance"]: 3, STEPS["filter"]: 2, STEPS["score_words"]: 4, STEPS["fit"]: 11
    }
    assert len({colour for colour, _ in found.legend}) == 5
    assert status.setup_usd == 21.0 and status.to_json()["setup"]["usd"] == 21.0
