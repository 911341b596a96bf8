"""Tests that a run directory of upturn 0.1.0 still opens."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from upturn import cli, open_run
from upturn.errors import UserError
from upturn.loop import loop
from upturn.store.run import Run

pytestmark = pytest.mark.slow

STORED = Path(__file__).parents[1] / "data_files" / "run_of_0_1_0.tar.xz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with tarfile.open(STORED) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "gaussian"


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(cli.app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_status(folder: Path) -> None:
    seen = json.loads(invoke("status", folder, "--json"))
    assert seen["state"] == "done"
    assert [(r["round"], (r["gate"] or {}).get("decision")) for r in seen["rounds"]] == [(0, None), (1, "rejected")]
    stored = json.loads((folder / "rounds/001/metrics.json").read_text())["reward"]["value"]
    assert open_run(folder).rounds[1].metrics["reward"]["value"] == stored


def test_verify(folder: Path) -> None:
    assert "Every file has its recorded hash." in invoke("verify", folder)


def test_report(folder: Path) -> None:
    page = Path(invoke("report", folder).strip()).read_text(encoding="utf-8")
    assert "<html" in page and "gaussian" in page


def test_sample_draws_what_the_run_drew(folder: Path, tmp_path: Path) -> None:
    files = invoke("sample", folder, "--n", 3, "--to", tmp_path / "samples").split()
    assert len(files) == 3 and all(np.loadtxt(path, delimiter=",").shape == (2,) for path in files)


@pytest.mark.parametrize("what", ["samples", "preferences", "model"])
def test_export(folder: Path, what: str, tmp_path: Path) -> None:
    invoke("export", folder, "--what", what, "--to", tmp_path / what)
    assert (tmp_path / what).is_dir()


def test_trace(folder: Path) -> None:

    from upturn.store import parquet_tables

    sample = parquet_tables.read_samples(folder / "rounds/001/samples.parquet").ids[0]
    assert "rounds/000" in invoke("trace", folder, sample)


def test_resuming_does_nothing_or_is_refused_in_one_message(folder: Path) -> None:
    """With its own recipe a finished run is done; another recipe is refused with the keys that differ."""
    from upturn.config import recipe

    own = recipe.load(folder / "recipe.yaml")
    before = {path: path.read_bytes() for path in folder.rglob("*.parquet")}
    assert loop.run(own, folder.parent).state.state == "done"
    assert {path: path.read_bytes() for path in folder.rglob("*.parquet")} == before
    other = recipe.load(folder / "recipe.yaml", ["rounds.mix.lambda=3.0"])
    with pytest.raises(UserError, match=r"rounds\.mix\.lambda"):
        loop.run(other, folder.parent)


def test_versions_that_differ_are_noted(folder: Path) -> None:
    notes: list[str] = []
    text = (folder / "fingerprint.json").read_text().replace('"torch": "', '"torch": "0.')
    (folder / "fingerprint.json").write_text(text)

    class Recorder(loop.Observer):
        def note(self, text: str) -> None:
            notes.append(text)

    run = Run.open(folder)
    from upturn.config import recipe

    loop.run(recipe.load(run.folder / "recipe.yaml"), folder.parent, Recorder())
    assert any("torch" in note and "may not be the same bytes" in note for note in notes)
