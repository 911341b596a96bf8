"""Which keys of a recipe may change on resume: every key of the schema, and what becomes of the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from upturn.config.recipe import Recipe, models_in, parse
from upturn.errors import RunError, UserError
from upturn.loop import loop
from upturn.loop.recipe_changes import AFFECTS, key_changes
from upturn.observer import Observer
from upturn.report import write
from upturn.store import parquet_tables
from upturn.store.checkpoints import tree_hash
from upturn.store.run import Run

TEXT = """
name: edited
threads: 1
data: {name: points, shape: eight_gaussians, n: 300}
models: {policy: {name: points, network: {name: mlp, width: 16, depth: 1}}}
features: points
stages: [{name: pretrain, steps: 20, batch_size: 64}]
rounds:
  count: 1
  sample: {prompts: 20, candidates: 3, settings: {steps: 2}}
  score: {name: closeness, to: [4.0, 0.0], width: 4.0}
  curate: best_of_n
  train: {steps: 4, batch_size: 8}
evaluate: {prompts: 30, metrics: [reward, coverage], settings: {steps: 2}}
gate: {metric: reward}
"""
RICH = """
captions: {name: own}
provenance: {runs: [a]}
filter: {score: ink, curate: subset}
score_words: {score: ink, levels: {0.5: good}}
grid: {texts: [a]}
keep: {weights: promoted, disk_gb: 3}
tracker: mlflow
"""


class Notes(Observer):
    def __init__(self) -> None:
        self.noted: list[str] = []

    def note(self, text: str) -> None:
        self.noted.append(text)


def _parts(model: type[BaseModel]) -> set[type[BaseModel]]:
    found = {model}
    for item in model.model_fields.values():
        for inner in models_in(item.annotation):
            found |= _parts(inner)
    return found


def test_every_key_of_the_schema_says_what_it_affects() -> None:
    """A new key fails here until recipe_changes.AFFECTS has it."""
    parts = {part.__name__: set(part.model_fields) for part in _parts(Recipe)}
    assert {name: set(fields) for name, fields in AFFECTS.items()} == parts
    known = {"load", "provenance", "filter", "score_words", "fit", "mix", "train", "base", "sample", "vote", "judge",
             "score", "curate", "evaluate", "checkpoints", "gate"}
    assert {step for fields in AFFECTS.values() for steps in fields.values() for step in steps} <= known


@pytest.mark.parametrize(("setting", "owner", "field", "unit"), [
    ("stages.0.batch_size=32", "Stage", "batch_size", "rounds/000/pretrain"),
    ("stages.0.objective={name: likelihood, a: 1}", "Stage", "objective", "rounds/000/pretrain"),
    ("rounds.train.0.save_every=3", "Turn", "save_every", ""), ("rounds.mix.lambda=2.0", "Mix", "lambda_", ""),
    ("rounds.score.0.width=3.0", "Rounds", "score", ""), ("rounds.sample.settings.steps=3", "Sampling", "settings", ""),
    ("models.policy.network.width=8", "Model", "name", ""), ("models.judge.fit.split=held_out", "Fit", "split",
                                                             "models/judge"),
    ("models.judge.width=3", "Model", "name", "models/judge"), ("models.fit.fit.steps=8", "Fit", "steps", "models/fit"),
    ("evaluate.0.prompts=9", "Evaluation", "prompts", ""), ("gate.alpha=0.1", "Gate", "alpha", ""),
    ("keep.weights=all", "Keep", "weights", ""), ("score_words.levels={0.7: good}", "ScoreWords", "levels", ""),
    ("grid.prompts=3", "Grid", "prompts", ""), ("data.n=4", "Recipe", "data", ""),
])
def test_a_key_is_found_in_its_class(setting: str, owner: str, field: str, unit: str) -> None:
    models = "models: {judge: {name: classifier, fit: {steps: 5}}, fit: {name: classifier, fit: {steps: 5}}, "
    text = TEXT.replace("models: {", models) + RICH
    old = parse(text, "recipe.yaml", ["rounds.score=[{name: closeness}]", "rounds.train=[{steps: 4}]",
                                      "evaluate=[{metrics: [reward]}]"])
    settings = ["rounds.score=[{name: closeness}]", "rounds.train=[{steps: 4}]", "evaluate=[{metrics: [reward]}]"]
    found = key_changes(old, parse(text, "recipe.yaml", [*settings, setting]))
    assert found and {(one.owner, one.field, one.unit) for one in found} == {(owner, field, unit)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return loop.run(parse(TEXT, "recipe.yaml"), tmp_path_factory.mktemp("runs")).folder


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "step"), [
    ("data.n=200", "load of data"), ("seed=3", "load of data"),
    ("stages.0.learning_rate=0.5", "train of rounds/000/pretrain"), ("stages.pretrain.where={a: b}", "mix of"),
    ("models.policy.network.width=8", "train of rounds/000/pretrain"),
    ("rounds.sample.candidates=4", "sample of rounds/001"), ("rounds.score.width=2.0", "evaluate of rounds/000"),
    ("rounds.curate=choice", "curate of rounds/001"), ("rounds.mix.lambda=0.5", "mix of rounds/001"),
    ("rounds.train.steps=9", "train of rounds/001"), ("rounds.start=scratch", "train of rounds/001"),
    ("evaluate.metrics=[reward]", "evaluate of rounds/000/pretrain"), ("gate.alpha=0.2", "gate of rounds/001"),
    ("features=pixels", "evaluate of rounds/000/pretrain"), ("rounds.count=0", "round 1 has begun"),
])
def test_a_key_of_committed_steps_is_refused_with_the_first_of_them(finished: Path, setting: str, step: str) -> None:
    before = (finished / "recipe.yaml").read_bytes()
    with pytest.raises(UserError) as error:
        loop.run(parse(TEXT, "recipe.yaml", [setting, "keep.weights=promoted"]), finished.parent)
    text = str(error.value)
    assert (step in text and setting.split("=")[0].split(".")[-1] in text and "--name NEW" in text) or "--name" in text
    if "begun" not in step:
        assert "These may change: keep.weights." in text
    if "rounds/001" in step:
        assert f"--from {finished} --round 0" in text
    assert (finished / "recipe.yaml").read_bytes() == before


@pytest.mark.slow
def test_free_keys_change_with_a_note_and_nothing_else(tmp_path: Path) -> None:
    run, notes = loop.run(parse(TEXT, "recipe.yaml"), tmp_path), Notes()
    before = {record.unit + record.step: record.started for record in run.records()}
    settings = ["keep.weights=promoted", "usd_per_hour=2.0", "stages.0.save_every=3", "rounds.train.save_every=90 s",
                "grid.prompts=3"]
    again = loop.run(parse(TEXT, "recipe.yaml", settings), tmp_path, notes)
    assert {record.unit + record.step: record.started for record in again.records()} == before
    assert again.recipe == parse(TEXT, "recipe.yaml", settings) and not again.verify().damage
    assert sum(note.startswith("changed on resume: ") for note in notes.noted) == len(settings)
    line = json.loads((again.folder / "recipe-edits.jsonl").read_text().splitlines()[0])
    assert "usd_per_hour: 0.0 -> 2.0" in line["changed"]


@pytest.mark.slow
def test_more_rounds_are_the_rounds_of_a_longer_run(tmp_path: Path) -> None:
    """Without a gate: with one, the level of round 2 differs, since round 1 had spent more."""
    text = TEXT.replace("gate: {metric: reward}\n", "")
    loop.run(parse(text, "recipe.yaml"), tmp_path / "a")
    notes = Notes()
    longer = loop.run(parse(text, "recipe.yaml", ["rounds.count=2"]), tmp_path / "a", notes)
    whole = loop.run(parse(text, "recipe.yaml", ["rounds.count=2"]), tmp_path / "b")
    assert any("rounds that were gated keep the level" in note for note in notes.noted)
    assert tree_hash(longer.unit("rounds/002") / "model") == tree_hash(whole.unit("rounds/002") / "model")


@pytest.mark.slow
def test_a_larger_evaluation_measures_the_models_before_it_again(tmp_path: Path) -> None:
    loop.run(parse(TEXT, "recipe.yaml"), tmp_path)
    settings = ["rounds.count=2", "evaluate.prompts=50", "grid.prompts=4"]
    run = loop.run(parse(TEXT, "recipe.yaml", settings), tmp_path)
    gate = json.loads((run.unit("rounds/002") / "gate.json").read_text())
    again = run.unit("rounds/002") / f"measured-again-{gate['incumbent'].replace('/', '-')}"
    found = json.loads((again / "metrics.json").read_text())["reward"]
    assert found["n"] == 50
    new = json.loads((run.unit("rounds/002") / "metrics.json").read_text())["reward"]
    assert gate["difference"] == pytest.approx(new["value"] - found["value"], abs=1e-9)
    assert gate["p"] is not None
    old = parquet_tables.read_samples(run.unit("rounds/001") / "evaluation.parquet")
    assert len(old) == 30
    assert "round 2" in write(run).read_text()


@pytest.mark.slow
def test_a_run_that_failed_in_its_first_training_goes_on_with_another_recipe(tmp_path: Path) -> None:
    """The loss is not finite at this rate; with another one the run is that of a fresh start."""
    broken = parse(TEXT, "recipe.yaml", ["stages.0.learning_rate=1.0e30", "stages.0.save_every=1"])
    with pytest.raises(RunError, match="not a number"):
        loop.run(broken, tmp_path / "a")
    fixed = parse(TEXT, "recipe.yaml", ["stages.0.steps=12"])
    notes = Notes()
    run = loop.run(fixed, tmp_path / "a", notes)
    fresh = loop.run(fixed, tmp_path / "b")
    assert run.state.state == "done"
    for unit in ("rounds/000", "rounds/001"):
        assert tree_hash(run.unit(unit) / "model") == tree_hash(fresh.unit(unit) / "model")


@pytest.mark.slow
def test_other_data_before_the_first_training_load_it_again(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a number"):
        loop.run(parse(TEXT, "recipe.yaml", ["stages.0.learning_rate=1.0e30"]), tmp_path / "a")
    notes = Notes()
    other = parse(TEXT, "recipe.yaml", ["data.n=200", "seed=4"])
    run = loop.run(other, tmp_path / "a", notes)
    assert any("begins again" in note for note in notes.noted)
    fresh = loop.run(other, tmp_path / "b")
    assert tree_hash(run.unit("rounds/001") / "model") == tree_hash(fresh.unit("rounds/001") / "model")
    assert not Run.open(run.folder).verify().damage
