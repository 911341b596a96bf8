"""Tests of captions and the filter in a run: what is stored, trained on, sampled and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from upturn.config import recipe
from upturn.errors import RunError, UserError
from upturn.loop import loop
from upturn.loop.assemble import assemble
from upturn.observer import Observer
from upturn.store import parquet_tables
from upturn.store.run import Run
from upturn.types import Samples

pytestmark = pytest.mark.slow

RECIPE = """
name: colours
threads: 1
data: {{name: imagefolder, path: {data}, label: sort, size: 16, held_out: 0.3}}
captions: {{name: template, template: "a ${{name}} thing"}}
filter: {{score: ink, curate: [deduplicate, {{name: top_fraction, fraction: 0.5}}]}}
models: {{policy: {{name: text_to_image, config: {{channels: [16, 32], head_dim: 8, text_width: 16, text_layers: 1}}}}}}
features: pixels
stages: [{{name: tune, steps: 2, batch_size: 8}}]
rounds:
  count: 1
  sample: {{prompts: 4, candidates: 2, settings: {{steps: 2}}}}
  score: ink
  curate: choice
  train: {{steps: 2, batch_size: 8}}
evaluate: {{prompts: 4, metrics: [reward], settings: {{steps: 2}}, captions: {{name: fixed, text: a thing}}}}
grid: {{prompts: 2, per_prompt: 1}}
"""


class RecordedNotes(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    lines = []
    for i in range(30):
        Image.new("RGB", (16, 16), (8 * i, 4 * i, 0)).save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "name": f"colour {i}", "sort": f"k{i % 2}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def recipe_with(data: Path, *settings: str) -> recipe.Recipe:
    return recipe.parse(RECIPE.format(data=data), "colours.yaml", settings)


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RecordedNotes]:
    observer = RecordedNotes()
    return loop.run(recipe_with(data), tmp_path_factory.mktemp("runs"), observer), observer


def stored(run: Run, name: str) -> Samples:
    return parquet_tables.read_samples(run.folder / name)


def test_images_keep_their_ids_under_any_caption(done: tuple[Run, RecordedNotes], data: Path) -> None:
    real = stored(done[0], "data/samples.parquet")
    assert {p.text for p in real.prompts} == {f"a colour {i} thing" for i in range(30)}
    plain = assemble(recipe_with(data)).source.load()
    assert set(real.ids) == {*plain.train.ids, *plain.held_out.ids}


def test_the_filter_is_stored_with_reasons_and_only_what_it_kept_is_trained_on(done: tuple[Run, RecordedNotes]) -> None:
    run, observer = done
    real = stored(run, "data/samples.parquet")
    train = real.take(real.fields["split"] == "train")
    scores = parquet_tables.read_scores(run.folder / "data/scores.parquet", train.ids)["ink"].values
    kept = parquet_tables.read_selections(run.folder / "data/selections.parquet", train.ids)[-1]
    wanted = set(train.ids[np.argsort(-scores, kind="stable")[: int(kept.kept.sum())]])
    assert kept.kept.sum() == round(len(train) / 2) and set(train.ids[kept.kept]) == wanted
    assert all(kept.reasons[~kept.kept])
    for unit in ("rounds/000/tune", "rounds/001"):
        mixture = parquet_tables.read_mixture(run, run.folder / unit / "mixture.parquet").samples
        assert set(mixture.ids[mixture.origin == "real"]) == wanted
    names = {p.text for p in train.take(kept.kept).prompts}
    assert {p.text for p in stored(run, "rounds/001/samples.parquet").prompts} <= names
    record = run.done("data", "filter")
    assert record is not None and record.counts["kept"] + record.counts["dropped"] == len(train)
    assert any(note.startswith(f"filter: {kept.kept.sum()} of {len(train)} training samples kept; dropped: ")
               for note in observer.notes)


def test_an_evaluation_uses_its_own_captions_and_the_grid_plain_text(done: tuple[Run, RecordedNotes]) -> None:
    made = stored(done[0], "rounds/001/evaluation.parquet")
    assert {p.text for p in made.prompts} == {"a thing"} and all("name" in p.fields for p in made.prompts)
    grid = stored(done[0], "rounds/001/grid.parquet")
    assert all(p.text == "a thing" and not p.fields and p.label is None for p in grid.prompts)


def test_a_run_resumes_after_the_filter(done: tuple[Run, RecordedNotes], data: Path) -> None:
    run = done[0]
    again = loop.run(recipe_with(data), run.folder.parent)
    assert again.state.state == "done"


def test_a_filter_that_keeps_nothing_stops_before_training(data: Path, tmp_path: Path) -> None:
    nothing = "filter.curate=[{name: threshold, at_least: 1000000}]"
    with pytest.raises(RunError, match=r"keeps none of \d+ training samples: \d+ threshold"):
        loop.run(recipe_with(data, nothing), tmp_path)
    assert not (tmp_path / "colours" / "rounds").exists() or not list((tmp_path / "colours").glob("rounds/*/*/model"))


@pytest.mark.parametrize(("setting", "complaint"), [
    ("filter.curate=choice", "real data has one of each"),
    ("filter={curate: [{name: threshold, at_least: 1}]}", "nothing scores"),
    ("filter.score=[{name: reward_model, model: policy}]", "first trained after the data was scored"),
    ("filter.score=[{name: reward_model, model: judge}]", "needs the model 'judge'"),
    ("filter={score: ink}", "filter.curate' is missing"),
])
def test_a_filter_that_cannot_be_is_refused(data: Path, setting: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        assemble(recipe_with(data, setting))


def test_a_missing_field_stops_before_anything_is_trained(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'nme' is requested.*Did you mean 'name'"):
        loop.run(recipe_with(data, "captions.template=a ${nme}"), tmp_path)
    assert not (tmp_path / "colours" / "rounds").exists()


def test_captions_prints_pairs_and_counts_for_several_strategies(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from upturn.cli import app

    path, page = tmp_path / "r.yaml", tmp_path / "page.html"
    path.write_text(RECIPE.format(data=data))
    more = "captions=[{name: template, template: 'a <b>${name}</b>'}, empty]"
    def run(*words: str) -> str:
        with pytest.raises(SystemExit) as left:
            app(["captions", str(path), "--set", more, "--runs", str(tmp_path / "runs"), *words])
        assert left.value.code == 0
        return capsys.readouterr().out

    said = run("--html", str(page))
    assert "\ntemplate\n" in said and "\nempty\n" in said and said.count(".png") == 40
    assert "note: no column is named as the caption" in said and "(no caption)" in said
    html = page.read_text()
    assert "a &lt;b&gt;colour" in html and "<b>colour" not in html and html.count("<figure>") == 40
    found: Any = json.loads(run("--json"))
    first, second = (strategy["statistics"] for strategy in found["strategies"])
    assert first["distinct"] == first["pictures"] and second["empty"] == second["pictures"]
    assert first["tokens"][0]["limit"] == 32 and first["tokens"][0]["cut"] == 0
    assert not (tmp_path / "runs" / "colours").exists()
