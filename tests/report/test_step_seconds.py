"""Seconds by step in the report: every step before training has its own label."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from upturn.config import recipe as recipes
from upturn.report.sections.time_and_cost import times
from upturn.runs.status import RoundStatus, RunStatus
from upturn.runs.steps import STEP_TITLES

RECIPE = recipes.load(Path(__file__).parents[2] / "recipes" / "points.yaml", ["usd_per_hour=3600"])


def test_filter_and_provenance_are_not_drawn_as_fitting() -> None:
    setup = {"load": 1.0, "filter": 2.0, "provenance": 3.0, "score_words": 4.0, "models/a": 5.0, "models/b": 6.0}
    zero = RoundStatus(0, "rounds/000", "done", None, None, {}, None, {}, {}, 0.0)
    status = RunStatus("run", Path("run"), "done", "", RECIPE, (zero,), setup)
    found = times(cast(Any, SimpleNamespace(status=status, recipe=RECIPE)))
    assert found is not None
    (bar,) = found.bars
    lengths = {segment.title.split(":")[0]: segment.share * 21 for segment in bar.segments}
    expected = {"load": 1, "provenance": 3, "filter": 2, "score_words": 4, "fit": 11}
    assert {name: round(length) for name, length in lengths.items()} == {
        STEP_TITLES[step]: seconds for step, seconds in expected.items()
    }
    assert len({colour for colour, _ in found.legend}) == 5
    assert status.setup_usd == 21.0 and status.to_json()["setup"]["usd"] == 21.0
