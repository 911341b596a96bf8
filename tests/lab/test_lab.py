"""The frame of the lab: one file is an experiment, it resumes, its processes agree, its page tells right from wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from typer.testing import CliRunner

from upturn import report, theory
from upturn.cli import app
from upturn.config import components
from upturn.errors import RunError, UserError
from upturn.lab import experiment_runner
from upturn.lab.experiment import AtOnce, Cell, Chart, Chunk, Experiment, State, setting, source
from upturn.lab.rows import Formula, LabRow, judged, measured
from upturn.observer import Observer
from upturn.report import theory_chart
from upturn.store.columns import read_table

pytestmark = pytest.mark.slow

FEW = {"n": [10, 50], "rounds": 3, "replicas": 400}


@dataclass
class Coin(AtOnce):
    """A coin that learns its own bias."""

    n: list[int] = setting([10, 100], "tosses a round")
    rounds: int = setting(5, "rounds")
    replicas: int = setting(1000, "repetitions")
    wrong: float = setting(0.0, "added to what theory says")

    title: ClassVar[str] = "A coin"
    question: ClassVar[str] = "When does it land on one side for good?"
    formulas: ClassVar[Mapping[str, Formula]] = {
        "drift": Formula("p(1-p)(1-1/n)^t", "Wright–Fisher.", "theory.mean_heterozygosity")
    }

    def run(self, cells: Sequence[Cell]) -> Chunk:
        rows = []
        for place, cell in enumerate(cells):
            if cell["n"] < 0:
                raise FloatingPointError("a coin that cannot be tossed")
            rng, p = source("coin", cell), np.full(self.replicas, 0.5)
            for t in range(1, self.rounds + 1):
                p = rng.binomial(cell["n"], p) / cell["n"]
                said = theory.mean_heterozygosity(cell["n"], t, 0.25) + self.wrong
                rows.append(measured(place, "p(1-p)", t, p * (1 - p), said, "drift"))
        return Chunk(rows)

    def charts(self) -> Sequence[Chart]:
        return [Chart("p(1-p)", "Half the chance that two tosses differ.", "p(1-p)", series="n")]


@dataclass
class Walk(Experiment):
    """A walk that remembers where it stands; ``Walk.stops`` is the step that it fails at."""

    seed: list[int] = setting([1, 2], "whose chance")
    steps: int = setting(5, "steps")

    title: ClassVar[str] = "A walk"
    question: ClassVar[str] = "Where does it end?"
    stops: ClassVar[int] = 0

    def chunks(self, cells: Sequence[Cell], after: int, state: State) -> Iterator[Chunk]:
        at = np.array(state.get("at", np.zeros(3)))
        for step in range(after + 1, self.steps + 1):
            if step == self.stops:
                raise FloatingPointError("lost the way")
            at = at + source("walk", cells[0], step).normal(size=3)
            yield Chunk([measured(0, "at", step, at)], (), {"at": at})

    def charts(self) -> Sequence[Chart]:
        return [Chart("At", "Where it stands.", "at")]


COIN = "test_lab:Coin"


class Seen(Observer):
    """Which stacks were computed."""

    def __init__(self) -> None:
        self.stacks: list[str] = []

    def end(self, stack: str, *rest: object) -> None:
        self.stacks.append(stack)


def test_a_class_of_ones_own_runs_and_its_page_says_what_came_out(tmp_path: Path) -> None:
    found = experiment_runner.conduct(COIN, FEW, tmp_path, workers=1)
    assert found["agree"] and found["tested"] == 6 and found["largest_z"] <= 4
    rows = read_table(tmp_path / "table.parquet").to_pylist()
    assert [(row["n"], row["round"]) for row in rows] == [(n, t) for n in (10, 50) for t in (1, 2, 3)]
    page = report.write_lab(tmp_path).read_text(encoding="utf-8")
    assert "A coin" in page and "The formula holds: 6 checks" in page and "n = 50" in page
    bad = experiment_runner.conduct(COIN, {**FEW, "wrong": 0.05}, tmp_path / "bad", workers=1)
    assert not bad["agree"] and bad["verdict"][0]["failed"] == 6
    assert "The simulation contradicts 1 of 1 formula" in report.write_lab(tmp_path / "bad").read_text(encoding="utf-8")


def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    seen = Seen()
    experiment_runner.conduct(COIN, {**FEW, "n": [10]}, tmp_path, seen, 1)
    assert len(seen.stacks) == 1
    experiment_runner.conduct(COIN, FEW, tmp_path, seen, 1)  # a value more: only its cell
    assert len(seen.stacks) == 2
    experiment_runner.conduct(COIN, {**FEW, "rounds": 4}, tmp_path, seen, 1)  # another setting: all cells
    assert len(seen.stacks) == 4
    again = experiment_runner.conduct(COIN, FEW, tmp_path, seen, 1)
    new = experiment_runner.conduct(COIN, FEW, tmp_path / "new", workers=1)
    assert len(seen.stacks) == 4 and again["checks"] == new["checks"]


def test_what_a_failure_leaves_is_kept(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError):
        experiment_runner.conduct(COIN, {**FEW, "n": [10, -1]}, tmp_path, workers=1)
    seen = Seen()
    experiment_runner.conduct(COIN, FEW, tmp_path, seen, 1)
    assert seen.stacks == ["stack 2 of 2"]


def test_only_the_last_state_is_kept_and_none_of_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States hold whole models: the one to go on from is enough, and what it gives is what an unbroken run gives."""
    def states(folder: Path) -> list[str]:
        return sorted(path.name for path in folder.rglob("state-*"))

    whole = experiment_runner.conduct("test_lab:Walk", {}, tmp_path / "whole", workers=1)
    assert states(tmp_path / "whole") == []
    monkeypatch.setattr(Walk, "stops", 4)
    with pytest.raises(FloatingPointError):
        experiment_runner.conduct("test_lab:Walk", {}, tmp_path / "broken", workers=1)
    assert states(tmp_path / "broken") == ["state-0003.safetensors"]
    left = next((tmp_path / "broken").rglob("state-0003*"))
    (left.parent / "state-0002.safetensors").write_bytes(left.read_bytes())  # a kill came before it was deleted
    left.rename(left.with_suffix(".gone"))
    with pytest.raises(RunError, match="missing"):
        experiment_runner.conduct("test_lab:Walk", {}, tmp_path / "broken", workers=1)
    left.with_suffix(".gone").rename(left)
    monkeypatch.setattr(Walk, "stops", 0)
    assert experiment_runner.conduct("test_lab:Walk", {}, tmp_path / "broken", workers=1)["checks"] == whole["checks"]
    assert states(tmp_path / "broken") == []
    left.write_bytes(b"")  # or before the last of what is done was
    experiment_runner.conduct("test_lab:Walk", {}, tmp_path / "broken", workers=1)
    assert states(tmp_path / "broken") == []
    rows = read_table(tmp_path / "broken" / "table.parquet").to_pylist()
    assert rows == read_table(tmp_path / "whole" / "table.parquet").to_pylist() and len(rows) == 10


