"""Tests of the installed wheel without a checkout: the demo's commands, shipped recipes and the voting page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FEW = ("rounds.count=1", "stages.0.steps=20", "rounds.train.steps=5", "rounds.sample.prompts=40", "evaluate.prompts=40")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; the dependencies are those of this one, on a path of their own."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    found = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(found), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return found


def call(python: Path, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(python), *arguments], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_the_wheel_holds_recipes_and_data_files(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    recipes = {path.relative_to(ROOT / "recipes").as_posix() for path in (ROOT / "recipes").rglob("*.yaml")}
    assert {f"upturn/config/shipped_recipes/{name}" for name in recipes} <= names
    others = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "upturn").rglob("*")
              if path.is_file() and "__pycache__" not in path.parts}
    assert others <= names
    assert not [name for name in names if name.startswith(("tests/", "bench/"))]


@pytest.mark.long
@pytest.mark.slow
def test_a_wheel_runs_without_the_checkout(python: Path, tmp_path: Path) -> None:
    home = call(python, tmp_path, "-c", "import upturn; print(upturn.__file__)")
    assert Path(home.strip()).is_relative_to(python.parents[1])
    assert re.fullmatch(r"upturn \d+\.\d+\.\d+\n", call(python, tmp_path, "-m", "upturn", "--version"))
    assert "verify" in call(python, tmp_path, "-m", "upturn", "--help")
    call(python, tmp_path, "-m", "upturn", "new", "--from", "points")
    assert (tmp_path / "points.yaml").read_bytes() == (ROOT / "recipes" / "points.yaml").read_bytes()
    settings = [part for one in FEW for part in ("--set", one)]
    script = str(python.parent / "upturn")  # the installed command
    assert "points: done" in call(Path(script), tmp_path, "run", "points.yaml", *settings)
    page = tmp_path / call(python, tmp_path, "-m", "upturn", "report", "points").strip()
    assert "<html" in page.read_text(encoding="utf-8")
    assert voting_page(python, tmp_path) == 200


def voting_page(python: Path, folder: Path) -> int:
    """The status of the voting page's answer on localhost."""
    command = [str(python), "-u", "-m", "upturn", "serve", "points", "--no-studio", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            for line in server.stdout:
                address = re.search(r"http://[\w.:]+", line)
                if address and line.startswith("Listening"):
                    break
            else:
                raise AssertionError("the server did not start")
            with urllib.request.urlopen(f"{address[0]}/signin", timeout=30) as answer:
                return int(answer.status)
        finally:
            server.terminate()
