"""Tests of ``upturn verify``: an intact run, a changed byte, missing files, removed weights, a run in progress."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers.small_recipes import GAUSSIAN, small
from upturn import cli
from upturn.loop import loop
from upturn.store.run import Run

pytestmark = pytest.mark.slow

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    return loop.run(small(GAUSSIAN, "rounds.count=1"), folder).folder


@pytest.fixture
def folder(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "gaussian"))


def verify(folder: Path, *options: str) -> tuple[int, str]:
    result = RUNNER.invoke(cli.app, ["verify", str(folder), *options], catch_exceptions=False)
    return result.exit_code, result.output


def test_an_intact_run(folder: Path) -> None:
    code, text = verify(folder)
    assert code == 0 and "Every file has its recorded hash." in text
    code, text = verify(folder, "--json")
    found = json.loads(text)
    assert code == 0 and found["intact"] and found["damage"] == []
    assert found["steps"] == len(list(folder.rglob("stages/*.json")))


def test_every_file_of_every_unit_is_compared(folder: Path) -> None:
    """Each file below data/, models/ and rounds/, but for the records themselves, is found when one byte changes."""
    paths = [p for top in ("data", "rounds") for p in (folder / top).rglob("*")
             if p.is_file() and p.parent.name != "stages"]
    assert len(paths) == json.loads(verify(folder, "--json")[1])["files"] > 15
    for path in paths:
        content = path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        [damage] = Run.open(folder).verify().damage
        assert damage.path == path or damage.path in path.parents
        path.write_bytes(content)
    assert Run.open(folder).verify().intact


def test_damage_is_reported_with_a_fix(folder: Path) -> None:
    weights = folder / "rounds" / "001" / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (folder / "rounds" / "001" / "scores.parquet").unlink()
    code, text = verify(folder)
    assert code == 1 and "2 damaged." in text
    assert f"{weights.parent}: its bytes are not those that were written" in text
    assert "scores.parquet: missing" in text and f"delete {folder}/rounds/001/stages/score.json" in text


def test_the_stated_fix_repairs_the_run(folder: Path) -> None:
    scores = folder / "rounds" / "001" / "scores.parquet"
    before = scores.read_bytes()
    scores.write_bytes(b"damaged")
    (folder / "rounds" / "001" / "stages" / "score.json").unlink()
    loop.run(small(GAUSSIAN, "rounds.count=1"), folder.parent)
    assert scores.read_bytes() == before and verify(folder)[0] == 0


def test_missing_files_of_the_run_itself(folder: Path) -> None:
    (folder / "fingerprint.json").unlink()
    code, text = verify(folder)
    assert code == 1 and "fingerprint.json: missing" in text


def test_removed_weights_are_no_damage(tmp_path: Path) -> None:
    run = loop.run(small(GAUSSIAN, "rounds.count=3", "keep.weights=last 1"), tmp_path)
    removed = len(run.deletions())
    code, text = verify(run.folder)
    assert removed and code == 0 and f"removed on purpose: {removed}" in text


def test_a_run_in_progress(folder: Path) -> None:
    run = Run.open(folder)
    with run, run.commit("rounds/002", "sample") as out:
        (out.path / "samples.parquet").write_text("not finished")
        code, text = verify(folder)
        assert code == 0 and "in progress" in text