@pytest.mark.long
def test_processes_make_the_same_table_and_tell_of_a_failure(tmp_path: Path) -> None:
    one, two = (experiment_runner.conduct("categorical", {
        "policy": ["replace", "accumulate"], "replicas": 50, "rounds": 3, "n": [20],
    }, tmp_path / str(count), workers=count) for count in (1, 2))
    assert one["checks"] == two["checks"]
    with pytest.raises(RunError, match="cannot be tossed"):
        experiment_runner.conduct(COIN, {**FEW, "n": [-1, -2]}, tmp_path / "bad", workers=2)


def test_settings_are_checked(tmp_path: Path) -> None:
    for settings in ({"m": 3}, {"n": ["many"]}, {"n": []}):
        with pytest.raises(UserError):
            experiment_runner.conduct(COIN, settings, tmp_path, workers=1)
    with pytest.raises(UserError):
        experiment_runner.conduct(COIN, FEW, tmp_path, workers=0)


def test_a_bound_is_left_on_one_side_only() -> None:
    def at(value: float, error: float = 1.0, tolerance: float = 0.0) -> LabRow:
        return LabRow(0, "x", 1, value, error, 10, 0.0, "f", tolerance)

    assert judged(at(3.0), "equal") == (3.0, True) and judged(at(-5.0), "equal") == (-5.0, False)
    assert judged(at(-5.0), "at most") == (-5.0, True) and judged(at(5.0), "at most") == (5.0, False)
    assert judged(at(5.0), "at least") == (-5.0, True) and judged(at(-5.0), "at least") == (5.0, False)
    assert judged(at(5.0, tolerance=2.0), "equal") == (3.0, True)
    assert judged(at(0.1, error=0.0), "equal") == (None, False) and judged(at(0.0, error=0.0), "equal") == (None, True)
    assert judged(LabRow(0, "x", 1, 1.0, 1.0), "equal") == (None, None)  # no theory


def test_few_events_are_not_certain() -> None:
    """No mode lost in ten replicas, though 0.05 are expected: within the bound thanks to the least variance."""
    row = measured(0, "lost", 1, np.zeros(10), 0.05, "f", variance=0.05)
    assert row.standard_error == pytest.approx(math.sqrt(0.005)) and judged(row, "equal")[1]


def test_the_command_lists_its_experiments_and_says_what_each_asks() -> None:
    run = CliRunner()
    listed, names = run.invoke(app, ["lab", "--help"]).output, set(components.names("experiment"))
    assert all(name in listed for name in names)
    assert {"gaussian", "categorical", "regression", "kde", "mixture"} <= names
    assert {"curation", "verifier", "sampling", "points"} <= names
    told = run.invoke(app, ["lab", "curation", "--help"]).output
    assert "--candidates" in told and "How fast" in told


def test_a_grid_is_given_with_commas(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [
        "lab", COIN, "--n", "10,20", "--rounds", "2", "--replicas", "100", "--workers", "1", "--to", str(tmp_path),
        "--json",
    ])  # fmt: skip
    found = json.loads(done.stdout)
    assert found["grid"] == ["n"] and found["settings"]["n"] == [10, 20] and Path(found["page"]).is_file()


def test_a_bound_far_from_the_measurements_is_text_and_not_drawn_at_the_edge() -> None:
    dots = tuple(theory_chart.Dot(t, 0.9 + 0.001 * t) for t in range(5))
    far_bound, near_bound = ((0, 0.123), (4, 0.574)), ((0, 0.89), (4, 0.9))
    far = theory_chart.figure("lost", [theory_chart.TheorySeries("replace", 0, dots, far_bound, bound=True)])
    near = theory_chart.figure("lost", [theory_chart.TheorySeries("replace", 0, dots, near_bound, bound=True)])
    assert far is not None and near is not None
    assert "replace, bound below: 0.123 to 0.574" in far and "line bound" not in far
    assert "line bound" in near and "bound below" not in near
