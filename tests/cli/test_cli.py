"""Tests of the command line: exit codes, messages, and the output of each command."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers.small_recipes import GAUSSIAN
from upturn import cli
from upturn.errors import RunError, UserError

pytestmark = pytest.mark.slow

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "recipe.yaml").write_text(GAUSSIAN)
    done = invoke("run", folder / "recipe.yaml", "--runs", folder / "runs")
    assert "gaussian: done" in done and "report.html" in done
    return folder / "runs"


def invoke(*arguments: object) -> str:
    result = RUNNER.invoke(cli.app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.long
def test_status_report_and_compare(runs: Path) -> None:
    seen = json.loads(invoke("status", "gaussian", "--runs", runs, "--json"))
    assert [r["round"] for r in seen["rounds"]] == [0, 1, 2, 3]
    assert "reward" in invoke("status", "gaussian", "--runs", runs)
    page = Path(invoke("report", "gaussian", "--runs", runs).strip())
    assert page.is_file() and "<html" in page.read_text()
    change = ["--set", "rounds.mix.lambda=0.25"]
    invoke("run", "--from", "gaussian", "--round", 1, "--name", "forked", "--runs", runs, *change)
    found = json.loads(invoke("compare", "gaussian", "forked", "--runs", runs, "--json"))
    assert found["recipe"] == ["rounds.mix.lambda: 1.0 -> 0.25"]
    same = [row for row in found["metrics"] if row["round"] == 1]
    assert all(row["a"] == row["b"] and row["apart"] == "not apart" for row in same)
    assert "rounds.mix.lambda" in invoke("compare", "gaussian", "forked", "--runs", runs)


def test_sample_depends_on_the_seed_alone(runs: Path, tmp_path: Path) -> None:
    def drawn(name: str, *more: object) -> list[str]:
        paths = invoke("sample", "gaussian", "--runs", runs, "--n", 3, "--to", tmp_path / name, *more).split()
        return [Path(path).read_text() for path in paths]

    assert drawn("a") == drawn("b") != drawn("c", "--seed", 1)
    assert len(drawn("d", "--round", 0)) == 3 and drawn("e", "--round", 0) != drawn("a")


def test_trace_and_export(runs: Path, tmp_path: Path) -> None:
    from upturn.store import parquet_tables

    samples = parquet_tables.read_samples(runs / "gaussian" / "rounds" / "002" / "samples.parquet")
    up = json.loads(invoke("trace", "gaussian", samples.ids[0], "--runs", runs, "--json"))
    assert "rounds/001" in json.dumps(up) or "rounds/000" in json.dumps(up)
    real = parquet_tables.read_samples(runs / "gaussian" / "data" / "samples.parquet")
    row = int((real.fields["split"].astype(str) == "train").argmax())
    down = invoke("trace", "gaussian", real.ids[row], "--down", "--runs", runs)
    assert "rounds/003" in down
    for what in ("samples", "preferences", "model"):
        invoke("export", "gaussian", "--what", what, "--to", tmp_path / what, "--runs", runs)
        assert any((tmp_path / what).iterdir())


def test_list_shows_every_kind_with_fields() -> None:
    found = json.loads(invoke("list", "--json"))
    assert {"choice", "best_of_n"} <= found["curator"].keys()
    assert {"pixels", "causal_lm", "gaussian", "points"} <= found["model"].keys()
    assert all(entry["summary"] for kind in found.values() for entry in kind.values())
    assert "temperature" in invoke("list", "curator")
    assert "choice" in invoke("list", "curators")


def test_new_writes_a_recipe_that_is_read(tmp_path: Path) -> None:
    from upturn.config import recipe

    for kind in ("images", "text", "points"):
        invoke("new", tmp_path / f"{kind}.yaml", "--for", kind)
        assert recipe.load(tmp_path / f"{kind}.yaml").rounds is not None


def test_new_writes_every_shipped_recipe(tmp_path: Path) -> None:
    from upturn.config import shipped

    names = shipped.recipe_names()
    assert {"digits", "points", "equations"} <= set(names)
    for name in names:
        invoke("new", "--from", name, tmp_path / f"{name}.yaml")
        source = Path(__file__).parents[2] / "recipes" / f"{name}.yaml"
        assert (tmp_path / f"{name}.yaml").read_bytes() == source.read_bytes()


@pytest.mark.long
def test_the_points_starter_runs(tmp_path: Path) -> None:
    invoke("new", tmp_path / "p.yaml", "--for", "points")
    few = ["rounds.count=1", "stages.0.steps=30", "rounds.train.epochs=1", "evaluate.prompts=60",
           "rounds.sample.prompts=60"]
    out = invoke("run", tmp_path / "p.yaml", "--runs", tmp_path, *(part for one in few for part in ("--set", one)))
    assert "my-points: done" in out


def test_plan_and_lab(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    text = invoke("plan", root / "recipes" / "points.yaml")
    assert "Forecast: " in text and "USD" in text
    found = json.loads(invoke("plan", root / "recipes" / "points.yaml", "--json"))
    assert found["real_fractions"] == [1.0, 0.5, 0.5, 0.5] and found["seconds"] > 1
    few = ("--n", 20, "--rounds", 5, "--replicas", 2000)
    lab = json.loads(invoke("lab", "gaussian", *few, "--to", tmp_path, "--json"))
    assert lab["agree"]


MISTAKES = [
    (["run"], "name a recipe"),
    (["run", "absent.yaml"], "no such recipe"),
    (["run", "--from", "x"], "--from and --round go together"),
    (["run", "--from", "absent", "--round", "1"], "there is no run 'absent'"),
    (["status", "absent"], "there is no run 'absent'"),
    (["compare", "absent", "absent"], "there is no run"),
    (["trace", "gaussian", "zzzzzzzz"], "zzzzzzzz"),
    (["sample", "gaussian", "--round", "9"], "round 9 has no model"),
    (["sample", "gaussian", "--prompt", "seven"], "takes no prompt"),
    (["export", "gaussian", "--what", "opinions"], "cannot export 'opinions'"),
    (["export", "gaussian", "--what", "votes"], "no votes on this run"),
    (["list", "curatorz"], "there is no kind 'curatorz'"),
    (["new", "--for", "music"], "no starter 'music'"),
    (["new", "--from", "digit"], "no shipped recipe 'digit'"),
    (["new", "--from", "digits", "--for", "text"], "exclude each other"),
    (["lab", "gaussian", "--policy", "sometimes"], "sometimes"),
    (["lab", "gaussian", "--n", "0"], "n"),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_a_mistake_is_one_message(arguments: list[str], words: str, runs: Path) -> None:
    placed = arguments if arguments[0] in ("list", "new", "lab") else [*arguments, "--runs", str(runs)]
    with pytest.raises(UserError) as caught:
        RUNNER.invoke(cli.app, placed, catch_exceptions=False)
    assert words in str(caught.value) and caught.value.exit_code == 2


def whole(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "from upturn.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.long
def test_exit_codes_and_no_traceback(tmp_path: Path) -> None:
    bad = whole("run", tmp_path / "absent.yaml")
    assert bad.returncode == 2 and bad.stderr.startswith("upturn: ") and "Traceback" not in bad.stderr
    usage = whole("run", "--nonsense")
    assert usage.returncode == 2 and "Traceback" not in usage.stderr


def test_a_loss_that_is_not_a_number_fails_the_run_and_keeps_the_rest(tmp_path: Path) -> None:
    from helpers.small_recipes import POINTS

    bad = POINTS.replace("{name: finetune, steps: 20,", "{name: finetune, learning_rate: 1.0e+30, steps: 20,")
    (tmp_path / "r.yaml").write_text(bad)
    with pytest.raises(RunError) as caught:
        RUNNER.invoke(cli.app, ["run", str(tmp_path / "r.yaml"), "--runs", str(tmp_path)], catch_exceptions=False)
    assert caught.value.exit_code == 1
    assert "rounds/000/finetune, step" in str(caught.value) and "learning_rate" in str(caught.value)
    assert (tmp_path / "points/rounds/000/pretrain/metrics.json").is_file()
    seen = json.loads(invoke("status", "points", "--runs", tmp_path, "--json"))
    assert seen["state"] == "failed" and seen["rounds"][0]["stages"][0]["state"] == "done"


def test_help_is_quick_and_light() -> None:
    """Twice the bound of 0.5 s, for a machine that is busy with other tests; make bench has the bound itself."""
    began = time.perf_counter()
    assert whole("--help").returncode == 0
    assert time.perf_counter() - began < 1.0
    code = "import upturn.cli, sys; print([m for m in ('torch', 'numpy', 'pandas') if m in sys.modules])"
    light = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert light.stdout.strip() == "[]"
